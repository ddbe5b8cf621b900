package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Workload is a number of clients that call a subject at random.
type Workload struct {
	Seed uint64
	// Clients share the Calls between them, one after the other each.
	Clients, Calls int
	// First is the number of the first client. Those of one history, be it of several
	// workloads, have numbers of their own, below 1000.
	First int
	// Keys is the number of keys that they use of each table. Few keys make many
	// meetings.
	Keys int
	// Pause is the longest pause of a client between two calls, and inside the
	// functions of updates and transactions.
	Pause time.Duration
	// Patience is how long callers wait; Leave is the part of them that leaves
	// sooner, within LeaveAfter.
	Patience   time.Duration
	Leave      float64
	LeaveAfter time.Duration
	// Lifetime is the longest that rows are given which lapse; zero for none. The
	// database's clock must be the Clock.
	Lifetime time.Duration
	Clock    Clock
	// Elsewhere says that others write the tables too, past the memory of the subject.
	// What functions of updates and transactions read is then true at their end, if
	// they are applied, and is not recorded by itself.
	Elsewhere bool
	// Journal, if there is one, is told of everything as it happens.
	Journal Journal
}

// History is what a workload has done, and what it met on the way.
type History struct {
	Ops []*Op
	// Counts has an entry for everything that is counted, also where it is 0.
	Counts map[string]int
}

// What a History counts, besides the calls by their names.
const (
	failedReads    = "reads that failed"
	conflicts      = "writes with a conflict"
	reruns         = "functions run again"
	notApplied     = "writes not applied"
	LeftEarly      = "callers who left before the commit"
	LeftLate       = "callers who left during the commit"
	doubts         = "unknown outcomes"
	doubtsApplied  = "unknown outcomes settled as applied"
	doubtsVoid     = "unknown outcomes settled as not applied"
	doubtsForgiven = "unknown outcomes settled, nobody knows which way"
)

var kinds = []string{failedReads, conflicts, reruns, notApplied, LeftEarly, LeftLate, doubts, doubtsApplied, doubtsVoid, doubtsForgiven}

// Run runs the workload over tables without rows, and returns when every call has
// returned and every unknown outcome is settled. The caches must not be closed
// before. When ctx ends, the outcomes that are unknown by then stay so.
func (w Workload) Run(ctx context.Context, s Subject) *History {
	clients := make([]*client, w.Clients)
	var running sync.WaitGroup
	for i := range clients {
		calls := w.Calls / w.Clients
		if i < w.Calls%w.Clients {
			calls++
		}
		clients[i] = w.client(i, s)
		running.Go(func() { clients[i].run(ctx, calls) })
	}
	running.Wait()
	h := &History{Counts: make(map[string]int)}
	for _, what := range kinds {
		h.Counts[what] = 0
	}
	for _, a := range w.client(0, s).actions() {
		h.Counts[a.name] = 0
	}
	for _, c := range clients {
		c.settlements.Wait()
		for _, op := range c.doubted {
			c.counts[map[Fate]string{Applied: doubtsApplied, NotApplied: doubtsVoid, Unknown: doubtsForgiven}[op.Fate]]++
		}
		h.Ops = append(h.Ops, c.log.Ops()...)
		for what, n := range c.counts {
			h.Counts[what] += n
		}
	}
	h.Ops = append(h.Ops, lapses(h.Ops)...)
	return h
}

func (w Workload) client(i int, s Subject) *client {
	return &client{
		Workload: w, subject: s,
		id:      int64(w.First + i),
		random:  rand.New(rand.NewPCG(w.Seed, uint64(w.First+i)+1)),
		log:     NewLog(w.Clock, w.First+i, w.Journal),
		counts:  make(map[string]int),
		version: make(map[cell]int64),
	}
}

// client is one of the callers.
type client struct {
	Workload
	subject Subject
	id      int64
	random  *rand.Rand
	log     *Log
	counts  map[string]int
	values  int64
	// version is the last one that the client was told of.
	version map[cell]int64

	doubted     []*Op
	settlements sync.WaitGroup
}

// cell is a key of a table.
type cell struct{ table, key int }

func (c cell) String() string { return KeyOf(c.table, c.key) }

// KeyOf is what a history calls a key of a table.
func KeyOf(table, key int) string { return fmt.Sprintf("%c%d", 'a'+table, key) }

func (c *client) run(ctx context.Context, calls int) {
	actions, sum := c.actions(), 0
	for _, a := range actions {
		sum += a.weight
	}
	for range calls {
		c.pause()
		n := c.random.IntN(sum)
		i := slices.IndexFunc(actions, func(a action) bool { n -= a.weight; return n < 0 })
		c.counts[actions[i].name]++
		c.call(ctx, actions[i])
	}
}

func (c *client) call(ctx context.Context, a action) {
	patience := c.Patience
	if c.random.Float64() < c.Leave {
		patience = time.Duration(c.random.Int64N(int64(c.LeaveAfter) + 1))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a.run(ctx, a.name, c.random.IntN(len(c.subject.Tables)))
}

// pause lets others run, for a while or for a moment.
func (c *client) pause() {
	switch c.random.IntN(3) {
	case 0:
	case 1:
		runtime.Gosched()
	default:
		time.Sleep(time.Duration(c.random.Int64N(int64(c.Pause) + 1)))
	}
}

func (c *client) cell(table int) cell { return cell{table, c.random.IntN(c.Keys)} }

// cells returns some keys of a table.
func (c *client) cells(table int) []int {
	return c.random.Perm(c.Keys)[:1+c.random.IntN(min(4, c.Keys))]
}

// value returns one that nobody else writes.
func (c *client) value() int64 {
	c.values++
	return c.values*1000 + c.id
}

// chance is true once in n times.
func (c *client) chance(n int) bool { return c.random.IntN(n) == 0 }

// action is something that a client can do.
type action struct {
	name   string
	weight int
	run    func(ctx context.Context, name string, table int)
}
