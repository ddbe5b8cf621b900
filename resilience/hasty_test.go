package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// immediate is a store whose first commits fail in passing. It notes which were hasty.
type immediate struct {
	*memstore.Store[string, int]
	failures int
	hasty    []bool
	held     chan struct{} // if set, loads wait until it is closed
}

func (s *immediate) Load(ctx context.Context, keys []string) (map[string]lockstep.Row[int], error) {
	if s.held != nil {
		<-s.held
	}
	return s.Store.Load(ctx, keys)
}

func (s *immediate) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, int]) ([]lockstep.Outcome[int], error) {
	s.hasty = append(s.hasty, lockstep.Hasty(ctx))
	if len(s.hasty) <= s.failures {
		return nil, fmt.Errorf("locked: %w", lockstep.ErrUnavailable)
	}
	return s.Store.Commit(ctx, sets)
}

func (s *immediate) Capabilities() lockstep.Capabilities[string, int] {
	c := s.Store.Capabilities()
	c.Immediate = true
	return c
}

// A lone write on a local disk is committed on its caller's goroutine, which does not
// wait: its retries are made where they may.
func TestAHastyCommitIsTriedAgainElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &immediate{Store: memstore.New(memstore.Options[string, int]{}), failures: 2}
		store, err := resilience.Retry(lockstep.Store[string, int](inner), resilience.RetryPolicy{})
		if err != nil {
			t.Fatal(err)
		}
		c := cachetest.Open(t, store, lockstep.Options[string, int]{})
		if _, err := c.Set(t.Context(), "k", 1); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(inner.hasty, []bool{true, false, false}) {
			t.Errorf("hasty: %v", inner.hasty)
		}
		if st := c.Stats(); st.Retries != 2 || st.RetryFailures != 0 || st.Committed != 1 || st.Unavailable != 0 {
			t.Errorf("%d retries, %d failures, %d committed, %d unavailable", st.Retries, st.RetryFailures, st.Committed, st.Unavailable)
		}
	})
}

func TestAHastyCommitWithOneAttemptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &immediate{Store: memstore.New(memstore.Options[string, int]{}), failures: 1}
		store, err := resilience.Retry(lockstep.Store[string, int](inner), resilience.RetryPolicy{MaxAttempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		c := cachetest.Open(t, store, lockstep.Options[string, int]{})
		if _, err := c.Set(t.Context(), "k", 1); err == nil || len(inner.hasty) != 1 {
			t.Errorf("error %v after %d attempts", err, len(inner.hasty))
		}
	})
}

func TestTheRetryOfAHastyCommitCostsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &immediate{Store: memstore.New(memstore.Options[string, int]{}), failures: 9}
		store, err := resilience.Retry(lockstep.Store[string, int](inner), resilience.RetryPolicy{Budget: resilience.RetryBudget{Reserve: 1}})
		if err != nil {
			t.Fatal(err)
		}
		c := cachetest.Open(t, store, lockstep.Options[string, int]{})
		if _, err := c.Set(t.Context(), "k", 1); !errors.Is(err, lockstep.ErrUnavailable) || !slices.Equal(inner.hasty, []bool{true, false}) {
			t.Errorf("error %v, hasty: %v", err, inner.hasty)
		}
	})
}

// One that finds no place is not hasty any more.
func TestAHastyCommitDoesNotWaitForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &immediate{Store: memstore.New(memstore.Options[string, int]{}), held: make(chan struct{})}
		c := limited(t, inner, resilience.LimitPolicy{MaxCalls: 1})
		read, written := make(chan error), make(chan error)
		go func() { _, err := c.Get(t.Context(), "other"); read <- err }()
		synctest.Wait()
		go func() { _, err := c.Set(t.Context(), "k", 1); written <- err }()
		synctest.Wait()
		close(inner.held)
		if err := <-read; !errors.Is(err, lockstep.ErrNotFound) {
			t.Error(err)
		}
		if err := <-written; err != nil || !slices.Equal(inner.hasty, []bool{false}) {
			t.Errorf("error %v, hasty: %v", err, inner.hasty)
		}
	})
}
