package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
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

// refusedKey is one whose row the database always refuses. Its history is not checked, for
// what was refused was seen and is not there; that of the rows which are flushed beside it
// is.
const refusedKey = -1

type refusing struct{ *fault.Store[int, int64] }

func (s refusing) Commit(ctx context.Context, sets []lockstep.ChangeSet[int, int64]) ([]lockstep.Outcome[int64], error) {
	outcomes := make([]lockstep.Outcome[int64], len(sets))
	var good []lockstep.ChangeSet[int, int64]
	var at []int
	for i, set := range sets {
		if slices.ContainsFunc(set.Changes, func(c lockstep.Change[int, int64]) bool { return c.Key == refusedKey }) {
			outcomes[i].Err = fmt.Errorf("%w: key %d", lockstep.ErrInvalid, refusedKey)
		} else {
			good, at = append(good, set), append(at, i)
		}
	}
	if len(good) == 0 {
		return outcomes, nil
	}
	made, err := s.Store.Commit(ctx, good)
	if err != nil {
		return nil, &refusedInPart{err, outcomes, at}
	}
	return merged(outcomes, at, made), nil
}

// refusedInPart is an unknown outcome of those that were not refused.
type refusedInPart struct {
	error
	outcomes []lockstep.Outcome[int64]
	at       []int
}

func (e *refusedInPart) Unwrap() error { return e.error }

func merged(outcomes []lockstep.Outcome[int64], at []int, made []lockstep.Outcome[int64]) []lockstep.Outcome[int64] {
	outcomes = slices.Clone(outcomes)
	for i, o := range made {
		outcomes[at[i]] = o
	}
	return outcomes
}

func (s refusing) Capabilities() lockstep.Capabilities[int, int64] {
	caps := s.Store.Capabilities()
	settle := caps.Settle
	caps.Settle = func(ctx context.Context, err error) (lockstep.Settlement[int64], error) {
		var part *refusedInPart
		if !errors.As(err, &part) {
			return settle(ctx, err)
		}
		settled, err := settle(ctx, part.error)
		switch {
		case err != nil || !settled.Applied:
		case settled.Outcomes != nil:
			settled.Outcomes = merged(part.outcomes, part.at, settled.Outcomes)
		default: // it has lost those that were made
			settled.Outcomes = merged(part.outcomes, part.at, make([]lockstep.Outcome[int64], len(part.at)))
		}
		return settled, err
	}
	return caps
}

// recordBehind records what callers see of a cache in Mode WriteBehind, whose flushes
// fail, hang, lose their replies, and are refused in part.
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
	var top lockstep.Store[int, int64] = store
	refused := random.IntN(2) == 0
	if refused {
		top = refusing{store}
	}
	ttl := []time.Duration{0, 5 * scale.unit}[random.IntN(2)] * time.Duration(min(1, scale.unit/time.Millisecond))
	cache := cachetest.Open(t, top, lockstep.Options[int, int64]{
		Mode:       lockstep.WriteBehind,
		MaxEntries: []int{2, 3, 100}[random.IntN(3)],
		QueueLimit: []int{0, 2}[random.IntN(2)], CommitTimeout: 30 * time.Millisecond,
		TTL: ttl, RefreshAhead: ttl / 2 * time.Duration(seed%2),
		Behind: lockstep.Behind[int, int64]{
			MaxWrites: []int{1, 3, 8, 0}[random.IntN(4)], MaxOps: []int{1, 3, 0}[random.IntN(3)],
			MaxDelay: []time.Duration{0, 2 * scale.unit, 20 * scale.unit}[random.IntN(3)],
		},
		Logger: quiet,
	})
	stop := make(chan struct{})
	var refusal sync.WaitGroup
	if refused {
		refusal.Go(func() {
			for i := int64(1); ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(3 * scale.unit):
					_, _ = cache.Set(context.Background(), refusedKey, i)
				}
			}
		})
	}
	h := history.Workload{
		Seed: seed, Calls: calls, Clients: 3 + random.IntN(6), Keys: 1 + random.IntN(5),
		Pause: 2 * scale.unit, Patience: 10_000 * scale.unit, Leave: 0.1, LeaveAfter: 5 * scale.unit,
		Clock: scale.clock,
	}.Run(context.Background(), writesBehind(cache))
	close(stop)
	refusal.Wait()
	for _, r := range cache.Rejected() {
		if r.Key != refusedKey {
			t.Errorf("seed %d: rejected: %+v", seed, r)
		}
	}
	return h, cache.Stats()
}

func TestHistoriesOfWriteBehind(t *testing.T) {
	const seeds = 150
	var coalesced, retries, through, flushes, rejected uint64
	doubts := 0
	for seed := uint64(1); seed <= seeds; seed++ {
		if *simulationSeed != 0 && seed != *simulationSeed {
			continue
		}
		var h *history.History
		var stats lockstep.Stats
		synctest.Test(t, func(t *testing.T) { h, stats = recordBehind(t, seed, 80, fakeTime()) })
		explained(t, "TestHistoriesOfWriteBehind", seed, h)
		rejected += stats.RejectedWrites
		coalesced, retries, through, flushes = coalesced+stats.CoalescedWrites, retries+stats.FlushRetries, through+stats.WritesThrough, flushes+stats.Flushes
		doubts += h.Counts["unknown outcomes"]
	}
	t.Logf("%d flushes, %d retries, %d coalesced, %d through, %d rejected, %d unknown", flushes, retries, coalesced, through, rejected, doubts)
	if *simulationSeed == 0 && min(coalesced, retries, through, flushes, rejected, uint64(doubts)) < seeds/10 {
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
