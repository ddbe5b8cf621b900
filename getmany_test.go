package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestGetMany(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for i, key := range []string{"a", "b", "c", "d"} {
			s.behind(key, i)
		}
		s.reads("a", 0)
		n := s.loads(func() {
			values, err := s.GetMany(s.ctx, []string{"a", "b", "nobody", "c", "b", "a"})
			if !maps.Equal(values, map[string]int{"a": 0, "b": 1, "c": 2}) || err != nil {
				t.Errorf("GetMany = %v, %v", values, err)
			}
		})
		if n != 1 {
			t.Errorf("%d loads", n)
		}
		if n := s.loads(func() { s.reads("b", 1); s.reads("c", 2); s.readsNothing("nobody") }); n != 0 {
			t.Errorf("%d loads of what was loaded", n)
		}
		if values, err := s.GetMany(s.ctx, nil); len(values) != 0 || err != nil {
			t.Errorf("GetMany of nothing = %v, %v", values, err)
		}
	})
}

// When some keys cannot be read, the others are returned with the error.
func TestGetManyThatFailsInPart(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for i, key := range []string{"hit", "joined", "own"} {
			s.behind(key, i)
		}
		s.reads("hit", 0)
		s.script("load 2: fail")
		load := s.store.Block(fault.AfterLoad, "joined")
		defer load.Pass()
		other := s.startGet(s.ctx, "joined")
		<-load.Reached
		many := s.start(func() error {
			values, err := s.GetMany(s.ctx, []string{"hit", "joined", "own", "own2"})
			if !maps.Equal(values, map[string]int{"hit": 0, "joined": 1}) {
				t.Errorf("GetMany = %v", values)
			}
			return err
		})
		many.hangs() // its own load has failed; the one it shares is under way
		load.Pass()
		other.succeeds()
		err := many.wait()
		if !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("GetMany: %v", err)
		}
		// Once for the load, not once for each key.
		if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) != 1 {
			t.Errorf("GetMany's error has %d parts: %v", len(joined.Unwrap()), err)
		}
	})
}

func TestReadersShareTheLoadsOfGetMany(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for i, key := range []string{"a", "b"} {
			s.behind(key, i)
		}
		load := s.store.Block(fault.AfterLoad)
		defer load.Pass()
		ctx, leave := context.WithCancel(s.ctx)
		many := s.start(func() error { return second(s.GetMany(ctx, []string{"a", "b", "c"})) })
		<-load.Reached
		single := s.startGet(s.ctx, "b")
		single.hangs()
		leave()
		if err := many.returned(); !errors.Is(err, context.Canceled) {
			t.Errorf("GetMany: %v", err)
		}
		single.hangs() // the load goes on for it
		load.Pass()
		single.succeeds()
		if n := s.store.Counts().Loads; n != 1 {
			t.Errorf("%d loads", n)
		}
		s.forgot("a") // nobody waited for it
		s.remembers("b", 1)
	})
}

// One of the keys is being written: its load is tainted, and the next one waits.
func TestGetManyOfABusyKey(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("a", 1)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		writer := s.startSet(s.ctx, "k", 2)
		<-commit.Reached
		values, err := s.GetMany(s.ctx, []string{"a", "k"})
		if !maps.Equal(values, map[string]int{"a": 1}) || err != nil {
			t.Errorf("GetMany = %v, %v", values, err)
		}
		s.remembers("a", 1)
		commit.Pass()
		writer.succeeds()
		s.remembers("k", 2)
	})
}

// Two GetMany whose loads overlap wait for each other's, and not in a circle.
func TestGetManyInEveryOrder(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		keys := []string{"a", "b", "c", "d"}
		for i, key := range keys {
			s.behind(key, i)
		}
		s.script("load *: latency 1ms..5ms")
		var calls []*call
		for range 5 {
			for i := range keys {
				order := slices.Concat(keys[i:], keys[:i])
				calls = append(calls, s.start(func() error {
					for range 20 {
						values, err := s.GetMany(s.ctx, order[:3])
						if len(values) != 3 || err != nil {
							return fmt.Errorf("GetMany = %v, %w", values, err)
						}
						s.Invalidate(order[1])
						if i == 0 {
							s.InvalidateAll()
						}
					}
					return nil
				}))
			}
		}
		for _, c := range calls {
			c.succeeds()
		}
	})
}
