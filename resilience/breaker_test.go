package resilience

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
)

func breaking(t *testing.T, s lockstep.Store[string, int], policy BreakerPolicy) lockstep.Store[string, int] {
	t.Helper()
	store, err := Breaker(s, policy)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// eachBroken runs a test for every operation, in a bubble of fake time. state is
// that of the operation's circuit.
func eachBroken(t *testing.T, policy BreakerPolicy, test func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState)) {
	t.Helper()
	for name, operation := range operations {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{}
				store := breaking(t, s, policy)
				test(t, s,
					func(ctx context.Context) error { return operation(ctx, store) },
					func() lockstep.BreakerState {
						if name == "Commit" || name == "Begin" {
							return statsOf(store).WriteBreaker
						}
						return statsOf(store).ReadBreaker
					})
			})
		})
	}
}

var quick = BreakerPolicy{Failures: 4, OpenFor: time.Second}

// open makes the calls that open the circuit of a breaker that is quick.
func open(t *testing.T, s *script, call func(context.Context) error) {
	t.Helper()
	s.steps = failing(4, errAway)
	for range 4 {
		if err := call(t.Context()); err != errAway {
			t.Fatalf("error %v, want the store's", err)
		}
	}
}

// pass lets the open circuit become half-open.
func pass() { time.Sleep(quick.OpenFor + 1) }

func TestAnOpenBreakerSendsNothingAndSaysSo(t *testing.T) {
	eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
		if state() != lockstep.BreakerClosed {
			t.Fatalf("before any call the breaker is %v", state())
		}
		open(t, s, call)
		err := call(t.Context())
		if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) || len(s.calls) != 4 {
			t.Fatalf("error %v after %d calls", err, len(s.calls))
		}
		if !strings.Contains(err.Error(), "breaker") || state() != lockstep.BreakerOpen {
			t.Fatalf("error %q, state %v", err, state())
		}
	})
}

func TestABreakerClosesAfterAProbe(t *testing.T) {
	eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
		open(t, s, call)
		pass()
		if state() != lockstep.BreakerHalfOpen {
			t.Fatalf("after OpenFor the breaker is %v", state())
		}
		if err := call(t.Context()); err != nil || state() != lockstep.BreakerClosed {
			t.Fatalf("error %v, state %v", err, state())
		}
	})
}

func TestAProbeThatFailsOpensTheBreakerAgain(t *testing.T) {
	eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
		open(t, s, call)
		for range 3 {
			pass()
			s.steps = failing(1, errAway)
			if err := call(t.Context()); err != errAway || state() != lockstep.BreakerOpen {
				t.Fatalf("error %v, state %v", err, state())
			}
		}
		if err := call(t.Context()); !errors.Is(err, lockstep.ErrUnavailable) || len(s.calls) != 7 {
			t.Fatalf("error %v after %d calls", err, len(s.calls))
		}
	})
}

func TestOneProbeAtATime(t *testing.T) {
	eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
		open(t, s, call)
		pass()
		answer, probed := make(chan error), make(chan error)
		s.steps = []step{func(context.Context) error { return <-answer }}
		go func() { probed <- call(t.Context()) }()
		synctest.Wait()
		for range 10 {
			if err := call(t.Context()); !errors.Is(err, lockstep.ErrUnavailable) {
				t.Fatalf("beside a probe: error %v", err)
			}
		}
		answer <- nil
		if err := <-probed; err != nil || state() != lockstep.BreakerClosed || len(s.calls) != 5 {
			t.Fatalf("error %v, state %v, %d calls", err, state(), len(s.calls))
		}
	})
}

