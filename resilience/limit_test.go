package resilience

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// eachLimited runs a test for every operation, in a bubble of fake time.
func eachLimited(t *testing.T, policy LimitPolicy, test func(t *testing.T, s *script, call func(context.Context) error, stats func() lockstep.Stats)) {
	t.Helper()
	for name, operation := range operations {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{}
				store, err := Limit(s, policy)
				if err != nil {
					t.Fatal(err)
				}
				test(t, s,
					func(ctx context.Context) error { return operation(ctx, store) },
					func() lockstep.Stats { return statsOf(store) })
			})
		})
	}
}

// held makes the next n calls wait until release is called.
func (s *script) held(n int) (release func()) {
	answer := make(chan struct{})
	for range n {
		s.steps = append(s.steps, func(context.Context) error { <-answer; return nil })
	}
	return func() { close(answer) }
}

func TestCallsBeyondTheLimitWait(t *testing.T) {
	eachLimited(t, LimitPolicy{MaxCalls: 3}, func(t *testing.T, s *script, call func(context.Context) error, stats func() lockstep.Stats) {
		release := s.held(3)
		results := make(chan error)
		for range 5 {
			go func() { results <- call(t.Context()) }()
		}
		synctest.Wait()
		if len(s.calls) != 3 {
			t.Fatalf("%d calls under way", len(s.calls))
		}
		release()
		for range 5 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if st := stats(); len(s.calls) != 5 || st.LimitWaits != 2 || st.LimitRefusals != 0 {
			t.Errorf("%d calls, %d waits, %d refusals", len(s.calls), st.LimitWaits, st.LimitRefusals)
		}
	})
}

func TestACallWithoutAPlaceWasNotSent(t *testing.T) {
	policy := LimitPolicy{MaxCalls: 1, MaxWait: time.Minute}
	eachLimited(t, policy, func(t *testing.T, s *script, call func(context.Context) error, stats func() lockstep.Stats) {
		release := s.held(1)
		first := make(chan error)
		go func() { first <- call(t.Context()) }()
		synctest.Wait()
		start := time.Now()
		err := call(t.Context())
		if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) || !strings.Contains(err.Error(), "MaxCalls") {
			t.Fatalf("error %v", err)
		}
		if waited := time.Since(start); waited != time.Minute || len(s.calls) != 1 {
			t.Fatalf("after %v, %d calls", waited, len(s.calls))
		}
		release()
		if err := <-first; err != nil {
			t.Error(err)
		}
		if st := stats(); st.LimitWaits != 1 || st.LimitRefusals != 1 {
			t.Errorf("%d waits, %d refusals", st.LimitWaits, st.LimitRefusals)
		}
	})
}

func TestAWaitForAPlaceEndsWithTheContext(t *testing.T) {
	eachLimited(t, LimitPolicy{MaxCalls: 1, MaxWait: time.Hour}, func(t *testing.T, s *script, call func(context.Context) error, stats func() lockstep.Stats) {
		release := s.held(1)
		first, second := make(chan error), make(chan error)
		go func() { first <- call(t.Context()) }()
		synctest.Wait()
		cause := errors.New("the user has left")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { second <- call(ctx) }()
		synctest.Wait()
		start := time.Now()
		cancel(cause)
		err := <-second
		if !errors.Is(err, lockstep.ErrUnavailable) || !errors.Is(err, cause) || !errors.Is(err, context.Canceled) || errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("error %v", err)
		}
		if time.Since(start) != 0 || len(s.calls) != 1 {
			t.Errorf("after %v, %d calls", time.Since(start), len(s.calls))
		}
		release()
		if err := <-first; err != nil {
			t.Error(err)
		}
		// What did not get the place does not keep it.
		if err := call(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPlacesComeBackAfterPanicsAndEndsOfGoroutines(t *testing.T) {
	eachLimited(t, LimitPolicy{MaxCalls: 1}, func(t *testing.T, s *script, call func(context.Context) error, _ func() lockstep.Stats) {
		for _, end := range []step{
			func(context.Context) error { panic("driver bug") },
			func(context.Context) error { runtime.Goexit(); return nil },
		} {
			s.steps = []step{end}
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { recover() }()
				call(t.Context())
			}()
			<-done
			if err := call(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestBadLimitPoliciesAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		policy LimitPolicy
		field  string
	}{
		{LimitPolicy{MaxCalls: -1}, "MaxCalls"},
		{LimitPolicy{MaxCalls: math.MaxInt}, "MaxCalls"},
		{LimitPolicy{MaxWait: -1}, "MaxWait"},
	} {
		store, err := Limit(&script{}, c.policy)
		if store != nil || !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "LimitPolicy."+c.field) {
			t.Errorf("%+v: store %v, error %v", c.policy, store, err)
		}
	}
}
