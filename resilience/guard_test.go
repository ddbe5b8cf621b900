package resilience

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// inGuarded runs a test with two stores of one database, in a bubble of fake time.
func inGuarded(t *testing.T, policy Policy, test func(t *testing.T, a, b *guarded)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		guard, err := NewGuard(policy)
		if err != nil {
			t.Fatal(err)
		}
		test(t, newGuarded(t, guard), newGuarded(t, guard))
	})
}

// guarded is a store whose inner one does as its script says.
type guarded struct {
	*script
	store lockstep.Store[string, int]
}

func newGuarded(t *testing.T, guard *Guard) *guarded {
	t.Helper()
	s := &script{}
	store, err := ProtectWith(lockstep.Store[string, int](s), guard)
	if err != nil {
		t.Fatal(err)
	}
	return &guarded{s, store}
}

func (g *guarded) load(ctx context.Context) error   { return operations["Load"](ctx, g.store) }
func (g *guarded) commit(ctx context.Context) error { return operations["Commit"](ctx, g.store) }

// stats are those of the parts: the script has counted some retries before.
func (g *guarded) stats() lockstep.Stats {
	stats := statsOf(g.store)
	stats.Retries -= statsOf(g.script).Retries
	return stats
}

func TestTheStoresOfADatabaseShareItsCircuits(t *testing.T) {
	inGuarded(t, Policy{Retry: RetryPolicy{MaxAttempts: 1}}, func(t *testing.T, a, b *guarded) {
		a.steps, b.steps = failing(3, errAway), failing(2, errAway)
		for range 3 {
			a.load(t.Context())
		}
		for range 2 {
			b.load(t.Context())
		}
		for name, g := range map[string]*guarded{"the one": a, "the other": b} {
			calls := len(g.calls)
			if err := g.load(t.Context()); !errors.Is(err, errOpen) || len(g.calls) != calls {
				t.Errorf("%s: error %v after %d calls", name, err, len(g.calls)-calls)
			}
			if err := g.commit(t.Context()); err != nil {
				t.Errorf("%s: writes: %v", name, err)
			}
			if st := g.stats(); st.ReadBreaker != lockstep.BreakerOpen || st.WriteBreaker != lockstep.BreakerClosed || st.BreakerChanges != 1 || st.BreakerRefusals != 1 {
				t.Errorf("%s: %+v", name, st)
			}
		}
		// The probe of one closes it for both.
		time.Sleep(DefaultOpenFor + 1)
		if err := a.load(t.Context()); err != nil {
			t.Error(err)
		}
		if err := b.load(t.Context()); err != nil || b.stats().ReadBreaker != lockstep.BreakerClosed {
			t.Errorf("%v, and the circuit is %v", err, b.stats().ReadBreaker)
		}
	})
}

func TestTheStoresOfADatabaseShareItsRetries(t *testing.T) {
	policy := Policy{Retry: RetryPolicy{Budget: RetryBudget{Reserve: 3}}, Breaker: BreakerPolicy{Failures: 1000}}
	inGuarded(t, policy, func(t *testing.T, a, b *guarded) {
		a.steps = failing(100, errAway)
		b.steps = failing(1, errAway)
		if err := a.commit(t.Context()); !errors.Is(err, errAway) || a.stats().Retries != 3 {
			t.Errorf("%v after %d retries", err, a.stats().Retries)
		}
		if err := b.commit(t.Context()); !errors.Is(err, errAway) {
			t.Errorf("error %v", err)
		}
		// Each counts what it has asked for.
		if st := b.stats(); st.Attempts != 1 || st.Retries != 0 || st.RetriesDenied != 1 || st.RetryFailures != 1 {
			t.Errorf("%+v", st)
		}
		if st := a.stats(); st.Attempts != 4 || st.RetriesDenied != 1 || st.RetryFailures != 1 {
			t.Errorf("%+v", st)
		}
	})
}