// A probe whose caller has gone, or which the store has refused by itself, says
// nothing of the database: the next call is the probe.
func TestAProbeWithoutASignGivesItsPlaceBack(t *testing.T) {
	cancelled := func(ctx context.Context, cancel context.CancelCauseFunc) error {
		cancel(errors.New("the user has left"))
		return errors.Join(lockstep.ErrUnavailable, ctx.Err())
	}
	invalid := func(context.Context, context.CancelCauseFunc) error { return lockstep.ErrInvalid }
	wouldWait := func(context.Context, context.CancelCauseFunc) error { return lockstep.ErrWouldWait }
	for _, end := range []func(context.Context, context.CancelCauseFunc) error{cancelled, invalid, wouldWait} {
		eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
			open(t, s, call)
			pass()
			for range 10 {
				ctx, cancel := context.WithCancelCause(t.Context())
				s.steps = []step{func(ctx context.Context) error { return end(ctx, cancel) }}
				if err := call(ctx); err == nil || state() != lockstep.BreakerHalfOpen {
					t.Fatalf("error %v, state %v", err, state())
				}
			}
			if err := call(t.Context()); err != nil || state() != lockstep.BreakerClosed {
				t.Fatalf("error %v, state %v", err, state())
			}
		})
	}
}

func TestAProbeThatPanicsOrEndsItsGoroutineDoesNotKeepItsPlace(t *testing.T) {
	for _, end := range []step{
		func(context.Context) error { panic("driver bug") },
		func(context.Context) error { runtime.Goexit(); return nil },
	} {
		eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
			open(t, s, call)
			pass()
			s.steps = []step{end}
			done := make(chan any)
			go func() {
				defer func() { done <- recover() }()
				call(t.Context())
			}()
			if p := <-done; p != nil && p != "driver bug" {
				t.Fatalf("recovered %v", p)
			}
			if state() != lockstep.BreakerOpen {
				t.Fatalf("state %v", state())
			}
			pass()
			if err := call(t.Context()); err != nil || state() != lockstep.BreakerClosed {
				t.Fatalf("error %v, state %v", err, state())
			}
		})
	}
}

// The answer to a call that was sent before the circuit opened is old news.
func TestALateAnswerDoesNotCloseABreaker(t *testing.T) {
	eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
		answer, late := make(chan error), make(chan error)
		s.steps = []step{func(context.Context) error { return <-answer }}
		go func() { late <- call(t.Context()) }()
		synctest.Wait()
		open(t, s, call)
		pass()
		if state() != lockstep.BreakerHalfOpen {
			t.Fatalf("state %v", state())
		}
		answer <- nil
		if err := <-late; err != nil || state() != lockstep.BreakerHalfOpen {
			t.Fatalf("error %v, state %v", err, state())
		}
	})
}

func TestWhatCountsAsAFailure(t *testing.T) {
	deadline := func(parent context.Context) (context.Context, func()) {
		ctx, cancel := context.WithCancelCause(parent)
		return ctx, func() {
			time.Sleep(DefaultMinWait)
			cancel(fmt.Errorf("the caller: %w", context.DeadlineExceeded))
		}
	}
	soon := func(parent context.Context) (context.Context, func()) {
		ctx, cancel := context.WithCancelCause(parent)
		return ctx, func() {
			time.Sleep(DefaultMinWait - 1)
			cancel(fmt.Errorf("the caller: %w", context.DeadlineExceeded))
		}
	}
	own := func(parent context.Context) (context.Context, func()) {
		ctx, cancel := context.WithTimeoutCause(parent, DefaultMinWait, errors.New("the caller"))
		return ctx, func() { <-ctx.Done(); cancel() }
	}
	cancelled := func(parent context.Context) (context.Context, func()) {
		ctx, cancel := context.WithCancel(parent)
		return ctx, cancel
	}
	lives := func(parent context.Context) (context.Context, func()) { return parent, func() {} }
	for _, c := range []struct {
		name string
		err  error
		ctx  func(context.Context) (context.Context, func())
		want lockstep.BreakerState
	}{
		{"away", errAway, lives, lockstep.BreakerOpen},
		{"unknown", lockstep.ErrUnknownOutcome, lives, lockstep.BreakerOpen},
		{"unknown with a conflict", errors.Join(lockstep.ErrUnknownOutcome, lockstep.ErrConflict), lives, lockstep.BreakerOpen},
		{"not classified", errors.New("broken pipe"), lives, lockstep.BreakerOpen},
		{"deadline", context.DeadlineExceeded, lives, lockstep.BreakerOpen},
		{"deadline of the caller", lockstep.ErrUnknownOutcome, deadline, lockstep.BreakerOpen},
		{"deadline of readers", context.Canceled, deadline, lockstep.BreakerOpen},
		{"deadline of readers in a hurry", context.Canceled, soon, lockstep.BreakerClosed},
		{"deadline of a caller in a hurry", lockstep.ErrUnknownOutcome, soon, lockstep.BreakerClosed},
		{"deadline for a cause", context.DeadlineExceeded, own, lockstep.BreakerOpen},
		{"cancelled by the caller", lockstep.ErrUnknownOutcome, cancelled, lockstep.BreakerClosed},
		{"cancelled", context.Canceled, lives, lockstep.BreakerClosed},
		{"conflict", &lockstep.ConflictError{Key: "k"}, lives, lockstep.BreakerClosed},
		{"invalid", lockstep.ErrInvalid, lives, lockstep.BreakerClosed},
		{"closed", lockstep.ErrClosed, lives, lockstep.BreakerClosed},
		{"unsupported", lockstep.ErrUnsupported, lives, lockstep.BreakerClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
				for range 10 {
					ctx, end := c.ctx(t.Context())
					s.steps = []step{func(context.Context) error { end(); return c.err }}
					if err := call(ctx); err == nil {
						t.Fatal("no error")
					}
				}
				if state() != c.want {
					t.Fatalf("state %v, want %v", state(), c.want)
				}
			})
		})
	}
}

