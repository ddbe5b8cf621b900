package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/jointest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// forms are the kinds of tables, each with a cache over it. A mapped table that has no
// versions is told of by its rows alone.
func forms(t *testing.T, dsn string) (*mysqlstore.Database, map[string]*lockstep.Cache[string, int]) {
	t.Helper()
	db := openDatabase(t, dsn)
	own, err := mysqlstore.OpenIn[string, int](t.Context(), db, mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stores := map[string]lockstep.Store[string, int]{"own": own}
	plain := connect(t, dsn)
	for table, version := range map[string]string{"versioned": "version", "plain": ""} {
		execute(t, plain, "CREATE TABLE "+table+" (id VARBINARY(20) PRIMARY KEY, n BIGINT NOT NULL, version BIGINT NOT NULL DEFAULT 0)")
		mapped, err := mysqlstore.NewTableIn[string, jointest.Row](t.Context(), db, table, mysqlstore.TableOptions{VersionColumn: version})
		if err != nil {
			t.Fatal(err)
		}
		stores[table] = jointest.Ints(mapped)
	}
	caches := map[string]*lockstep.Cache[string, int]{}
	for form, s := range stores {
		caches[form] = cachetest.Open(t, s, lockstep.Options[string, int]{})
	}
	return db, caches
}

// The COMMIT of a joined transaction is lost on its way, or its reply is.
func TestAJoinedCommitWhoseReplyIsLost(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	proxy, via := dbtest.Via(t, dsn)
	program := connect(t, via)
	db, caches := forms(t, dsn)
	for form, cache := range caches {
		for _, want := range []bool{true, false} {
			if _, err := cache.Set(t.Context(), "set", 1); err != nil {
				t.Fatal(err)
			}
			if _, err := cache.Set(t.Context(), "deleted", 1); err != nil {
				t.Fatal(err)
			}
			tx, err := program.BeginTx(t.Context(), readCommitted)
			if err != nil {
				t.Fatal(err)
			}
			j, err := mysqlstore.Join(t.Context(), db, tx)
			if err != nil {
				t.Fatal(err)
			}
			u, err := cache.InJoined(j)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := u.Set(t.Context(), "set", 2); err != nil {
				t.Fatal(err)
			}
			if _, err := u.Delete(t.Context(), "deleted"); err != nil {
				t.Fatal(err)
			}
			cut := proxy.CutRequest
			if want {
				cut = proxy.CutReply
			}
			happened := cut("COMMIT AND NO CHAIN")
			err = j.Commit(t.Context())
			<-happened
			if applied := settled(t, err); applied != want {
				t.Errorf("%s: settled as applied: %t, want %t", form, applied, want)
			}
			if n, err := cache.Get(t.Context(), "set"); err != nil || (n == 2) != want {
				t.Errorf("%s: the row is %d, %v", form, n, err)
			}
			if _, err := cache.Get(t.Context(), "deleted"); errors.Is(err, lockstep.ErrNotFound) != want {
				t.Errorf("%s: the deleted row: %v", form, err)
			}
		}
	}
}

// A backup keeps every COMMIT from ending. The one of a joined transaction is left after
// CommitTimeout, and ended at the server, which would otherwise go on with it.
func TestAJoinedCommitThatHangsIsEnded(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	s := openStore(t, dsn)
	cache := cachetest.Open(t, s, lockstep.Options[string, string]{CommitTimeout: 200 * time.Millisecond})
	p := &joining{t, s.Database(), cache, connect(t, dsn)}
	backup, err := connect(t, dsn).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Close()
	_, j, u := p.begin(readCommitted)
	p.set(u, "k", "v")
	execute(t, backup, "FLUSH TABLES WITH READ LOCK")
	if settled(t, j.Commit(t.Context())) {
		t.Error("it is said to be applied, and nothing can be committed")
	}
	execute(t, backup, "UNLOCK TABLES")
	if _, err := cache.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
}

// A set that waits for a row in a circle makes the server undo the transaction.
func TestADeadlockInAJoinedTransaction(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	p := newJoining(t, dsn, dsn)
	for _, key := range []string{"a", "b"} {
		if _, err := p.cache.Set(t.Context(), key, "before"); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, pool, "CREATE TABLE log (line VARCHAR(100))")
	_, j, u := p.begin(readCommitted)
	p.set(u, "a", "joined")
	other := begin(t, pool)
	execute(t, other, "UPDATE lockstep SET `deleted` = 0 WHERE `key` = 'b'")
	for i := range 50 { // who has done more is not the one to be rolled back
		execute(t, other, "INSERT INTO log VALUES (?)", i)
	}
	failed := make(chan error)
	go func() {
		_, err := u.Set(t.Context(), "b", "joined")
		failed <- err
	}()
	waitFor(t, pool, 1, mysqlstore.RowLockWaits(t))
	execute(t, other, "UPDATE lockstep SET `deleted` = 0 WHERE `key` = 'a'")
	if err := <-failed; !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("Set: %v", err)
	}
	p.ok(other.Commit())
	if _, err := p.cache.Set(t.Context(), "a", "after"); err != nil { // after which the row tells nothing
		t.Fatal(err)
	}
	if err := j.Commit(t.Context()); !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Commit: %v, want that it was not applied", err)
	}
	p.holds("a", "after")
	p.holds("b", "before")
}

