package mysqlstore_test

import (
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// A commit on a mapped table whose request or reply is lost on the wire is settled
// truly, and what it tells of its rows is what is there.
func TestALostReplyOfATableIsSettled(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	type set = lockstep.ChangeSet[string, V]
	dsn := dbtest.MariaDB(t)
	proxy, via := dbtest.Via(t, dsn)
	for _, versioned := range []bool{true, false} {
		opts := mysqlstore.TableOptions{}
		table := "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT)"
		if versioned {
			opts.VersionColumn = "version"
			table = "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT, version BIGINT NOT NULL)"
		}
		direct := mapTable[string, V](t, dsn, opts, "DROP TABLE IF EXISTS t", table)
		s := mapTable[string, V](t, via, opts)
		for i, what := range []string{"sets", "sets", "deletions", "deletions", "all", "all"} {
			applied := i%2 == 0
			for _, k := range []string{"k", "gone", "new"} {
				store1(t, direct, k, V{"warm"})
			}
			if o := change1(t, s, lockstep.Change[string, V]{Key: "new", Delete: true}); o.Err != nil {
				t.Fatal(o.Err)
			}
			before := load1(t, direct, "k")
			var sets []set
			switch what {
			case "sets":
				sets = []set{
					{Changes: []lockstep.Change[string, V]{{Key: "k", Value: V{"marker"}}}},
					{Changes: []lockstep.Change[string, V]{{Key: "gone", Delete: true}, {Key: "new", Value: V{"made"}}}},
					{Checks: []lockstep.Check[string]{{Key: "k", Absent: true}}},
				}
			case "deletions":
				sets = []set{{Changes: []lockstep.Change[string, V]{{Key: "k", Delete: true}, {Key: "gone", Delete: true}, {Key: "new", Delete: true}}}}
			case "all":
				sets = []set{{DeleteAll: true}}
			}
			cut := proxy.CutRequest
			if applied {
				cut = proxy.CutReply
			}
			happened := cut(commitSent)
			_, err := s.Commit(t.Context(), sets)
			<-happened
			if !errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Fatalf("%s: %v", what, err)
			}
			settled, serr := s.Capabilities().Settle(t.Context(), err)
			if serr != nil || settled.Err != nil || settled.Applied != applied {
				t.Fatalf("%s: settled as %+v, %v; want applied=%t", what, settled, serr, applied)
			}
			after := load1(t, direct, "k")
			switch {
			case !applied:
				if after != before || !load1(t, direct, "gone").Exists || load1(t, direct, "new").Exists {
					t.Errorf("%s: the row is %+v, it was %+v", what, after, before)
				}
			case len(settled.Outcomes) != len(sets):
				t.Errorf("%s: the outcomes are %+v", what, settled.Outcomes)
			case what == "sets":
				if after.Value.Name != "marker" || load1(t, direct, "gone").Exists || settled.Outcomes[0].Rows[0] != after ||
					settled.Outcomes[1].Rows[1] != load1(t, direct, "new") || !errors.Is(settled.Outcomes[2].Err, lockstep.ErrConflict) {
					t.Errorf("%+v, and the outcomes are %+v", after, settled.Outcomes)
				}
			default:
				if after.Exists || load1(t, direct, "gone").Exists {
					t.Errorf("%s: the row is %+v", what, after)
				}
			}
		}
	}
}

// commitSent is the statement alone: a new session's, which the end of a broken one may
// need at any time, speaks of READ-COMMITTED.
const commitSent = "\x03COMMIT"

// Rows that others have changed since tell nothing.
func TestALostReplyOfATableIsOvertaken(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	dsn := dbtest.MariaDB(t)
	proxy, via := dbtest.Via(t, dsn)
	s := mapTable[string, V](t, via, mysqlstore.TableOptions{}, "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT)")
	store1(t, s, "k", V{"before"})
	happened := proxy.CutReply(commitSent)
	_, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{{Changes: []lockstep.Change[string, V]{{Key: "k", Value: V{"ours"}}}}})
	<-happened
	execute(t, connect(t, dsn), "UPDATE t SET name = 'theirs'")
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || settled.Err == nil || settled.Applied {
		t.Errorf("settled as %+v, %v", settled, serr)
	}
}

// A transaction across tables, one of which it writes twice and ends with what it began
// with.
func TestALostReplyOfATransactionOfTables(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	type set = lockstep.ChangeSet[string, V]
	for _, applied := range []bool{true, false} {
		proxy, via := dbtest.Via(t, dbtest.MariaDB(t))
		s := mapTable[string, V](t, via, mysqlstore.TableOptions{}, "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT)", "CREATE TABLE u LIKE t")
		second, err := mysqlstore.NewTableIn[string, V](t.Context(), s.Database(), "u", mysqlstore.TableOptions{})
		if err != nil {
			t.Fatal(err)
		}
		store1(t, s, "k", V{"before"})
		txn, err := s.Capabilities().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, in := range []*mysqlstore.Table[string, V]{s, second, s} {
			o, err := in.Capabilities().Apply(t.Context(), txn, set{Changes: []lockstep.Change[string, V]{{Key: "k", Value: V{[]string{"between", "made", "before"}[i]}}, {Key: "absent", Delete: true}}})
			if err != nil || o.Err != nil {
				t.Fatal(err, o.Err)
			}
		}
		cut := proxy.CutRequest
		if applied {
			cut = proxy.CutReply
		}
		happened := cut(commitSent)
		err = txn.Commit(t.Context())
		<-happened
		if !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Fatalf("Commit: %v, want ErrUnknownOutcome", err)
		}
		if got, err := txn.Settle(t.Context()); err != nil || got != applied {
			t.Errorf("settled as applied=%t (%v), want %t", got, err, applied)
		}
		if got := load1(t, second, "k").Exists; got != applied {
			t.Errorf("applied=%t, and the second table's row is there: %t", applied, got)
		}
	}
}

// A row that the server has rounded, or whose JSON it has given its own form, is known by
// what it has become.
func TestALostReplyOfARowThatTheServerChangesIsSettled(t *testing.T) {
	type V struct {
		Price string `db:"price"`
		Doc   string `db:"doc"`
	}
	proxy, via := dbtest.Via(t, dbtest.MariaDB(t))
	s := mapTable[string, V](t, via, mysqlstore.TableOptions{}, "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, price DECIMAL(6,2), doc JSON)")
	store1(t, s, "k", V{"1", "{}"})
	happened := proxy.CutReply(commitSent)
	_, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{{Changes: []lockstep.Change[string, V]{{Key: "k", Value: V{"1.235", `{"b":1,  "a":2}`}}}}})
	<-happened
	if !errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || settled.Err != nil || !settled.Applied || settled.Outcomes[0].Rows[0] != load1(t, s, "k") {
		t.Errorf("settled as %+v, %v, and the row is %+v", settled, serr, load1(t, s, "k"))
	}
}
