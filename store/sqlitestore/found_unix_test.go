//go:build unix

package sqlitestore

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

type fragile struct{ Text string }

var bomb string

func (f fragile) MarshalText() ([]byte, error) { return []byte(f.Text), nil }

func (f *fragile) UnmarshalText(b []byte) error {
	if bomb != "" && string(b) == bomb {
		panic("a value that its own type does not expect")
	}
	f.Text = string(b)
	return nil
}

// A row that makes its own type panic costs a reading connection each time.
func TestAPanicInDecodeEatsTheReaders(t *testing.T) {
	db, err := OpenDatabase(t.Context(), newPath(t), DatabaseOptions{Readers: 4})
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenIn[string, fragile](t.Context(), db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := lockstep.New[string, fragile](s, lockstep.Options[string, fragile]{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	for _, k := range []string{"bad", "good"} {
		if _, err := c.Set(t.Context(), k, fragile{k}); err != nil {
			t.Fatal(err)
		}
	}
	c.InvalidateAll()
	bomb = "bad" // the type has been changed since, say
	defer func() { bomb = "" }()
	for range 4 {
		if _, err := c.Get(t.Context(), "bad"); err == nil {
			t.Fatal("no error")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := c.Get(ctx, "good"); err != nil {
		t.Errorf("after 4 reads of another key: %v", err)
	}
	closed := make(chan struct{})
	go func() { db.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(3 * time.Second):
		t.Error("Close of the database hangs")
	}
}

// A panic in Scan, in a commit, keeps the write lock of the file for ever.
func TestAPanicInScanKeepsTheWriteLock(t *testing.T) {
	path := newPath(t)
	run(t, path, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, upper TEXT GENERATED ALWAYS AS (upper(name)) STORED)")
	type row struct {
		Name  string   `db:"name"`
		Upper *scanned `db:"upper,readonly"`
	}
	db, err := OpenDatabase(t.Context(), path, DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tab, err := NewTable[string, row](t.Context(), db, "t", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := lockstep.New[string, row](tab, lockstep.Options[string, row]{CommitTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close(context.Background())
		db.Close()
	})
	if _, err := c.Set(t.Context(), "a", row{Name: "fine"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Set(t.Context(), "b", row{Name: "boom"}); err != nil {
		t.Errorf("what cannot be read can be written: %v", err)
	}
	_, err = c.Get(t.Context(), "b")
	wantError(t, err, lockstep.ErrInvalid, "table t", "key b", "column upper", "panic")
	if _, err := c.Set(t.Context(), "c", row{Name: "fine"}); err != nil {
		t.Errorf("a write of another key: %v", err)
	}
	if other, err := OpenDatabase(t.Context(), path, DatabaseOptions{}); err == nil {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if x, err := other.begin(ctx); err != nil {
			t.Errorf("another process: %v", err)
		} else {
			x.Rollback(ctx)
		}
		other.Close()
	}
}

type scanned string

func (s scanned) Value() (v driver.Value, err error) { return string(s), nil }

func (s *scanned) Scan(src any) error {
	if src == "BOOM" {
		panic("unexpected")
	}
	*s = scanned(src.(string))
	return nil
}

// RAISE(FAIL) ends a statement and keeps what it has done. A set that it refuses
// is committed all the same, when it has company; memory answers with the old row.
func TestARefusedSetIsCommittedWithItsCompany(t *testing.T) {
	tab := openTable[string, justName](t, TableOptions{},
		"CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT)",
		`CREATE TRIGGER g AFTER UPDATE ON t WHEN new.name = 'bad' BEGIN SELECT RAISE(FAIL, 'no bad names'); END`)
	c, err := lockstep.New[string, justName](tab, lockstep.Options[string, justName]{
		Batch: lockstep.Batch{MaxOps: 2, MaxDelay: time.Second}, // so that the two writes below share a batch
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Set(t.Context(), "k", justName{"old"}); err != nil {
		t.Fatal(err)
	}
	company := make(chan error)
	go func() { _, err := c.Set(t.Context(), "l", justName{"x"}); company <- err }()
	_, err = c.Set(t.Context(), "k", justName{"bad"})
	if err := <-company; err != nil {
		t.Fatal(err)
	}
	cached, _ := c.Get(t.Context(), "k")
	stored := get(t, tab, "k").Value
	wantError(t, err, lockstep.ErrInvalid, "no bad names")
	if stored.Name != "old" || cached.Name != "old" {
		t.Errorf("the table has %q, memory answers %q, and the writer was told: %v", stored.Name, cached.Name, err)
	}
}

// A trigger that ignores a row after it has written something.
func TestAnIgnoredChangeLeavesATrace(t *testing.T) {
	tab := openTable[string, justName](t, TableOptions{},
		"CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT)", "CREATE TABLE ledger (x TEXT)",
		`CREATE TRIGGER g BEFORE INSERT ON t WHEN new.name = 'bad' BEGIN
			INSERT INTO ledger VALUES (new.id); SELECT RAISE(IGNORE); END`)
	set := func(k, v string) lockstep.ChangeSet[string, justName] {
		return lockstep.ChangeSet[string, justName]{Changes: []lockstep.Change[string, justName]{{Key: k, Value: justName{v}}}}
	}
	out, err := tab.Commit(t.Context(), []lockstep.ChangeSet[string, justName]{set("k", "bad"), set("l", "good")})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, out[0].Err, lockstep.ErrInvalid, "a trigger has ignored the change")
	if out[1].Err != nil || get(t, tab, "l").Value.Name != "good" {
		t.Errorf("the set beside it: %v", out[1].Err)
	}
	if n := countIn(t, tab.db, "SELECT count(*) FROM ledger"); n != 0 {
		t.Errorf("left out with %v, and has written %d rows", out[0].Err, n)
	}
}

// logged gets a log's lines, as far as there is room.
type logged chan string

func (l logged) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default:
	}
	return len(line), nil
}

// A fence whose own commit fails is no answer.
func TestAFenceThatFailsIsTakenForTheAnswer(t *testing.T) {
	if !withLimits(t) {
		return
	}
	s := openStore[string, []byte](t, newPath(t), Options{})
	failed := make(logged, 100)
	c, err := lockstep.New[string, []byte](s, lockstep.Options[string, []byte]{Logger: slog.New(slog.NewTextHandler(failed, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Set(t.Context(), "a", []byte("old")); err != nil {
		t.Fatal(err)
	}
	lift := limitFiles(t, logSize(t, s.Database().Path()))
	_, err = c.Set(t.Context(), "a", noise(100_000))
	var w *lockstep.WriteError
	if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
		t.Fatal(err)
	}
	for range 2 { // settlements fail
		select {
		case <-failed:
		case <-time.After(10 * time.Second):
			t.Fatal("no settlement has failed")
		}
	}
	c.Get(t.Context(), "a")
	if _, ok := c.Peek("a"); ok {
		t.Error("memory answers for a key that nobody has settled")
	}
	lift() // the disk is well again
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if applied, _, err := w.Wait(ctx); err != nil || applied {
		t.Errorf("Wait: %t, %v", applied, err)
	}
}

// A column that somebody renames is read as its own old name.
func TestARenamedColumnIsReadAsItsName(t *testing.T) {
	path := newPath(t)
	run(t, path, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT)")
	tab, err := NewTable[string, justName](t.Context(), openAt(t, path), "t", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, tab, "k", justName{"Ada"})
	run(t, path, "ALTER TABLE t RENAME COLUMN name TO title")
	rows, err := tab.Load(t.Context(), []string{"k"})
	if err == nil && rows["k"].Value.Name != "Ada" {
		t.Errorf("Load: %+v, and no error", rows["k"])
	}
}
