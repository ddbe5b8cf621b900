package verify

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/sabotage"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

const (
	clients = 8
	// calls of each life of a round. A history of some thousand operations is checked in
	// about the time that it takes to make it.
	calls = 1200
	// staleWithin is how old a copy may be that another program's change has made stale:
	// memory answers for copies so long where there are such changes.
	staleWithin = 50 * time.Millisecond
	// slack is what a change may be seen later by than that, for the clocks' sake.
	slack = 20 * time.Millisecond
)

// plan is what a seed decides about a round, and both processes know.
type plan struct {
	seed   uint64
	faults []Fault
	// tables are one or two; with two, transactions are over both.
	tables, keys int
	// single rounds have rows that lapse, and only calls of which each is about one row
	// at one moment: what a transaction has read may lapse before it is committed.
	single  bool
	outside bool
	whole   bool // nothing is broken on purpose
	// protected says that the parts of package resilience are around the stores.
	protected bool
	script    fault.Script
	text      string // the script's
	// deaths are the numbers of records after which the program is killed, one for each
	// life but the last; strikes are what is broken meanwhile.
	deaths  []int
	strikes []strike
}

// strike is a fault from outside the program, after so many records of a round.
type strike struct {
	at    int
	fault Fault
	// lasts is how long, where it has an end.
	lasts time.Duration
}

// planOf is the plan of a seed. For a sabotage, which shows with few of the calls as a
// rule, it leaves out what would leave none of them, or hide it.
func planOf(seed uint64, faults []Fault, broken string) (plan, error) {
	random := rand.New(rand.NewPCG(seed, 0))
	p := plan{seed: seed, faults: faults, tables: 1 + random.IntN(2), whole: broken == ""}
	if !p.whole {
		s, err := sabotage.Find(broken)
		if err != nil {
			return plan{}, err
		}
		p.tables = max(p.tables, s.Needs.Tables)
	}
	p.keys = max(2, 7/p.tables-random.IntN(3))
	p.single = p.whole && p.has(Expiry) && random.IntN(4) == 0
	if p.single {
		p.tables = 1
	}
	p.outside = p.whole && p.has(Outside) && !p.single && random.IntN(3) == 0
	p.protected = p.whole && random.IntN(2) == 0
	p.text = p.faultScript(random)
	p.script = fault.MustParse(p.text)
	if p.has(Kills) && random.IntN(2) == 0 {
		at := 0
		for range 1 + random.IntN(2) {
			at += 50 + random.IntN(2*calls)
			p.deaths = append(p.deaths, at)
		}
	}
	// The numbers go on from life to life, as records do.
	for _, f := range []Fault{Cuts, Stalls, Pauses, Stops, ServerKill} {
		if !p.has(f) {
			continue
		}
		most := 6
		if f == ServerKill {
			most = 1
			if random.IntN(4) > 0 {
				continue
			}
		}
		for range 1 + random.IntN(most) {
			p.strikes = append(p.strikes, strike{random.IntN(2 * calls), f, time.Duration(1+random.IntN(300)) * time.Millisecond})
		}
	}
	slices.SortFunc(p.strikes, func(a, b strike) int { return a.at - b.at })
	return p, nil
}

func (p plan) has(f Fault) bool { return slices.Contains(p.faults, f) }

// faultScript is what goes wrong inside the program.
func (p plan) faultScript(random *rand.Rand) string {
	var b strings.Builder
	if p.has(Latency) {
		for _, op := range []string{"load", "commit", "scan", "begin", "apply"} {
			if random.IntN(2) == 0 {
				fmt.Fprintf(&b, "%s *: latency 0s..%dms\n", op, 1+random.IntN(3))
			}
		}
	}
	for _, trouble := range []struct {
		Fault
		text string
	}{
		{LostReply, `
			commit 1%: lose request
			commit 2%: lose reply
			commit 1%: lose reply, late
			commit 1%: lose reply, forget rows
			commit 0.5%: lose reply, forget outcome
		`},
		{Hangs, `
			commit 0.2%: hang
			commit 0.2%: hang after
			load 0.2%: hang
			settle 10%: fail
		`},
		{Errors, `
			load 2%: fail
			commit 3%: fail
			commit 1%: refuse
			scan 5%: fail
			begin 3%: fail
			apply 3%: fail
		`},
	} {
		if p.has(trouble.Fault) && (random.IntN(3) > 0 || !p.whole) {
			b.WriteString(trouble.text)
		}
	}
	return b.String()
}

// options are those of the caches.
func (p plan) options() lockstep.Options[int, int64] {
	random := rand.New(rand.NewPCG(p.seed, 1))
	pick := func(n ...int) int { return n[random.IntN(len(n))] }
	o := lockstep.Options[int, int64]{
		CommitTimeout: time.Second,
		QueueLimit:    pick(0, 0, 3),
		Batch: lockstep.Batch{
			MaxOps:   pick(0, 1, 3),
			InFlight: pick(0, 1, 2, 3),
			MaxDelay: time.Duration(pick(0, 0, 1)) * time.Millisecond,
		},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if p.has(Evictions) {
		o.MaxEntries = pick(2, 3, 100)
	}
	if p.has(Expiry) {
		o.TTL = time.Duration(pick(0, 5, 20)) * time.Millisecond
		o.NegativeTTL = time.Duration(pick(0, -1, 5)) * time.Millisecond
	}
	if p.outside {
		// Copies stay, to be made stale.
		o.MaxEntries, o.TTL, o.NegativeTTL = 100, staleWithin, 0
	}
	return o
}

// workload is the clients' of one life.
func (p plan) workload(life int, clock history.Clock, journal history.Journal) history.Workload {
	w := history.Workload{
		Seed: p.seed, First: life * (clients + 1), Clients: clients, Calls: calls, Keys: p.keys,
		Pause: time.Millisecond, Patience: 1500 * time.Millisecond,
		Clock: clock, Elsewhere: p.outside, Journal: journal,
	}
	if p.has(Cancelled) {
		w.Leave, w.LeaveAfter = 0.05, 2*time.Millisecond
	}
	if p.single {
		w.Lifetime = 20 * time.Millisecond
	}
	return w
}
