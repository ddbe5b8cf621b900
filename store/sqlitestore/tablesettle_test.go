package sqlitestore

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// lostCommit is the COMMIT of a connection that breaks on the way to the
// database, or on the way back from it.
type lostCommit struct {
	driver.Stmt
	arrives bool
}

func (s lostCommit) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if s.arrives {
		if _, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the connection broke")
}

// loseCommit has the next COMMIT answered with an error that says nothing. It is
// the last of its connection, as after any such error.
func loseCommit(t *testing.T, db *Database, arrives bool) {
	t.Helper()
	w, err := db.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer db.release(w, true)
	commit, err := w.prepare("COMMIT")
	if err != nil {
		t.Fatal(err)
	}
	w.stmts["COMMIT"] = lostCommit{commit, arrives}
}

// whatSettled says in a word what Settle has answered.
func whatSettled[V any](s lockstep.Settlement[V], err error) string {
	switch {
	case err != nil:
		return err.Error()
	case s.Err != nil:
		return "untold"
	case s.Applied:
		return "applied"
	}
	return "not applied"
}

// What a batch on a mapped table has done is told by its rows, whoever has changed
// some of them since.
func TestAMappedTableTellsWhatALostCommitDid(t *testing.T) {
	type sets = []lockstep.ChangeSet[string, justName]
	set := func(k, name string) lockstep.ChangeSet[string, justName] {
		return lockstep.ChangeSet[string, justName]{Changes: []lockstep.Change[string, justName]{{Key: k, Value: justName{name}}}}
	}
	erase := func(k string) lockstep.ChangeSet[string, justName] {
		return lockstep.ChangeSet[string, justName]{Changes: []lockstep.Change[string, justName]{{Key: k, Delete: true}}}
	}
	// Another program raises the version with every change; a row that it has not
	// changed since has a lower one.
	const later = "UPDATE t SET name = 'other', version = version + 10000000000 WHERE id = "
	for _, c := range []struct {
		name  string
		sets  sets
		since string // what another program has done, before it is settled
		// What Settle says of a commit that was lost on its way to the database, and
		// on its way back.
		request, reply string
	}{
		{"ARowIsReplaced", sets{set("a", "new")}, "", "not applied", "applied"},
		{"ARowIsNew", sets{set("c", "new")}, "", "not applied", "applied"},
		{"ARowIsDeleted", sets{erase("a")}, "", "not applied", "applied"},
		{"SeveralSets", sets{set("a", "new"), erase("b"), set("c", "new")}, "", "not applied", "applied"},
		{"OneRowTwice", sets{set("a", "between"), set("a", "new")}, "", "not applied", "applied"},
		{"ARowThatComesAndGoes", sets{set("c", "new"), erase("c"), set("a", "new")}, "", "not applied", "applied"},
		{"NothingIsChanged", sets{erase("c")}, "", "applied", "applied"},
		{"EveryRowIsDeleted", sets{{DeleteAll: true}}, "", "not applied", "applied"},
		{"EveryRowIsDeletedAfterASet", sets{set("c", "new"), {DeleteAll: true}}, "", "not applied", "applied"},
		{"EveryRowIsDeletedBeforeASet", sets{{DeleteAll: true}, set("a", "new")}, "", "not applied", "applied"},
		{"TheOnlyRowIsAnothersNow", sets{set("a", "new")}, later + "'a'", "untold", "untold"},
		{"EveryRowIsAnothersNow", sets{set("a", "new"), erase("b")}, later + "'a'; INSERT OR REPLACE INTO t VALUES ('b', 'other', 9000000000000000)", "untold", "untold"},
		{"TheFirstRowIsAnothersNow", sets{set("a", "new"), set("b", "new")}, later + "'a'", "not applied", "applied"},
		{"TheLastRowIsAnothersNow", sets{set("a", "new"), set("b", "new")}, later + "'b'", "not applied", "applied"},
		{"ARowIsOlderThanTheCommit", sets{set("c", "new")}, "INSERT OR REPLACE INTO t VALUES ('c', 'other', 1)", "not applied", ""},
	} {
		for _, versions := range []bool{true, false} {
			for arrives, want := range map[bool]string{false: c.request, true: c.reply} {
				if want == "" || !versions && c.name == "ARowIsOlderThanTheCommit" {
					continue
				}
				name := map[bool]string{true: "WithVersions/", false: "WithoutVersions/"}[versions] + c.name +
					map[bool]string{true: "/LostReply", false: "/LostRequest"}[arrives]
				t.Run(name, func(t *testing.T) {
					opts := TableOptions{}
					if versions {
						opts.VersionColumn = "version"
					}
					tab := openTable[string, justName](t, opts, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, version INTEGER NOT NULL DEFAULT 0)")
					put(t, tab, "a", justName{"old"})
					put(t, tab, "b", justName{"old"})
					loseCommit(t, tab.db, arrives)
					outcomes, unknown := tab.Commit(t.Context(), c.sets)
					wantError(t, unknown, lockstep.ErrUnknownOutcome)
					if c.since != "" {
						run(t, tab.db.path, c.since)
					}
					settled, err := tab.Capabilities().Settle(t.Context(), unknown)
					if got := whatSettled(settled, err); got != want {
						t.Errorf("%v: settled as %s, want %s", outcomes, got, want)
					}
					if settled.Applied && len(settled.Outcomes) != len(c.sets) {
						t.Errorf("the settlement of %d sets has %d outcomes", len(c.sets), len(settled.Outcomes))
					}
					put(t, tab, "after", justName{"the table goes on"})
				})
			}
		}
	}
}

