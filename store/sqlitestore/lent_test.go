package sqlitestore

import (
	"testing"
)

// A temporary table of the caller's own SQL has the first claim to a bare name.
func TestWritesDoNotGoToATemporaryTableOfTheSameName(t *testing.T) {
	kv, table := both(t)
	put(t, kv, "k", "old")
	put(t, table, "k", justName{"old"})
	x, tx := begin(t, kv.db)
	for _, q := range []string{
		"CREATE TEMP TABLE lockstep AS SELECT * FROM main.lockstep",
		"CREATE UNIQUE INDEX temp.u ON lockstep (key)",
		"CREATE TEMP TABLE t (id TEXT PRIMARY KEY, name TEXT NOT NULL)",
		"CREATE TEMP TABLE lockstep_tables (name TEXT)",
	} {
		if _, err := tx.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, kv, x, "k", "new")
	apply(t, table, x, "k", justName{"new"})
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, w := get(t, kv, "k").Value, get(t, table, "k").Value.Name; v != "new" || w != "new" {
		t.Errorf("what was committed to a temporary table reads as %q and %q", v, w)
	}
	put(t, kv, "k", "newer")
	if v := get(t, kv, "k").Value; v != "newer" {
		t.Errorf("a write that said nil reads as %q", v)
	}
}
