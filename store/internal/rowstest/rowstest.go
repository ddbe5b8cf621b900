// Package rowstest tests a store whose rows are text (rows.Row), the same for every database.
package rowstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/rows"
)

// Store is what is tested.
type Store interface {
	lockstep.Store[rows.Key, rows.Row]
	Columns() []rows.Column
}

// Subject is a table, and what there is to know of it. Its primary key is id, a whole number;
// name is a text and NOT NULL, kind a text and NOT NULL with the default 'plain', made a time
// and NOT NULL with the default now.
type Subject struct {
	// Open opens the table again.
	Open func(t *testing.T) Store
	// Texts are a value for each column beside those above, as it is read.
	Texts map[string]string
	// Also are columns, texts that they take, and as what those are read.
	Also [][3]string
	// Wrong are texts that a column does not take, with a part of the error.
	Wrong map[string][]string
	// Versioned: the table has a column version, a bigint.
	Versioned bool
}

// Run tests it.
func Run(t *testing.T, s Subject) {
	store := s.Open(t)
	open := func() *lockstep.Cache[rows.Key, rows.Row] {
		t.Helper()
		c, err := lockstep.New[rows.Key, rows.Row](s.Open(t), lockstep.Options[rows.Key, rows.Row]{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(t.Context()) })
		return c
	}
	cache, fresh := open(), open // fresh knows nothing that the database does not
	fields := func(row rows.Row) map[string]string {
		t.Helper()
		all, err := row.Fields()
		if err != nil {
			t.Fatalf("%q: %v", row, err)
		}
		m := map[string]string{}
		for _, f := range all {
			if _, twice := m[f.Name]; twice {
				t.Errorf("%q has %s twice", row, f.Name)
			}
			m[f.Name] = f.Text
		}
		return m
	}
	var names []string
	for _, c := range store.Columns() {
		names = append(names, c.Name)
		if c.Takes == "" || (c.Name == "id") != (c.KeyPlace == 1) || c.Fixed != (s.Versioned && c.Name == "version") {
			t.Errorf("%+v", c)
		}
	}
	// What there is of a row is read as it was written, from memory and from the database.
	full := []rows.Field{{Name: "name", Text: "Ann"}, {Name: "kind", Text: "other"}}
	for column, text := range s.Texts {
		full = append(full, rows.Field{Name: column, Text: text})
	}
	if _, err := cache.Set(t.Context(), "1", rows.Make(full...)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*lockstep.Cache[rows.Key, rows.Row]{cache, fresh()} {
		row, err := c.Get(t.Context(), "1")
		if err != nil {
			t.Fatal(err)
		}
		got := fields(row)
		for _, f := range append(full, rows.Field{Name: "id", Text: "1"}) {
			if text, ok := got[f.Name]; !ok || text != f.Text {
				t.Errorf("column %s is %q, %t; want %q", f.Name, text, ok, f.Text)
			}
		}
		if len(got["made"]) != len("2026-01-02T15:04:05Z") && !strings.Contains(got["made"], ".") {
			t.Errorf("the default of made is %q", got["made"])
		}
		if all, _ := row.Fields(); len(all) != len(names) {
			t.Errorf("%q, and the columns are %q", row, names)
		}
		// What is read can be written, and changes nothing.
		if _, err := c.Set(t.Context(), "1", row); err != nil {
			t.Errorf("writing %q: %v", row, err)
		}
		again, err := fresh().Get(t.Context(), "1")
		if v, w := fields(row), fields(again); err != nil || len(v) != len(w) {
			t.Errorf("%q is written as %q, %v", row, again, err)
		} else {
			for name, text := range v {
				if w[name] != text && name != "version" {
					t.Errorf("column %s was %q, and is written as %q", name, text, w[name])
				}
			}
		}
	}
	// A row with little in it has the rest as NULL, or by default.
	if _, err := cache.Set(t.Context(), "2", rows.Make(rows.Field{Name: "name", Text: ""})); err != nil {
		t.Fatal(err)
	}
	row, err := fresh().Get(t.Context(), "2")
	if err != nil {
		t.Fatal(err)
	}
	got := fields(row)
	want := 4
	if s.Versioned {
		want++
	}
	if len(got) != want || got["id"] != "2" || got["kind"] != "plain" || got["made"] == "" || len(got["version"]) > 0 != s.Versioned {
		t.Errorf("%q", row)
	}
	// A column that is left out becomes NULL.
	if _, err := cache.Set(t.Context(), "1", rows.Make(rows.Field{Name: "name", Text: "x"}, rows.Field{Name: "id", Text: "1"}, rows.Field{Name: "kind", Text: "k"}, rows.Field{Name: "made", Text: got["made"]})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*lockstep.Cache[rows.Key, rows.Row]{cache, fresh()} {
		row, err := c.Get(t.Context(), "1")
		if m := fields(row); err != nil || len(m) != want || m["name"] != "x" || m["kind"] != "k" || m["made"] != got["made"] {
			t.Errorf("%q, %v", row, err)
		}
	}
	last := "plain"
	for _, also := range s.Also {
		if last = "plain"; also[0] == "kind" {
			last = also[2]
		}
		column, text, read := also[0], also[1], also[2]
		if _, err := cache.Delete(t.Context(), "3"); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.Set(t.Context(), "3", rows.Make(rows.Field{Name: "name", Text: "n"}, rows.Field{Name: column, Text: text})); err != nil {
			t.Errorf("column %s, %q: %v", column, text, err)
			continue
		}
		row, err := cache.Get(t.Context(), "3")
		if got := fields(row)[column]; err != nil || got != read {
			t.Errorf("column %s, %q: %q, %v; want %q", column, text, got, err, read)
		}
		if again, err := fresh().Get(t.Context(), "3"); err != nil || again != row {
			t.Errorf("%q in memory, and %q, %v", row, again, err)
		}
	}
	wrong := func(key rows.Key, row rows.Row, parts ...string) {
		t.Helper()
		_, err := cache.Set(t.Context(), key, row)
		if !errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("%s, %.100q: %v", key, row, err)
			return
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s, %.100q: %q does not name %q", key, row, err, part)
			}
		}
	}
	name := rows.Field{Name: "name", Text: "n"}
	for column, texts := range s.Wrong {
		for _, text := range texts {
			wrong("4", rows.Make(name, rows.Field{Name: column, Text: text}), "column "+column)
		}
	}
	wrong("4", rows.Make(name, rows.Field{Name: "nosuch", Text: "1"}), `no column "nosuch"`, "name")
	wrong("4", rows.Make(name, name), "column name comes twice")
	wrong("4", rows.Make(rows.Field{Name: "kind", Text: "k"}), "column name is NOT NULL, and takes text")
	wrong("4", rows.Make(name, rows.Field{Name: "id", Text: "5"}), "id is 5", "part of the key")
	wrong("4", "", "h")
	wrong("4", "h4:name", "byte 1")
	for _, key := range []rows.Key{"", "x", "04", "+4", "4.0", " 4", "99999999999999999999"} {
		wrong(key, rows.Make(name), "column id takes a whole number")
		if _, err := cache.Get(t.Context(), key); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	if _, err := cache.Get(t.Context(), "4"); !errors.Is(err, lockstep.ErrNotFound) {
		t.Errorf("what was refused is there: %v", err)
	}
	// Conditions, deletion, transactions.
	e, err := cache.GetEntry(t.Context(), "2")
	if err != nil {
		t.Fatal(err)
	}
	_, err = cache.Set(t.Context(), "2", rows.Make(name), lockstep.IfVersion(e.Version+1))
	if s.Versioned != errors.Is(err, lockstep.ErrConflict) || !s.Versioned && !errors.Is(err, lockstep.ErrUnsupported) {
		t.Errorf("a condition that does not hold: %v", err)
	}
	err = lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		in := cache.In(tx)
		row, err := in.Get(ctx, "2")
		if err != nil {
			return err
		}
		if err := in.Set(ctx, "20", rows.Make(name, rows.Field{Name: "kind", Text: fields(row)["kind"] + "!"})); err != nil {
			return err
		}
		return in.Delete(ctx, "2")
	})
	if err != nil {
		t.Fatal(err)
	}
	var scanned []string
	for e, err := range fresh().Scan(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		scanned = append(scanned, fmt.Sprint(e.Key, "=", fields(e.Value)["kind"]))
	}
	if got := strings.Join(scanned, " "); got != "1=k 3="+last+" 20=plain!" {
		t.Errorf("the rows are %s", got)
	}
	if existed, err := cache.Delete(t.Context(), "20"); err != nil || !existed {
		t.Errorf("%t, %v", existed, err)
	}
}