// Of a transaction the first set that can tell tells for all.
func TestATransactionTellsWhatItsLostCommitDid(t *testing.T) {
	const (
		first  = `UPDATE lockstep SET value = '"other"', version = version + 10000000000`
		second = "UPDATE t SET name = 'other' WHERE id = 'b'"
	)
	for _, c := range []struct {
		name           string
		since          []string
		request, reply string
	}{
		{"NobodyElseWrites", nil, "not applied", "applied"},
		{"TheFirstSetCannotTell", []string{first}, "not applied", "applied"},
		{"TheSecondSetCannotTell", []string{second}, "not applied", "applied"},
		{"NoSetCanTell", []string{first, second}, "untold", "untold"},
	} {
		for arrives, want := range map[bool]string{false: c.request, true: c.reply} {
			t.Run(c.name+map[bool]string{true: "/LostReply", false: "/LostRequest"}[arrives], func(t *testing.T) {
				kv, table := both(t)
				put(t, kv, "a", "old")
				put(t, table, "b", justName{"old"})
				loseCommit(t, kv.db, arrives)
				x, err := kv.db.begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				apply(t, kv, x, "a", "new")
				apply(t, table, x, "b", justName{"new"})
				wantError(t, x.Commit(t.Context()), lockstep.ErrUnknownOutcome)
				run(t, kv.db.path, c.since...)
				settled := lockstep.Settlement[string]{}
				settled.Applied, err = x.Settle(t.Context())
				if errors.Is(err, lockstep.ErrUnknownOutcome) {
					settled.Err, err = err, nil
				}
				if got := whatSettled(settled, err); got != want {
					t.Errorf("settled as %s, want %s", got, want)
				}
				put(t, kv, "after", "the database goes on")
			})
		}
	}
}

// A row that one set of a transaction changes and another changes back says
// nothing of either.
func TestATransactionIsToldByWhatItsSetsComeTo(t *testing.T) {
	for _, arrives := range []bool{false, true} {
		kv, table := both(t)
		put(t, table, "a", justName{"old"})
		put(t, table, "b", justName{"old"})
		loseCommit(t, kv.db, arrives)
		x, err := kv.db.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		apply(t, table, x, "a", justName{"new"})
		apply(t, table, x, "a", justName{"old"})
		apply(t, table, x, "b", justName{"new"})
		wantError(t, x.Commit(t.Context()), lockstep.ErrUnknownOutcome)
		if applied, err := x.Settle(t.Context()); applied != arrives || err != nil {
			t.Errorf("arrived=%t: settled as %t, %v", arrives, applied, err)
		}
	}
}
