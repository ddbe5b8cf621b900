package resilience

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
)

type (
	row       = lockstep.Row[int]
	changeSet = lockstep.ChangeSet[string, int]
	outcome   = lockstep.Outcome[int]
)

// script is a store each of whose calls, Load, Commit, Begin or Scan, does what
// the next step says; after the last step all succeed.
type script struct {
	mu    sync.Mutex
	steps []step
	calls []time.Time
}

// step returns the error of a call, or panics.
type step func(ctx context.Context) error

func fails(err error) step { return func(context.Context) error { return err } }

func failing(times int, err error) []step {
	steps := make([]step, times)
	for i := range steps {
		steps[i] = fails(err)
	}
	return steps
}

func (s *script) next(ctx context.Context) error {
	s.mu.Lock()
	s.calls = append(s.calls, time.Now())
	var do step
	if len(s.steps) > 0 {
		do, s.steps = s.steps[0], s.steps[1:]
	}
	s.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx)
}

func (s *script) Load(ctx context.Context, keys []string) (map[string]row, error) {
	if err := s.next(ctx); err != nil {
		return nil, err
	}
	return map[string]row{keys[0]: {Value: 7, Exists: true}}, nil
}

func (s *script) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	if err := s.next(ctx); err != nil {
		return nil, err
	}
	return make([]outcome, len(sets)), nil
}

func (s *script) Capabilities() lockstep.Capabilities[string, int] {
	return lockstep.Capabilities[string, int]{
		Name:  "script",
		Begin: func(ctx context.Context) (lockstep.Txn, error) { return nil, s.next(ctx) },
		Scan: func(ctx context.Context, _ any, _ int) (lockstep.Page[string, int], error) {
			return lockstep.Page[string, int]{Next: 1}, s.next(ctx)
		},
		Report: func(stats *lockstep.Stats) { stats.Retries += 100 },
	}
}

// operations are the calls that are tried again, by name.
var operations = map[string]func(context.Context, lockstep.Store[string, int]) error{
	"Load": func(ctx context.Context, s lockstep.Store[string, int]) error {
		rows, err := s.Load(ctx, []string{"k"})
		if err == nil && rows["k"].Value != 7 {
			return fmt.Errorf("Load returned %v", rows)
		}
		return err
	},
	"Commit": func(ctx context.Context, s lockstep.Store[string, int]) error {
		outcomes, err := s.Commit(ctx, make([]changeSet, 2))
		if err == nil && len(outcomes) != 2 {
			return fmt.Errorf("Commit returned %v", outcomes)
		}
		return err
	},
	"Begin": func(ctx context.Context, s lockstep.Store[string, int]) error {
		_, err := s.Capabilities().Begin(ctx)
		return err
	},
	"Scan": func(ctx context.Context, s lockstep.Store[string, int]) error {
		page, err := s.Capabilities().Scan(ctx, nil, 10)
		if err == nil && page.Next != 1 {
			return fmt.Errorf("Scan returned %v", page)
		}
		return err
	},
}

// each runs a test for every operation, in a bubble of fake time.
func each(t *testing.T, policy RetryPolicy, test func(t *testing.T, name string, s *script, call func(context.Context) error)) {
	t.Helper()
	for name, operation := range operations {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{}
				store := retrying(t, s, policy)
				test(t, name, s, func(ctx context.Context) error { return operation(ctx, store) })
			})
		})
	}
}

func retrying(t *testing.T, s lockstep.Store[string, int], policy RetryPolicy) lockstep.Store[string, int] {
	t.Helper()
	store, err := Retry(s, policy)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func statsOf(s lockstep.Store[string, int]) lockstep.Stats {
	var stats lockstep.Stats
	s.Capabilities().Report(&stats)
	return stats
}

var errAway = fmt.Errorf("connection refused: %w", lockstep.ErrUnavailable)

func TestPassingErrorsAreTriedAgain(t *testing.T) {
	each(t, RetryPolicy{}, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		s.steps = failing(5, errAway)
		if err := call(t.Context()); err != nil || len(s.calls) != 6 {
			t.Fatalf("error %v after %d calls", err, len(s.calls))
		}
	})
}

