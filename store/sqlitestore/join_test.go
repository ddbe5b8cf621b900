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

// Of the two stores one has a table of its own, and the other a mapped one.
func TestJoin(t *testing.T) {
	own := func(t *testing.T, db *Database, table string) lockstep.Store[string, int] {
		s, err := OpenIn[string, int](t.Context(), db, Options{Table: table})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	mapped := func(t *testing.T, db *Database, table string) lockstep.Store[string, int] {
		run(t, db.path, "CREATE TABLE "+table+" (id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL, version INTEGER NOT NULL)")
		s, err := NewTable[string, jointest.Row](t.Context(), db, table, TableOptions{VersionColumn: "version"})
		if err != nil {
			t.Fatal(err)
		}
		return jointest.Ints(s)
	}
	for begins, open := range map[string][2]func(t *testing.T, db *Database, table string) lockstep.Store[string, int]{
		"immediate": {own, mapped},
		"deferred":  {mapped, own},
	} {
		t.Run(begins, func(t *testing.T) {
			jointest.Run(t, func(t *testing.T) jointest.Rig {
				path, other := newPath(t), newPath(t)
				db := openAt(t, path)
				openAt(t, other)
				run(t, path, "CREATE TABLE log (line TEXT)")
				program, foreign := programDB(t, path, "_txlock="+begins+"&_pragma=busy_timeout(3000)"), programDB(t, other, "")
				begin := func(from *sql.DB) func(ctx context.Context) (jointest.Tx, error) {
					return func(ctx context.Context) (jointest.Tx, error) {
						tx, err := from.BeginTx(ctx, nil)
						return programTx{tx, db}, err
					}
				}
				return jointest.Rig{
					A: open[0](t, db, "a"), B: open[1](t, db, "b"), Begin: begin(program), Foreign: begin(foreign), Settles: true,
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

// joining is a cache over a file, and a *sql.DB of the program's over the same.
type joining struct {
	*testing.T
	db      *Database
	cache   *lockstep.Cache[string, int]
	program *sql.DB
}

func newJoining(t *testing.T, params string) *joining {
	t.Helper()
	path := newPath(t)
	db := openAt(t, path)
	s, err := OpenIn[string, int](t.Context(), db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &joining{t, db, cachetest.Open(t, s, lockstep.Options[string, int]{}), programDB(t, path, params)}
}

// joins begins a transaction of the program's, joins it, and gives a cache a part in it.
func joins[V any](t *testing.T, db *Database, program *sql.DB, cache *lockstep.Cache[string, V]) (*sql.Tx, *lockstep.Joined, lockstep.InJoined[string, V]) {
	t.Helper()
	tx, err := program.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	j, err := Join(t.Context(), db, tx)
	if err != nil {
		t.Fatal(err)
	}
	u, err := cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	return tx, j, u
}

func (p *joining) begin() (*sql.Tx, *lockstep.Joined, lockstep.InJoined[string, int]) {
	p.Helper()
	return joins(p.T, p.db, p.program, p.cache)
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
}

func TestAReadOnlyConnectionIsJoinedForReading(t *testing.T) {
	p := newJoining(t, "mode=ro")
	_, j, u := p.begin()
	if _, err := u.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	_, err := u.Set(t.Context(), "k", 1)
	wantError(t, err, lockstep.ErrInvalid, "read-only")
	if err := j.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

// SQLite does not let a transaction write whose snapshot is not the latest any more.
func TestAJoinedTransactionThatHasReadBeforeOthersCommitted(t *testing.T) {
	p := newJoining(t, "")
	_, j, u := p.begin()
	if _, err := u.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if _, err := p.cache.Set(t.Context(), "other", 1); err != nil {
		t.Fatal(err)
	}
	_, err := u.Set(t.Context(), "k", 1)
	wantError(t, err, lockstep.ErrUnavailable, "_txlock=immediate")
	if err := j.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

// The program takes back, by a savepoint of its own, what it wrote through the cache.
func TestASavepointOfTheProgramsTakesBackJoinedWrites(t *testing.T) {
	p := newJoining(t, "_txlock=immediate")
	tx, j, u := p.begin()
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
	if !applied(t, j.Commit(t.Context())) {
		t.Error("what was committed is said not to be")
	}
	if got, err := p.cache.Get(t.Context(), "kept"); got != 1 || err != nil {
		t.Errorf("Get = %d, %v", got, err)
	}
	if _, err := p.cache.Get(t.Context(), "taken back"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
}

// applied waits for an outcome that is unknown.
func applied(t *testing.T, err error) bool {
	t.Helper()
	var w *lockstep.WriteError
	if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
		t.Fatalf("the error is %v, want an unknown outcome", err)
	}
	applied, _, err := w.Wait(t.Context())
	if err != nil {
		t.Errorf("Wait: %v", err)
	}
	return applied
}

// Of a mapped table without versions the rows alone tell.
func TestJoinOfMappedTablesWithoutVersions(t *testing.T) {
	path := newPath(t)
	run(t, path, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT NOT NULL)")
	db := openAt(t, path)
	table, err := NewTable[string, justName](t.Context(), db, "t", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cache := cachetest.Open(t, table, lockstep.Options[string, justName]{})
	program := programDB(t, path, "_txlock=immediate")
	for _, c := range []struct {
		end  func(*sql.Tx) error
		want string
	}{{(*sql.Tx).Commit, "after"}, {(*sql.Tx).Rollback, "before"}} {
		if _, err := cache.Set(t.Context(), "k", justName{"before"}); err != nil {
			t.Fatal(err)
		}
		tx, j, u := joins(t, db, program, cache)
		if _, err := u.Set(t.Context(), "k", justName{"after"}); err != nil {
			t.Fatal(err)
		}
		if got, err := u.Get(t.Context(), "k"); got.Name != "after" || err != nil {
			t.Errorf("the transaction reads %+v, %v", got, err)
		}
		if err := c.end(tx); err != nil {
			t.Fatal(err)
		}
		if got := applied(t, j.Commit(t.Context())); got != (c.want == "after") {
			t.Errorf("the row is as it was %s, and the transaction is said to be applied: %t", c.want, got)
		}
		if got, err := cache.Get(t.Context(), "k"); got.Name != c.want || err != nil {
			t.Errorf("Get = %+v, %v", got, err)
		}
	}
}

func TestATableWhoseTriggersChangeRowsIsNotJoined(t *testing.T) {
	path := newPath(t)
	run(t, path, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT NOT NULL)", "CREATE TABLE parent (id TEXT PRIMARY KEY, name TEXT NOT NULL)",
		"CREATE TRIGGER tr AFTER UPDATE ON parent BEGIN UPDATE t SET name = 'three'; END")
	db := openAt(t, path)
	parent, err := NewTable[string, justName](t.Context(), db, "parent", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := programDB(t, path, "").Begin()
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
