package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// ledger is two caches over one database, and a log that no cache keeps.
type ledger struct {
	url      string
	accounts *lockstep.Cache[string, int]
	owners   *lockstep.Cache[string, string]
}

func openLedger(t *testing.T, url string, db *pgstore.Database) ledger {
	accounts, err := pgstore.OpenIn[string, int](t.Context(), db, pgstore.Options{Table: "accounts"})
	if err != nil {
		t.Fatal(err)
	}
	owners, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "owners"})
	if err != nil {
		t.Fatal(err)
	}
	execute(t, url, "CREATE TABLE log (line text NOT NULL)")
	b := ledger{url, cachetest.Open(t, accounts, lockstep.Options[string, int]{}), cachetest.Open(t, owners, lockstep.Options[string, string]{})}
	if _, err := b.accounts.Set(t.Context(), "a", 100); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTx: two caches and the program's own statements commit together, are undone
// together, and are done once when the function runs again.
func TestTx(t *testing.T) {
	type ledgerSQL func(ctx context.Context, tx *lockstep.Tx, line string) error
	native := func(ctx context.Context, tx *lockstep.Tx, line string) error {
		sql, err := pgstore.Tx(tx)
		if err == nil {
			_, err = sql.Exec(ctx, "INSERT INTO log VALUES ($1)", line)
		}
		return err
	}
	standard := func(ctx context.Context, tx *lockstep.Tx, line string) error {
		sql, err := pgstore.SQLTx(tx)
		if err == nil {
			_, err = sql.ExecContext(ctx, "INSERT INTO log VALUES ($1)", line)
		}
		return err
	}
	for name, c := range map[string]struct {
		open func(t testing.TB, url string) *pgstore.Database
		log  ledgerSQL
	}{
		"Pool": {openPool, native},
		"SQL":  {func(t testing.TB, url string) *pgstore.Database { return overSQL(newSQL(t, url))(t) }, standard},
	} {
		t.Run(name, func(t *testing.T) {
			url := dbtest.Postgres(t)
			b := openLedger(t, url, c.open(t, url))
			refused := errors.New("insufficient funds")
			withdraw := func(amount int, meanwhile func()) error {
				return lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
					accounts, owners := b.accounts.In(tx), b.owners.In(tx)
					balance, err := accounts.Get(ctx, "a")
					if err != nil {
						return err
					}
					meanwhile()
					if err := c.log(ctx, tx, fmt.Sprint(amount)); err != nil {
						return err
					}
					if balance < amount {
						return refused
					}
					return errors.Join(accounts.Set(ctx, "a", balance-amount), owners.Set(ctx, "last", fmt.Sprint(amount)))
				})
			}
			has := func(balance, logged int, last string) {
				t.Helper()
				if n := lines(t, url); n != logged {
					t.Errorf("the log has %d lines, want %d", n, logged)
				}
				if got, err := b.accounts.Get(t.Context(), "a"); got != balance || err != nil {
					t.Errorf("the account has %d, %v, want %d", got, err, balance)
				}
				if got, err := b.owners.Get(t.Context(), "last"); got != last || err != nil {
					t.Errorf("the last is %q, %v, want %q", got, err, last)
				}
			}
			if err := withdraw(30, func() {}); err != nil {
				t.Fatal(err)
			}
			has(70, 1, "30")
			if err := withdraw(80, func() {}); !errors.Is(err, refused) {
				t.Errorf("withdraw = %v", err)
			}
			has(70, 1, "30")
			runs := 0
			err := withdraw(10, func() {
				if runs++; runs == 1 {
					execute(t, url, "UPDATE accounts SET value = '50', version = version + 1 WHERE key = 'a'")
				}
			})
			if err != nil || runs != 2 {
				t.Errorf("%d runs, %v", runs, err)
			}
			has(40, 2, "10")
		})
	}
}

// TestTxWhoseReplyIsLost: nobody knows at first, and then Wait does, also of a
// transaction whose caches have written nothing.
func TestTxWhoseReplyIsLost(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	b := openLedger(t, url, openPool(t, via))
	balance, logged := 100, 0
	for _, writes := range []bool{true, false} {
		for _, applied := range []bool{true, false} {
			cut := proxy.CutRequest
			if applied {
				cut = proxy.CutReply
				logged++
				if writes {
					balance--
				}
			}
			var happened <-chan struct{}
			err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
				accounts := b.accounts.In(tx)
				old, err := accounts.Get(ctx, "a")
				if err != nil {
					return err
				}
				sql, err := pgstore.Tx(tx)
				if err != nil {
					return err
				}
				if _, err := sql.Exec(ctx, "INSERT INTO log VALUES ('line')"); err != nil {
					return err
				}
				happened = cut("COMMIT\x00")
				if !writes {
					return nil
				}
				return accounts.Set(ctx, "a", old-1)
			})
			<-happened
			var unknown *lockstep.WriteError
			if !errors.As(err, &unknown) || unknown.Outcome != lockstep.Unknown {
				t.Fatalf("Transact: %v", err)
			}
			if got, _, err := unknown.Wait(t.Context()); err != nil || got != applied {
				t.Errorf("writes=%t: Wait = %t, %v, want %t", writes, got, err, applied)
			}
			if n := lines(t, url); n != logged {
				t.Errorf("writes=%t, applied=%t: the log has %d lines, want %d", writes, applied, n, logged)
			}
			if got, err := b.accounts.Get(t.Context(), "a"); got != balance || err != nil {
				t.Errorf("the account has %d, %v, want %d", got, err, balance)
			}
		}
	}
}

func TestTxIsRefused(t *testing.T) {
	url := dbtest.Postgres(t)
	b := openLedger(t, url, openPool(t, url))
	var kept *lockstep.Tx
	err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		kept = tx
		if _, err := pgstore.Tx(tx); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "In") {
			t.Errorf("before In: %v", err)
		}
		b.accounts.In(tx)
		if _, err := pgstore.SQLTx(tx); !errors.Is(err, lockstep.ErrUnsupported) {
			t.Errorf("SQLTx over a pool: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgstore.Tx(kept); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("when it is over: %v", err)
	}
	other := cachetest.Open(t, memstore.New(memstore.Options[string, int]{}), lockstep.Options[string, int]{})
	err = lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		other.In(tx)
		_, err := pgstore.Tx(tx)
		return err
	})
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "another database") {
		t.Errorf("of another store: %v", err)
	}
}
