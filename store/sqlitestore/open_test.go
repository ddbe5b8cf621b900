package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "test.db") }

func openStore[K comparable, V any](t testing.TB, path string, opts Options) *Store[K, V] {
	t.Helper()
	s, err := Open[K, V](t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run executes SQL as another program would.
func run(t testing.TB, path string, queries ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range queries {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

func put[K comparable, V any](t testing.TB, s lockstep.Store[K, V], k K, v V) lockstep.Row[V] {
	t.Helper()
	o, err := commitOne(s, lockstep.Change[K, V]{Key: k, Value: v})
	if err != nil {
		t.Fatal(err)
	}
	if o.Rows == nil {
		return lockstep.Row[V]{}
	}
	return o.Rows[0]
}

func commitOne[K comparable, V any](s lockstep.Store[K, V], changes ...lockstep.Change[K, V]) (lockstep.Outcome[V], error) {
	outcomes, err := s.Commit(context.Background(), []lockstep.ChangeSet[K, V]{{Changes: changes}})
	if err != nil {
		return lockstep.Outcome[V]{}, err
	}
	return outcomes[0], outcomes[0].Err
}

func get[K comparable, V any](t testing.TB, s lockstep.Store[K, V], k K) lockstep.Row[V] {
	t.Helper()
	rows, err := s.Load(t.Context(), []K{k})
	if err != nil {
		t.Fatal(err)
	}
	return rows[k]
}

// wantError checks an error's kind, and that it names what is wrong.
func wantError(t testing.TB, err, kind error, parts ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("the error is %v, want one that is %v", err, kind)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the error does not name %q: %v", p, err)
		}
	}
}

func TestFilesThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	utf16 := filepath.Join(dir, "utf16.db")
	run(t, utf16, "PRAGMA encoding='UTF-16'", "CREATE TABLE t (a)")
	for path, part := range map[string]string{
		"":                               "empty",
		":memory:":                       "not durable",
		"a\x00b":                         "NUL",
		dir:                              "directory",
		filepath.Join(dir, "no", "a.db"): "does not exist",
		filepath.Join(garbage, "a.db"):   "not a directory",
		garbage:                          "not an SQLite database",
		utf16:                            "UTF-16",
	} {
		_, err := Open[string, string](t.Context(), path, Options{})
		wantError(t, err, lockstep.ErrInvalid, part)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("what failed has left files: %v, %v", entries, err)
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"a b.db", "50%.db", "q?x=1.db", "h#.db", "é&.db", "'.db", `".db`} {
		path := filepath.Join(t.TempDir(), name)
		s := openStore[string, int](t, path, Options{})
		put(t, s, "k", 7)
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q was made elsewhere: %v", name, err)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	path := newPath(t)
	for part, opts := range map[string]Options{
		"MaxKeyBytes is -1":   {MaxKeyBytes: -1},
		"MaxValueBytes is -1": {MaxValueBytes: -1},
		"at most":             {MaxValueBytes: 2 << 30},
		"sqlite_x":            {Table: "sqlite_x"},
		"reserved":            {Table: "Lockstep_Tables"},
		"not a table's name":  {Table: "a\x00"},
	} {
		_, err := Open[string, string](t.Context(), path, opts)
		wantError(t, err, lockstep.ErrInvalid, part)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was made for options that are refused")
	}
	_, err := OpenDatabase(t.Context(), path, DatabaseOptions{Readers: -1})
	wantError(t, err, lockstep.ErrInvalid, "Readers is -1")
	_, err = OpenDatabase(t.Context(), path, DatabaseOptions{CheckpointBytes: -1})
	wantError(t, err, lockstep.ErrInvalid, "CheckpointBytes is -1")
	for _, size := range []int{-1, 256, 1000, 131072} {
		_, err = OpenDatabase(t.Context(), path, DatabaseOptions{PageSize: size})
		wantError(t, err, lockstep.ErrInvalid, fmt.Sprintf("PageSize is %d", size))
	}
}

func TestTablesThatAreNotOurs(t *testing.T) {
	path := newPath(t)
	s := openStore[string, string](t, path, Options{})
	db := s.Database()
	run(t, path, "CREATE TABLE users (id INTEGER PRIMARY KEY)", "CREATE VIEW v AS SELECT 1 AS key")

	_, err := OpenIn[string, string](t.Context(), db, Options{Table: "users"})
	wantError(t, err, lockstep.ErrInvalid, "users", "NewTable")
	_, err = OpenIn[string, string](t.Context(), db, Options{Table: "V"})
	wantError(t, err, lockstep.ErrInvalid, "view")
	_, err = OpenIn[int64, string](t.Context(), db, Options{})
	wantError(t, err, lockstep.ErrInvalid, "keys of kind text", "integer")
	_, err = OpenIn[string, string](t.Context(), db, Options{Codec: codec.CBOR[string]()})
	wantError(t, err, lockstep.ErrInvalid, "encoded as json", "cbor")
	_, err = OpenIn[string, string](t.Context(), nil, Options{})
	wantError(t, err, lockstep.ErrInvalid, "nil")

	run(t, path, "UPDATE lockstep_tables SET layout = 99")
	_, err = OpenIn[string, string](t.Context(), db, Options{})
	wantError(t, err, lockstep.ErrInvalid, "layout 99", "newer version")
}

// A database that another process has locked is waited for, and no longer than
// was asked.
func TestOpenWaitsForALockedFile(t *testing.T) {
	path := newPath(t)
	run(t, path, "PRAGMA journal_mode=WAL", "CREATE TABLE t (a)")
	other, err := connect(path, "rw", "locking_mode=EXCLUSIVE")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.script("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = Open[string, string](ctx, path, Options{})
	wantError(t, err, lockstep.ErrUnavailable)
	other.close()
	openStore[string, string](t, path, Options{})
}

func TestDurabilityIsReadBack(t *testing.T) {
	db, err := OpenDatabase(t.Context(), newPath(t), DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for query, want := range map[string]any{
		"PRAGMA journal_mode": "wal", "PRAGMA synchronous": int64(2), "PRAGMA wal_autocheckpoint": int64(0),
		"PRAGMA foreign_keys": int64(1), "PRAGMA fullfsync": int64(1),
	} {
		w, err := db.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.value(query); err != nil || got != want {
			t.Errorf("%s is %v, %v, want %v", query, got, err, want)
		}
		db.release(w, true)
	}
	w, err := db.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer db.release(w, true)
	if err := w.script("PRAGMA synchronous=NORMAL"); err != nil {
		t.Fatal(err)
	}
	wantError(t, db.checkWriter(w, 2), lockstep.ErrInvalid, "synchronous is 1")
}

func TestRelaxedDurabilityHasToBeAskedFor(t *testing.T) {
	db, err := OpenDatabase(t.Context(), newPath(t), DatabaseOptions{AllowUnsafeDurability: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w, err := db.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer db.release(w, true)
	if got, err := w.integer("PRAGMA synchronous"); err != nil || got != 1 {
		t.Errorf("synchronous is %v, %v", got, err)
	}
}

func TestUseAfterClose(t *testing.T) {
	s, err := Open[string, string](t.Context(), newPath(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "1")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Load(t.Context(), []string{"a"})
	wantError(t, err, lockstep.ErrClosed)
	_, err = commitOne(s, lockstep.Change[string, string]{Key: "a"})
	wantError(t, err, lockstep.ErrClosed)
	_, err = s.scan(t.Context(), nil, 10)
	wantError(t, err, lockstep.ErrClosed)
	_, err = s.Capabilities().Begin(t.Context())
	wantError(t, err, lockstep.ErrClosed)
	_, err = s.Commit(t.Context(), nil)
	wantError(t, err, lockstep.ErrClosed)
	_, err = OpenIn[string, string](t.Context(), s.Database(), Options{Table: "other"})
	wantError(t, err, lockstep.ErrClosed)
	if errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("the options are not to blame: %v", err)
	}
	if _, err := os.Stat(s.Database().Path() + "-wal"); err == nil {
		t.Error("the log is still there after Close")
	}
}

func TestRowsAPersonCanRead(t *testing.T) {
	type user struct {
		Name string `json:"name"`
	}
	s := openStore[string, user](t, newPath(t), Options{})
	row := put(t, s, "ada", user{"Ada"})
	put(t, s, "bob", user{"Bob"})
	if _, err := commitOne(s, lockstep.Change[string, user]{Key: "bob", Delete: true}); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", s.Database().Path())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var value string
	var version int64
	if err := db.QueryRow("SELECT value ->> 'name', version FROM lockstep WHERE key = 'ada' AND deleted = 0").Scan(&value, &version); err != nil {
		t.Fatal(err)
	}
	if value != "Ada" || version != int64(row.Version) {
		t.Errorf("the shell shows %q at version %d, want Ada at %d", value, version, row.Version)
	}
	var tombstones int
	if err := db.QueryRow("SELECT count(*) FROM lockstep WHERE deleted AND value IS NULL").Scan(&tombstones); err != nil || tombstones != 1 {
		t.Errorf("%d tombstones, %v", tombstones, err)
	}
}

func TestValuesThatAreRefused(t *testing.T) {
	s := openStore[string, any](t, newPath(t), Options{MaxValueBytes: 100})
	for name, v := range map[string]any{"a channel": make(chan int), "a function": func() {}} {
		_, err := commitOne(s, lockstep.Change[string, any]{Key: name, Value: v})
		wantError(t, err, lockstep.ErrInvalid, name, "does not encode")
	}
	_, err := commitOne(s, lockstep.Change[string, any]{Key: "long", Value: strings.Repeat("x", 200)})
	wantError(t, err, lockstep.ErrTooLarge, "long", "202 bytes", "100")
	_, err = commitOne(s, lockstep.Change[string, any]{Key: strings.Repeat("k", 9000), Value: 1})
	wantError(t, err, lockstep.ErrTooLarge, "9000 bytes", "8192")
	_, err = commitOne(s, lockstep.Change[string, any]{Key: "k", Value: 1, ExpiresAt: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)})
	wantError(t, err, lockstep.ErrInvalid, "ExpiresAt")
	run(t, s.Database().Path(), "INSERT INTO lockstep (key, value, version) VALUES ('broken', '{', 1)")
	_, err = s.Load(t.Context(), []string{"broken"})
	wantError(t, err, lockstep.ErrInvalid, "broken")
	put[string, any](t, s, "broken", "mended")
}

// A trigger on a table of our own could ignore a change, refuse a batch for one of
// its rows, or make something else of a value than what memory holds.
func TestAKeyValueTableWithATriggerIsNotOpened(t *testing.T) {
	path := newPath(t)
	s := openStore[string, string](t, path, Options{})
	run(t, path, "CREATE TRIGGER spoil BEFORE INSERT ON Lockstep WHEN new.key = 'bad' BEGIN SELECT RAISE(IGNORE); END")
	_, err := OpenIn[string, string](t.Context(), s.db, Options{})
	wantError(t, err, lockstep.ErrInvalid, "lockstep", "trigger spoil", "NewTable")
	if _, err := OpenIn[string, string](t.Context(), s.db, Options{Table: "other"}); err != nil {
		t.Errorf("another table: %v", err)
	}
	// One that is made later is not noticed, but for a row that is not there.
	_, err = commitOne(s, lockstep.Change[string, string]{Key: "bad", Value: "x"})
	wantError(t, err, lockstep.ErrInvalid, "bad", "trigger")
	_, err = commitOne(s, lockstep.Change[string, string]{Key: "bad", Value: "x"}, lockstep.Change[string, string]{Key: "good", Value: "x"})
	wantError(t, err, lockstep.ErrInvalid, "bad", "trigger")
	if get(t, s, "good").Exists {
		t.Error("half of a set was committed")
	}
	run(t, path, "DROP TRIGGER spoil")
	if _, err := OpenIn[string, string](t.Context(), s.db, Options{}); err != nil {
		t.Error(err)
	}
}

// It was the size of a channel.
func TestANumberOfReadersBeyondReasonDoesNotPanic(t *testing.T) {
	for _, n := range []int{1025, math.MaxInt} {
		path := newPath(t)
		_, err := OpenDatabase(t.Context(), path, DatabaseOptions{Readers: n})
		wantError(t, err, lockstep.ErrInvalid, "Readers", "1024")
		_, err = ParseURL("sqlite:" + path + "?readers=" + strconv.Itoa(n))
		wantError(t, err, lockstep.ErrInvalid, "readers", "1024")
	}
}

func TestAnOpenThatWasCancelledMakesNoFile(t *testing.T) {
	path := newPath(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open[string, string](ctx, path, Options{})
	wantError(t, err, lockstep.ErrUnavailable, "cancel")
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a file")
	}
}

// A file keeps the page size that it was made with.
func TestPageSize(t *testing.T) {
	path := newPath(t)
	for _, size := range []int{1024, 8192} {
		db, err := OpenDatabase(t.Context(), path, DatabaseOptions{PageSize: size})
		if err != nil {
			t.Fatal(err)
		}
		c := <-db.writer
		got, err := c.integer("PRAGMA page_size")
		db.writer <- c
		if err != nil || got != 1024 {
			t.Errorf("opened with %d, the file has pages of %d bytes (%v); want 1024, with which it was made", size, got, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
