package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestStatsOfAWriteThatStaysUnknown(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("commit 1: lose reply, forget outcome")
		w := s.unknown(second(s.Set(s.ctx, "k", 1)))
		if _, _, err := w.Wait(s.ctx); !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		if n := s.Stats(); n.Unknown != 1 || n.Settled != 0 || n.InDoubt != 0 {
			t.Errorf("%d unknown, %d settled, %d in doubt", n.Unknown, n.Settled, n.InDoubt)
		}
	})
}

// A commit that has not returned is in doubt for a caller who has left.
func TestStatsOfCallersWhoLeave(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		commit := s.store.Block(fault.AfterCommit)
		defer commit.Pass()
		ctx, cancel := context.WithCancel(s.ctx)
		sent := s.startSet(ctx, "k", 1)
		<-commit.Reached
		queued := s.startSet(ctx, "k", 2)
		queued.hangs()
		cancel()
		s.unknown(sent.returned())
		s.notApplied(queued.returned(), context.Canceled)
		if n := s.Stats(); n.Unknown != 1 || n.InDoubt != 1 || n.Abandoned != 1 || n.Unavailable != 0 {
			t.Errorf("%d unknown, %d in doubt, %d abandoned, %d unavailable", n.Unknown, n.InDoubt, n.Abandoned, n.Unavailable)
		}
		commit.Pass()
		synctest.Wait()
		if n := s.Stats(); n.Settled != 1 || n.InDoubt != 0 {
			t.Errorf("%d settled, %d in doubt", n.Settled, n.InDoubt)
		}
	})
}
