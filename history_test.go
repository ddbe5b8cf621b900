package lockstep_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
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

var (
	historySeeds = flag.Uint64("history.seeds", 200, "check the histories of so many seeds")
	historySeed  = flag.Uint64("history.seed", 0, "check the history of this seed alone")
	historyHTML  = flag.String("history.html", "", "write the history that fails as a page to this path")
)

const (
	historyCalls    = 1000
	historyPatience = time.Minute // for one check, which takes well under a second
	// Of so many seeds one runs on goroutines in real time, the others in a bubble of
	// fake time, where latencies cost nothing.
	historyRealTime = 10
)

// TestHistories records what concurrent callers see of a cache while its store
// loses, delays and fails, and checks that one order of all their calls explains
// it. Each seed has options, faults and callers of its own.
func TestHistories(t *testing.T) {
	first, last := uint64(1), *historySeeds
	if *historySeed != 0 {
		first, last = *historySeed, *historySeed
	}
	var total tally
	t.Cleanup(func() { total.report(t, int(last-first)+1) })
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			var h *history.History
			if seed%historyRealTime == 0 {
				h = record(t, seed, 100*time.Microsecond, history.RealTime())
			} else {
				synctest.Test(t, func(t *testing.T) { h = record(t, seed, time.Millisecond, history.FakeTime()) })
			}
			began := time.Now()
			err := history.Check(h.Ops, historyPatience)
			total.add(h, time.Since(began))
			if err == nil {
				return
			}
			t.Errorf("%v\nto replay:\n\tgo test -race -run '^TestHistories$/^seed=%d$' -history.seed=%d -count=20 .", err, seed, seed)
			if *historyHTML != "" {
				if err := history.WriteHTML(h.Ops, historyPatience, *historyHTML); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// record runs one seed's workload over one seed's caches. unit is what durations
// are measured in.
func record(t *testing.T, seed uint64, unit time.Duration, clock history.Clock) *history.History {
	random := rand.New(rand.NewPCG(seed, 0))
	script := fault.MustParse(historyFaults(random, unit, clock.Fake()))
	options := historyOptions(random, unit)
	db := memstore.NewDatabase()
	var caches []*lockstep.Cache[int, int64]
	var stores []*fault.Store[int, int64]
	kind := random.IntN(6)
	for i := range 1 + random.IntN(2) {
		if i > 0 && kind == 0 {
			break // without versions there are no transactions of two tables here
		}
		store := fault.Inject(awkward{
			Store:        memstore.New(memstore.Options[int, int64]{Database: db}),
			page:         1 + random.IntN(4),
			silent:       random.IntN(3) == 0,
			noVersions:   kind == 0,
			noTombstones: kind == 1,
			mu:           new(sync.Mutex),
		}, script, seed+uint64(i)<<32)
		stores = append(stores, store)
		caches = append(caches, cachetest.Open(t, hurried{Store: store, seed: random.Uint64(), hasty: new(atomic.Uint64)}, options))
	}
	w := history.Workload{
		Seed: seed, Calls: historyCalls, Clients: 6 + random.IntN(5), Keys: max(1, 8/len(caches)-random.IntN(6)),
		Pause: 2 * unit, Patience: 1000 * unit, Leave: 0.1, LeaveAfter: 5 * unit,
		Clock: clock,
	}
	if len(caches) == 1 && clock.Fake() {
		// A lifetime that ends between a check and the commit that relies on it is for
		// nobody to see, unless the two are one moment.
		w.Lifetime = 20 * unit
	}
	h := w.Run(context.Background(), history.Caches(caches...))
	for i := range caches {
		count(h, caches[i].Stats(), stores[i].Counts())
	}
	return h
}

func historyOptions(random *rand.Rand, unit time.Duration) lockstep.Options[int, int64] {
	maybe := func(d time.Duration) time.Duration {
		if random.IntN(2) == 0 {
			return 0
		}
		return time.Duration(1 + random.Int64N(int64(d)))
	}
	o := lockstep.Options[int, int64]{
		MaxEntries:    []int{2, 3, 5, 100}[random.IntN(4)],
		TTL:           maybe(10 * unit),
		NegativeTTL:   []time.Duration{0, -1, 5 * unit}[random.IntN(3)],
		CommitTimeout: 30 * max(unit, time.Millisecond),
		QueueLimit:    []int{0, 0, 3}[random.IntN(3)],
		Batch: lockstep.Batch{
			MaxOps:   []int{0, 1, 3}[random.IntN(3)],
			InFlight: 1 + random.IntN(3),
			MaxDelay: maybe(unit),
		},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	return o
}

// historyFaults is a script: latencies always, and three kinds of trouble. What
// hangs takes time, and so is left to the bubbles.
func historyFaults(random *rand.Rand, unit time.Duration, fake bool) string {
	var b strings.Builder
	for _, op := range []string{"load", "commit", "scan", "begin", "apply"} {
		fmt.Fprintf(&b, "%s *: latency 0s..%v\n", op, time.Duration(1+random.IntN(3))*unit)
	}
	troubles := []string{`
		commit 2%: lose request
		commit 3%: lose reply
		commit 2%: lose reply, late
		commit 2%: lose reply, forget rows
		commit 1%: lose reply, forget outcome
		settle 20%: fail
	`, `
		commit 1%: hang
		commit 1%: hang after
		commit 1%: panic
		commit 1%: panic after
		load 1%: hang after
		load 1%: panic
	`, `
		load 3%: fail
		commit 3%: fail
		commit 2%: refuse
		scan 10%: fail
		begin 5%: fail
		apply 5%: fail
	`}
	for _, trouble := range troubles {
		if random.IntN(3) > 0 && (fake || !strings.Contains(trouble, "hang")) {
			b.WriteString(trouble)
		}
	}
	return b.String()
}

// hurried is Immediate for some seeds, and then would have to wait now and then.
type hurried struct {
	*fault.Store[int, int64]
	seed  uint64
	hasty *atomic.Uint64 // commits
}

func (h hurried) Capabilities() lockstep.Capabilities[int, int64] {
	caps := h.Store.Capabilities()
	caps.Immediate = h.seed%3 != 0
	return caps
}

func (h hurried) Commit(ctx context.Context, sets []lockstep.ChangeSet[int, int64]) ([]lockstep.Outcome[int64], error) {
	if lockstep.Hasty(ctx) && h.hasty.Add(1)%4 == h.seed%4 {
		return nil, lockstep.ErrWouldWait
	}
	return h.Store.Commit(ctx, sets)
}

// awkward is a store that keeps the contract and makes the least of it: its pages
// are small, half of the time it does not tell what rows have become, and it may
// keep no tombstones, or no versions at all.
type awkward struct {
	*memstore.Store[int, int64]
	page                             int
	silent, noTombstones, noVersions bool

	mu *sync.Mutex // held over a commit that compares values
}

func (a awkward) Capabilities() lockstep.Capabilities[int, int64] {
	caps := a.Store.Capabilities()
	scan := caps.Scan
	caps.Scan = func(ctx context.Context, cursor any, limit int) (lockstep.Page[int, int64], error) {
		page, err := scan(ctx, cursor, min(limit, a.page))
		for i := range page.Rows {
			a.tell(&page.Rows[i])
		}
		return page, err
	}
	caps.Tombstones = !a.noTombstones && !a.noVersions
	if a.noVersions {
		caps.Versions = false
		caps.Database, caps.Begin, caps.Apply = nil, nil, nil
	}
	return caps
}

// tell takes from a row what the store does not keep.
func (a awkward) tell(row *lockstep.Row[int64]) {
	if a.noVersions || a.noTombstones && !row.Exists {
		row.Version = 0
	}
}

func (a awkward) Load(ctx context.Context, keys []int) (map[int]lockstep.Row[int64], error) {
	rows, err := a.Store.Load(ctx, keys)
	for key, row := range rows {
		a.tell(&row)
		rows[key] = row
	}
	return rows, err
}

func (a awkward) Commit(ctx context.Context, sets []lockstep.ChangeSet[int, int64]) (outcomes []lockstep.Outcome[int64], err error) {
	if a.noVersions {
		outcomes, err = a.commitByValue(ctx, sets)
	} else {
		outcomes, err = a.Store.Commit(ctx, sets)
	}
	for i := range outcomes {
		if a.silent && len(sets[i].Changes) > 0 && sets[i].Changes[0].Value%2 == 0 {
			outcomes[i].Rows = nil
		}
		for j := range outcomes[i].Rows {
			a.tell(&outcomes[i].Rows[j])
		}
	}
	return outcomes, err
}

// commitByValue decides checks by the values that were read.
func (a awkward) commitByValue(ctx context.Context, sets []lockstep.ChangeSet[int, int64]) ([]lockstep.Outcome[int64], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", lockstep.ErrUnavailable, ctx.Err())
	}
	ctx = context.WithoutCancel(ctx)
	outcomes := make([]lockstep.Outcome[int64], len(sets))
	for i, set := range sets {
		for _, check := range set.Checks {
			rows, err := a.Store.Load(ctx, []int{check.Key})
			if err != nil {
				return nil, err
			}
			if row := rows[check.Key]; row.Exists == check.Absent || row.Exists && row.Value != check.Value {
				outcomes[i].Err = &lockstep.ConflictError{Key: check.Key, Exists: row.Exists}
			}
		}
		if set.Checks = nil; outcomes[i].Err != nil {
			continue
		}
		one, err := a.Store.Commit(ctx, []lockstep.ChangeSet[int, int64]{set})
		if err != nil {
			return nil, err
		}
		outcomes[i] = one[0]
	}
	return outcomes, nil
}

// tally adds up what the histories met. A kind of event that never happened was
// not tested.
type tally struct {
	mu      sync.Mutex
	seeds   int
	ops     int
	checks  time.Duration
	slowest time.Duration
	counts  map[string]int
}

func (n *tally) add(h *history.History, took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seeds++
	n.ops += len(h.Ops)
	n.checks += took
	n.slowest = max(n.slowest, took)
	if n.counts == nil {
		n.counts = make(map[string]int)
	}
	for what, count := range h.Counts {
		n.counts[what] += count
	}
}

func (n *tally) report(t *testing.T, seeds int) {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(n.counts)) {
		fmt.Fprintf(&b, "\n%8d %s", n.counts[what], what)
	}
	t.Logf("%d seeds, %d operations checked in %v, the slowest in %v%s", n.seeds, n.ops, n.checks.Round(time.Millisecond), n.slowest.Round(time.Millisecond), b.String())
	if n.seeds < seeds || seeds < 20 {
		return // a part of the test
	}
	for what, count := range n.counts {
		if count == 0 {
			t.Errorf("%s: not once in %d seeds", what, n.seeds)
		}
	}
}

// count adds what the cache and the store have counted.
func count(h *history.History, s lockstep.Stats, f fault.Counts) {
	for what, n := range map[string]int{
		"cache: hits":               int(s.Hits),
		"cache: negative hits":      int(s.NegativeHits),
		"cache: misses":             int(s.Misses),
		"cache: joined loads":       int(s.JoinedLoads),
		"cache: evictions":          int(s.Evictions),
		"cache: expirations":        int(s.Expirations),
		"cache: batches":            int(s.Batches),
		"cache: transactions":       int(s.Transactions),
		"store: failures":           f.Failures,
		"store: refusals":           f.Refusals,
		"store: hangs":              f.Hangs,
		"store: panics":             f.Panics,
		"store: requests lost":      f.LostRequests,
		"store: replies lost":       f.LostReplies,
		"store: replies lost, late": f.Late,
	} {
		h.Counts[what] += n
	}
}
