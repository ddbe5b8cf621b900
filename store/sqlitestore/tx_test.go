package sqlitestore_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// ledger is two caches over one file, and a log that no cache keeps.
type ledger struct {
	path     string
	faults   *fault.Store[string, int]
	accounts *lockstep.Cache[string, int]
	owners   *lockstep.Cache[string, string]
}

func openBank(t *testing.T) ledger {
	path := filepath.Join(t.TempDir(), "bank.db")
	db := openDatabase(t, path)
	execute(t, path, "CREATE TABLE log (line TEXT NOT NULL)")
	accounts, err := sqlitestore.OpenIn[string, int](t.Context(), db, sqlitestore.Options{Table: "accounts"})
	if err != nil {
		t.Fatal(err)
	}
	owners, err := sqlitestore.OpenIn[string, string](t.Context(), db, sqlitestore.Options{Table: "owners"})
	if err != nil {
		t.Fatal(err)
	}
	faults := fault.Inject[string, int](accounts, fault.Script{}, 1)
	b := ledger{path, faults, cachetest.Open(t, faults, lockstep.Options[string, int]{}),
		cachetest.Open(t, owners, lockstep.Options[string, string]{})}
	if _, err := b.accounts.Set(t.Context(), "a", 100); err != nil {
		t.Fatal(err)
	}
	return b
}

// withdraw takes an amount from the account, and logs it.
func (b ledger) withdraw(ctx context.Context, amount int, line string) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		accounts := b.accounts.In(tx)
		balance, err := accounts.Get(ctx, "a")
		if err != nil {
			return err
		}
		sql, err := sqlitestore.Tx(tx)
		if err != nil {
			return err
		}
		if _, err := sql.ExecContext(ctx, "INSERT INTO log VALUES (?)", line); err != nil {
			return err
		}
		if balance < amount {
			return errors.New("insufficient funds")
		}
		return accounts.Set(ctx, "a", balance-amount)
	})
}

func (b ledger) has(t *testing.T, balance, lines int64) {
	t.Helper()
	if n := read(t, b.path, "SELECT count(*) FROM log"); n != lines {
		t.Errorf("the log has %d lines, want %d", n, lines)
	}
	if got, err := b.accounts.Get(t.Context(), "a"); int64(got) != balance || err != nil {
		t.Errorf("the account has %d, %v, want %d", got, err, balance)
	}
}

func TestTheCallersSQLIsCommittedWithTheTransaction(t *testing.T) {
	b := openBank(t)
	if err := b.withdraw(t.Context(), 30, "thirty"); err != nil {
		t.Fatal(err)
	}
	b.has(t, 70, 1)
	if err := b.withdraw(t.Context(), 80, "eighty"); err == nil || !strings.Contains(err.Error(), "insufficient") {
		t.Errorf("withdraw = %v", err)
	}
	b.has(t, 70, 1)
}

// A transaction whose caches write nothing commits what the SQL has done.
func TestACommitOfTheCallersSQLAlone(t *testing.T) {
	b := openBank(t)
	for _, reads := range []bool{false, true} {
		err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
			accounts := b.accounts.In(tx)
			if reads {
				if _, err := accounts.Get(ctx, "a"); err != nil {
					return err
				}
			}
			sql, err := sqlitestore.Tx(tx)
			if err == nil {
				_, err = sql.ExecContext(ctx, "INSERT INTO log VALUES ('alone')")
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b.has(t, 100, 2)
}

// What the transaction has read has changed: its function runs again, and the SQL of
// the first time is undone.
func TestTheCallersSQLIsUndoneWhenTheFunctionRunsAgain(t *testing.T) {
	b := openBank(t)
	runs := 0
	err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		runs++
		accounts := b.accounts.In(tx)
		balance, err := accounts.Get(ctx, "a")
		if err != nil {
			return err
		}
		if runs == 1 { // before the file's write lock is ours
			execute(t, b.path, "UPDATE accounts SET value = '50', version = version + 1")
		}
		sql, err := sqlitestore.Tx(tx)
		if err != nil {
			return err
		}
		if _, err := sql.ExecContext(ctx, "INSERT INTO log VALUES ('once')"); err != nil {
			return err
		}
		return accounts.Set(ctx, "a", balance-1)
	})
	if err != nil || runs != 2 {
		t.Errorf("%d runs, %v", runs, err)
	}
	b.has(t, 49, 1)
}

// A function that panics leaves the file unlocked.
func TestAPanicUndoesTheCallersSQL(t *testing.T) {
	b := openBank(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_ = lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
			b.accounts.In(tx)
			if _, err := sqlitestore.Tx(tx); err != nil {
				t.Error(err)
			}
			panic("oops")
		})
	}()
	if err := b.withdraw(t.Context(), 1, "one"); err != nil {
		t.Error(err)
	}
	b.has(t, 99, 1)
}

// A key whose write is in doubt is settled by a commit of another connection, for
// which the transaction's lock is in the way.
func TestATransactionMakesWayForASettlement(t *testing.T) {
	b := openBank(t)
	b.faults.Play(fault.MustParse("commit 1: lose reply"))
	var unknown *lockstep.WriteError
	runs := 0
	err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		runs++
		accounts := b.accounts.In(tx)
		if runs == 1 {
			outside := context.WithoutCancel(t.Context())
			if _, err := b.accounts.Set(outside, "a", 60); !errors.As(err, &unknown) || unknown.Outcome != lockstep.Unknown {
				t.Errorf("Set = %v", err)
			}
		}
		sql, err := sqlitestore.Tx(tx)
		if err != nil {
			return err
		}
		if _, err := sql.ExecContext(ctx, "INSERT INTO log VALUES ('last')"); err != nil {
			return err
		}
		return accounts.Set(ctx, "a", 10)
	})
	if err != nil {
		t.Fatal(err)
	}
	if applied, _, err := unknown.Wait(t.Context()); !applied || err != nil {
		t.Errorf("Wait = %t, %v", applied, err)
	}
	b.has(t, 10, 1)
}

func TestTxIsRefused(t *testing.T) {
	b := openBank(t)
	var kept *lockstep.Tx
	err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		kept = tx
		if _, err := sqlitestore.Tx(tx); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "In") {
			t.Errorf("before In: %v", err)
		}
		b.accounts.In(tx)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sqlitestore.Tx(kept); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("when it is over: %v", err)
	}
	other := cachetest.Open(t, memstore.New(memstore.Options[string, int]{}), lockstep.Options[string, int]{})
	err = lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		other.In(tx)
		_, err := sqlitestore.Tx(tx)
		return err
	})
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "another database") {
		t.Errorf("of another store: %v", err)
	}
}
