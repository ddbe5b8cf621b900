package mysqlstore_test

import (
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// A lost commit is settled from what its rows show, and they may show what others have
// made of them since.
func TestWhatOthersDidSinceDoesNotTellOfALostCommit(t *testing.T) {
	type V struct {
		Name    string `db:"name"`
		Touched int    `db:"touched,readonly"`
	}
	type change = lockstep.Change[string, V]
	const (
		untold = iota
		applied
		refused
	)
	for _, x := range []struct {
		name      string
		versioned bool
		trigger   string
		lost      bool // the request, and not the reply
		sets      [][]change
		others    []string
		want      int
	}{
		{
			// The row of the first set is as that set would have it, and was before.
			name: "a set that writes what was there", lost: true,
			sets:   [][]change{{{Key: "k", Value: V{Name: "before"}}}, {{Key: "j", Value: V{Name: "ours"}}}},
			others: []string{"UPDATE t SET touched = 1 WHERE id = 'k'", "UPDATE t SET name = 'theirs' WHERE id = 'j'"},
		},
		{
			name: "a deletion by others", lost: true,
			sets:   [][]change{{{Key: "k", Delete: true}}, {{Key: "j", Value: V{Name: "ours"}}}},
			others: []string{"DELETE FROM t WHERE id = 'k'", "UPDATE t SET name = 'theirs' WHERE id = 'j'"},
		},
		{
			name: "a deletion by others, of a table with versions", versioned: true, lost: true,
			sets:   [][]change{{{Key: "k", Delete: true}, {Key: "j", Delete: true}}},
			others: []string{"DELETE FROM t WHERE id = 'k'", "UPDATE t SET name = 'theirs', version = version + 1000000000 WHERE id = 'j'"},
		},
		{
			name: "a deletion, and a row that is as it was written",
			sets: [][]change{{{Key: "k", Delete: true}, {Key: "j", Value: V{Name: "before"}}}}, want: applied,
		},
		{
			name: "a version that a trigger counts", versioned: true, lost: true,
			trigger: "CREATE TRIGGER counts BEFORE UPDATE ON t FOR EACH ROW SET NEW.version = OLD.version + 1",
			sets:    [][]change{{{Key: "k", Value: V{Name: "ours"}}}},
			others:  []string{"UPDATE t SET name = 'theirs' WHERE id = 'k'"},
		},
		{
			name: "a row that came again without a version", versioned: true,
			sets:   [][]change{{{Key: "k", Value: V{Name: "ours"}}}},
			others: []string{"DELETE FROM t WHERE id = 'k'", "INSERT INTO t (id, name) VALUES ('k', 'theirs')"},
		},
		{
			name: "a row that came without a version", versioned: true,
			sets:   [][]change{{{Key: "new", Value: V{Name: "ours"}}}},
			others: []string{"DELETE FROM t WHERE id = 'new'", "INSERT INTO t (id, name) VALUES ('new', 'theirs')"},
		},
		{
			name: "a lower version than ours would have been", versioned: true, lost: true,
			sets:   [][]change{{{Key: "k", Value: V{Name: "ours"}}}},
			others: []string{"UPDATE t SET name = 'theirs', version = version + 1 WHERE id = 'k'"}, want: refused,
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			dsn := dbtest.MariaDB(t)
			proxy, via := dbtest.Via(t, dsn)
			opts, pool := mysqlstore.TableOptions{}, connect(t, dsn)
			if x.versioned {
				opts.VersionColumn = "version"
			}
			s := mapTable[string, V](t, via, opts, "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT, touched INT NOT NULL DEFAULT 0, version BIGINT NOT NULL DEFAULT 0)")
			for _, k := range []string{"k", "j"} {
				store1(t, s, k, V{Name: "before"})
			}
			if x.trigger != "" {
				execute(t, pool, x.trigger)
			}
			var sets []lockstep.ChangeSet[string, V]
			for _, changes := range x.sets {
				sets = append(sets, lockstep.ChangeSet[string, V]{Changes: changes})
			}
			cut := proxy.CutReply
			if x.lost {
				cut = proxy.CutRequest
			}
			happened := cut(commitSent)
			_, err := s.Commit(t.Context(), sets)
			<-happened
			if !errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Fatalf("Commit: %v, want ErrUnknownOutcome", err)
			}
			for _, query := range x.others {
				execute(t, pool, query)
			}
			settled, err := s.Capabilities().Settle(t.Context(), err)
			if err != nil || (settled.Err != nil) != (x.want == untold) || settled.Applied != (x.want == applied) {
				t.Errorf("settled as %+v, %v", settled, err)
			}
		})
	}
}

// A row that others have deleted since does not tell for the other tables of a
// transaction, whose rows show that it was not committed, or were changed since.
func TestADeletionByOthersDoesNotTellForOtherTables(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	dsn := dbtest.MariaDB(t)
	proxy, via := dbtest.Via(t, dsn)
	pool := connect(t, dsn)
	s := mapTable[string, V](t, via, mysqlstore.TableOptions{}, "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT)", "CREATE TABLE u LIKE t")
	second, err := mysqlstore.NewTableIn[string, V](t.Context(), s.Database(), "u", mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name, others  string
		lost          bool // the request, and not the reply
		applied, told bool
	}{
		{"as it was", "", true, false, true},
		{"changed since", "UPDATE u SET name = 'theirs'", true, false, false},
		{"as it was written", "", false, true, true},
	} {
		for _, in := range []*mysqlstore.Table[string, V]{s, second} {
			store1(t, in, "k", V{"before"})
		}
		txn, err := s.Capabilities().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		type step struct {
			in     *mysqlstore.Table[string, V]
			change lockstep.Change[string, V]
		}
		for _, st := range []step{{s, lockstep.Change[string, V]{Key: "k", Delete: true}}, {second, lockstep.Change[string, V]{Key: "k", Value: V{"ours"}}}} {
			o, err := st.in.Capabilities().Apply(t.Context(), txn, lockstep.ChangeSet[string, V]{Changes: []lockstep.Change[string, V]{st.change}})
			if err != nil || o.Err != nil {
				t.Fatal(err, o.Err)
			}
		}
		cut := proxy.CutReply
		if x.lost {
			cut = proxy.CutRequest
		}
		happened := cut(commitSent)
		err = txn.Commit(t.Context())
		<-happened
		if !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Fatalf("Commit: %v, want ErrUnknownOutcome", err)
		}
		execute(t, pool, "DELETE FROM t")
		if x.others != "" {
			execute(t, pool, x.others)
		}
		if applied, err := txn.Settle(t.Context()); applied != x.applied || (err == nil) != x.told {
			t.Errorf("%s: settled as applied=%t, %v", x.name, applied, err)
		}
	}
}
