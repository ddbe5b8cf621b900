package lockstep_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// writesBehind is the subject that a cache in Mode WriteBehind is: it has not all calls.
// A deletion tells only what memory knew, and is therefore made by DeleteMany.
func writesBehind(c *lockstep.Cache[int, int64]) history.Subject {
	s := history.Caches(c)
	s.Transact = nil
	t := &s.Tables[0]
	t.SetFor, t.SetIf, t.Delete, t.DeleteIf, t.Update = nil, nil, nil, nil, nil
	return s
}

// recordBehind records what callers see of a cache in Mode WriteBehind, whose flushes
// fail, hang and lose their replies. None is refused, for what was refused was seen, and
// is not there.
func recordBehind(t *testing.T, seed uint64, calls int, scale scale) (*history.History, lockstep.Stats) {
	random := rand.New(rand.NewPCG(seed, 5))
	script := ""
	for _, trouble := range []string{
		"commit *: latency 0s..3ms\n load *: latency 0s..3ms\n",
		"commit 20%: fail\n load 5%: fail\n scan 10%: fail\n",
		"commit 5%: lose request\n commit 5%: lose reply\n commit 5%: lose reply, late\n commit 5%: lose reply, forget rows\n settle 20%: fail\n",
		"commit 3%: hang\n commit 3%: hang after\n load 1%: hang after\n",
	} {
		if random.IntN(3) > 0 && (scale.clock.Fake() || random.IntN(2) == 0) {
			script += trouble
		}
	}
	store := fault.Inject(memstore.New(memstore.Options[int, int64]{}), fault.MustParse(script), seed)
	cache := cachetest.Open[int, int64](t, store, lockstep.Options[int, int64]{
		Mode:       lockstep.WriteBehind,
		MaxEntries: []int{2, 3, 100}[random.IntN(3)],
		QueueLimit: []int{0, 2}[random.IntN(2)], CommitTimeout: 30 * time.Millisecond,
		TTL: []time.Duration{0, 5 * scale.unit}[random.IntN(2)] * time.Duration(min(1, scale.unit/time.Millisecond)),
		Behind: lockstep.Behind[int, int64]{
			MaxWrites: []int{1, 3, 8, 0}[random.IntN(4)], MaxOps: []int{1, 3, 0}[random.IntN(3)],
			MaxDelay: []time.Duration{0, 2 * scale.unit, 20 * scale.unit}[random.IntN(3)],
		},
		Logger: quiet,
	})
	h := history.Workload{
		Seed: seed, Calls: calls, Clients: 3 + random.IntN(6), Keys: 1 + random.IntN(5),
		Pause: 2 * scale.unit, Patience: 10_000 * scale.unit, Leave: 0.1, LeaveAfter: 5 * scale.unit,
		Clock: scale.clock,
	}.Run(context.Background(), writesBehind(cache))
	return h, cache.Stats()
}

func TestHistoriesOfWriteBehind(t *testing.T) {
	const seeds = 150
	var coalesced, retries, through, flushes uint64
	doubts := 0
	for seed := uint64(1); seed <= seeds; seed++ {
		if *simulationSeed != 0 && seed != *simulationSeed {
			continue
		}
		var h *history.History
		var stats lockstep.Stats
		synctest.Test(t, func(t *testing.T) { h, stats = recordBehind(t, seed, 80, fakeTime()) })
		explained(t, "TestHistoriesOfWriteBehind", seed, h)
		if stats.RejectedWrites != 0 {
			t.Errorf("seed %d: %d writes were rejected", seed, stats.RejectedWrites)
		}
		coalesced, retries, through, flushes = coalesced+stats.CoalescedWrites, retries+stats.FlushRetries, through+stats.WritesThrough, flushes+stats.Flushes
		doubts += h.Counts["unknown outcomes"]
	}
	t.Logf("%d flushes, %d retries, %d coalesced, %d through, %d unknown", flushes, retries, coalesced, through, doubts)
	if *simulationSeed == 0 && min(coalesced, retries, through, flushes, uint64(doubts)) < seeds/10 {
		t.Error("too little has happened")
	}
}

func TestHistoriesOfWriteBehindInRealTime(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			h, _ := recordBehind(t, seed, 300, realTime())
			explained(t, "TestHistoriesOfWriteBehindInRealTime", seed, h)
		})
	}
}
