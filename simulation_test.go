package lockstep_test

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/history"
)

var (
	simulationSeeds = flag.Uint64("simulation.seeds", simulationDefault, "simulate so many seeds")
	simulationSeed  = flag.Uint64("simulation.seed", 0, "simulate this seed alone")
	simulationHTML  = flag.String("simulation.html", "", "write the history that fails as a page to this path")
)

// Most histories are short: many worlds show more than much of one. Some are long,
// for what takes long to come about.
const (
	shortHistory = 60 // calls
	longHistory  = 1000
	longEvery    = 50 // seeds

	historyPatience = time.Minute // for one check, which takes well under a second
)

func historyCalls(seed uint64) int {
	if seed%longEvery == 0 {
		return longHistory
	}
	return shortHistory
}

// TestSimulation has callers of every kind use the cache in bubbles of fake time,
// while its database loses, delays, refuses, hangs and fails, and checks that one
// order of all their calls explains what they saw. Each seed is a world of its own:
// see newWorld.
//
// A seed fixes the tables, the options, what every caller means to call and how long
// it pauses, and what goes wrong with each operation of a store by its number.
// Latencies, time-outs and deadlines pass in fake time, so that their order is fixed
// as well where no two are due at one instant. It does not fix: how goroutines that
// can run at one instant take turns, which is the scheduler's to say; the back-off
// after conflicts, failed settlements and failed attempts, which the cache and package
// resilience draw from the runtime's random numbers, as they must; and the seeds of
// hash tables, which decide what is evicted. Once one of these has made a difference,
// operations have other numbers and the rest of the history is another one. Of 60
// seeds run 20 times each on one processor, 6 had one history, and 38 had 20; with the
// back-off made constant these were 20 and none. So a failure is replayed by running
// its seed a number of times, as the message says. Each history is checked for what it
// was, whether or not it can be had again.
func TestSimulation(t *testing.T) {
	first, last := uint64(1), *simulationSeeds
	if *simulationSeed != 0 {
		first, last = *simulationSeed, *simulationSeed
	}
	var total tally
	began := time.Now()
	t.Cleanup(func() { total.report(t, int(last-first)+1, time.Since(began)) })
	const block = 50 // a test for each seed would cost more than the seed
	for from := first; from <= last; from += block {
		to := min(from+block-1, last)
		t.Run(fmt.Sprintf("seeds=%d-%d", from, to), func(t *testing.T) {
			t.Parallel()
			for seed := from; seed <= to; seed++ {
				var h *history.History
				synctest.Test(t, func(t *testing.T) { h = record(t, seed, historyCalls(seed), fakeTime()) })
				began := time.Now()
				explained(t, "TestSimulation", seed, h)
				total.add(h, time.Since(began))
			}
		})
	}
}

// TestSimulationInRealTime runs some of these worlds without a bubble, on goroutines
// that are really concurrent, and so finds what only the race detector sees, or only
// the scheduler of a busy machine. Nothing hangs in them: that would take its time.
func TestSimulationInRealTime(t *testing.T) {
	const seeds, calls = 16, 250
	for seed := uint64(1); seed <= seeds; seed++ {
		if *simulationSeed != 0 && seed != *simulationSeed {
			continue
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			explained(t, "TestSimulationInRealTime", seed, record(t, seed, calls, realTime()))
		})
	}
}

// record runs the callers of one seed's world over its caches. When the test, or its
// bubble, ends, memory is compared with the tables.
func record(t *testing.T, seed uint64, calls int, scale scale) *history.History {
	w := newWorld(t, seed, calls, scale)
	var caches []*lockstep.Cache[int, int64]
	for _, table := range w.tables {
		caches = append(caches, cachetest.Open(t, table.top, w.options))
		t.Cleanup(func() { table.mend(scale.unit) })
	}
	h := w.workload.Run(context.Background(), history.Caches(caches...))
	for i := range caches {
		count(h, caches[i].Stats(), w.tables[i])
	}
	return h
}

// explained fails the test if no order explains the history.
func explained(t *testing.T, test string, seed uint64, h *history.History) {
	t.Helper()
	err := history.Check(h.Ops, historyPatience)
	if err == nil {
		return
	}
	t.Errorf("seed %d: %v\nto replay:\n\tgo test -run '^%s$' -simulation.seed=%d -count=20 .", seed, err, test, seed)
	if *simulationHTML != "" {
		if err := history.WriteHTML(h.Ops, historyPatience, *simulationHTML); err != nil {
			t.Error(err)
		}
	}
}
