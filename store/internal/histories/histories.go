// Package histories is for the tests of stores over real databases: it records
// what concurrent callers see of caches over a store, while the database's
// connections are broken, and checks that one order of all their calls explains it.
// The recording and the check are those of internal/history.
package histories

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/history"
)

// Store is one over a table of keys and values that are integers.
type Store = lockstep.Store[int, int64]

// Harness is a database.
type Harness struct {
	// Place makes so many empty tables and says in a word where they are; Connect opens
	// a Store over each, which take part in one transaction. It is called once for each
	// client program, be it in a process of its own: those are strangers to each other,
	// and have their own connections.
	Place   func(t testing.TB, tables int) (place string)
	Connect func(t testing.TB, place string) []Store
	// Break ends connections of the stores' at the server, and may be called at any
	// time. It is nil where there are none.
	Break func(t testing.TB)
	// Calls is the number of calls of a history.
	Calls int
}

const (
	unit     = 2 * time.Millisecond
	patience = time.Minute // for one check
)

// Run checks histories of one program: with nil Break for seeds that are odd.
func (h Harness) Run(t *testing.T, seeds uint64) {
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			tables := 1 + random.IntN(2)
			caches := h.open(t, random, h.Place(t, tables))
			h.check(t, seed, history.Caches(caches...), caches, history.Workload{Keys: max(2, 6/tables)})
		})
	}
}

// RunShared checks histories of two programs, neither of which knows of the other's
// writes. Their conditional writes, updates and transactions are linearizable all
// the same, for the database decides them; what they read from memory is not.
func (h Harness) RunShared(t *testing.T, seeds uint64) {
	h.shared(t, seeds, func(t *testing.T, random *rand.Rand, place string) (history.Subject, []*lockstep.Cache[int, int64]) {
		caches := h.open(t, random, place)
		return history.Caches(caches...), caches
	})
}

// RunProcesses is RunShared with the second program in a process of its own. That
// runs the same test of the same binary, where RunProcesses serves the first one
// (process.go); so nothing that the test does before may start a server.
func (h Harness) RunProcesses(t *testing.T, seeds uint64) {
	if place, ok := os.LookupEnv(placeVariable); ok {
		caches := h.open(t, rand.New(rand.NewPCG(rand.Uint64(), 3)), place)
		serve(t, history.Caches(caches...))
		for _, cache := range caches {
			cache.InvalidateAll()
		}
		return
	}
	h.shared(t, seeds, func(t *testing.T, _ *rand.Rand, place string) (history.Subject, []*lockstep.Cache[int, int64]) {
		return launch(t, place), nil
	})
}

func (h Harness) shared(t *testing.T, seeds uint64, second func(*testing.T, *rand.Rand, string) (history.Subject, []*lockstep.Cache[int, int64])) {
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			place := h.Place(t, sharedTables)
			caches := h.open(t, random, place)
			subject := history.Caches(caches...)
			other, others := second(t, random, place)
			caches = append(caches, others...)
			h.check(t, seed, either(subject, other), caches, history.Workload{Keys: 3, Elsewhere: true})
			for _, cache := range caches {
				cache.InvalidateAll() // each may be behind what the other has written
			}
		})
	}
}

// sharedTables is how many tables two programs share.
const sharedTables = 2

func (h Harness) open(t *testing.T, random *rand.Rand, place string) (caches []*lockstep.Cache[int, int64]) {
	for _, s := range h.Connect(t, place) {
		caches = append(caches, cachetest.Open(t, s, lockstep.Options[int, int64]{
			MaxEntries:    []int{2, 3, 100}[random.IntN(3)],
			CommitTimeout: 5 * time.Second,
			Batch:         lockstep.Batch{InFlight: 1 + random.IntN(3)},
			Logger:        slog.New(slog.NewTextHandler(io.Discard, nil)),
		}))
	}
	return caches
}

func (h Harness) check(t *testing.T, seed uint64, subject history.Subject, caches []*lockstep.Cache[int, int64], w history.Workload) {
	w.Seed, w.Clock = seed, history.RealTime()
	w.Clients, w.Calls = 8, h.Calls
	w.Pause, w.Patience, w.Leave, w.LeaveAfter = unit, time.Minute, 0.05, 2*unit
	stop, breaking := make(chan struct{}), sync.WaitGroup{}
	if h.Break != nil && seed%2 == 0 {
		breaking.Go(func() {
			ticks := time.NewTicker(25 * unit)
			defer ticks.Stop()
			for {
				select {
				case <-ticks.C:
					h.Break(t)
				case <-stop:
					return
				}
			}
		})
	}
	recorded := w.Run(t.Context(), subject)
	close(stop)
	breaking.Wait()
	if err := history.Check(recorded.Ops, patience); err != nil {
		t.Error(err)
	}
	var doubts, written uint64
	for _, c := range caches {
		doubts += c.Stats().Unknown
		written += c.Stats().Committed
	}
	t.Logf("%d operations, %d writes committed, %d unknown outcomes", len(recorded.Ops), written, doubts)
	if written == 0 {
		t.Error("nothing was written")
	}
}

// either is the subject whose calls go to one of two in turn, and are those that the
// database decides.
func either(subjects ...history.Subject) history.Subject {
	var turn atomic.Uint64
	pick := func() history.Subject { return subjects[turn.Add(1)%uint64(len(subjects))] }
	both := history.Subject{
		Transact: func(ctx context.Context, f func(context.Context, func(int) history.InTx) error) error {
			return pick().Transact(ctx, f)
		},
	}
	for i := range sharedTables {
		both.Tables = append(both.Tables, history.Table{
			SetIf: func(ctx context.Context, key int, value int64, expect lockstep.Expect) (lockstep.Version, error) {
				return pick().Tables[i].SetIf(ctx, key, value, expect)
			},
			Update: func(ctx context.Context, key int, f func(int64, bool) (int64, error)) (int64, error) {
				return pick().Tables[i].Update(ctx, key, f)
			},
		})
	}
	return both
}
