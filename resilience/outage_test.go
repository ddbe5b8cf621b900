package resilience_test

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// away brings about an outage with script around a cache whose store has all the parts
// with their defaults, and writes and reads until it has lasted.
func away(t *testing.T, script string, lasts time.Duration) (during fault.Counts, stats lockstep.Stats) {
	t.Helper()
	inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.Script{}, 1)
	store, err := resilience.Protect(lockstep.Store[string, int](inner), resilience.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	c := cachetest.Open(t, store, lockstep.Options[string, int]{})
	if _, err := c.Set(t.Context(), "kept", 1); err != nil {
		t.Fatal(err)
	}
	inner.Play(fault.MustParse(script))
	before, start := inner.Counts(), time.Now()
	var wg sync.WaitGroup
	for w := range 8 {
		key := strconv.Itoa(w)
		wg.Go(func() {
			for i := 0; time.Since(start) < lasts; i++ {
				_, err := c.Set(t.Context(), key, i)
				var w *lockstep.WriteError
				if err != nil && (!errors.As(err, &w) || w.Outcome == lockstep.NotApplied && !errors.Is(err, lockstep.ErrUnavailable)) {
					t.Errorf("write: %v", err)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
		wg.Go(func() {
			for time.Since(start) < lasts {
				if _, err := c.Get(t.Context(), "missing"); err == nil {
					t.Error("read a row that is not there")
				}
				if v, err := c.Get(t.Context(), "kept"); v != 1 || err != nil {
					t.Errorf("memory answered %d, %v", v, err)
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	after, stats := inner.Counts(), c.Stats()
	inner.Play(fault.Script{})
	inner.Release()
	time.Sleep(resilience.DefaultOpenFor + 1)
	// The probe, and what comes after it.
	for i := range 3 {
		if _, err := c.Set(t.Context(), "back", i); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		if _, err := c.Get(t.Context(), "absent"+strconv.Itoa(i)); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("after the outage: %v", err)
		}
	}
	if st := c.Stats(); st.WriteBreaker != lockstep.BreakerClosed || st.ReadBreaker != lockstep.BreakerClosed {
		t.Errorf("after the outage: writes %v, reads %v", st.WriteBreaker, st.ReadBreaker)
	}
	return fault.Counts{Loads: after.Loads - before.Loads, Commits: after.Commits - before.Commits}, stats
}

func TestAnOutageIsLeftInPeaceAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seconds = 300
		calls, stats := away(t, "load *: fail; commit *: fail", seconds*time.Second)
		// What opens the circuits, what was under way then, and the probes.
		const probes = int(seconds * time.Second / resilience.DefaultOpenFor)
		const most = resilience.DefaultFailures + 10 + probes
		if calls.Commits > most || calls.Loads > most || calls.Commits < probes/4 || calls.Loads < probes/4 {
			t.Errorf("%d commits and %d loads reached the database, want %d at most", calls.Commits, calls.Loads, most)
		}
		if stats.Unknown != 0 || stats.BreakerRefusals < 1000 || stats.RetriesDenied < 1000 {
			t.Errorf("%d unknown, %d refused by the breaker, %d denied a retry", stats.Unknown, stats.BreakerRefusals, stats.RetriesDenied)
		}
	})
}

// A database that hangs is found out by the first time-outs, though a cache makes few
// calls: from then on callers are answered at once, but for those who wait for the probe.
func TestADatabaseThatHangsIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lasts = 10 * time.Minute
		calls, stats := away(t, "load *: hang; commit *: hang", lasts)
		const most = resilience.DefaultFailures + 10 + int(lasts/resilience.DefaultReadTimeout)
		if calls.Commits > most || calls.Loads > most {
			t.Errorf("%d commits and %d loads reached the database, want %d at most", calls.Commits, calls.Loads, most)
		}
		if stats.Unknown != 0 || stats.BreakerRefusals < 500 || stats.LoadLatency.P50 > time.Second {
			t.Errorf("%d unknown, %d refused by the breaker, half of the loads within %v", stats.Unknown, stats.BreakerRefusals, stats.LoadLatency.P50)
		}
	})
}

func TestAShortOutageIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.MustParse("load *: fail; commit *: fail"), 1)
		store, err := resilience.Protect(lockstep.Store[string, int](inner), resilience.Policy{})
		if err != nil {
			t.Fatal(err)
		}
		c := cachetest.Open(t, store, lockstep.Options[string, int]{})
		time.AfterFunc(100*time.Millisecond, func() { inner.Play(fault.Script{}) })
		if _, err := c.Set(t.Context(), "k", 1); err != nil {
			t.Error(err)
		}
	})
}
