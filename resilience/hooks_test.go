package resilience

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// told collects events. What it has is complete after synctest.Wait.
type told[E any] struct{ events []E }

func (h *told[E]) tell(e E) { h.events = append(h.events, e) }

func TestEachAttemptIsTold(t *testing.T) {
	var attempts told[AttemptEvent]
	policy := RetryPolicy{OnAttempt: attempts.tell, OnGiveUp: func(e GiveUpEvent) { t.Errorf("gave up: %v", e) }}
	for name, operation := range operations {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts.events = nil
				slow := func(context.Context) error { time.Sleep(time.Second); return errAway }
				s := &script{steps: []step{fails(errAway), slow}}
				store := retrying(t, s, policy)
				if err := operation(t.Context(), store); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				op := map[string]Operation{"Load": OpLoad, "Scan": OpScan, "Commit": OpCommit, "Begin": OpBegin}[name]
				want := []AttemptEvent{{op, 1, 0, errAway}, {op, 2, time.Second, errAway}, {op, 3, 0, nil}}
				if !slices.Equal(attempts.events, want) {
					t.Errorf("told %v, want %v", attempts.events, want)
				}
				if st := statsOf(store); st.Attempts != 3 || st.Retries != 102 {
					t.Errorf("%d attempts, %d retries", st.Attempts, st.Retries)
				}
			})
		})
	}
}

func TestWhatIsGivenUpIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends told[GiveUpEvent]
		s := &script{steps: failing(99, errAway)}
		store := retrying(t, s, RetryPolicy{MaxAttempts: 3, Budget: RetryBudget{Reserve: 3}, OnGiveUp: ends.tell})
		for i, want := range []GiveUpEvent{
			{Operation: OpLoad, Attempts: 3},
			{Operation: OpLoad, Attempts: 2, BudgetSpent: true},
			{Operation: OpLoad, Attempts: 1, BudgetSpent: true},
		} {
			_, want.Err = store.Load(t.Context(), []string{"k"})
			synctest.Wait()
			if len(ends.events) != i+1 || ends.events[i] != want {
				t.Errorf("told %v, want %v at the end", ends.events, want)
			}
		}
		// What does not pass is not given up: nothing was tried.
		s.steps = failing(1, lockstep.ErrInvalid)
		store.Load(t.Context(), []string{"k"})
		synctest.Wait()
		if len(ends.events) != 3 {
			t.Errorf("told %v", ends.events)
		}
	})
}

func TestChangesOfTheBreakerAreTold(t *testing.T) {
	for name, operation := range operations {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var changes told[BreakerEvent]
				policy := quick
				policy.OnChange = changes.tell
				s := &script{}
				store := breaking(t, s, policy)
				call := func(ctx context.Context) error { return operation(ctx, store) }
				open(t, s, call)
				for _, answer := range []error{errAway, nil} {
					pass()
					s.steps = failing(1, answer)
					call(t.Context())
				}
				synctest.Wait()
				writes := name == "Commit" || name == "Begin"
				const closed, half, open = lockstep.BreakerClosed, lockstep.BreakerHalfOpen, lockstep.BreakerOpen
				want := []BreakerEvent{{writes, closed, open}, {writes, open, half}, {writes, half, open}, {writes, open, half}, {writes, half, closed}}
				if !slices.Equal(changes.events, want) {
					t.Errorf("told %v, want %v", changes.events, want)
				}
				if n := statsOf(store).BreakerChanges; n != uint64(len(want)) {
					t.Errorf("%d changes", n)
				}
			})
		})
	}
}

func TestCallsWithoutAPlaceAndTimeoutsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refused told[RefuseEvent]
		var ended told[TimeoutEvent]
		s := &script{steps: []step{hangs(context.Cause)}}
		store, err := Protect(s, Policy{
			Retry:   RetryPolicy{MaxAttempts: 1},
			Limit:   LimitPolicy{MaxCalls: 1, MaxWait: time.Second, OnRefuse: refused.tell},
			Timeout: TimeoutPolicy{Write: time.Minute, OnTimeout: ended.tell},
		})
		if err != nil {
			t.Fatal(err)
		}
		hung := make(chan error)
		go func() { _, err := store.Commit(t.Context(), nil); hung <- err }()
		synctest.Wait()
		_, none := store.Load(t.Context(), []string{"k"})
		cut := <-hung
		synctest.Wait()
		if want := []RefuseEvent{{OpLoad, time.Second, none}}; !slices.Equal(refused.events, want) {
			t.Errorf("told %v, want %v", refused.events, want)
		}
		if want := []TimeoutEvent{{OpCommit, time.Minute, cut}}; !slices.Equal(ended.events, want) {
			t.Errorf("told %v, want %v", ended.events, want)
		}
	})
}

// A hook may use what it is told about, and its panic is not the call's.
func TestHooksDoNotDisturbCalls(t *testing.T) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	defer slog.SetDefault(before)
	synctest.Test(t, func(t *testing.T) {
		var store lockstep.Store[string, int]
		var inside told[error]
		policy := quick
		policy.OnChange = func(e BreakerEvent) {
			inside.tell(operations["Commit"](context.Background(), store))
			panic("a bug in a hook")
		}
		s := &script{}
		store = breaking(t, s, policy)
		call := func(ctx context.Context) error { return operations["Commit"](ctx, store) }
		open(t, s, call)
		synctest.Wait()
		pass()
		if err := call(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(inside.events) != 3 || !errors.Is(inside.events[0], lockstep.ErrUnavailable) || inside.events[2] != nil {
			t.Errorf("the hook's own calls: %v", inside.events)
		}
	})
}
