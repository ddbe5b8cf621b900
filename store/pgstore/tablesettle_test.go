package pgstore_test

import (
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// A commit on a mapped table whose request or reply is lost on the wire is settled
// truly, and what it tells of its rows is what is there.
func TestALostReplyOfATableIsSettled(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	type set = lockstep.ChangeSet[string, V]
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	for _, versioned := range []bool{true, false} {
		opts := pgstore.TableOptions{}
		table := "CREATE TABLE t (id text PRIMARY KEY, name text)"
		if versioned {
			opts.VersionColumn = "version"
			table = "CREATE TABLE t (id text PRIMARY KEY, name text, version bigint NOT NULL)"
		}
		run(t, connect(t, url), "DROP TABLE IF EXISTS t")
		direct := mapTable[string, V](t, url, opts, table)
		s := mapTable[string, V](t, via, opts)
		// A check of a row that the batch has written makes it be written before COMMIT
		// is sent; else they travel together.
		for i, checked := range []string{"k", "k", "never", "never"} {
			applied, marker := i%2 == 0, "COMMIT\x00"
			if checked == "never" {
				marker = "marker"
			}
			// The statements are prepared, so that the first to meet the rule is the one.
			store1(t, s, "new", V{"warm"})
			store1(t, s, "k", V{"warm"})
			for _, k := range []string{"gone", "new"} {
				store1(t, s, k, V{"warm"})
				if o := change1(t, s, lockstep.Change[string, V]{Key: k, Delete: true}); o.Err != nil {
					t.Fatal(o.Err)
				}
			}
			store1(t, s, "gone", V{"there"})
			before := load1(t, direct, "k")
			cut := proxy.CutRequest
			if applied {
				cut = proxy.CutReply
			}
			happened := cut(marker)
			_, err := s.Commit(t.Context(), []set{
				{Changes: []lockstep.Change[string, V]{{Key: "k", Value: V{"marker"}}}},
				{Changes: []lockstep.Change[string, V]{{Key: "gone", Delete: true}, {Key: "new", Value: V{"made"}}}},
				{Checks: []lockstep.Check[string]{{Key: checked, Absent: checked == "k", Value: V{}, Version: 1}}},
			})
			<-happened
			wantError(t, err, lockstep.ErrUnknownOutcome)
			settled, serr := s.Capabilities().Settle(t.Context(), err)
			if serr != nil || settled.Err != nil || settled.Applied != applied {
				t.Fatalf("settled as %+v, %v; want applied=%t", settled, serr, applied)
			}
			if !applied {
				if r := load1(t, direct, "k"); r != before {
					t.Errorf("the row is %+v, it was %+v", r, before)
				}
				continue
			}
			if r := load1(t, direct, "k"); r.Value.Name != "marker" {
				t.Errorf("the row is %+v", r)
			}
			if load1(t, direct, "gone").Exists || !load1(t, direct, "new").Exists {
				t.Error("the other set was not applied")
			}
			if len(settled.Outcomes) != 3 || settled.Outcomes[0].Err != nil || settled.Outcomes[1].Err != nil || !errors.Is(settled.Outcomes[2].Err, lockstep.ErrConflict) {
				t.Errorf("the outcomes are %+v", settled.Outcomes)
			}
			for i, o := range settled.Outcomes {
				for _, r := range o.Rows {
					if i == 0 && r != load1(t, direct, "k") {
						t.Errorf("set %d tells of %+v", i, r)
					}
				}
			}
		}
	}
}

// After a crash the server no longer says what became of a transaction, and the rows
// do.
func TestACrashInTheCommitOfATableIsSettled(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	type set = lockstep.ChangeSet[string, V]
	server := dbtest.StartPostgres(t)
	proxy, via := dbtest.Via(t, server.URL())
	s := mapTable[string, V](t, via, pgstore.TableOptions{}, "CREATE TABLE t (id text PRIMARY KEY, name text)")
	store1(t, s, "k", V{"old"})
	store1(t, s, "gone", V{"old"})
	happened, release := proxy.HoldReply("marker")
	failed := make(chan error, 1)
	go func() {
		_, err := s.Commit(t.Context(), []set{{Changes: []lockstep.Change[string, V]{{Key: "k", Value: V{"marker"}}, {Key: "gone", Delete: true}}}})
		failed <- err
	}()
	<-happened
	server.Kill()
	proxy.CutAll()
	release()
	err := <-failed
	wantError(t, err, lockstep.ErrUnknownOutcome)
	server.Start()
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || !settled.Applied || settled.Err != nil {
		t.Fatalf("settled as %+v, %v", settled, serr)
	}
	if load1(t, s, "k").Value.Name != "marker" || load1(t, s, "gone").Exists {
		t.Error("it was not applied")
	}
}