// Whatever answers between failures, a conflict like a success, ends the row of them.
func TestAnAnswerEndsTheRowOfFailures(t *testing.T) {
	for _, answer := range []error{nil, &lockstep.ConflictError{Key: "k"}} {
		eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
			for range 10 {
				s.steps = append(failing(3, errAway), fails(answer))
				for range 4 {
					call(t.Context())
				}
			}
			if state() != lockstep.BreakerClosed {
				t.Fatalf("state %v", state())
			}
		})
	}
}

// What was refused says nothing, and so does not end it either.
func TestARefusalDoesNotEndTheRowOfFailures(t *testing.T) {
	eachBroken(t, quick, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
		for range 4 {
			s.steps = []step{fails(lockstep.ErrInvalid), fails(errAway)}
			call(t.Context())
			call(t.Context())
		}
		if state() != lockstep.BreakerOpen {
			t.Fatalf("state %v", state())
		}
	})
}

func TestReadsGoOnWhileWritesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		store := breaking(t, s, quick)
		open(t, s, func(ctx context.Context) error { return operations["Commit"](ctx, store) })
		for _, name := range []string{"Load", "Scan"} {
			if err := operations[name](t.Context(), store); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := operations["Begin"](t.Context(), store); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("Begin: %v", err)
		}
		st := statsOf(store)
		if st.WriteBreaker != lockstep.BreakerOpen || st.ReadBreaker != lockstep.BreakerClosed || st.BreakerChanges != 1 || st.BreakerRefusals != 1 {
			t.Errorf("writes %v, reads %v, %d changes, %d refusals", st.WriteBreaker, st.ReadBreaker, st.BreakerChanges, st.BreakerRefusals)
		}
	})
}

func TestSeveralProbes(t *testing.T) {
	policy := quick
	policy.Probes = 3
	eachBroken(t, policy, func(t *testing.T, s *script, call func(context.Context) error, state func() lockstep.BreakerState) {
		open(t, s, call)
		pass()
		for i := range 3 {
			if state() != lockstep.BreakerHalfOpen {
				t.Fatalf("state %v before probe %d", state(), i+1)
			}
			if err := call(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if state() != lockstep.BreakerClosed {
			t.Fatalf("state %v", state())
		}
	})
}

func TestBadBreakerPoliciesAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		policy BreakerPolicy
		field  string
	}{
		{BreakerPolicy{Failures: -1}, "Failures"},
		{BreakerPolicy{Failures: math.MaxInt}, "Failures"},
		{BreakerPolicy{OpenFor: -1}, "OpenFor"},
		{BreakerPolicy{Probes: -1}, "Probes"},
		{BreakerPolicy{MinWait: -1}, "MinWait"},
		{BreakerPolicy{Probes: math.MaxInt}, "Probes"},
	} {
		store, err := Breaker(&script{}, c.policy)
		if store != nil || !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "BreakerPolicy."+c.field) {
			t.Errorf("%+v: store %v, error %v", c.policy, store, err)
		}
	}
}
