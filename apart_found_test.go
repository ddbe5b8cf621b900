package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// divided is a table that leaves every set out of a batch of several, as blocked. What
// it does with one that is alone the test says.
type divided struct {
	*memstore.Store[string, int]
	gate chan struct{} // a batch of several waits for it
	lone func(ctx context.Context, set changeSet, commit func() error) error
}

func (s *divided) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	if len(sets) > 1 {
		<-s.gate
		outcomes := make([]outcome, len(sets))
		for i := range outcomes {
			outcomes[i] = outcome{Err: fmt.Errorf("%w: locked", lockstep.ErrUnavailable), Blocked: true}
		}
		return outcomes, nil
	}
	var outcomes []outcome
	err := s.lone(ctx, sets[0], func() (err error) {
		outcomes, err = s.Store.Commit(ctx, sets)
		return err
	})
	return outcomes, err
}

// inDivided plays a story in which the calls are queued one after the other, behind a
// write of another key, so that they share a batch.
func inDivided(t *testing.T, story func(t *testing.T, s *divided, cache *lockstep.Cache[string, int], batch func(calls ...func() error) []*call)) {
	synctest.Test(t, func(t *testing.T) {
		s := &divided{Store: memstore.New(memstore.Options[string, int]{}), gate: make(chan struct{})}
		close(s.gate)
		cache := cachetest.Open(t, store(s), options{Logger: quiet})
		story(t, s, cache, func(calls ...func() error) []*call {
			first, lone := make(chan struct{}), s.lone
			s.lone = func(_ context.Context, _ changeSet, commit func() error) error {
				<-first
				return commit()
			}
			sc := &scene{T: t}
			sc.start(func() error { return second(cache.Set(t.Context(), "first", 1)) })
			synctest.Wait()
			var all []*call
			for _, f := range calls {
				all = append(all, sc.start(f))
				synctest.Wait()
			}
			s.lone = lone
			close(first)
			synctest.Wait()
			return all
		})
	})
}

// Two writes of one key that their batch has left out do not overtake each other:
// memory would keep the one that comes back last, which need not be the one that was
// committed last.
func TestBlockedWritesOfOneKeyOvertakeEachOther(t *testing.T) {
	inDivided(t, func(t *testing.T, s *divided, cache *lockstep.Cache[string, int], batch func(...func() error) []*call) {
		var mu sync.Mutex
		under := map[string]int{}
		reply := map[int]chan struct{}{1: make(chan struct{}), 2: make(chan struct{}), 3: make(chan struct{})}
		s.lone = func(_ context.Context, set changeSet, commit func() error) error {
			add := func(n int) {
				mu.Lock()
				defer mu.Unlock()
				for _, c := range set.Changes {
					if under[c.Key] += n; under[c.Key] > 1 {
						t.Errorf("two commits of %s are under way", c.Key)
					}
				}
			}
			add(1)
			defer add(-1)
			err := commit()
			<-reply[set.Changes[0].Value]
			return err
		}
		calls := batch(
			func() error { return second(cache.Set(t.Context(), "k", 1)) },
			func() error { return cache.SetMany(t.Context(), map[string]int{"k": 2, "l": 2}) },
			func() error { return second(cache.Set(t.Context(), "l", 3)) },
		)
		for _, i := range []int{3, 2, 1} {
			close(reply[i])
			synctest.Wait()
		}
		for _, c := range calls {
			c.succeeds()
		}
		rows, err := s.Load(t.Context(), []string{"k", "l"})
		if err != nil {
			t.Fatal(err)
		}
		for key, row := range rows {
			if got, err := cache.Get(t.Context(), key); got != row.Value || err != nil {
				t.Errorf("%s is %d, %v, and the database has %d", key, got, err, row.Value)
			}
		}
		if rows["k"].Value != 2 || rows["l"].Value != 3 {
			t.Errorf("the database has %+v", rows)
		}
	})
}

