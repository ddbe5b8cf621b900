package resilience

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-cache/lockstep"
)

func TestAWaitEndsWithTheContext(t *testing.T) {
	policy := RetryPolicy{BaseDelay: 100 * time.Hour, MaxDelay: 100 * time.Hour}
	each(t, policy, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		s.steps = failing(1, errAway)
		cause := errors.New("the user has left")
		ctx, cancel := context.WithCancelCause(t.Context())
		result := make(chan error)
		go func() { result <- call(ctx) }()
		synctest.Wait()
		start := time.Now()
		cancel(cause)
		err := <-result
		if !errors.Is(err, lockstep.ErrUnavailable) || !errors.Is(err, cause) || errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Fatalf("error %v", err)
		}
		if waited := time.Since(start); waited != 0 || len(s.calls) != 1 {
			t.Fatalf("went on for %v, and made %d calls", waited, len(s.calls))
		}
	})
}

func TestNothingIsTriedAgainAfterTheDeadline(t *testing.T) {
	policy := RetryPolicy{MaxAttempts: 1000, BaseDelay: time.Second, MaxDelay: time.Second}
	each(t, policy, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		s.steps = failing(1000, errAway)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := call(ctx)
		if !errors.Is(err, lockstep.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Fatalf("took %v", took)
		}
		if last := s.calls[len(s.calls)-1].Sub(start); last > 10*time.Second {
			t.Fatalf("the last call began after %v", last)
		}
	})
}

// The executor underneath takes an attempt that ends after its context for a
// cancelled one, whatever it returned. What the database has committed is
// committed.
func TestASuccessAfterTheContextEndedIsASuccess(t *testing.T) {
	each(t, RetryPolicy{}, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		ctx, cancel := context.WithCancel(t.Context())
		s.steps = []step{fails(errAway), func(context.Context) error { cancel(); return nil }}
		if err := call(ctx); err != nil {
			t.Fatalf("error %v", err)
		}
	})
}

func TestAnErrorAfterTheContextEndedIsTheStores(t *testing.T) {
	each(t, RetryPolicy{}, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		for _, err := range []error{lockstep.ErrUnknownOutcome, lockstep.ErrInvalid} {
			ctx, cancel := context.WithCancel(t.Context())
			s.steps = []step{func(context.Context) error { cancel(); return err }}
			if got := call(ctx); got != err {
				t.Fatalf("error %v, want %v as it is", got, err)
			}
		}
	})
}

func TestMaxElapsedBoundsTheLastAttempt(t *testing.T) {
	policy := RetryPolicy{MaxAttempts: 1000, BaseDelay: time.Second, MaxDelay: time.Second, MaxElapsed: 5 * time.Second}
	each(t, policy, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		s.steps = failing(1000, errAway)
		start := time.Now()
		if err := call(t.Context()); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Fatalf("error %v", err)
		}
		n := len(s.calls)
		last, before := s.calls[n-1].Sub(start), s.calls[n-2].Sub(start)
		if last != policy.MaxElapsed || before >= last || time.Since(start) != last {
			t.Fatalf("the last of %d calls began after %v and %v, and the answer came after %v", n, before, last, time.Since(start))
		}
	})
}

func TestOneAttemptMeansNoRetries(t *testing.T) {
	each(t, RetryPolicy{MaxAttempts: 1}, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		s.steps = failing(1, errAway)
		if err := call(t.Context()); err != errAway || len(s.calls) != 1 {
			t.Fatalf("error %v after %d calls", err, len(s.calls))
		}
	})
}

func TestPanicsPassThrough(t *testing.T) {
	each(t, RetryPolicy{}, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		s.steps = []step{fails(errAway), func(context.Context) error { panic("driver bug") }}
		func() {
			defer func() {
				if p := recover(); p != "driver bug" {
					t.Errorf("recovered %v", p)
				}
			}()
			call(t.Context())
		}()
		if err := call(t.Context()); err != nil {
			t.Fatalf("after the panic: %v", err)
		}
	})
}

func TestRetriesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		inner := retrying(t, s, RetryPolicy{MaxAttempts: 3})
		outer := retrying(t, inner, RetryPolicy{MaxAttempts: 2})
		if st := statsOf(outer); st.Retries != 100 || st.RetryFailures != 0 {
			t.Fatalf("before any call: %d retries, %d failures", st.Retries, st.RetryFailures)
		}
		s.steps = failing(6, errAway)
		if _, err := outer.Load(t.Context(), []string{"k"}); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Fatalf("error %v", err)
		}
		// Each of the outer store's two attempts was three of the inner one's.
		if st := statsOf(inner); st.Retries != 104 || st.RetryFailures != 2 {
			t.Fatalf("inner: %d retries, %d failures", st.Retries, st.RetryFailures)
		}
		if st := statsOf(outer); st.Retries != 105 || st.RetryFailures != 3 {
			t.Fatalf("outer: %d retries, %d failures", st.Retries, st.RetryFailures)
		}
	})
}

func TestCallersDoNotDisturbEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 50
		s := &script{steps: failing(callers, errAway)}
		store := retrying(t, s, RetryPolicy{MaxAttempts: callers + 1})
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				if err := operations["Commit"](t.Context(), store); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if st := statsOf(store); len(s.calls) != 2*callers || st.Retries != 100+callers || st.RetryFailures != 0 {
			t.Fatalf("%d calls, %d retries", len(s.calls), st.Retries)
		}
	})
}

// Whatever a store answers, a commit is made until it succeeds, stops passing,
// or has had its attempts; and never once more.
func TestCommitsFollowTheModel(t *testing.T) {
	answers := []error{nil, errAway, errAway, errAway, lockstep.ErrUnknownOutcome, lockstep.ErrInvalid, errors.New("other")}
	rapid.Check(t, func(rt *rapid.T) {
		drawn := rapid.SliceOfN(rapid.SampledFrom(answers), 0, 8).Draw(rt, "answers")
		policy := RetryPolicy{MaxAttempts: rapid.IntRange(1, 6).Draw(rt, "attempts")}
		s := &script{}
		for _, err := range drawn {
			s.steps = append(s.steps, fails(err))
		}
		calls, want := 0, error(nil)
		for calls < policy.MaxAttempts {
			want = nil
			if calls < len(drawn) {
				want = drawn[calls]
			}
			calls++
			if want != errAway {
				break
			}
		}
		var err error
		synctest.Test(t, func(t *testing.T) {
			_, err = retrying(t, s, policy).Commit(t.Context(), nil)
		})
		if !errors.Is(err, want) || len(s.calls) != calls {
			rt.Fatalf("error %v after %d calls, want %v after %d", err, len(s.calls), want, calls)
		}
	})
}
