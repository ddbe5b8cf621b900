package lockstep_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A function that loads may read other keys, and not its own.
func TestCacheAsideNestedLoads(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		h.behind("l", 2)
		sum := func(ctx context.Context) (int, error) {
			k, err := h.get(ctx, "k")
			l, err2 := h.get(ctx, "l")
			return k + l, errors.Join(err, err2)
		}
		if value, err := h.cache.GetWith(h.ctx, "sum", sum); value != 3 || err != nil {
			t.Errorf("GetWith = %d, %v", value, err)
		}
		h.gets("k", 1, 0) // what it has read is remembered
		h.gets("l", 2, 0)

		var itself func(ctx context.Context) (int, error)
		itself = func(ctx context.Context) (int, error) { return h.cache.GetWith(ctx, "self", itself) }
		if _, err := h.cache.GetWith(h.ctx, "self", itself); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "key self") {
			t.Errorf("a load that calls for itself: %v", err)
		}
		by := func(ctx context.Context) (int, error) { return h.cache.GetWith(ctx, "self", itself) }
		if _, err := h.cache.GetWith(h.ctx, "by another", by); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("a load that calls for itself by way of another: %v", err)
		}
		// A context that outlives its function says nothing.
		var kept context.Context
		if _, err := h.cache.GetWith(h.ctx, "keeps", func(ctx context.Context) (int, error) {
			kept = context.WithoutCancel(ctx)
			return 1, nil
		}); err != nil {
			t.Fatal(err)
		}
		h.cache.Invalidate("keeps")
		if value, err := h.cache.GetWith(kept, "keeps", func(context.Context) (int, error) { return 2, nil }); value != 2 || err != nil {
			t.Errorf("after its function has returned: %d, %v", value, err)
		}
	})
}

// Two functions that read each other's keys do not wait for each other, be it by way of
// another cache.
func TestCacheAsideLoadsThatMeet(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		other, err := lockstep.New(lockstep.ByHand[string, int](), options{Mode: lockstep.CacheAside})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close(h.ctx)
		for name, caches := range map[string][2]*lockstep.Cache[string, int]{"one cache": {h.cache, h.cache}, "two": {h.cache, other}} {
			a, b := caches[0], caches[1]
			var inside atomic.Int64
			meet := make(chan struct{})
			crossing := func(of *lockstep.Cache[string, int], key string) func(context.Context) (int, error) {
				return func(ctx context.Context) (int, error) {
					if inside.Add(1) == 2 {
						close(meet)
					}
					<-meet // both loads are under way
					return of.GetWith(ctx, key, func(context.Context) (int, error) { return 5, nil })
				}
			}
			one := h.start(func() error { return second(a.GetWith(h.ctx, "x", crossing(b, "y"))) })
			two := h.start(func() error { return second(b.GetWith(h.ctx, "y", crossing(a, "x"))) })
			if one.returned() != nil || two.returned() != nil {
				t.Errorf("%s: %v, %v", name, one.err, two.err)
			}
			a.InvalidateAll()
			b.InvalidateAll()
		}
	})
}

// What such a load has seen is the least for whoever reads later: the load that it did
// not wait for, which may have read an older row, leaves nothing in memory.
func TestCacheAsideNestedLoadBesideAnother(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		load := h.store.Block(fault.AfterLoad, "k")
		defer load.Pass()
		reader := h.start(func() error { return second(h.get(h.ctx, "k")) })
		<-load.Reached // with the old row
		h.behind("k", 2)
		value, err := h.cache.GetWith(h.ctx, "outer", func(ctx context.Context) (int, error) { return h.get(ctx, "k") })
		if value != 2 || err != nil {
			t.Errorf("GetWith = %d, %v", value, err)
		}
		load.Pass()
		reader.succeeds()
		h.gets("k", 2, 1)
	})
}

// Inside a write's function reads wait for nobody, and what they see is shared with nobody:
// it may be what the write has not committed yet.
func TestCacheAsideReadsInsideAWrite(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		h.behind("l", 1)
		h.gets("l", 1, 1)
		uncommitted := func(context.Context) (int, error) { return 99, nil }
		load := h.store.Block(fault.BeforeLoad, "k")
		defer load.Pass()
		reader := h.start(func() error { return second(h.get(h.ctx, "k")) })
		<-load.Reached
		writer := h.start(func() error {
			return h.cache.WriteWith(h.ctx, []string{"k"}, func(ctx context.Context) error {
				for _, key := range []string{"k", "m"} {
					if value, err := h.cache.GetWith(ctx, key, uncommitted); value != 99 || err != nil {
						t.Errorf("inside the write %s is %d, %v", key, value, err)
					}
				}
				if value, err := h.get(ctx, "l"); value != 1 || err != nil {
					t.Errorf("inside the write l is %d, %v", value, err)
				}
				if err := h.cache.WriteWith(ctx, []string{"k", "l"}, h.save("l", 2)); err != nil {
					t.Errorf("a write inside a write: %v", err)
				}
				h.forgot("k", "m", "l")
				return h.save("k", 2)(ctx)
			})
		})
		if err := writer.returned(); err != nil {
			t.Error(err)
		}
		h.forgot("k", "m")
		load.Pass()
		reader.succeeds()
		h.gets("k", 2, 1)
		h.gets("l", 2, 1)
	})
}

// A load may write by hand, too, also its own key.
func TestCacheAsideWritesInsideALoad(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		made := func(ctx context.Context) (int, error) {
			if err := h.set(ctx, "k", 5); err != nil {
				return 0, err
			}
			return h.load("k")(ctx)
		}
		if value, err := h.cache.GetWith(h.ctx, "k", made); value != 5 || err != nil {
			t.Errorf("GetWith = %d, %v", value, err)
		}
		h.forgot("k") // its load was met by a write
		h.gets("k", 5, 1)
	})
}
