package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// joining is a cache, and a pool of the program's at the same server.
type joining struct {
	*testing.T
	db      *mysqlstore.Database
	cache   *lockstep.Cache[string, string]
	program *sql.DB
}

func newJoining(t *testing.T, dsn, program string) *joining {
	t.Helper()
	s := openStore(t, dsn)
	return &joining{t, s.Database(), cachetest.Open(t, s, lockstep.Options[string, string]{}), connect(t, program)}
}

var readCommitted = &sql.TxOptions{Isolation: sql.LevelReadCommitted}

// begin begins a transaction of the program's, and joins it.
func (p *joining) begin(opts *sql.TxOptions) (*sql.Tx, *lockstep.Joined, lockstep.InJoined[string, string]) {
	p.Helper()
	tx, err := p.program.BeginTx(p.Context(), opts)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { tx.Rollback() })
	j, err := mysqlstore.Join(p.Context(), p.db, tx)
	if err != nil {
		p.Fatal(err)
	}
	u, err := p.cache.InJoined(j)
	if err != nil {
		p.Fatal(err)
	}
	return tx, j, u
}

func (p *joining) ok(err error) {
	p.Helper()
	if err != nil {
		p.Error(err)
	}
}

func (p *joining) set(u lockstep.InJoined[string, string], key, value string) {
	p.Helper()
	if _, err := u.Set(p.Context(), key, value); err != nil {
		p.Fatal(err)
	}
}

func (p *joining) holds(key, want string) {
	p.Helper()
	if got, err := p.cache.Get(p.Context(), key); got != want || err != nil {
		p.Errorf("Get(%s) = %q, %v, want %q", key, got, err, want)
	}
}

// settled waits for an outcome that is unknown.
func settled(t *testing.T, err error) (applied bool) {
	t.Helper()
	var w *lockstep.WriteError
	if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
		t.Fatalf("the error is %v, want an unknown outcome", err)
	}
	applied, _, err = w.Wait(t.Context())
	if err != nil {
		t.Errorf("Wait: %v", err)
	}
	return applied
}

const sessionSettings = `SELECT CONCAT_WS('|', @@character_set_client, @@character_set_results, @@character_set_connection, @@collation_connection, @@sql_mode,
	@@time_zone, @@innodb_lock_wait_timeout, @@sql_select_limit, @@sql_safe_updates, @@sql_big_selects, @@sql_auto_is_null, @@autocommit, @lockstep_writer IS NULL)`

// The program's own statements find its settings, whatever the call has come to.
func TestAJoinedConnectionKeepsItsSettings(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	p := newJoining(t, dsn, dsn+strange)
	tx, err := p.program.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	settings := func() (s string) {
		t.Helper()
		if err := tx.QueryRow(sessionSettings).Scan(&s); err != nil {
			t.Error(err)
		}
		return s
	}
	before := settings()
	check := func(after string) {
		t.Helper()
		if got := settings(); got != before {
			t.Errorf("after %s the settings are\n%s, and were\n%s", after, got, before)
		}
	}
	j, err := mysqlstore.Join(t.Context(), p.db, tx)
	if err != nil {
		t.Fatal(err)
	}
	check("Join")
	u, err := p.cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	p.set(u, "k", "v")
	check("Set")
	if got, err := u.Get(t.Context(), "k"); got != "v" || err != nil {
		t.Errorf("Get = %q, %v", got, err)
	}
	check("Get")
	if _, err := u.Set(t.Context(), "k", "w", lockstep.IfAbsent()); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("Set: %v", err)
	}
	check("a conflict")
	p.ok(j.Rollback(t.Context()))
}

