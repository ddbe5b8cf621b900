package lockstep_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Histories of the modes in which a program writes by other means than the cache's own
// calls. Those of WriteThrough and WriteAround are TestSimulation's.

// A history of a mode is what callers saw of a cache over a table, of which a seed says
// how it is bounded, how slow the table is and what fails.
type modeHistory struct {
	seed    uint64
	random  *rand.Rand
	table   *memstore.Store[int, int64]
	store   *fault.Store[int, int64]
	options lockstep.Options[int, int64]
	commits atomic.Int64
}

func newModeHistory(seed uint64) *modeHistory {
	random := rand.New(rand.NewPCG(seed, 4))
	h := &modeHistory{seed: seed, random: random, table: memstore.New(memstore.Options[int, int64]{})}
	h.store = fault.Inject(awkward{Store: h.table, page: 2, noTombstones: random.IntN(2) == 0},
		fault.MustParse(fmt.Sprintf("load *: latency 0s..%dms\nload 5%%: fail\nscan *: latency 0s..1ms", 1+random.IntN(3))), seed)
	all := worldOptions(random, time.Millisecond)
	h.options = lockstep.Options[int, int64]{MaxEntries: all.MaxEntries, TTL: all.TTL, NegativeTTL: all.NegativeTTL, Logger: quiet}
	return h
}

// check records the history of callers who use the table, and looks for an order of it.
func (h *modeHistory) check(table history.Table) error {
	w := history.Workload{
		Seed: h.seed, Calls: 100, Clients: 3 + h.random.IntN(4), Keys: 1 + h.random.IntN(3),
		Pause: 2 * time.Millisecond, Patience: time.Second, Leave: 0.1, LeaveAfter: 3 * time.Millisecond,
		Clock: history.FakeTime(), Elsewhere: true,
	}
	recorded := w.Run(context.Background(), history.Subject{Tables: []history.Table{table}})
	h.store.Play(fault.Script{})
	return history.Check(recorded.Ops, historyPatience)
}

// commit writes past the cache. Others may do something before it returns. It fails now
// and then, before the row is written or after it.
func (h *modeHistory) commit(change lockstep.Change[int, int64]) (lockstep.Outcome[int64], error) {
	n := h.commits.Add(1)
	if n%9 == 5 {
		return lockstep.Outcome[int64]{}, lockstep.ErrUnavailable
	}
	outcomes, err := h.table.Commit(context.Background(), []lockstep.ChangeSet[int, int64]{{Changes: []lockstep.Change[int, int64]{change}}})
	if err != nil {
		return lockstep.Outcome[int64]{}, err
	}
	time.Sleep(2 * time.Millisecond)
	if n%9 == 8 {
		return lockstep.Outcome[int64]{}, lockstep.ErrUnknownOutcome
	}
	return outcomes[0], outcomes[0].Err
}

// bare reads a row past everything.
func (h *modeHistory) bare(key int) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		rows, err := h.store.Load(ctx, []int{key})
		if err == nil && !rows[key].Exists {
			err = lockstep.ErrNotFound
		}
		return rows[key].Value, err
	}
}

// holds says that a mode's histories have an order, and that those of the same program
// with something taken away have none.
func holds(t *testing.T, run func(t *testing.T, seed uint64, broken bool) error) {
	const seeds, most = 30, 100
	for seed := uint64(1); seed <= seeds; seed++ {
		synctest.Test(t, func(t *testing.T) {
			if err := run(t, seed, false); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		})
	}
	for seed := uint64(1); seed <= most; seed++ {
		var err error
		synctest.Test(t, func(t *testing.T) { err = run(t, seed, true) })
		if err != nil {
			t.Logf("without what protects it, seed %d: %v", seed, err)
			return
		}
	}
	t.Errorf("without what protects it, nothing is found in %d histories", most)
}

// A cache that only reads is linearizable where those who write its table invalidate the
// keys before they tell anybody.
func TestReadOnlyHistories(t *testing.T) {
	holds(t, func(t *testing.T, seed uint64, broken bool) error {
		h := newModeHistory(seed)
		h.options.Mode = lockstep.ReadOnly
		var cache *lockstep.Cache[int, int64]
		var err error
		if broken { // and then memory is not what the table holds
			if cache, err = lockstep.New(h.store, h.options); err != nil {
				t.Fatal(err)
			}
			defer cache.Close(t.Context())
		} else {
			cache = cachetest.Open(t, h.store, h.options)
		}
		table := history.Caches(cache).Tables[0]
		written := func(key int) {
			if !broken {
				cache.Invalidate(key)
			}
		}
		return h.check(history.Table{
			Get: table.Get, GetEntry: table.GetEntry, GetMany: table.GetMany, Exists: table.Exists, Peek: table.Peek, Scan: table.Scan,
			Refresh: table.Refresh, Warm: table.Warm, Invalidate: table.Invalidate,
			Set: func(_ context.Context, key int, value int64) (lockstep.Version, error) {
				o, err := h.commit(lockstep.Change[int, int64]{Key: key, Value: value})
				written(key)
				if err != nil {
					return 0, err
				}
				return o.Rows[0].Version, nil
			},
			Delete: func(_ context.Context, key int) (bool, error) {
				o, err := h.commit(lockstep.Change[int, int64]{Key: key, Delete: true})
				written(key)
				return err == nil && o.Existed[0], err
			},
		})
	})
}
