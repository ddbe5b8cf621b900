package pgstore_test

import (
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// An insertion took its version from a clock that it had read a round trip before. A
// row that another program had inserted and deleted meanwhile left no trace but its
// version, and that was higher.
func TestAnInsertionIsAboveADeletionThatCameBetween(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	opts := pgstore.TableOptions{VersionColumn: "version"}
	other := mapTable[string, V](t, url, opts, "CREATE TABLE t (id text PRIMARY KEY, name text, version bigint NOT NULL)")
	s := mapTable[string, V](t, via, opts)
	store1(t, s, "warm", V{"warm"})

	held, release := proxy.HoldReply("fresh")
	committed := make(chan lockstep.Outcome[V])
	go func() {
		out, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{{Changes: []lockstep.Change[string, V]{{Key: "fresh", Value: V{"ours"}}}}})
		if err != nil {
			t.Error(err)
		}
		committed <- append(out, lockstep.Outcome[V]{})[0]
	}()
	<-held
	store1(t, other, "fresh", V{"theirs"})
	deleted := change1(t, other, lockstep.Change[string, V]{Key: "fresh", Delete: true})
	if deleted.Err != nil {
		t.Fatal(deleted.Err)
	}
	release()
	ours := <-committed
	if ours.Err != nil || len(ours.Rows) != 1 || ours.Rows[0].Version <= deleted.Rows[0].Version {
		t.Errorf("the insertion is %+v, and the deletion before it was %+v", ours, deleted.Rows)
	}
	if r := load1(t, other, "fresh"); len(ours.Rows) == 1 && r.Version != ours.Rows[0].Version {
		t.Errorf("the row is %+v, and the outcome said %+v", r, ours.Rows[0])
	}
}