// The context of the transaction ends in the midst of a call, and database/sql gives the
// connection back to its pool with the stores' settings.
func TestTheNextUserOfAJoinedConnectionDoesNotGetItsSettings(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	proxy, via := dbtest.Via(t, dsn)
	p := newJoining(t, dsn, via)
	p.program.SetMaxOpenConns(1)
	settings := func() (s string) {
		if err := p.program.QueryRow(sessionSettings).Scan(&s); err != nil {
			return err.Error()
		}
		return s
	}
	before := settings()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tx, err := p.program.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	j, err := mysqlstore.Join(t.Context(), p.db, tx)
	if err != nil {
		t.Fatal(err)
	}
	u, err := p.cache.InJoined(j)
	if err != nil {
		t.Fatal(err)
	}
	read, release := proxy.HoldReply("SHOW CREATE TABLE")
	failed := make(chan error)
	go func() {
		_, err := u.Get(t.Context(), "k")
		failed <- err
	}()
	<-read
	cancel()
	eventually(t, "the transaction is over", func() bool { return errors.Is(tx.Commit(), sql.ErrTxDone) }) // does not wait
	release()
	if err := <-failed; err == nil {
		t.Error("a read in a transaction that is over succeeds")
	}
	eventually(t, "the connection is another one", func() bool { return settings() == before })
	p.ok(j.Rollback(t.Context()))
}

// The call's context ends at one of its steps, whichever: the program does not get back
// settings that it has changed since.
func TestAnInterruptedCallDoesNotPutBackOldSettings(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	p := newJoining(t, dsn, dsn)
	kept := 0
	for step := int64(1); ; step++ {
		tx := begin(t, p.program)
		call, err := mysqlstore.CallJoined(t.Context(), p.db, tx)
		if err != nil {
			t.Fatal(err)
		}
		execute(t, tx, "SET time_zone = '+02:00'")
		err = call(&endsAfter{Context: t.Context(), done: make(chan struct{}), left: step})
		var zone string
		if tx.QueryRow("SELECT @@time_zone").Scan(&zone) == nil { // else the connection is lost
			kept++
			if zone != "+02:00" {
				t.Errorf("ended at step %d (%v): the program's time zone is %s", step, err, zone)
			}
		}
		tx.Rollback()
		if err == nil {
			break
		}
	}
	if kept < 2 {
		t.Error("the connection was lost at each step")
	}
}

// endsAfter is a context that ends after it was asked for its Done so many times.
type endsAfter struct {
	context.Context
	mu   sync.Mutex
	done chan struct{}
	left int64
}

func (c *endsAfter) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		close(c.done)
	}
	return c.done
}

