package sqlitestore

import (
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// Indexes and tables share their names, and SQLite folds the case of both.
func TestATableMayBeNamedLikeAnotherOnesIndex(t *testing.T) {
	db := openAt(t, newPath(t))
	for _, table := range []string{"a", "a_tombstones", "a_mortals", "a:tombstones"} {
		s, err := OpenIn[string, string](t.Context(), db, Options{Table: table})
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "k", table)
		if r := get(t, s, "k"); r.Value != table {
			t.Errorf("%s holds %q", table, r.Value)
		}
	}
	_, err := OpenIn[string, string](t.Context(), db, Options{Table: "Lockstep:a:tombstones"})
	wantError(t, err, lockstep.ErrInvalid, "reserved")
}

func TestATableIsFoundByItsNameInOtherLetters(t *testing.T) {
	db := openAt(t, newPath(t))
	s, err := OpenIn[string, string](t.Context(), db, Options{Table: "Users"})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", "v")
	again, err := OpenIn[string, string](t.Context(), db, Options{Table: "uSERS"})
	if err != nil {
		t.Fatal(err)
	}
	if r := get(t, again, "k"); r.Value != "v" {
		t.Errorf("%+v", r)
	}
	// Dropped by hand, it is made again, and stays one in the list.
	run(t, db.path, "DROP TABLE users")
	if _, err := OpenIn[string, string](t.Context(), db, Options{Table: "uSERS"}); err != nil {
		t.Fatal(err)
	}
	if n := countIn(t, db, "SELECT count(*) FROM lockstep_tables"); n != 1 {
		t.Errorf("the list has %d tables", n)
	}
}

// Mapped, its tombstones would be rows, and its deletions would leave none.
func TestAKeyValueTableIsNotMapped(t *testing.T) {
	type V struct {
		Value *string `db:"value"`
	}
	s := openStore[string, string](t, newPath(t), Options{Table: "Ours"})
	for _, opts := range []TableOptions{{}, {ReadOnly: true}} {
		_, err := NewTable[string, V](t.Context(), s.db, "oURS", opts)
		wantError(t, err, lockstep.ErrInvalid, "Ours", "key-value table", "OpenIn")
	}
}

func TestAListOfTablesThatIsNotOursIsNamed(t *testing.T) {
	path := newPath(t)
	run(t, path, "CREATE TABLE Lockstep_Tables (name TEXT, layout TEXT)", "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT)")
	db := openAt(t, path)
	_, err := OpenIn[string, string](t.Context(), db, Options{})
	wantError(t, err, lockstep.ErrInvalid, "table lockstep_tables already")
	if _, err := NewTable[string, justName](t.Context(), db, "t", TableOptions{}); err != nil {
		t.Errorf("mapping needs no list: %v", err)
	}
}
