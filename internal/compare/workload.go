package compare

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/internal/latency"
)

// Workload is what the clients of a program do.
type Workload struct {
	// Keys is the number of rows, all of which are there from the beginning.
	Keys int `json:"keys"`
	// Entries is how many rows memory may have.
	Entries int `json:"entries_in_memory"`
	// TTL is how long memory may answer for a row.
	TTL time.Duration `json:"ttl_ns"`
	// Clients call as fast as they are answered, each one call at a time.
	Clients int `json:"clients"`
	// Writes is the part of the calls that write, from 0 to 1.
	Writes float64 `json:"writes"`
	// Skew is the exponent of Zipf's law, above 1: the n-th key is asked for in proportion
	// to n to the power of -Skew.
	Skew float64 `json:"skew"`
	// Measure is for how long a pattern is measured.
	Measure time.Duration `json:"measure_ns"`
}

// Check names what is wrong.
func (w Workload) Check() error {
	for _, c := range []struct {
		wrong bool
		text  string
	}{
		{w.Keys < 1 || w.Keys > maxKeys, fmt.Sprintf("keys %d: from 1 to %d", w.Keys, maxKeys)},
		{w.Clients < 1 || w.Clients > w.Keys, fmt.Sprintf("clients %d: from 1 to as many as there are keys", w.Clients)},
		{w.Entries < 1, fmt.Sprintf("entries %d: at least 1", w.Entries)},
		{w.TTL < time.Millisecond, fmt.Sprintf("ttl %v: at least a millisecond", w.TTL)},
		{!(w.Writes >= 0 && w.Writes <= 1), fmt.Sprintf("writes %v: from 0 to 1", w.Writes)},
		{!(w.Skew > 1 && w.Skew <= 10), fmt.Sprintf("skew %v: above 1, and at most 10", w.Skew)},
		{w.Measure < time.Millisecond, fmt.Sprintf("duration %v: at least a millisecond for each pattern", w.Measure)},
	} {
		if c.wrong {
			return fmt.Errorf("compare: %s", c.text)
		}
	}
	return nil
}

// maxKeys bounds what a program tells of its acknowledgements at once.
const maxKeys = 1_000_000

// load is a workload at work.
type load struct {
	Workload
	subject subject
	tell    func(record)

	acknowledged []atomic.Int64 // by key: the last number that was answered for
	reads        latency.Histogram
	writes       latency.Histogram
	operations   atomic.Uint64
	stale        atomic.Uint64
	errors       atomic.Uint64
	firstError   atomic.Pointer[error]

	phase atomic.Int32
}

// The phases of a load. What is done in the first is not measured: memory fills up.
const (
	warming int32 = iota
	measuring
	telling // of each write
)

// warmUp is the part of the time before it is measured.
const warmUp = 0.2

// run runs the clients until ctx ends.
func (l *load) run(ctx context.Context, seed uint64) {
	l.acknowledged = make([]atomic.Int64, l.Keys)
	var clients sync.WaitGroup
	for i := range l.Clients {
		clients.Go(func() { l.client(ctx, i, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	clients.Go(func() { l.watch(ctx) })
	clients.Wait()
}

// client is the only one that writes its keys, which are those that leave its number when
// they are divided by the number of clients. Its own are as popular as their neighbours.
func (l *load) client(ctx context.Context, number int, random *rand.Rand) {
	popular := rand.NewZipf(random, l.Skew, 1, uint64(l.Keys-1))
	next := make(map[int]int64)
	for ctx.Err() == nil {
		key := int(popular.Uint64())
		if random.Float64() >= l.Writes {
			l.read(ctx, key)
			continue
		}
		if key += number - key%l.Clients; key >= l.Keys {
			key -= l.Clients
		}
		next[key]++
		l.write(ctx, key, next[key])
	}
}

func (l *load) read(ctx context.Context, key int) {
	least := l.acknowledged[key].Load()
	start := time.Now()
	got, err := l.subject.Get(ctx, key)
	took := time.Since(start)
	if err != nil {
		l.failed(ctx, err)
		return
	}
	l.operations.Add(1)
	measured := l.phase.Load() == measuring
	if measured {
		l.reads.Record(took)
	}
	if got < least && l.phase.Load() != warming {
		l.stale.Add(1)
	}
}

func (l *load) write(ctx context.Context, key int, number int64) {
	start := time.Now()
	err := l.subject.Set(ctx, key, number)
	took := time.Since(start)
	if err != nil {
		l.failed(ctx, err)
		return
	}
	l.operations.Add(1)
	if l.phase.Load() == measuring {
		l.writes.Record(took)
	}
	l.acknowledged[key].Store(number)
	if l.phase.Load() == telling {
		l.tell(record{Acknowledged: &acknowledgement{key, number}})
	}
}

// failed is not for calls that the end of the run has broken off.
func (l *load) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	l.errors.Add(1)
	l.firstError.CompareAndSwap(nil, &err)
}

// ticksEvery is how often a program tells what it has done.
const ticksEvery = 100 * time.Millisecond

// watch takes the load through its phases.
func (l *load) watch(ctx context.Context) {
	began := time.Now()
	every := time.NewTicker(ticksEvery)
	defer every.Stop()
	warm := time.NewTimer(time.Duration(float64(l.Measure) * warmUp))
	over := time.NewTimer(math.MaxInt64)
	var from time.Time
	var hits, misses uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			l.tell(record{Tick: &tick{At: time.Since(began), Operations: l.operations.Load(), Stale: l.stale.Load()}})
		case <-warm.C:
			hits, misses = l.subject.counts()
			from = time.Now()
			over.Reset(l.Measure)
			l.phase.Store(measuring)
		case <-over.C:
			m := &measured{Took: time.Since(from)}
			h, n := l.subject.counts()
			m.Hits, m.Misses = h-hits, n-misses
			// From here on each write is told, and what was answered for before is told now.
			l.phase.Store(telling)
			m.Reads, m.Writes = latencyOf(&l.reads), latencyOf(&l.writes)
			m.Stale, m.Errors = l.stale.Load(), l.errors.Load()
			if err := l.firstError.Load(); err != nil {
				m.Error = (*err).Error()
			}
			m.Acknowledged = make([]int64, l.Keys)
			for key := range m.Acknowledged {
				m.Acknowledged[key] = l.acknowledged[key].Load()
			}
			l.tell(record{Measured: m})
		}
	}
}