func (c *endsAfter) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// What the program writes in the transaction is told to the caches that watch the table,
// and what they write in it themselves is not told to them.
func TestAJoinedTransactionMarksWhatStoresWrite(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	db := watchDatabase(t, pool)
	open := func() *store {
		s, err := mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	write(t, open(), put("program's", "before"), put("cache's", "before"))
	install(t, db, "lockstep", mysqlstore.WatchOptions{})
	cache := watchedCache(t, open())
	warm(t, cache, "program's", "before")
	p := &joining{t, db, cache, pool}
	tx, j, u := p.begin(readCommitted)
	p.set(u, "cache's", "after")
	execute(t, tx, "UPDATE lockstep SET `value` = '\"after\"', `version` = `version` + 1 WHERE `key` = 'program''s'")
	p.ok(j.Commit(t.Context()))
	told(t, cache, "program's", "after")
	p.holds("cache's", "after")
	if n := cache.Stats().OutsideChanges; n != 1 {
		t.Errorf("%d changes were told, want the program's alone", n)
	}
}

func TestATemporaryTableGetsNoJoinedWrites(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	p := newJoining(t, dsn, dsn)
	tx, j, u := p.begin(readCommitted)
	execute(t, tx, "CREATE TEMPORARY TABLE lockstep (`key` VARBINARY(10))")
	for what, call := range map[string]func() error{
		"Get": func() error { _, err := u.Get(t.Context(), "k"); return err },
		"Set": func() error { _, err := u.Set(t.Context(), "k", "v"); return err },
	} {
		refuses(t, call(), lockstep.ErrInvalid, "temporary table")
		if t.Failed() {
			t.Fatal(what)
		}
	}
	p.ok(j.Rollback(t.Context()))
}

func TestAReadOnlyTransactionIsJoinedForReading(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	p := newJoining(t, dsn, dsn)
	if _, err := p.cache.Set(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	_, j, u := p.begin(&sql.TxOptions{ReadOnly: true})
	if got, err := u.Get(t.Context(), "k"); got != "v" || err != nil {
		t.Errorf("Get = %q, %v", got, err)
	}
	_, err := u.Set(t.Context(), "k", "w")
	refuses(t, err, lockstep.ErrInvalid, "read-only")
	p.ok(j.Rollback(t.Context()))
	p.holds("k", "v")
}

func TestATransactionOfAnotherDriverIsNotJoined(t *testing.T) {
	db := openDatabase(t, dbtest.MariaDB(t))
	other, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx := begin(t, other)
	_, err = mysqlstore.Join(t.Context(), db, tx)
	refuses(t, err, lockstep.ErrInvalid, "driver")
	_, err = mysqlstore.Join(t.Context(), db, nil)
	refuses(t, err, lockstep.ErrInvalid, "nil")
	_, err = mysqlstore.Join(t.Context(), nil, tx)
	refuses(t, err, lockstep.ErrInvalid, "nil")
	db.Close()
	if _, err = mysqlstore.Join(t.Context(), db, tx); !errors.Is(err, lockstep.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A connection is known by one lock, however often it is joined.
func TestAJoinedConnectionTakesOneLock(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	p := newJoining(t, dsn, dsn)
	p.program.SetMaxOpenConns(1)
	names := map[string]bool{}
	for range 3 {
		tx, j, _ := p.begin(nil)
		var name string
		var mine bool
		if err := tx.QueryRow("SELECT @lockstep_fence, IS_USED_LOCK(@lockstep_fence) = CONNECTION_ID()").Scan(&name, &mine); err != nil || !mine {
			t.Errorf("the connection has the lock %q: %t, %v", name, mine, err)
		}
		names[name] = true
		p.ok(j.Rollback(t.Context()))
	}
	if len(names) != 1 {
		t.Errorf("the connection has the locks %v", names)
	}
}

// At REPEATABLE READ the transaction reads what has been replaced since, and memory is not
// told that this were the row; what it writes depends on what the row is.
func TestAJoinedTransactionThatReadsAnOldSnapshot(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	p := newJoining(t, dsn, dsn)
	first, err := p.cache.Set(t.Context(), "k", "old")
	if err != nil {
		t.Fatal(err)
	}
	_, j, u := p.begin(nil)
	for i := range 2 {
		if e, err := u.GetEntry(t.Context(), "k"); e.Value != "old" || e.Version != first || err != nil {
			t.Errorf("the transaction reads %+v, %v", e, err)
		}
		if i == 0 {
			if _, err := p.cache.Set(t.Context(), "k", "new"); err != nil {
				t.Fatal(err)
			}
		}
		if got, ok := p.cache.Peek("k"); i == 1 && (got != "new" || !ok) {
			t.Errorf("memory says %q, %t", got, ok)
		}
	}
	if _, err := u.Set(t.Context(), "k", "late", lockstep.IfVersion(first)); !errors.Is(err, lockstep.ErrConflict) {
		t.Errorf("a write that depends on the old row: %v", err)
	}
	p.ok(j.Rollback(t.Context()))
	p.holds("k", "new")
}

// Somebody else makes the row, after it was looked for and before it is made.
func TestARowThatAppearsBeforeAJoinedWrite(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	other := connect(t, dsn)
	execute(t, other, "CREATE TABLE people (id VARBINARY(20) PRIMARY KEY, name TEXT NOT NULL)")
	proxy, via := dbtest.Via(t, dsn)
	p := newJoining(t, dsn, via)
	people, err := mysqlstore.NewTableIn[string, name](t.Context(), p.db, "people", mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mapped := cachetest.Open(t, people, lockstep.Options[string, name]{})
	for _, c := range []struct {
		appear string
		set    func(j *lockstep.Joined, u lockstep.InJoined[string, string]) error
	}{
		{"INSERT INTO lockstep VALUES ('k', '\"theirs\"', 1, NULL, 0, 0)", func(_ *lockstep.Joined, u lockstep.InJoined[string, string]) error {
			_, err := u.Set(t.Context(), "k", "ours")
			return err
		}},
		{"INSERT INTO people VALUES ('k', 'theirs')", func(j *lockstep.Joined, _ lockstep.InJoined[string, string]) error {
			m, err := mapped.InJoined(j)
			if err == nil {
				_, err = m.Set(t.Context(), "k", name{"ours"})
			}
			return err
		}},
	} {
		_, j, u := p.begin(readCommitted)
		looked, release := proxy.HoldReply("SELECT TIMESTAMPDIFF") // the clock's, read after the row was looked for
		set := make(chan error, 1)
		go func() { set <- c.set(j, u) }()
		select {
		case <-looked:
		case err := <-set:
			t.Fatalf("%s: the clock was not read: %v", c.appear, err)
		}
		execute(t, other, c.appear)
		release()
		if err := <-set; err != nil {
			t.Errorf("%s: %v", c.appear, err)
		}
		p.ok(j.Commit(t.Context()))
	}
	p.holds("k", "ours")
	if got, err := mapped.Get(t.Context(), "k"); got.Name != "ours" || err != nil {
		t.Errorf("Get = %+v, %v", got, err)
	}
}

type name struct {
	Name string `db:"name"`
}

// The server does not notice that nobody waits any more for a statement that waits for a
// row. It would keep the rows that the transaction has locked.
func TestAnInterruptedJoinedWriteLetsItsRowsGo(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	p := newJoining(t, dsn, dsn)
	for _, key := range []string{"held", "written"} {
		if _, err := p.cache.Set(t.Context(), key, "before"); err != nil {
			t.Fatal(err)
		}
	}
	other := begin(t, pool)
	execute(t, other, "UPDATE lockstep SET `deleted` = 0 WHERE `key` = 'held'")
	_, j, u := p.begin(readCommitted)
	p.set(u, "written", "joined")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := u.Set(ctx, "held", "joined")
		failed <- err
	}()
	waitFor(t, pool, 1, mysqlstore.RowLockWaits(t))
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("Set: %v", err)
	}
	if _, err := p.cache.Set(t.Context(), "written", "after"); err != nil {
		t.Errorf("a write of a row that the transaction has locked: %v", err)
	}
	p.ok(other.Rollback())
	if err := j.Commit(t.Context()); err == nil || errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Commit: %v, want that it was not applied", err)
	}
	p.holds("written", "after")
	p.holds("held", "before")
}

// The connection of a transaction that was ended past the Joined is at work for others: it
// is not ended, however long they have the row.
func TestTheNextUserOfAJoinedConnectionIsLeftAlone(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	p := newJoining(t, dsn, dsn)
	p.program.SetMaxOpenConns(1)
	for _, commits := range []bool{true, false} {
		tx, j, u := p.begin(readCommitted)
		p.set(u, "k", fmt.Sprint(commits))
		end := tx.Rollback
		if commits {
			end = tx.Commit
		}
		p.ok(end())
		next := begin(t, p.program)
		execute(t, next, "UPDATE lockstep SET `deleted` = 0 WHERE `key` = 'k'")
		if _, err := u.Get(t.Context(), "k"); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("Get on a connection that is somebody else's: %v", err)
		}
		err := j.Commit(t.Context())
		outcome := make(chan bool)
		go func() { outcome <- settled(t, err) }()
		waitFor(t, pool, 1, mysqlstore.RowLockWaits(t))
		if err := next.Commit(); err != nil {
			t.Errorf("the next transaction: %v", err)
		}
		if applied := <-outcome; applied != commits {
			t.Errorf("the transaction is said to be applied: %t, want %t", applied, commits)
		}
		p.holds("k", "true")
	}
}
