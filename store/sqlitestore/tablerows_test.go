package sqlitestore_test

import (
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/rowstest"
	"github.com/lockstep-cache/lockstep/store/rows"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

func TestRowsAreText(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		db := openDatabase(t, newFile(t))
		version := ""
		if versioned {
			version = ", version INTEGER NOT NULL"
		}
		execute(t, db.Path(), `CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind VARCHAR(20) NOT NULL DEFAULT 'plain', made DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
			age INT, score DOUBLE PRECISION, done BOOLEAN, price DECIMAL(10,2), body BLOB, at TIMESTAMP, born DATE, doc JSON`+version+`)`)
		rowstest.Run(t, rowstest.Subject{
			Open: func(t *testing.T) rowstest.Store {
				s, err := sqlitestore.NewTable[rows.Key, rows.Row](t.Context(), db, "users", sqlitestore.TableOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Texts: map[string]string{"age": "-9223372036854775808", "score": "0.1", "done": "1", "price": "12.5", "body": "\x00\xff,:", "at": "2026-01-02T15:04:05.123456789Z", "born": "2026-01-02", "doc": `{"a": [1]}`},
			Also: [][3]string{{"done", "TRUE", "1"}, {"done", "f", "0"}, {"at", "2026-01-02T15:04:05+02:00", "2026-01-02T13:04:05Z"}, {"score", "1e3", "1000"}, {"score", "1e300", "1e+300"}, {"score", "3", "3"},
				{"price", "5.00", "5"}, {"price", "-7", "-7"}, {"price", "1e2", "100"}, {"price", "1e300", "1e+300"}, {"doc", "5", "5"}, {"doc", `"x"`, `"x"`}, {"age", "0", "0"}, {"body", "", ""}, {"kind", "", ""}},
			Wrong: map[string][]string{
				"age": {"x", "", "1.5", "+1", "9223372036854775808", " 1"}, "score": {"x", "", "0x10", "inf", "NaN", "1_0", "1e999"}, "done": {"", "yes", "2"}, "price": {"x", "", "1,5", "NaN"},
				"at": {"", "x", "2026-01-02", "2026-01-02 15:04:05", "2026-13-02T15:04:05Z"}, "born": {"", "x", "2026-02-30", "2026-1-2"}, "doc": {"", "{", "x"},
			},
			Versioned: versioned,
		})
	}
}

// TestWhatHasNoTextIsRefusedAtOpen, each column by its name.
func TestWhatHasNoTextIsRefusedAtOpen(t *testing.T) {
	db := openDatabase(t, newFile(t))
	execute(t, db.Path(), `CREATE TABLE odd (id REAL PRIMARY KEY, anything, place GEOGRAPHY, name TEXT)`)
	_, err := sqlitestore.NewTable[rows.Key, rows.Row](t.Context(), db, "odd", sqlitestore.TableOptions{VersionColumn: "nosuch"})
	if err == nil {
		t.Fatal("it was opened")
	}
	for _, part := range []string{"column anything: it is declared without a type", "column place: its type GEOGRAPHY has no text", "no column nosuch"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}

// TestRowsByKeysOfSeveralColumns, of which one has a colon in it.
func TestRowsByKeysOfSeveralColumns(t *testing.T) {
	db := openDatabase(t, newFile(t))
	execute(t, db.Path(), `CREATE TABLE parts (place INTEGER, name TEXT, tenant TEXT, n INTEGER DEFAULT 7, version TEXT, double INTEGER AS (2*n), PRIMARY KEY (tenant, place)) WITHOUT ROWID`)
	s, err := sqlitestore.NewTable[rows.Key, rows.Row](t.Context(), db, "parts", sqlitestore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Capabilities().Versions {
		t.Error("a text is no version")
	}
	cache, err := newRows(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Set(t.Context(), `a\:b:5`, rows.Make(rows.Field{Name: "name", Text: "x"})); err != nil {
		t.Fatal(err)
	}
	for e, err := range cache.Scan(t.Context()) {
		want := rows.Make(rows.Field{Name: "place", Text: "5"}, rows.Field{Name: "name", Text: "x"}, rows.Field{Name: "tenant", Text: "a:b"}, rows.Field{Name: "n", Text: "7"}, rows.Field{Name: "double", Text: "14"})
		if err != nil || e.Key != `a\:b:5` || e.Value != want {
			t.Errorf("%q: %q, %v", e.Key, e.Value, err)
		}
	}
	if n := read(t, db.Path(), "SELECT count(*) FROM parts WHERE tenant = 'a:b' AND place = 5"); n != 1 {
		t.Errorf("%d rows", n)
	}
	for _, key := range []rows.Key{"a", "a:b:5", `a\b:5`, "a:05"} {
		if _, err := cache.Get(t.Context(), key); err == nil || !strings.Contains(err.Error(), "key "+string(key)) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func newRows(t *testing.T, s lockstep.Store[rows.Key, rows.Row]) (*lockstep.Cache[rows.Key, rows.Row], error) {
	c, err := lockstep.New(s, lockstep.Options[rows.Key, rows.Row]{})
	if err == nil {
		t.Cleanup(func() { _ = c.Close(t.Context()) })
	}
	return c, err
}
