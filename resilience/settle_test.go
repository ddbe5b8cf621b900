package resilience_test

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestAnOpenBreakerDoesNotKeepWritesInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.MustParse("commit 1..4: lose reply; settle 1..4: fail"), 1)
		store, err := resilience.Breaker(lockstep.Store[string, int](inner), resilience.BreakerPolicy{Failures: 4, OpenFor: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		c := cachetest.Open(t, store, lockstep.Options[string, int]{})
		var unknown []*lockstep.WriteError
		for i := range 4 {
			_, err := c.Set(t.Context(), strconv.Itoa(i), i)
			var w *lockstep.WriteError
			if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
				t.Fatalf("write %d: %v", i, err)
			}
			unknown = append(unknown, w)
		}
		_, err = c.Set(t.Context(), "5", 5)
		var w *lockstep.WriteError
		if !errors.As(err, &w) || w.Outcome != lockstep.NotApplied || !errors.Is(err, lockstep.ErrUnavailable) {
			t.Fatalf("with the breaker open: %v", err)
		}
		for i, w := range unknown {
			if applied, _, err := w.Wait(t.Context()); !applied || err != nil {
				t.Errorf("write %d: applied %v, %v", i, applied, err)
			}
		}
		if st := c.Stats(); st.WriteBreaker != lockstep.BreakerOpen || st.Settled != 4 || st.InDoubt != 0 {
			t.Errorf("breaker %v, %d settled, %d in doubt", st.WriteBreaker, st.Settled, st.InDoubt)
		}
	})
}

func TestATimeoutOfACommitThatWasSentIsUnknownAndSettled(t *testing.T) {
	for _, c := range []struct {
		script  string
		outcome lockstep.WriteOutcome
	}{
		{"commit 1: hang after", lockstep.Unknown},
		{"commit 1: hang", lockstep.NotApplied},
	} {
		t.Run(c.script, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.MustParse(c.script), 1)
				store, err := resilience.Timeout(lockstep.Store[string, int](inner), resilience.TimeoutPolicy{})
				if err != nil {
					t.Fatal(err)
				}
				cache := cachetest.Open(t, store, lockstep.Options[string, int]{})
				start := time.Now()
				_, err = cache.Set(t.Context(), "k", 1)
				var w *lockstep.WriteError
				if !errors.As(err, &w) || w.Outcome != c.outcome || time.Since(start) != resilience.DefaultWriteTimeout {
					t.Fatalf("after %v: %v", time.Since(start), err)
				}
				if c.outcome == lockstep.NotApplied && !errors.Is(err, lockstep.ErrUnavailable) {
					t.Errorf("error %v", err)
				}
				if applied, _, err := w.Wait(t.Context()); applied != (c.outcome == lockstep.Unknown) || err != nil {
					t.Errorf("applied %v, %v", applied, err)
				}
				if n := cache.Stats().Timeouts; n != 1 {
					t.Errorf("%d time-outs", n)
				}
			})
		})
	}
}
