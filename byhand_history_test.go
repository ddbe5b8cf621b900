package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
)

// Who reads by GetWith and writes by WriteWith is in step. Who reads the row first, and
// then puts it into memory, as most do by hand, is not.
func TestCacheAsideHistories(t *testing.T) {
	holds(t, func(t *testing.T, seed uint64, broken bool) error {
		h := newModeHistory(seed)
		cache, err := lockstep.New(lockstep.ByHand[int, int64](), lockstep.Options[int, int64]{
			Mode: lockstep.CacheAside, MaxEntries: h.options.MaxEntries, TTL: h.options.TTL, NegativeTTL: h.options.NegativeTTL,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close(t.Context())
		load := func(key int) func(context.Context) (int64, error) {
			return func(ctx context.Context) (int64, error) {
				if key > 0 && h.seed%2 == 0 { // reads another row first, as a page does its parts
					if _, err := cache.GetWith(ctx, key-1, h.bare(key-1)); err != nil && !errors.Is(err, lockstep.ErrNotFound) {
						return 0, err
					}
				}
				rows, err := h.store.Load(ctx, []int{key})
				time.Sleep(time.Millisecond) // and makes something of it
				if err == nil && !rows[key].Exists {
					err = lockstep.ErrNotFound
				}
				return rows[key].Value, err
			}
		}
		get := func(ctx context.Context, key int) (int64, error) {
			if _, there := cache.Peek(key); broken && !there {
				value, err := load(key)(ctx)
				return cache.GetWith(ctx, key, func(context.Context) (int64, error) { return value, err })
			}
			return cache.GetWith(ctx, key, load(key))
		}
		write := func(ctx context.Context, key int, change lockstep.Change[int, int64]) (o lockstep.Outcome[int64], err error) {
			change.Key = key
			commit := func(ctx context.Context) error {
				if h.seed%3 == 0 {
					_, _ = get(ctx, key) // in the midst of it
				}
				o, err = h.commit(change)
				return err
			}
			err = cache.WriteWith(ctx, []int{key, key + 1}, commit)
			return o, err
		}
		return h.check(history.Table{
			Get: get, Peek: cache.Peek,
			Exists: func(ctx context.Context, key int) (bool, error) {
				_, err := get(ctx, key)
				if errors.Is(err, lockstep.ErrNotFound) {
					return false, nil
				}
				return err == nil, err
			},
			Invalidate: cache.Invalidate, InvalidateAll: cache.InvalidateAll,
			Set: func(ctx context.Context, key int, value int64) (lockstep.Version, error) {
				o, err := write(ctx, key, lockstep.Change[int, int64]{Value: value})
				if err != nil {
					return 0, err
				}
				return o.Rows[0].Version, nil
			},
			Delete: func(ctx context.Context, key int) (bool, error) {
				o, err := write(ctx, key, lockstep.Change[int, int64]{Delete: true})
				return err == nil && o.Existed[0], err
			},
		})
	})
}