// A transaction that only reads has no keys to keep, and is let go all the same.
func TestABlockedValidationThatIsUnknownKeepsTheQueueOpen(t *testing.T) {
	for name, end := range map[string]func() error{
		"unknown": func() error { return lockstep.ErrUnknownOutcome },
		"panic":   func() error { panic("lone") },
		"exit":    func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			inDivided(t, func(t *testing.T, s *divided, cache *lockstep.Cache[string, int], batch func(...func() error) []*call) {
				s.lone = func(_ context.Context, set changeSet, commit func() error) error {
					if len(set.Changes) == 0 {
						return end()
					}
					return commit()
				}
				calls := batch(
					func() error {
						return lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
							for _, key := range []string{"a", "b"} {
								if _, err := cache.In(tx).Get(ctx, key); !errors.Is(err, lockstep.ErrNotFound) {
									return err
								}
							}
							return nil
						})
					},
					func() error { return second(cache.Set(t.Context(), "k", 1)) },
				)
				if err := calls[0].returned(); !errors.Is(err, lockstep.ErrUnavailable) {
					t.Errorf("Transact = %v", err)
				}
				calls[1].succeeds()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := cache.Close(ctx); err != nil {
					t.Errorf("Close = %v", err)
				}
			})
		})
	}
}

// What waits behind a blocked write of its key is answered like any other.
func TestWritesBehindABlockedOneThatIsUnknown(t *testing.T) {
	for name, stuck := range map[string]bool{"lost": false, "stuck": true} {
		t.Run(name, func(t *testing.T) {
			inDivided(t, func(t *testing.T, s *divided, cache *lockstep.Cache[string, int], batch func(...func() error) []*call) {
				free := make(chan struct{})
				s.lone = func(_ context.Context, set changeSet, commit func() error) error {
					if set.Changes[0].Value != 1 {
						return commit()
					}
					if stuck {
						<-free
						return commit()
					}
					return lockstep.ErrUnknownOutcome
				}
				calls := batch(
					func() error { return second(cache.Set(t.Context(), "k", 1)) },
					func() error { return second(cache.Set(t.Context(), "k", 2)) },
					func() error { return second(cache.Set(t.Context(), "k", 3)) },
				)
				if err := calls[0].wait(); !errors.Is(err, lockstep.ErrUnknownOutcome) {
					t.Errorf("the first = %v", err)
				}
				for _, c := range calls[1:] {
					if err := c.wait(); stuck != errors.Is(err, lockstep.ErrUnavailable) || stuck == (err == nil) {
						t.Errorf("one behind it = %v", err)
					}
				}
				close(free)
				synctest.Wait()
				if _, err := cache.Set(t.Context(), "k", 4); err != nil {
					t.Error(err)
				}
				if got, err := cache.Get(t.Context(), "k"); got != 4 || err != nil {
					t.Errorf("k is %d, %v", got, err)
				}
			})
		})
	}
}

// Close ends what was set aside, wherever it waits.
func TestCloseEndsBlockedWrites(t *testing.T) {
	inDivided(t, func(t *testing.T, s *divided, cache *lockstep.Cache[string, int], batch func(...func() error) []*call) {
		s.lone = func(ctx context.Context, _ changeSet, _ func() error) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", lockstep.ErrUnavailable, ctx.Err())
		}
		var writes []func() error
		for i := range 12 {
			writes = append(writes, func() error { return second(cache.Set(t.Context(), fmt.Sprint(i%6), i)) })
		}
		calls := batch(writes...)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := cache.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Close = %v", err)
		}
		for _, c := range calls {
			if c.returned() == nil {
				t.Error("a write was committed")
			}
		}
	})
}

// A Weigher runs with locks held, which nobody would give back.
func TestAWeigherThatEndsItsGoroutine(t *testing.T) {
	var exit atomic.Bool
	o := options{MaxBytes: 1000, Weigher: func(string, int) uint32 { exits(&exit); return 1 }}
	inBubble(t, o, func(s *scene) {
		exit.Store(true)
		s.startSet(s.ctx, "k", 1).succeeds()
		s.startSet(s.ctx, "k", 2).succeeds()
	})
}
