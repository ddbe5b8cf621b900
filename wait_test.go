package lockstep_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestWaitTellsWhatIsKnownAlsoWhenItsContextHasEnded(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("commit 1: lose reply")
		w := s.unknown(second(s.Set(s.ctx, "k", 1)))
		s.settles(w, true)
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		wrong := 0
		for range 100 {
			if _, _, err := w.Wait(ctx); err != nil {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("the write is settled, and %d of 100 Waits say that it is not known", wrong)
		}
	})
}

func TestWaitAndCloseDoNotPassAnotherCallsErrorOn(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		b := s.store.Block(fault.AfterCommit)
		defer b.Pass()
		ctx, cancel := context.WithCancelCause(s.ctx)
		c := s.startSet(ctx, "k", 1)
		<-b.Reached
		cancel(lockstep.ErrNotFound) // another call's, as errgroup has it
		w := s.unknown(c.returned(), context.Canceled)
		_, _, err := w.Wait(ctx)
		if !errors.Is(err, context.Canceled) || errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("Wait: %v: context.Canceled %t, ErrNotFound %t", err, errors.Is(err, context.Canceled), errors.Is(err, lockstep.ErrNotFound))
		}
		err = s.Close(ctx)
		if !errors.Is(err, context.Canceled) || errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("Close: %v: context.Canceled %t, ErrNotFound %t", err, errors.Is(err, context.Canceled), errors.Is(err, lockstep.ErrNotFound))
		}
	})
}
