package resilience

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// eachTimed runs a test for every operation that has a deadline, in a bubble of fake
// time.
func eachTimed(t *testing.T, test func(t *testing.T, s *script, limit time.Duration, call func(context.Context) error, stats func() lockstep.Stats)) {
	t.Helper()
	for name, limit := range map[string]time.Duration{"Load": DefaultReadTimeout, "Scan": DefaultReadTimeout, "Commit": DefaultWriteTimeout} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{}
				store, err := Timeout(s, TimeoutPolicy{})
				if err != nil {
					t.Fatal(err)
				}
				test(t, s, limit,
					func(ctx context.Context) error { return operations[name](ctx, store) },
					func() lockstep.Stats { return statsOf(store) })
			})
		})
	}
}

// hangs waits for the end of its context and returns what end makes of it.
func hangs(end func(context.Context) error) step {
	return func(ctx context.Context) error { <-ctx.Done(); return end(ctx) }
}

// What hung and was not sent may be tried again.
func TestACallThatHangsIsUnavailable(t *testing.T) {
	for _, end := range []func(context.Context) error{
		func(ctx context.Context) error { return ctx.Err() },
		context.Cause,
		func(ctx context.Context) error { return errors.Join(lockstep.ErrUnavailable, ctx.Err()) },
		func(ctx context.Context) error { return errors.New("use of a closed connection") },
	} {
		eachTimed(t, func(t *testing.T, s *script, limit time.Duration, call func(context.Context) error, stats func() lockstep.Stats) {
			s.steps = []step{hangs(end)}
			start := time.Now()
			err := call(t.Context())
			if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) || !strings.Contains(err.Error(), "no answer within") {
				t.Errorf("error %v", err)
			}
			if !OpLoad.passing(err) || !OpCommit.passing(err) {
				t.Errorf("error %v does not pass", err)
			}
			if took := time.Since(start); took != limit || stats().Timeouts != 1 {
				t.Errorf("after %v, %d time-outs", took, stats().Timeouts)
			}
		})
	}
}

// A commit that was sent is unknown, whatever has ended it; and what was refused in
// the end was refused.
func TestATimeoutDoesNotChangeWhatTheStoreKnows(t *testing.T) {
	for _, want := range []error{
		nil, lockstep.ErrUnknownOutcome, errors.Join(lockstep.ErrUnknownOutcome, context.DeadlineExceeded), lockstep.ErrInvalid,
	} {
		eachTimed(t, func(t *testing.T, s *script, _ time.Duration, call func(context.Context) error, stats func() lockstep.Stats) {
			s.steps = []step{hangs(func(context.Context) error { return want })}
			if err := call(t.Context()); err != want {
				t.Errorf("error %v, want %v as it is", err, want)
			}
			if n := stats().Timeouts; (n == 1) != (want != nil) {
				t.Errorf("%d time-outs", n)
			}
		})
	}
}

// What the caller has ended is not the time-out's to judge.
func TestTheCallersContextComesFirst(t *testing.T) {
	eachTimed(t, func(t *testing.T, s *script, limit time.Duration, call func(context.Context) error, stats func() lockstep.Stats) {
		for _, earlier := range []time.Duration{limit / 2, 0} {
			ctx, cancel := context.WithTimeout(t.Context(), earlier)
			s.steps = []step{hangs(func(ctx context.Context) error { return ctx.Err() })}
			if err := call(ctx); err != context.DeadlineExceeded {
				t.Errorf("error %v", err)
			}
			cancel()
		}
		if n := stats().Timeouts; n != 0 {
			t.Errorf("%d time-outs", n)
		}
	})
}

// The context belongs to the transaction until that ends.
func TestATransactionThatWasBegunIsNotEndedByATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun context.Context
		s := &script{steps: []step{func(ctx context.Context) error { begun = ctx; return nil }}}
		store, err := Timeout(s, TimeoutPolicy{})
		if err != nil {
			t.Fatal(err)
		}
		if err := operations["Begin"](t.Context(), store); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if begun.Err() != nil {
			t.Errorf("the transaction's context has ended: %v", context.Cause(begun))
		}
	})
}

// What a context says to a store passes through every part.
func TestContextsKeepTheirValues(t *testing.T) {
	type key struct{}
	for name, around := range parts {
		t.Run(name, func(t *testing.T) {
			s := &script{}
			store, err := around(s)
			if err != nil {
				t.Fatal(err)
			}
			for name, operation := range operations {
				s.steps = []step{func(ctx context.Context) error {
					if ctx.Value(key{}) != "value" {
						return lockstep.ErrInvalid
					}
					return nil
				}}
				if err := operation(context.WithValue(t.Context(), key{}, "value"), store); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func TestBadTimeoutPoliciesAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		policy TimeoutPolicy
		field  string
	}{{TimeoutPolicy{Read: -1}, "Read"}, {TimeoutPolicy{Write: -1}, "Write"}} {
		store, err := Timeout(&script{}, c.policy)
		if store != nil || !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "TimeoutPolicy."+c.field) {
			t.Errorf("%+v: store %v, error %v", c.policy, store, err)
		}
	}
}
