package pgstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// proposing writes a row until the store proposes its versions.
func proposing(t testing.TB, s *store, key string) {
	t.Helper()
	for i := range 20 {
		write(t, s, put(key, fmt.Sprint("warm", i)))
	}
	if !pgstore.Proposes(s) {
		t.Fatal("the store does not propose")
	}
}

// TestALostProposalIsSettled: in each of the ways in which the reply to a proposal can be
// lost, and with what others make of its row before it is settled.
func TestALostProposalIsSettled(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	for _, c := range []struct {
		name    string
		applied bool
		then    string
		told    bool
	}{
		{"RequestLost", false, "", true},
		{"ReplyLost", true, "", true},
		{"ReplyLost, and the row is edited by hand", true, `UPDATE rows SET value = '"theirs"' WHERE key = 'k'`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			proposing(t, s, "k")
			cut := proxy.CutRequest
			if c.applied {
				cut = proxy.CutReply
			}
			happened := cut("marker")
			_, err := s.Commit(t.Context(), []changeSet{set(put("k", "marker"))})
			<-happened
			wantError(t, err, lockstep.ErrUnknownOutcome)
			if c.then != "" {
				execute(t, url, c.then)
			}
			settled, serr := s.Capabilities().Settle(t.Context(), err)
			switch {
			case serr != nil:
				t.Fatal(serr)
			case !c.told:
				if settled.Err == nil {
					t.Errorf("settled as %+v, want that it cannot be told", settled)
				}
			case settled.Err != nil || settled.Applied != c.applied:
				t.Errorf("settled as %+v, want applied=%t", settled, c.applied)
			case c.applied && settled.Outcomes[0].Rows[0].Version != get(t, direct, "k").Version:
				t.Errorf("settled as %+v, the row is %+v", settled.Outcomes, get(t, direct, "k"))
			}
		})
	}
}

// TestAProposalThatIsLateDoesNotHideADeletion: what it goes by of the server's clock may be
// seconds old. A row that it would bring back would have a lower version than others
// know the server's clock to have had before it was deleted.
func TestAProposalThatIsLateDoesNotHideADeletion(t *testing.T) {
	url := dbtest.Postgres(t)
	proxy, via := dbtest.Via(t, url)
	s, direct := openStore(t, via), openStore(t, url)
	proposing(t, direct, "gone")
	write(t, direct, erase("gone"))
	execute(t, url, `UPDATE rows SET version = 1 WHERE key = 'gone'`) // deleted long ago
	write(t, s, put("marker", "there"))

	happened := proxy.CutReply("marker")
	_, err := s.Commit(t.Context(), []changeSet{set(erase("marker"), erase("gone"))})
	<-happened
	wantError(t, err, lockstep.ErrUnknownOutcome)
	pgstore.Lag(direct, 10*time.Second)
	write(t, direct, put("gone", "again"))
	wantAbsent(t, direct, "marker")
	settled, serr := s.Capabilities().Settle(t.Context(), err)
	if serr != nil || !settled.Applied && settled.Err == nil {
		t.Errorf("a deletion that was applied is settled as %+v, %v", settled, serr)
	}
}
