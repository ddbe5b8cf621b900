package pgstore_test

import (
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// A set that was left out of a batch, because somebody holds its row or its key
// cannot be stored, was not committed with the others when their reply is lost.
func TestASetThatWasLeftOutIsNotSettledAsCommitted(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	long := put(string(make([]byte, 4000)), "v")
	for _, batch := range []struct {
		name   string
		others []changeSet
	}{
		{"Sets", []changeSet{set(put("k", "marker"))}},
		{"Deletions", []changeSet{set(put("k", "marker")), set(erase("gone"))}},
	} {
		t.Run(batch.name, func(t *testing.T) {
			write(t, s, put("held", "old"))
			write(t, s, put("k", "warm"))
			write(t, s, put("gone", "there"))
			somebody := connect(t, url)
			run(t, somebody, "BEGIN")
			run(t, somebody, "SELECT FROM rows WHERE key = 'held' FOR UPDATE")
			// The first attempt waits for the row in vain.
			_, release := proxy.HoldReply("marker")
			release()
			happened := proxy.CutReply("marker")
			_, err := s.Commit(t.Context(), append([]changeSet{set(put("held", "new")), set(long)}, batch.others...))
			<-happened
			wantError(t, err, lockstep.ErrUnknownOutcome)
			run(t, somebody, "ROLLBACK")
			settled, serr := s.Capabilities().Settle(t.Context(), err)
			if serr != nil || !settled.Applied || settled.Err != nil {
				t.Fatalf("settled as %+v, %v", settled, serr)
			}
			wantRow(t, direct, "held", "old")
			wantRow(t, direct, "k", "marker")
			if len(settled.Outcomes) != 2+len(batch.others) {
				t.Fatalf("nothing says that two sets were left out: %+v", settled)
			}
			for i, o := range settled.Outcomes {
				if (o.Err != nil) != (i < 2) || o.Blocked != (i == 0) {
					t.Errorf("set %d is settled as %+v", i, o)
				}
			}
		})
	}
}
