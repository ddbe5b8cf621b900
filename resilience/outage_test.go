package resilience_test

import (
	"context"
	"errors"
	"log/slog"
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

// With a deadline of its own for each call, a caller who sets none is answered too,
// while the database hangs.
func TestCallersWithoutADeadlineAreAnswered(t *testing.T) {
	// A load is tried again until its circuit opens.
	const reads = resilience.DefaultFailures*resilience.DefaultReadTimeout + resilience.DefaultMaxDelay
	// The cache's own bound, and the eighth for a store that keeps to it.
	const writes = lockstep.DefaultCommitTimeout * 9 / 8
	type cache = lockstep.Cache[string, int]
	for name, c := range map[string]struct {
		most time.Duration
		call func(ctx context.Context, c, other *cache) error
	}{
		"Get":     {reads, func(ctx context.Context, c, _ *cache) error { _, err := c.Get(ctx, "k"); return err }},
		"GetMany": {reads, func(ctx context.Context, c, _ *cache) error { _, err := c.GetMany(ctx, []string{"k", "l"}); return err }},
		"Refresh": {reads, func(ctx context.Context, c, _ *cache) error { return c.Refresh(ctx, "kept") }},
		"Audit":   {reads, func(ctx context.Context, c, _ *cache) error { _, err := c.Audit(ctx); return err }},
		"Warm": {reads, func(ctx context.Context, c, _ *cache) error {
			_, err := c.Warm(ctx, lockstep.WarmOptions{})
			return err
		}},
		"Scan": {reads, func(ctx context.Context, c, _ *cache) (err error) {
			for _, err = range c.Scan(ctx) {
			}
			return err
		}},
		"Set":       {writes, func(ctx context.Context, c, _ *cache) error { _, err := c.Set(ctx, "k", 1); return err }},
		"DeleteAll": {writes, func(ctx context.Context, c, _ *cache) error { return c.DeleteAll(ctx) }},
		"Update": {writes, func(ctx context.Context, c, _ *cache) error {
			_, err := c.Update(ctx, "kept", func(old int, _ bool) (int, error) { return old + 1, nil })
			return err
		}},
		"UpdateMissing": {reads + writes, func(ctx context.Context, c, _ *cache) error {
			_, err := c.Update(ctx, "k", func(old int, _ bool) (int, error) { return old + 1, nil })
			return err
		}},
		"TransactJointly": {writes, func(ctx context.Context, c, other *cache) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return errors.Join(c.In(tx).Set(ctx, "k", 1), other.In(tx).Set(ctx, "l", 1))
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.Script{}, 1)
				store, err := resilience.Protect(lockstep.Store[string, int](inner), resilience.Policy{})
				if err != nil {
					t.Fatal(err)
				}
				options := lockstep.Options[string, int]{Logger: slog.New(slog.DiscardHandler)}
				cache, other := cachetest.Open(t, store, options), cachetest.Open(t, store, options)
				t.Cleanup(func() { inner.Play(fault.Script{}); inner.Release(); time.Sleep(time.Minute) })
				if _, err := cache.Set(t.Context(), "kept", 1); err != nil {
					t.Fatal(err)
				}
				inner.Play(fault.MustParse("load *: hang; commit *: hang; scan *: hang; begin *: hang; apply *: hang; settle *: hang"))
				start := time.Now()
				err = c.call(context.Background(), cache, other)
				took := time.Since(start)
				if err == nil || took > c.most {
					t.Errorf("answered %v after %v, want %v at most", err, took, c.most)
				}
			})
		})
	}
}

