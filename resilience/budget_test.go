package resilience

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-cache/lockstep"
)

func TestASpentBudgetEndsRetries(t *testing.T) {
	policy := RetryPolicy{MaxAttempts: 5, Budget: RetryBudget{Reserve: 6}}
	each(t, policy, func(t *testing.T, name string, s *script, call func(context.Context) error) {
		s.steps = failing(1000, errAway)
		for i, want := range []int{5, 3, 1, 1} { // attempts: 4 retries, 2, and none any more
			before := len(s.calls)
			err := call(t.Context())
			if !errors.Is(err, lockstep.ErrUnavailable) || len(s.calls)-before != want {
				t.Fatalf("call %d: error %v after %d attempts, want %d", i, err, len(s.calls)-before, want)
			}
			if denied := strings.Contains(err.Error(), "budget"); denied != (i > 0) {
				t.Errorf("call %d: error %q", i, err)
			}
		}
	})
}

func TestSuccessesFillTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		store := retrying(t, s, RetryPolicy{Budget: RetryBudget{Reserve: 3, PerSuccess: 0.3}})
		call := operations["Commit"]
		spend := func(attempts int) {
			t.Helper()
			s.calls, s.steps = nil, failing(20, errAway)
			if err := call(t.Context(), store); err == nil || len(s.calls) != attempts {
				t.Fatalf("error %v after %d attempts, want %d", err, len(s.calls), attempts)
			}
			s.steps = nil
		}
		succeed := func(times int) {
			t.Helper()
			for range times {
				if err := call(t.Context(), store); err != nil {
					t.Fatal(err)
				}
			}
		}
		spend(4)
		succeed(3)
		spend(1)
		succeed(1) // 1.2 by now
		spend(2)
		time.Sleep(time.Hour) // time is worth nothing
		spend(1)
		succeed(1000) // no more than Reserve
		spend(4)
		if st := statsOf(store); st.RetriesDenied != 5 || st.RetryFailures != 5 {
			t.Errorf("%d denied, %d failures", st.RetriesDenied, st.RetryFailures)
		}
	})
}

// A retry for which the context did not wait was not made.
func TestARetryThatIsNotMadeCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		store := retrying(t, s, RetryPolicy{BaseDelay: time.Hour, MaxDelay: time.Hour, Budget: RetryBudget{Reserve: 1}})
		for range 10 {
			s.steps = failing(1, errAway)
			ctx, cancel := context.WithTimeout(t.Context(), 1)
			err := operations["Commit"](ctx, store)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "budget") {
				t.Fatalf("error %v", err)
			}
		}
		s.steps = failing(1, errAway)
		if err := operations["Commit"](t.Context(), store); err != nil {
			t.Fatal(err)
		}
	})
}

// However many take and put at once, no retry is made twice, and the bucket is never
// over its brim.
func TestABudgetIsExactUnderConcurrency(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		reserve := rapid.IntRange(1, 50).Draw(rt, "reserve")
		k := newBucket(RetryBudget{Reserve: reserve, PerSuccess: 0.1})
		const workers, rounds = 4, 200
		var taken [workers]int
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for range rounds {
					if k.take() {
						taken[w]++
					}
					k.succeeded()
				}
			})
		}
		wg.Wait()
		all := 0
		for _, n := range taken {
			all += n
		}
		if left := k.left.Load(); left < 0 || left > k.full || int64(all)*aRetry+left > k.full+workers*rounds*k.perSuccess {
			rt.Fatalf("%d taken, %d left", all, left)
		}
	})
}