func TestWaitsGrowAndAreBounded(t *testing.T) {
	policy := RetryPolicy{MaxAttempts: 9, BaseDelay: 10 * time.Millisecond, MaxDelay: 200 * time.Millisecond}
	each(t, policy, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		s.steps = failing(99, errAway)
		err := call(t.Context())
		if !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), "9 attempts") {
			t.Fatalf("error %v", err)
		}
		if len(s.calls) != 9 {
			t.Fatalf("%d calls", len(s.calls))
		}
		bound := policy.BaseDelay
		for i := 1; i < len(s.calls); i++ {
			if gap := s.calls[i].Sub(s.calls[i-1]); gap <= 0 || gap > bound {
				t.Errorf("wait %d was %v, want at most %v", i, gap, bound)
			}
			bound = min(2*bound, policy.MaxDelay)
		}
	})
}

func TestPermanentErrorsAreNotTriedAgain(t *testing.T) {
	for _, permanent := range []error{
		lockstep.ErrInvalid, lockstep.ErrTooLarge, lockstep.ErrUnsupported, lockstep.ErrClosed,
		&lockstep.ConflictError{Key: "k"}, context.Canceled, context.DeadlineExceeded,
		errors.Join(lockstep.ErrUnavailable, lockstep.ErrInvalid),
	} {
		each(t, RetryPolicy{}, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
			s.steps = failing(1, permanent)
			if err := call(t.Context()); err != permanent || len(s.calls) != 1 {
				t.Fatalf("error %v after %d calls, want %v as it is after one", err, len(s.calls), permanent)
			}
		})
	}
}

func TestUnknownOutcomesAreNeverTriedAgain(t *testing.T) {
	for _, unknown := range []error{
		lockstep.ErrUnknownOutcome,
		fmt.Errorf("reply lost: %w", lockstep.ErrUnknownOutcome),
		errors.Join(lockstep.ErrUnavailable, lockstep.ErrUnknownOutcome),
		&lockstep.WriteError{Outcome: lockstep.Unknown, Err: lockstep.ErrUnavailable},
	} {
		each(t, RetryPolicy{}, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
			s.steps = []step{fails(errAway), fails(unknown)}
			if err := call(t.Context()); err != unknown || len(s.calls) != 2 {
				t.Fatalf("error %v after %d calls, want %v as it is after two", err, len(s.calls), unknown)
			}
		})
	}
}

// An error that the store does not classify may hide a commit, and hides no
// load.
func TestUnclassifiedErrorsAreTriedAgainWhereNothingChanges(t *testing.T) {
	each(t, RetryPolicy{}, func(t *testing.T, name string, s *script, call func(context.Context) error) {
		broken := errors.New("broken pipe")
		s.steps = failing(1, broken)
		err := call(t.Context())
		if name == "Commit" {
			if err != broken || len(s.calls) != 1 {
				t.Fatalf("error %v after %d calls", err, len(s.calls))
			}
		} else if err != nil || len(s.calls) != 2 {
			t.Fatalf("error %v after %d calls", err, len(s.calls))
		}
	})
}

// A store with a deadline of its own may say that it passed.
func TestAnInnerDeadlineThatIsUnavailableIsTriedAgain(t *testing.T) {
	each(t, RetryPolicy{}, func(t *testing.T, _ string, s *script, call func(context.Context) error) {
		s.steps = failing(1, errors.Join(lockstep.ErrUnavailable, context.DeadlineExceeded))
		if err := call(t.Context()); err != nil || len(s.calls) != 2 {
			t.Fatalf("error %v after %d calls", err, len(s.calls))
		}
	})
}

func TestSetsThatWereLeftOutAreNotTriedAgain(t *testing.T) {
	inner := leavingOut{&script{}}
	outcomes, err := retrying(t, inner, RetryPolicy{}).Commit(t.Context(), make([]changeSet, 3))
	if err != nil || len(inner.calls) != 1 || !errors.Is(outcomes[1].Err, lockstep.ErrUnavailable) {
		t.Fatalf("outcomes %v, error %v after %d calls", outcomes, err, len(inner.calls))
	}
}

// leavingOut commits every batch but its second set.
type leavingOut struct{ *script }

func (s leavingOut) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	outcomes, err := s.script.Commit(ctx, sets)
	outcomes[1].Err = errAway
	return outcomes, err
}
