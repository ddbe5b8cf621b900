package server

import (
	"context"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// besieged is a store whose rows another server writes, for a time, whenever this one
// is about to write on a condition.
type besieged struct {
	lockstep.Store[string, Value]
	until time.Time
	lost  int
}

func (s *besieged) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, Value]) ([]lockstep.Outcome[Value], error) {
	if c := sets[0].Changes[0]; c.Expect.Kind != lockstep.ExpectAnything && time.Now().Before(s.until) {
		s.lost++
		theirs := lockstep.Change[string, Value]{Key: c.Key, Value: NewString(strconv.Itoa(s.lost))}
		if _, err := s.Store.Commit(ctx, []lockstep.ChangeSet[string, Value]{{Changes: []lockstep.Change[string, Value]{theirs}}}); err != nil {
			return nil, err
		}
	}
	return s.Store.Commit(ctx, sets)
}

// Another server that writes a key without a pause has the row in memory, and was always
// faster: a command that reads the row first lost a hundred times in no time, and was refused.
func TestACommandThatLosesItsRacesOutlastsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &besieged{Store: memstore.New(memstore.Options[string, Value]{}), until: time.Now().Add(time.Second)}
		s, err := New(Options{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Shutdown(context.Background())
		theirs, ours := net.Pipe()
		defer theirs.Close()
		s.accept(ours)
		p := &peer{theirs, t, resp.NewDecoder(theirs, resp.DecodeLimits{})}
		p.send("INCR n\r\n")
		v, err := p.replies.Decode()
		if n, ok := v.Int(); err != nil || !ok || n != int64(store.lost)+1 {
			t.Errorf("%v, %v, after %d races", v, err, store.lost)
		}
		if store.lost < 3 {
			t.Errorf("it has lost %d races", store.lost)
		}
	})
}
