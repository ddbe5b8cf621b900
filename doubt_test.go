package lockstep_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Writes whose outcome nobody knows, and who may pass them.

var errLost = fmt.Errorf("the connection was lost: %w", lockstep.ErrUnknownOutcome)

// tardy is a store whose first commit is lost on its way, and gets there when the
// test calls arrive.
type tardy struct {
	altered
	lost atomic.Pointer[[]changeSet]
}

// newTardy returns such a store; settle is its Settle, and may be nil.
func newTardy(table store, settle func(context.Context, error) (settlement, error)) *tardy {
	l := &tardy{}
	l.altered = altered{store: table,
		can: func(c *capability) { c.Settle = settle },
		commit: func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			kept := make([]changeSet, len(sets))
			for i, set := range sets {
				kept[i].Changes = slices.Clone(set.Changes)
			}
			if l.lost.CompareAndSwap(nil, &kept) {
				return nil, errLost
			}
			return table.Commit(ctx, sets)
		},
	}
	return l
}

func (l *tardy) arrive(s *scene) {
	s.Helper()
	if _, err := l.store.Commit(context.Background(), *l.lost.Load()); err != nil {
		s.Fatal(err)
	}
}

// A settlement that fails, and says of what, is not one.
func TestASettlementThatFailedIsTakenForAnAnswer(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		var gone atomic.Bool
		late := newTardy(s.table, func(_ context.Context, err error) (settlement, error) {
			if !gone.Load() {
				return settlement{}, fmt.Errorf("settling %w: the session is not gone yet", err)
			}
			return settlement{Applied: true}, nil
		})
		c := openOver(s, late)
		s.behind("k", 1)
		w := s.unknown(second(c.Set(s.ctx, "k", 2)))
		time.Sleep(time.Hour)
		if _, err := c.Get(s.ctx, "k"); err != nil {
			t.Fatal(err)
		}
		late.arrive(s)
		gone.Store(true)
		s.settles(w, true)
		if got, err := c.Get(s.ctx, "k"); got != 2 {
			t.Errorf("memory says %d, %v, and the table 2", got, err)
		}
	})
}

func TestACommitTimeoutOfForeverIsOverAtOnce(t *testing.T) {
	inBubble(t, options{CommitTimeout: math.MaxInt64}, func(s *scene) {
		s.script("commit *: latency 2ms")
		s.write("k", 1)
	})
}

func TestCloseSendsAWriteThatWaitsForADoubtNobodyHasFenced(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		late := newTardy(s.table, nil)
		c := openOver(s, late)
		s.unknown(second(c.Set(s.ctx, "k", 1)))
		next := s.start(func() error { return second(c.Set(s.ctx, "k", 2)) })
		both := s.start(func() error { return c.SetMany(s.ctx, map[string]int{"k": 3, "l": 3}) })
		next.hangs()
		if err := c.Close(s.ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		s.notApplied(next.returned(), lockstep.ErrClosed)
		s.notApplied(both.returned(), lockstep.ErrClosed)
		s.notStored("k", "l")
		late.arrive(s)
	})
}
