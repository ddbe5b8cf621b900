package pgstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/jointest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

type joinPgx struct {
	pgx.Tx
	db *pgstore.Database
}

func (p joinPgx) Exec(ctx context.Context, query string) error {
	_, err := p.Tx.Exec(ctx, query)
	return err
}
func (p joinPgx) Join(ctx context.Context, options ...lockstep.JoinOption) (*lockstep.Joined, error) {
	return pgstore.Join(ctx, p.db, p.Tx, options...)
}

type joinSQL struct {
	*sql.Tx
	db *pgstore.Database
}

func (p joinSQL) Exec(ctx context.Context, query string) error {
	_, err := p.Tx.ExecContext(ctx, query)
	return err
}
func (p joinSQL) Commit(context.Context) error   { return p.Tx.Commit() }
func (p joinSQL) Rollback(context.Context) error { return p.Tx.Rollback() }
func (p joinSQL) Join(ctx context.Context, options ...lockstep.JoinOption) (*lockstep.Joined, error) {
	return pgstore.JoinSQL(ctx, p.db, p.Tx, options...)
}

// smallPool has fewer connections than the tests have writers that wait for a row.
func smallPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func smallSQL(t testing.TB, url string) *sql.DB {
	t.Helper()
	db := newSQL(t, url)
	db.SetMaxOpenConns(4)
	return db
}

// The program's transactions and the stores share one small pool. Of the two stores one has
// a table of its own, and the other a mapped one.
func TestJoin(t *testing.T) {
	url, other := dbtest.Postgres(t), dbtest.Postgres(t)
	own := func(t *testing.T, db *pgstore.Database, table string) lockstep.Store[string, int] {
		s, err := pgstore.OpenIn[string, int](t.Context(), db, pgstore.Options{Table: table})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	mapped := func(t *testing.T, db *pgstore.Database, table string) lockstep.Store[string, int] {
		execute(t, url, "CREATE TABLE "+table+" (id text PRIMARY KEY, n bigint NOT NULL, version bigint NOT NULL)")
		s, err := pgstore.NewTableIn[string, jointest.Row](t.Context(), db, table, pgstore.TableOptions{VersionColumn: "version"})
		if err != nil {
			t.Fatal(err)
		}
		return jointest.Ints(s)
	}
	type opened func(t *testing.T, db *pgstore.Database, table string) lockstep.Store[string, int]
	rig := func(t *testing.T, db *pgstore.Database, a, b opened) jointest.Rig {
		n := tables.Add(1)
		log := fmt.Sprint("log", n)
		execute(t, url, "CREATE TABLE "+log+" (line text)")
		count := newPool(t, url)
		return jointest.Rig{A: a(t, db, fmt.Sprint("a", n)), B: b(t, db, fmt.Sprint("b", n)), LogTable: log, Settles: true,
			Log: func(ctx context.Context) (n int, err error) {
				err = count.QueryRow(ctx, "SELECT count(*) FROM "+log).Scan(&n)
				return n, err
			}}
	}
	t.Run("Pool", func(t *testing.T) {
		jointest.Run(t, func(t *testing.T) jointest.Rig {
			pool := smallPool(t, url)
			db := overPool(pool)(t)
			r := rig(t, db, own, mapped)
			begin := func(pool *pgxpool.Pool) func(context.Context) (jointest.Tx, error) {
				return func(ctx context.Context) (jointest.Tx, error) {
					tx, err := pool.Begin(ctx)
					return joinPgx{tx, db}, err
				}
			}
			r.Begin, r.Foreign = begin(pool), begin(smallPool(t, other))
			return r
		})
	})
	t.Run("SQL", func(t *testing.T) {
		jointest.Run(t, func(t *testing.T) jointest.Rig {
			pool := smallSQL(t, url)
			db := overSQL(pool)(t)
			r := rig(t, db, mapped, own)
			begin := func(pool *sql.DB) func(context.Context) (jointest.Tx, error) {
				return func(ctx context.Context) (jointest.Tx, error) {
					tx, err := pool.BeginTx(ctx, nil)
					return joinSQL{tx, db}, err
				}
			}
			r.Begin, r.Foreign = begin(pool), begin(smallSQL(t, other))
			return r
		})
	})
}

func TestJoinLooksAtTheTransaction(t *testing.T) {
	url := dbtest.Postgres(t)
	pool := newPool(t, url)
	db := overPool(pool)(t)
	for want, options := range map[string]pgx.TxOptions{
		"read-only":       {AccessMode: pgx.ReadOnly},
		"repeatable read": {IsoLevel: pgx.RepeatableRead},
		"serializable":    {IsoLevel: pgx.Serializable},
	} {
		tx, err := pool.BeginTx(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pgstore.Join(t.Context(), db, tx)
		wantInvalid(t, err, want)
		tx.Rollback(t.Context())
	}
	for want, query := range map[string]string{
		"synchronous_commit": "SET LOCAL synchronous_commit = off",
		"aborted":            "SELECT 1/0",
		"ended by":           "COMMIT",
	} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tx.Exec(t.Context(), query)
		_, err = pgstore.Join(t.Context(), db, tx)
		wantInvalid(t, err, want)
		tx.Rollback(t.Context())
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	nested, err := tx.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = pgstore.Join(t.Context(), db, nested)
	wantInvalid(t, err, "savepoint")

	elsewhere, err := sql.Open("sqlite", "file:other?mode=memory")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	foreign, err := elsewhere.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Rollback()
	if _, err := pgstore.JoinSQL(t.Context(), db, foreign); !errors.Is(err, lockstep.ErrUnsupported) || !strings.Contains(err.Error(), "pgx/v5") {
		t.Errorf("a transaction of another driver: %v", err)
	}

	pooled := overPooled(newPoolIn(t, url, pgx.QueryExecModeExec))(t)
	if _, err := pgstore.Join(t.Context(), pooled, tx); !errors.Is(err, lockstep.ErrUnsupported) || !strings.Contains(err.Error(), "Pooled") {
		t.Errorf("behind a pooler: %v", err)
	}
}

// The connection of a transaction that was committed behind the Joined's back is at work
// for others when the transaction's deadline comes: it is not ended.
func TestTheNextUserOfAJoinedConnectionIsLeftAlone(t *testing.T) {
	url := dbtest.Postgres(t)
	pool := onePool(t, url)
	db := overPool(newPool(t, url))(t)
	s, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	cache := cachetest.Open(t, s, lockstep.Options[string, string]{})
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	j, err := pgstore.Join(t.Context(), db, tx, lockstep.JoinTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	u, err := cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Set(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	next, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("Get on a connection that is somebody else's: %v", err)
	}
	if _, err := next.Exec(t.Context(), "SELECT pg_sleep(1.5)"); err != nil {
		t.Errorf("the next transaction: %v", err)
	}
	if err := j.Commit(t.Context()); err != nil {
		t.Errorf("Commit of what was committed: %v", err)
	}
	if err := next.Commit(t.Context()); err != nil {
		t.Errorf("the next transaction: %v", err)
	}
	if got, err := cache.Get(t.Context(), "k"); got != "v" || err != nil {
		t.Errorf("Get = %q, %v", got, err)
	}
	if _, ok := cache.Peek("k"); !ok {
		t.Error("the key is still held")
	}
}

// The server ends the transaction's session, or its network does.
func TestAJoinedTransactionWhoseConnectionIsLost(t *testing.T) {
	url := dbtest.Postgres(t)
	pool := newPool(t, url)
	db := overPool(pool)(t)
	s, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	cache := cachetest.Open(t, s, lockstep.Options[string, string]{})
	for _, ends := range []func(*lockstep.Joined, context.Context) error{(*lockstep.Joined).Commit, (*lockstep.Joined).Rollback} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		j, err := pgstore.Join(t.Context(), db, tx)
		if err != nil {
			t.Fatal(err)
		}
		u, err := cache.InJoined(j)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Set(t.Context(), "k", "v"); err != nil {
			t.Fatal(err)
		}
		execute(t, url, "SELECT pg_terminate_backend($1)", int32(tx.Conn().PgConn().PID()))
		var w *lockstep.WriteError
		if err := ends(j, t.Context()); errors.As(err, &w) {
			if applied, _, err := w.Wait(t.Context()); applied || err != nil {
				t.Errorf("Wait = %v, %v", applied, err)
			}
		}
		if _, err := cache.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("Get: %v", err)
		}
	}
}

func wantInvalid(t *testing.T, err error, part string) {
	t.Helper()
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), part) {
		t.Errorf("the error is %v, want one that is ErrInvalid and says %q", err, part)
	}
}

