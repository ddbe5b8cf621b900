package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/internal/jointest"
)

// programTx is a transaction of a *sql.DB of the program's own.
type programTx struct {
	*sql.Tx
	db *Database
}

func (p programTx) Exec(ctx context.Context, query string) error {
	_, err := p.Tx.ExecContext(ctx, query)
	return err
}
func (p programTx) Commit(context.Context) error   { return p.Tx.Commit() }
func (p programTx) Rollback(context.Context) error { return p.Tx.Rollback() }
func (p programTx) Join(ctx context.Context, options ...lockstep.JoinOption) (*lockstep.Joined, error) {
	return Join(ctx, p.db, p.Tx, options...)
}

func programDB(t *testing.T, path, params string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?"+params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestJoin(t *testing.T) {
	for _, begins := range []string{"immediate", "deferred"} {
		t.Run(begins, func(t *testing.T) {
			jointest.Run(t, func(t *testing.T) jointest.Rig {
				path, other := newPath(t), newPath(t)
				db := openAt(t, path)
				openAt(t, other)
				run(t, path, "CREATE TABLE log (line TEXT)")
				open := func(table string) *Store[string, int] {
					s, err := OpenIn[string, int](t.Context(), db, Options{Table: table})
					if err != nil {
						t.Fatal(err)
					}
					return s
				}
				program, foreign := programDB(t, path, "_txlock="+begins+"&_pragma=busy_timeout(3000)"), programDB(t, other, "")
				begin := func(from *sql.DB) func(ctx context.Context) (jointest.Tx, error) {
					return func(ctx context.Context) (jointest.Tx, error) {
						tx, err := from.BeginTx(ctx, nil)
						return programTx{tx, db}, err
					}
				}
				return jointest.Rig{
					A: open("a"), B: open("b"), Begin: begin(program), Foreign: begin(foreign), Settles: true,
					LogTable: "log",
					Log: func(ctx context.Context) (n int, err error) {
						err = program.QueryRowContext(ctx, "SELECT count(*) FROM log").Scan(&n)
						return n, err
					},
				}
			})
		})
	}
}