// While the circuit of reads is open a miss is answered at once, and a hit as ever. With
// StaleIfError an expired copy is the answer.
func TestMissesFailFastWhileTheBreakerIsOpen(t *testing.T) {
	for name, patient := range map[string]bool{"ByDefault": false, "UnlessTheyAreToWait": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.Script{}, 1)
				store, err := resilience.Protect(lockstep.Store[string, int](inner), resilience.Policy{
					Retry:   resilience.RetryPolicy{RetryRefusedReads: patient},
					Breaker: resilience.BreakerPolicy{OpenFor: time.Hour},
				})
				if err != nil {
					t.Fatal(err)
				}
				c := cachetest.Open(t, store, lockstep.Options[string, int]{TTL: time.Minute, StaleIfError: 2 * time.Hour})
				if _, err := c.Set(t.Context(), "old", 1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if _, err := c.Set(t.Context(), "kept", 1); err != nil {
					t.Fatal(err)
				}
				inner.Play(fault.MustParse("load *: fail"))
				for c.Stats().ReadBreaker != lockstep.BreakerOpen {
					c.Get(t.Context(), "missing")
				}
				before, start := c.Stats(), time.Now()
				if v, err := c.Get(t.Context(), "kept"); v != 1 || err != nil || time.Since(start) > 0 {
					t.Errorf("a hit is %d, %v after %v", v, err, time.Since(start))
				}
				_, err = c.Get(t.Context(), "missing")
				if !errors.Is(err, lockstep.ErrUnavailable) || time.Since(start) > 0 != patient {
					t.Errorf("a miss is %v after %v", err, time.Since(start))
				}
				if e, err := c.GetEntry(t.Context(), "old"); err != nil || e.Value != 1 || !e.Stale || time.Since(start) > 0 != patient {
					t.Errorf("an expired copy is %+v, %v after %v", e, err, time.Since(start))
				}
				after := c.Stats()
				if got := after.RetryFailures - before.RetryFailures; got != 2 {
					t.Errorf("%d calls were given up", got)
				}
				if after.Retries > before.Retries != patient || after.StaleHits != 1 || after.BreakerRefusals < before.BreakerRefusals+2 {
					t.Errorf("before %+v, after %+v", before, after)
				}
				inner.Play(fault.Script{})
				time.Sleep(time.Hour)
			})
		})
	}
}

// Readers who leave before Timeout would end their loads do not hide from the breaker
// that the database hangs. Those who leave at once, or of their own accord, show nothing.
func TestReadersWhoLeaveSoonDoNotHideAHang(t *testing.T) {
	for name, c := range map[string]struct {
		waits time.Duration
		keys  []string
		leave func(context.Context, time.Duration) (context.Context, context.CancelFunc)
		want  lockstep.BreakerState
	}{
		"ByTheirDeadline": {resilience.DefaultMinWait, []string{"k"}, context.WithTimeout, lockstep.BreakerOpen},
		"OfSeveralKeys":   {resilience.DefaultMinWait, []string{"k", "l", "m"}, context.WithTimeout, lockstep.BreakerOpen},
		"InAHurry":        {resilience.DefaultMinWait - 1, []string{"k"}, context.WithTimeout, lockstep.BreakerClosed},
		"OfTheirOwnAccord": {time.Second, []string{"k"}, func(ctx context.Context, after time.Duration) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(after, cancel)
			return ctx, cancel
		}, lockstep.BreakerClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.MustParse("load *: hang"), 1)
				store, err := resilience.Protect(lockstep.Store[string, int](inner), resilience.Policy{Breaker: resilience.BreakerPolicy{OpenFor: time.Minute}})
				if err != nil {
					t.Fatal(err)
				}
				cache := cachetest.Open(t, store, lockstep.Options[string, int]{})
				for range 2 * resilience.DefaultFailures {
					ctx, cancel := c.leave(t.Context(), c.waits)
					cache.GetMany(ctx, c.keys)
					cancel()
					synctest.Wait()
				}
				if got := cache.Stats().ReadBreaker; got != c.want {
					t.Errorf("the circuit of reads is %v, want %v", got, c.want)
				}
				inner.Play(fault.Script{})
				time.Sleep(time.Minute)
			})
		})
	}
}