func TestTheStoresOfADatabaseShareItsPlaces(t *testing.T) {
	policy := Policy{Retry: RetryPolicy{MaxAttempts: 1}, Limit: LimitPolicy{MaxCalls: 1}}
	inGuarded(t, policy, func(t *testing.T, a, b *guarded) {
		answer, done := make(chan error), make(chan error)
		a.steps = []step{func(context.Context) error { return <-answer }}
		go func() { done <- a.load(t.Context()) }()
		synctest.Wait()
		start := time.Now()
		if err := b.commit(t.Context()); !errors.Is(err, lockstep.ErrUnavailable) || time.Since(start) != DefaultMaxWait || len(b.calls) != 0 {
			t.Errorf("error %v after %v, %d calls", err, time.Since(start), len(b.calls))
		}
		answer <- nil
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := b.commit(t.Context()); err != nil {
			t.Error(err)
		}
		if a, b := a.stats(), b.stats(); a.LimitWaits != 0 || b.LimitWaits != 1 || b.LimitRefusals != 1 {
			t.Errorf("%d waits of the one, %d of the other with %d refusals", a.LimitWaits, b.LimitWaits, b.LimitRefusals)
		}
	})
}

func TestATimeoutIsCountedWhereItHappened(t *testing.T) {
	inGuarded(t, Policy{Retry: RetryPolicy{MaxAttempts: 1}}, func(t *testing.T, a, b *guarded) {
		a.steps = []step{hangs(context.Cause)}
		if err := a.load(t.Context()); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		if a.stats().Timeouts != 1 || b.stats().Timeouts != 0 {
			t.Errorf("%d time-outs of the one, %d of the other", a.stats().Timeouts, b.stats().Timeouts)
		}
	})
}

// The hooks of one policy run one at a time, whichever store they are told of.
func TestTheHooksOfAGuardRunOneAtATime(t *testing.T) {
	var running, calls atomic.Int64
	policy := Policy{Retry: RetryPolicy{OnAttempt: func(AttemptEvent) {
		if running.Add(1) > 1 {
			t.Error("two at once")
		}
		time.Sleep(time.Second)
		running.Add(-1)
		calls.Add(1)
	}}}
	inGuarded(t, policy, func(t *testing.T, a, b *guarded) {
		for range 3 {
			a.load(t.Context())
			b.load(t.Context())
		}
		time.Sleep(time.Minute)
		if n := calls.Load(); n != 6 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestGuardsThatCannotBe(t *testing.T) {
	if _, err := NewGuard(Policy{Limit: LimitPolicy{MaxWait: -1}}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("error %v", err)
	}
	guard, err := NewGuard(Policy{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ProtectWith[string, int](nil, guard); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("no store: error %v", err)
	}
	if _, err := ProtectWith(lockstep.Store[string, int](&script{}), nil); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("no guard: error %v", err)
	}
}

// Fields that contradict each other are refused, and named.
func TestPoliciesThatContradictThemselves(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		names  []string
	}{
		{Policy{Retry: RetryPolicy{BaseDelay: 2 * time.Second, MaxDelay: time.Second}}, []string{"RetryPolicy.BaseDelay", "MaxDelay"}},
		{Policy{Breaker: BreakerPolicy{MinWait: DefaultReadTimeout}}, []string{"BreakerPolicy.MinWait", "TimeoutPolicy.Read"}},
		{Policy{Breaker: BreakerPolicy{MinWait: time.Second}, Timeout: TimeoutPolicy{Write: time.Second}}, []string{"BreakerPolicy.MinWait", "TimeoutPolicy.Write"}},
	} {
		store, err := Protect(lockstep.Store[string, int](&script{}), c.policy)
		if store != nil || !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%+v: %v, %v", c.policy, store, err)
			continue
		}
		for _, name := range c.names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not name %s: %v", name, err)
			}
		}
	}
	for _, policy := range []Policy{
		{Retry: RetryPolicy{MaxAttempts: 1, BaseDelay: time.Second}}, // retries that are switched off
		{Timeout: TimeoutPolicy{Read: time.Millisecond}},             // below the default of MinWait, which nobody has asked for
		{Breaker: BreakerPolicy{MinWait: time.Second}},
	} {
		if _, err := Protect(lockstep.Store[string, int](&script{}), policy); err != nil {
			t.Errorf("%+v: %v", policy, err)
		}
	}
}
