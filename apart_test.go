package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// locking is a table some of whose rows somebody else holds locked.
type locking struct {
	*memstore.Store[string, int]
	mu     sync.Mutex
	locked map[string]chan struct{} // closed when the lock ends
	first  chan struct{}            // the first commit waits for it
}

func (s *locking) lock(keys ...string) (unlock func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := make(chan struct{})
	for _, key := range keys {
		s.locked[key] = end
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		maps.DeleteFunc(s.locked, func(_ string, c chan struct{}) bool { return c == end })
		close(end)
	}
}

func (s *locking) lockOf(set lockstep.ChangeSet[string, int]) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range set.Changes {
		if end := s.locked[c.Key]; end != nil {
			return end
		}
	}
	return nil
}

func (s *locking) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, int]) ([]lockstep.Outcome[int], error) {
	s.mu.Lock()
	first := s.first
	s.first = nil
	s.mu.Unlock()
	if first != nil {
		<-first
	}
	outcomes := make([]lockstep.Outcome[int], len(sets))
	var free []lockstep.ChangeSet[string, int]
	for i, set := range sets {
		end := s.lockOf(set)
		if end == nil {
			free = append(free, set)
			continue
		}
		if len(sets) == 1 && !lockstep.Parting(ctx) {
			select {
			case <-end:
				return s.Store.Commit(ctx, sets)
			case <-ctx.Done():
				return nil, fmt.Errorf("%w: the row is locked: %w", lockstep.ErrUnavailable, ctx.Err())
			}
		}
		outcomes[i] = lockstep.Outcome[int]{Err: fmt.Errorf("%w: the row is locked", lockstep.ErrUnavailable), Blocked: true}
	}
	done, err := s.Store.Commit(ctx, free)
	for i := range outcomes {
		if err == nil && !outcomes[i].Blocked {
			outcomes[i], done = done[0], done[1:]
		}
	}
	return outcomes, err
}

// inLockedTable writes the keys in one batch, all of whose writes are queued
// behind another.
func inLockedTable(t *testing.T, o options, story func(t *testing.T, s *locking, cache *lockstep.Cache[string, int], write func(ctx context.Context, keys ...string) map[string]chan error)) {
	synctest.Test(t, func(t *testing.T) {
		s := &locking{Store: memstore.New(memstore.Options[string, int]{}), locked: map[string]chan struct{}{}}
		cache := cachetest.Open(t, s, o)
		story(t, s, cache, func(ctx context.Context, keys ...string) map[string]chan error {
			first := make(chan struct{})
			s.first = first
			ended := map[string]chan error{}
			for i, key := range append([]string{"first"}, keys...) {
				ended[key] = make(chan error, 1)
				go func() {
					_, err := cache.Set(ctx, key, i)
					ended[key] <- err
				}()
				synctest.Wait()
			}
			close(first)
			synctest.Wait()
			return ended
		})
	})
}

// A row that somebody else holds locked stalls the writes of that row, and no
// others; not those of the same batch, and not those that come later.
func TestALockedRowStallsNoOtherKey(t *testing.T) {
	inLockedTable(t, options{}, func(t *testing.T, s *locking, cache *lockstep.Cache[string, int], write func(context.Context, ...string) map[string]chan error) {
		unlock := s.lock("k")
		ended := write(t.Context(), "k", "l", "m")
		for _, key := range []string{"l", "m"} {
			if err := <-ended[key]; err != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
		for i := range 100 {
			if _, err := cache.Set(t.Context(), "l", i); err != nil {
				t.Fatal(err)
			}
		}
		later := make(chan error, 1)
		go func() {
			_, err := cache.Set(t.Context(), "k", 99)
			later <- err
		}()
		synctest.Wait()
		if len(ended["k"])+len(later) != 0 {
			t.Error("a write of the locked row has ended")
		}
		unlock()
		if err := errors.Join(<-ended["k"], <-later); err != nil {
			t.Error(err)
		}
		if value, err := cache.Get(t.Context(), "k"); value != 99 || err != nil {
			t.Errorf("k is %d, %v", value, err)
		}
		if n := cache.Stats().Blocked; n != 1 {
			t.Errorf("Stats.Blocked is %d", n)
		}
	})
}

// Two lone writes of locked rows had both places for batches, and writes of all other
// keys waited for them.
func TestLoneWritesOfLockedRowsStallNoOtherKey(t *testing.T) {
	inLockedTable(t, options{}, func(t *testing.T, s *locking, cache *lockstep.Cache[string, int], _ func(context.Context, ...string) map[string]chan error) {
		unlock := s.lock("k", "l")
		ended := make(chan error, 2)
		for _, key := range []string{"k", "l"} {
			go func() {
				_, err := cache.Set(t.Context(), key, 1)
				ended <- err
			}()
			synctest.Wait()
		}
		if _, err := cache.Set(t.Context(), "m", 1); err != nil {
			t.Error(err)
		}
		if len(ended) != 0 {
			t.Error("a write of a locked row has ended")
		}
		unlock()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	})
}

// However many rows are locked, the writes that wait for them end with
// CommitTimeout and are not applied, and the cache closes.
func TestManyLockedRows(t *testing.T) {
	inLockedTable(t, options{}, func(t *testing.T, s *locking, cache *lockstep.Cache[string, int], write func(context.Context, ...string) map[string]chan error) {
		var keys []string
		for i := range 20 {
			keys = append(keys, fmt.Sprint(i))
		}
		unlock := s.lock(keys...)
		defer unlock()
		ended := write(t.Context(), append(keys, "free")...)
		if err := <-ended["free"]; err != nil {
			t.Error(err)
		}
		for _, key := range keys {
			if err := <-ended[key]; !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("%s: %v", key, err)
			}
		}
	})
}

// One whose caller leaves while it waits for the lock is unknown, until the lock
// ends.
func TestACallerLeavesALockedRow(t *testing.T) {
	inLockedTable(t, options{}, func(t *testing.T, s *locking, cache *lockstep.Cache[string, int], write func(context.Context, ...string) map[string]chan error) {
		unlock := s.lock("k")
		ctx, leave := context.WithCancel(t.Context())
		ended := write(ctx, "k", "l")
		leave()
		var e *lockstep.WriteError
		if err := <-ended["k"]; !errors.As(err, &e) || e.Outcome != lockstep.Unknown {
			t.Fatalf("Set = %v", err)
		}
		unlock()
		if applied, _, err := e.Wait(t.Context()); !applied || err != nil {
			t.Errorf("Wait = %t, %v", applied, err)
		}
	})
}