func joinedCache(t *testing.T, db *Database) *lockstep.Cache[string, int] {
	t.Helper()
	s, err := OpenIn[string, int](t.Context(), db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cachetest.Open(t, s, lockstep.Options[string, int]{})
}

func TestJoinLooksAtTheConnection(t *testing.T) {
	path := newPath(t)
	db := openAt(t, path)
	for params, want := range map[string]string{
		"_pragma=synchronous(1)": "synchronous is 1",
		"_pragma=query_only(1)":  "read-only",
	} {
		tx, err := programDB(t, path, params).Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		_, err = Join(t.Context(), db, tx)
		wantError(t, err, lockstep.ErrInvalid, want)
	}
	memory, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	tx, err := memory.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	_, err = Join(t.Context(), db, tx)
	wantError(t, err, lockstep.ErrInvalid, "in memory")
	_, err = Join(t.Context(), db, nil)
	wantError(t, err, lockstep.ErrInvalid, "nil")
	_, err = Join(t.Context(), nil, tx)
	wantError(t, err, lockstep.ErrInvalid, "nil")

	tx, err = programDB(t, path, "mode=ro").Begin()
	if err != nil {
		t.Fatal(err)
	}
	cache := joinedCache(t, db)
	j, err := Join(t.Context(), db, tx)
	if err != nil {
		t.Fatal(err)
	}
	u, err := cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.Set(t.Context(), "k", 1)
	wantError(t, err, lockstep.ErrInvalid, "read-only")
	if err := j.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

// SQLite does not let a transaction write whose snapshot is not the latest any more.
func TestAJoinedTransactionThatHasReadBeforeOthersCommitted(t *testing.T) {
	path := newPath(t)
	db := openAt(t, path)
	cache := joinedCache(t, db)
	tx, err := programDB(t, path, "").Begin()
	if err != nil {
		t.Fatal(err)
	}
	j, err := Join(t.Context(), db, tx)
	if err != nil {
		t.Fatal(err)
	}
	u, err := cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if _, err := cache.Set(t.Context(), "other", 1); err != nil {
		t.Fatal(err)
	}
	_, err = u.Set(t.Context(), "k", 1)
	wantError(t, err, lockstep.ErrUnavailable, "_txlock=immediate")
	if err := j.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

// The program takes back, by a savepoint of its own, what it wrote through the cache.
func TestASavepointOfTheProgramsTakesBackJoinedWrites(t *testing.T) {
	path := newPath(t)
	db := openAt(t, path)
	cache := joinedCache(t, db)
	program := programDB(t, path, "_txlock=immediate")
	tx, err := program.Begin()
	if err != nil {
		t.Fatal(err)
	}
	j, err := Join(t.Context(), db, tx)
	if err != nil {
		t.Fatal(err)
	}
	u, err := cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return second(u.Set(t.Context(), "kept", 1)) },
		func() error { return second(tx.Exec("SAVEPOINT s")) },
		func() error { return second(u.Set(t.Context(), "taken back", 1)) },
		func() error { return second(tx.Exec("ROLLBACK TO s")) },
		tx.Commit, // behind the Joined's back: the rows tell
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	var w *lockstep.WriteError
	if err := j.Commit(t.Context()); !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
		t.Fatalf("Commit: %v", err)
	}
	if applied, _, err := w.Wait(t.Context()); !applied || err != nil {
		t.Errorf("Wait = %v, %v", applied, err)
	}
	if got, err := cache.Get(t.Context(), "kept"); got != 1 || err != nil {
		t.Errorf("Get = %d, %v", got, err)
	}
	if _, err := cache.Get(t.Context(), "taken back"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
}

func TestJoinOfMappedTables(t *testing.T) {
	path := newPath(t)
	run(t, path, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT NOT NULL)",
		"CREATE TABLE parent (id TEXT PRIMARY KEY, name TEXT NOT NULL)", "CREATE TABLE log (line TEXT)")
	db := openAt(t, path)
	table, err := NewTable[string, justName](t.Context(), db, "t", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cache := cachetest.Open(t, table, lockstep.Options[string, justName]{})
	program := programDB(t, path, "_txlock=immediate")
	for _, commits := range []bool{true, false} {
		tx, err := program.Begin()
		if err != nil {
			t.Fatal(err)
		}
		j, err := Join(t.Context(), db, tx)
		if err != nil {
			t.Fatal(err)
		}
		u, err := cache.InJoined(j)
		if err != nil {
			t.Fatal(err)
		}
		want := "one"
		if !commits {
			want = "two"
		}
		if _, err := u.Set(t.Context(), "k", justName{want}); err != nil {
			t.Fatal(err)
		}
		if got, err := u.Get(t.Context(), "k"); got.Name != want || err != nil {
			t.Errorf("the transaction reads %+v, %v", got, err)
		}
		end := tx.Rollback
		if commits {
			end = tx.Commit
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		var w *lockstep.WriteError
		if err := j.Commit(t.Context()); !errors.As(err, &w) {
			t.Fatalf("Commit: %v", err)
		} else if applied, _, err := w.Wait(t.Context()); applied != commits || err != nil {
			t.Errorf("Wait = %v, %v", applied, err)
		}
		if got, err := cache.Get(t.Context(), "k"); got.Name != "one" || err != nil {
			t.Errorf("Get = %+v, %v", got, err)
		}
	}

	run(t, path, "CREATE TRIGGER tr AFTER UPDATE ON parent BEGIN UPDATE t SET name = 'three'; END")
	parent, err := NewTable[string, justName](t.Context(), db, "parent", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := program.Begin()
	if err != nil {
		t.Fatal(err)
	}
	j, err := Join(t.Context(), db, tx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = cachetest.Open(t, parent, lockstep.Options[string, justName]{}).InJoined(j)
	wantError(t, err, lockstep.ErrUnsupported)
	if err := j.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }
