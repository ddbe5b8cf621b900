package lockstep_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A world is what a seed stands for: the tables of one database, what goes wrong with
// them, the options of the caches over them, and the callers.
type world struct {
	tables   []*table
	options  lockstep.Options[int, int64]
	workload history.Workload
}

// scale is what a world's times are made of.
type scale struct {
	// unit is the longest that a call of the database takes, by three.
	unit  time.Duration
	clock history.Clock
	// calm: nothing hangs or panics.
	calm bool
}

// In fake time waiting costs nothing. In real time it does, so that what hangs is left
// out.
func fakeTime() scale { return scale{unit: time.Millisecond, clock: history.FakeTime()} }
func realTime() scale {
	return scale{unit: 100 * time.Microsecond, clock: history.RealTime(), calm: true}
}

func newWorld(t *testing.T, seed uint64, calls int, scale scale) world {
	random := rand.New(rand.NewPCG(seed, 0))
	unit := scale.unit
	script := fault.MustParse(worldFaults(random, scale))
	w := world{options: worldOptions(random, unit)}
	if !scale.clock.Fake() {
		// A copy that has expired is swept out within two seconds, and the comparison
		// with the tables would wait for that.
		w.options.TTL, w.options.NegativeTTL = 0, min(w.options.NegativeTTL, 0)
	}
	db := memstore.NewDatabase()
	kind := random.IntN(6)
	protected := random.IntN(4) == 0 && scale.clock.Fake()
	deaf := random.IntN(6) == 0 && !scale.calm
	for i := range 1 + random.IntN(2) {
		if i > 0 && kind == 0 {
			break // without versions there are no transactions of two tables here
		}
		table := &table{seed: random.Uint64(), Store: fault.Inject(awkward{
			Store:        memstore.New(memstore.Options[int, int64]{Database: db}),
			page:         1 + random.IntN(4),
			silent:       random.IntN(3) == 0,
			noVersions:   kind == 0,
			noTombstones: kind == 1,
			mu:           new(sync.Mutex),
		}, script, seed+uint64(i)<<32)}
		if deaf {
			table.deaf = 2 * w.options.CommitTimeout
		}
		table.top = hurried{table}
		if protected {
			var err error
			if table.top, err = resilience.Protect(table.top, worldPolicy(random, unit)); err != nil {
				t.Fatal(err)
			}
		}
		w.tables = append(w.tables, table)
	}
	w.workload = history.Workload{
		Seed: seed, Calls: calls, Clients: 3 + random.IntN(8), Keys: max(1, 8/len(w.tables)-random.IntN(6)),
		Pause: 2 * unit, Patience: 1000 * unit, Leave: 0.1, LeaveAfter: 5 * unit,
		Clock: scale.clock,
	}
	if len(w.tables) == 1 && scale.clock.Fake() {
		// A lifetime that ends between a check and the commit that relies on it is for
		// nobody to see, unless the two are one moment.
		w.workload.Lifetime = 20 * unit
	}
	worldMode(seed, &w.options)
	return w
}

func worldOptions(random *rand.Rand, unit time.Duration) lockstep.Options[int, int64] {
	maybe := func(d time.Duration) time.Duration {
		if random.IntN(2) == 0 {
			return 0
		}
		return time.Duration(1 + random.Int64N(int64(d)))
	}
	return lockstep.Options[int, int64]{
		MaxEntries:    []int{2, 3, 5, 100}[random.IntN(4)],
		TTL:           maybe(10 * unit),
		NegativeTTL:   []time.Duration{0, -1, 5 * unit}[random.IntN(3)],
		CommitTimeout: 30 * max(unit, time.Millisecond),
		QueueLimit:    []int{0, 0, 3}[random.IntN(3)],
		AuditInterval: []time.Duration{0, 0, 0, 50 * unit}[random.IntN(4)],
		Batch: lockstep.Batch{
			MaxOps:   []int{0, 1, 3}[random.IntN(3)],
			InFlight: 1 + random.IntN(3),
			MaxDelay: maybe(unit),
		},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// worldMode sets the mode, which is one that makes all the calls, and what goes with it. It
// has numbers of its own: with another mode a seed's world is the same otherwise.
func worldMode(seed uint64, o *lockstep.Options[int, int64]) {
	random := rand.New(rand.NewPCG(seed, 3))
	if random.IntN(4) == 0 {
		o.Mode = lockstep.WriteAround
	}
	if o.TTL > 0 && random.IntN(2) == 0 {
		o.RefreshAhead = time.Duration(random.Int64N(int64(o.TTL/2) + 1))
	}
}

// worldPolicy is impatient: its retries, time-outs and circuits all come into it.
func worldPolicy(random *rand.Rand, unit time.Duration) resilience.Policy {
	return resilience.Policy{
		Retry:   resilience.RetryPolicy{MaxAttempts: 2 + random.IntN(3), BaseDelay: unit, MaxDelay: 4 * unit},
		Limit:   resilience.LimitPolicy{MaxCalls: 1 + random.IntN(4), MaxWait: 10 * unit},
		Breaker: resilience.BreakerPolicy{Failures: 2 + random.IntN(4), OpenFor: 10 * unit},
		Timeout: resilience.TimeoutPolicy{Read: 8 * unit, Write: 8 * unit},
	}
}

// worldFaults is a script: latencies always, and three kinds of trouble.
func worldFaults(random *rand.Rand, scale scale) string {
	var b strings.Builder
	for _, op := range []string{"load", "commit", "scan", "begin", "apply"} {
		fmt.Fprintf(&b, "%s *: latency 0s..%v\n", op, time.Duration(1+random.IntN(3))*scale.unit)
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
		if random.IntN(3) > 0 && !(scale.calm && strings.Contains(trouble, "hang")) {
			b.WriteString(trouble)
		}
	}
	return b.String()
}

// table is a table of a world: a store with faults, and what is around it.
type table struct {
	*fault.Store[int, int64]
	top  lockstep.Store[int, int64] // what a cache is given
	seed uint64
	// deaf is how long some commits take to return, whatever becomes of their context;
	// zero for none.
	deaf                     time.Duration
	hasty, commits, deafened atomic.Uint64
}

// mend ends what goes wrong, and waits until a breaker has forgotten it.
func (t *table) mend(unit time.Duration) {
	t.Play(fault.Script{})
	t.Release()
	time.Sleep(20 * unit)
}

// hurried is a table's store. It is Immediate for some seeds, and then would have to
// wait now and then; and it may be deaf.
type hurried struct{ *table }

func (h hurried) Capabilities() lockstep.Capabilities[int, int64] {
	caps := h.Store.Capabilities()
	caps.Immediate = h.seed%3 != 0
	return caps
}

func (h hurried) Commit(ctx context.Context, sets []lockstep.ChangeSet[int, int64]) ([]lockstep.Outcome[int64], error) {
	if lockstep.Hasty(ctx) && h.hasty.Add(1)%4 == h.seed%4 {
		return nil, lockstep.ErrWouldWait
	}
	if h.deaf > 0 && h.commits.Add(1)%16 == h.seed%16 {
		h.deafened.Add(1)
		defer time.Sleep(h.deaf)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), h.deaf) // or what hangs would for ever
		defer cancel()
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
