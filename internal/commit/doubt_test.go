package commit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// awaits waits for keys in doubt, beside the test.
func (q *rig) awaits(ctx context.Context, keys ...string) chan error {
	done := make(chan error, 1)
	go func() { done <- q.Await(ctx, keys) }()
	return done
}

// ended says that the wait is over, and how.
func (q *rig) ended(wait chan error, want error) {
	q.t.Helper()
	synctest.Wait()
	select {
	case err := <-wait:
		if !errors.Is(err, want) {
			q.t.Errorf("Await: %v, want %v", err, want)
		}
	default:
		q.t.Error("Await has not returned")
	}
}

func (q *rig) lasts(wait chan error) {
	q.t.Helper()
	synctest.Wait()
	select {
	case err := <-wait:
		q.t.Errorf("Await: %v, and should wait", err)
	default:
	}
}

func TestAKeyInDoubtIsAwaited(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("a:k l", "b:m", "c:n")
		q.underWay("a", "b", "c")
		q.ended(q.awaits(q.t.Context(), "k", "m"), nil) // under way is not in doubt
		q.Doubt(q.ops["a"])
		q.Doubt(q.ops["a"])
		q.ended(q.awaits(q.t.Context(), "m", "other"), nil)
		wait := q.awaits(q.t.Context(), "m", "l")
		q.lasts(wait)
		q.finishInDoubt("b")
		q.finish("a")
		q.lasts(wait) // b is by now
		q.Release(q.ops["b"])
		q.ended(wait, nil)
		q.Doubt(q.ops["a"]) // too late
		q.Take([]string{"k"})
		ctx, cancel := context.WithTimeout(q.t.Context(), time.Second)
		defer cancel()
		wait = q.awaits(ctx, "k")
		q.lasts(wait)
		time.Sleep(time.Second)
		q.ended(wait, context.DeadlineExceeded)
		q.Return([]string{"k"})
		q.ended(q.awaits(q.t.Context(), "k"), nil)
	})
}

func TestAWriteOfAllKeysInDoubtIsAwaited(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("all:*")
		q.finishInDoubt("all")
		wait := q.awaits(q.t.Context(), "k")
		q.lasts(wait)
		q.Release(q.ops["all"])
		q.ended(wait, nil)
	})
}

// What waits for a doubt that will never end must not pass it.
func TestAbandonedKeysDropWhatWaitsForThem(t *testing.T) {
	inBubble(t, Config[string, string]{InFlight: 2}, func(q *rig) {
		q.submit("a:k")
		q.finishInDoubt("a")
		q.submit("busy:x", "busy2:y")
		q.submit("parked:k l", "behind:l", "ready:k", "other:m", "all:*")
		wait, other := q.awaits(q.t.Context(), "k"), q.awaits(t.Context(), "m")
		q.lasts(wait)
		q.Abandon([]string{"k"}, false)
		q.gaveUp("parked: commit: closed", "ready: commit: closed", "all: commit: closed")
		q.refused("late:k", ErrClosed)
		q.Release(q.ops["a"])
		q.ended(wait, ErrClosed)
		q.ended(other, nil)
		q.ended(q.awaits(q.t.Context(), "k"), ErrClosed)
		q.finish("busy")
		q.underWay("busy2", "behind other")
	})
}

func TestAllKeysAreAbandoned(t *testing.T) {
	inBubble(t, Config[string, string]{}, func(q *rig) {
		q.submit("all:*")
		q.submit("a:k", "b:l")
		q.finishInDoubt("all")
		q.Abandon(nil, true)
		q.Release(q.ops["all"])
		q.gaveUp("a: commit: closed", "b: commit: closed")
		q.ended(q.awaits(q.t.Context(), "k"), ErrClosed)
	})
}

func TestGuestsCountAmongThoseWhoWait(t *testing.T) {
	inBubble(t, Config[string, string]{Limit: 2, InFlight: 1}, func(q *rig) {
		q.submit("a:k")
		q.submit("b:k")
		if err := q.Enter(); err != nil {
			t.Fatal(err)
		}
		q.waiting(2)
		q.refused("c:l", ErrFull)
		if err := q.Enter(); !errors.Is(err, ErrFull) {
			t.Errorf("Enter: %v", err)
		}
		q.Exit()
		q.submit("c:l")
		q.Close()
		if err := q.Enter(); !errors.Is(err, ErrClosed) {
			t.Errorf("Enter: %v", err)
		}
	})
}