// DDL commits the transaction, the program forgets it, and somebody else has written the
// row since: that it was not applied cannot be said of it.
func TestAForgottenTransactionThatDDLHasCommitted(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	p := newJoining(t, dsn, dsn)
	tx := begin(t, p.program)
	j, err := mysqlstore.Join(t.Context(), p.db, tx, lockstep.JoinTimeout(500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	u, err := p.cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	p.set(u, "k", "joined")
	execute(t, tx, "CREATE TABLE ddl (n INT)")
	if _, err := p.cache.Set(t.Context(), "k", "after"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the transaction is ended", func() bool { _, err := tx.Exec("DO 1"); return errors.Is(err, sql.ErrTxDone) })
	if err := j.Commit(t.Context()); !errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Commit: %v, want that it cannot be told", err)
	}
	p.holds("k", "after")
}

// A set that is refused after it was written leaves nothing that the program could commit.
func TestARefusedJoinedWriteIsTakenBack(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	program := connect(t, dsn)
	db, caches := forms(t, dsn)
	cache := caches["versioned"]
	if _, err := cache.Set(t.Context(), "k", 1); err != nil {
		t.Fatal(err)
	}
	execute(t, program, "CREATE TRIGGER keeps BEFORE UPDATE ON versioned FOR EACH ROW SET NEW.version = OLD.version")
	tx := begin(t, program)
	j, err := mysqlstore.Join(t.Context(), db, tx)
	if err != nil {
		t.Fatal(err)
	}
	u, err := cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.Set(t.Context(), "k", 2)
	refuses(t, err, lockstep.ErrInvalid, "version")
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := j.Rollback(t.Context()); err != nil {
		t.Errorf("Rollback: %v", err)
	}
	if n, err := cache.Get(t.Context(), "k"); n != 1 || err != nil {
		t.Errorf("Get = %d, %v", n, err)
	}
}

// At REPEATABLE READ to look for a row that is to be made, under a lock, would keep others
// from making its neighbours.
func TestJoinedTransactionsMakeNeighbours(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	program := connect(t, dsn)
	db, caches := forms(t, dsn)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := range 2 {
		j, err := mysqlstore.Join(ctx, db, begin(t, program))
		if err != nil {
			t.Fatal(err)
		}
		defer j.Rollback(ctx)
		u, err := caches["plain"].InJoined(j)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Set(ctx, fmt.Sprint("k", i), i); err != nil {
			t.Errorf("the transaction %d: %v", i, err)
		}
	}
}

// The server ends the transaction's session, or its network does.
func TestAJoinedTransactionWhoseConnectionIsLost(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	program := connect(t, dsn)
	db, caches := forms(t, dsn)
	for form, cache := range caches {
		for _, end := range []func(*lockstep.Joined, context.Context) error{(*lockstep.Joined).Commit, (*lockstep.Joined).Rollback} {
			tx := begin(t, program)
			j, err := mysqlstore.Join(t.Context(), db, tx)
			if err != nil {
				t.Fatal(err)
			}
			u, err := cache.InJoined(j)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := u.Set(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
			var id int
			if err := tx.QueryRow("SELECT CONNECTION_ID()").Scan(&id); err != nil {
				t.Fatal(err)
			}
			execute(t, program, fmt.Sprint("KILL CONNECTION ", id))
			if err := end(j, t.Context()); errors.Is(err, lockstep.ErrUnknownOutcome) && settled(t, err) {
				t.Errorf("%s: settled as applied", form)
			}
			if _, err := cache.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrNotFound) {
				t.Errorf("%s: Get: %v", form, err)
			}
		}
	}
}

// The program takes back, by a savepoint of its own, what it wrote through the cache, and
// commits past the Joined: the rows that are there tell.
func TestASavepointOfTheProgramsTakesBackJoinedWrites(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	program := connect(t, dsn)
	db, caches := forms(t, dsn)
	for form, cache := range caches {
		if _, err := cache.Set(t.Context(), "again", 1); err != nil {
			t.Fatal(err)
		}
		tx := begin(t, program)
		j, err := mysqlstore.Join(t.Context(), db, tx)
		if err != nil {
			t.Fatal(err)
		}
		u, err := cache.InJoined(j)
		if err != nil {
			t.Fatal(err)
		}
		set := func(key string, n int) func() error {
			return func() error { _, err := u.Set(t.Context(), key, n); return err }
		}
		run := func(query string) func() error {
			return func() error { _, err := tx.Exec(query); return err }
		}
		steps := []func() error{set("again", 2), set("kept", 1), run("SAVEPOINT s"), set("taken back", 1), set("again", 3)}
		for i := range 10 { // more than those that are kept: they are asked in no order
			steps = append(steps, set(fmt.Sprint("taken back ", i), 1))
		}
		steps = append(steps, run("ROLLBACK TO s"), tx.Commit)
		if form == "versioned" { // where a version that it has given is enough
			steps = append([]func() error{set("again", 2)}, steps[2:]...)
		}
		for _, step := range steps {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if !settled(t, j.Commit(t.Context())) {
			t.Errorf("%s: what was committed is said not to be", form)
		}
		if got, err := cache.Get(t.Context(), "again"); got != 2 || err != nil {
			t.Errorf("%s: Get = %d, %v", form, got, err)
		}
		if _, err := cache.Get(t.Context(), "taken back"); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("%s: Get: %v", form, err)
		}
	}
}
