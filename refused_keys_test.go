package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// picky is a store that refuses to load keys with a prefix.
func picky(inner *fault.Store[string, int]) store {
	return altered{store: inner, load: func(ctx context.Context, keys []string) (map[string]row, error) {
		for _, key := range keys {
			if strings.HasPrefix(key, "bad") {
				_, _ = inner.Load(ctx, nil) // it counts
				return nil, fmt.Errorf("%w: key %s", lockstep.ErrInvalid, key)
			}
		}
		return inner.Load(ctx, keys)
	}}
}

func TestARefusedKeyTakesTheOthersOfItsLoadWithIt(t *testing.T) {
	inBubbleOver(t, options{}, picky, func(s *scene) {
		want := make(map[string]int)
		var keys []string
		for i := range 100 {
			key := fmt.Sprint("good", i)
			s.behind(key, i)
			want[key] = i
			keys = append(keys, key)
		}
		keys = slices.Insert(keys, 42, "bad")
		loads := s.loads(func() {
			values, err := s.GetMany(s.ctx, keys)
			if !maps.Equal(values, want) {
				t.Errorf("GetMany has %d of %d values", len(values), len(want))
			}
			if !errors.Is(err, lockstep.ErrInvalid) || !strings.HasSuffix(err.Error(), "key bad") {
				t.Errorf("GetMany: %v", err)
			}
		})
		// One for all, and two for each time that what is left is halved.
		if loads > 1+2*7 {
			t.Errorf("%d loads", loads)
		}
		for key, value := range want {
			s.remembers(key, value)
		}
	})
}

// Each of them is told of its own.
func TestOneOfTwoRefusedKeysIsNotReported(t *testing.T) {
	inBubbleOver(t, options{}, picky, func(s *scene) {
		s.behind("good", 1)
		values, err := s.GetMany(s.ctx, []string{"bad1", "good", "bad2"})
		if !maps.Equal(values, map[string]int{"good": 1}) {
			t.Errorf("GetMany = %v", values)
		}
		for _, key := range []string{"bad1", "bad2"} {
			if err == nil || !strings.Contains(err.Error(), "key "+key) {
				t.Errorf("the error does not name %s: %v", key, err)
			}
		}
	})
}

// A database that is away is not asked once for each key.
func TestAnOutageIsMultipliedByTheKeysOfGetMany(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("load 1: fail")
		loads := s.loads(func() {
			if _, err := s.GetMany(s.ctx, []string{"a", "b", "c", "d"}); !errors.Is(err, lockstep.ErrUnavailable) {
				t.Errorf("GetMany: %v", err)
			}
		})
		if loads != 1 {
			t.Errorf("%d loads", loads)
		}
	})
}

// A reader of one key, who shares the load, is not told of the other's refusal.
func TestAReaderIsToldOfTheRefusalOfAnothersKey(t *testing.T) {
	inBubbleOver(t, options{}, picky, func(s *scene) {
		s.behind("good", 1)
		load := s.store.Block(fault.BeforeLoad)
		defer load.Pass()
		many := s.start(func() error { return second(s.GetMany(s.ctx, []string{"good", "bad"})) })
		<-load.Reached
		single := s.startGet(s.ctx, "good")
		single.hangs()
		load.Pass()
		single.succeeds()
		if err := many.wait(); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("GetMany: %v", err)
		}
	})
}
