package sqlitestore

import (
	"context"
	"testing"

	"github.com/lockstep-cache/lockstep"
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

// What the caller's SQL does to the connection ends with its transaction.
func TestTheNextCommitDoesNotMeetTheCallersPragmas(t *testing.T) {
	kv, _ := both(t)
	other := newPath(t)
	pragmas := []string{"query_only", "foreign_keys", "locking_mode", "busy_timeout", "ignore_check_constraints", "recursive_triggers",
		"max_page_count", "fullfsync", "journal_size_limit", "cache_spill", "reverse_unordered_selects", "synchronous", "wal_autocheckpoint"}
	read := func() map[string]any {
		w, err := kv.db.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer kv.db.release(w, true)
		values := map[string]any{}
		for _, p := range pragmas {
			if values[p], err = w.value("PRAGMA " + p); err != nil {
				t.Fatal(err)
			}
		}
		return values
	}
	before := read()
	for _, commit := range []bool{true, false, true} {
		x, tx := begin(t, kv.db)
		apply(t, kv, x, "k", "v")
		if _, err := tx.Exec("ATTACH '" + other + "' AS other"); err != nil {
			t.Errorf("what the transaction before it has attached: %v", err)
		}
		for _, q := range []string{"busy_timeout=60000", "ignore_check_constraints=1", "recursive_triggers=1", "max_page_count=60", "fullfsync=0",
			"journal_size_limit=-1", "cache_spill=0", "reverse_unordered_selects=1", "wal_autocheckpoint=1", "locking_mode=EXCLUSIVE", "query_only=1"} {
			if _, err := tx.Exec("PRAGMA " + q); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
		end := x.Rollback
		if commit {
			end = x.Commit
		}
		if err := end(t.Context()); err != nil {
			t.Fatal(err)
		}
		for p, v := range read() {
			if v != before[p] {
				t.Errorf("PRAGMA %s was %v and is %v", p, before[p], v)
			}
		}
		put(t, kv, "k", "the next")
	}
}

// Whatever slips past the check of the caller's SQL: a transaction that is gone
// when it shall be committed may have been.
func TestATransactionThatTheCallersSQLHasEndedIsUnknown(t *testing.T) {
	for end, want := range map[string]bool{"COMMIT": true, "ROLLBACK": false} {
		kv, _ := both(t)
		put(t, kv, "k", "old")
		x, _ := begin(t, kv.db)
		apply(t, kv, x, "k", "new")
		if err := x.(*txn).a.conn.script(end); err != nil {
			t.Fatal(err)
		}
		wantError(t, x.Commit(t.Context()), lockstep.ErrUnknownOutcome)
		applied, err := x.Settle(t.Context())
		if got := get(t, kv, "k").Value == "new"; err != nil || applied != want || got != want {
			t.Errorf("%s: settled as %t, %v; the row is there: %t", end, applied, err, got)
		}
	}
}

func TestTheCallersSQLEndsWithACommitThatWasGivenUp(t *testing.T) {
	kv, _ := both(t)
	x, tx := begin(t, kv.db)
	st, err := tx.Prepare("INSERT INTO log VALUES ('late')")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.Commit(ctx); err == nil {
		t.Fatal("a commit whose context had ended before it")
	}
	if _, err := st.Exec(); err == nil {
		t.Error("the statement goes on")
	}
	put(t, kv, "after", "the lock is free")
	if n := countIn(t, kv.db, "SELECT count(*) FROM log"); n != 0 {
		t.Errorf("%d lines", n)
	}
}