// A transaction that is prepared for two phases has no session any more, and may still be
// committed by anybody. It was settled as not applied, and the session that it had been in
// was ended, which may be the next user's.
func TestATransactionThatIsPreparedIsNotOver(t *testing.T) {
	url := dbtest.StartPostgres(t, "max_prepared_transactions=2").URL()
	pool := onePool(t, url)
	db := overPool(newPool(t, url))(t)
	s, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	cache := cachetest.Open(t, s, lockstep.Options[string, string]{})
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		j, err := pgstore.Join(t.Context(), db, tx)
		if err != nil {
			t.Fatal(err)
		}
		u, err := cache.InJoined(j)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Set(t.Context(), end, "v"); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "PREPARE TRANSACTION 'two'"); err != nil {
			t.Fatal(err)
		}
		err = j.Commit(t.Context())
		wantError(t, err, lockstep.ErrUnknownOutcome)
		var w *lockstep.WriteError
		if !errors.As(err, &w) {
			t.Fatal(err)
		}
		next, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if applied, _, err := w.Wait(ctx); err == nil || ctx.Err() == nil {
			t.Errorf("%s: Wait = %t, %v, while the transaction is prepared", end, applied, err)
		}
		cancel()
		if _, err := next.Exec(t.Context(), end+" PREPARED 'two'"); err != nil {
			t.Errorf("the next user of the session: %v", err)
			execute(t, url, end+" PREPARED 'two'")
		}
		next.Release()
		applied, _, err := w.Wait(t.Context())
		if err != nil || applied != (end == "COMMIT") {
			t.Errorf("%s: Wait = %t, %v", end, applied, err)
		}
	}

	// In Transact, where it takes a way past the statements that are looked at.
	txn, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if o, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", "v"))); err != nil || o.Err != nil {
		t.Fatal(err, o.Err)
	}
	if _, err := pgstore.Lend(txn); err != nil {
		t.Fatal(err)
	}
	if err := pgstore.RunInside(t.Context(), txn, "PREPARE TRANSACTION 'three'"); err != nil {
		t.Fatal(err)
	}
	wantError(t, txn.Commit(t.Context()), lockstep.ErrUnknownOutcome)
	applied, err := txn.Settle(t.Context())
	if !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("settled as %t, %v, while the transaction is prepared", applied, err)
	}
	execute(t, url, "COMMIT PREPARED 'three'")
	if applied, err := txn.Settle(t.Context()); err != nil || !applied {
		t.Errorf("settled as %t, %v", applied, err)
	}
}
