package commit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Random writers, who may leave, over a database that takes its time and does not
// always know what it has done. The invariants are checked as batches begin.
// TestRandom/seed=7 replays the seventh seed; the goroutines of a run take turns
// as they like, so that a rare failure may take several.
func TestRandom(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomRun(t, seed) })
		})
	}
}

// auditor checks what a queue does.
type auditor struct {
	t *testing.T

	mu        sync.Mutex
	submitted int
	running   map[int]int // key: the write under way; -1 for keys of Take
	last      map[int]int // key: the last write taken
	lastAll   int         // the last write on all keys that was taken
	lastAny   int         // the highest number taken
	exclusive bool
	batches   int
	fates     map[int]string
}

type write = Op[int, int] // Item is its number, in the order of Submit

func (a *auditor) fate(n int, what string) {
	if old := a.fates[n]; old != "" {
		a.t.Errorf("write %d: %s, and then %s", n, old, what)
	}
	a.fates[n] = what
}

func (a *auditor) begin(batch []*write, maxOps, inFlight int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batches++
	if len(batch) == 0 || len(batch) > maxOps || a.batches > inFlight {
		a.t.Errorf("a batch of %d writes, %d under way", len(batch), a.batches)
	}
	before := make(map[int]int)
	for key, n := range a.running {
		before[key] = n
	}
	for _, op := range batch {
		a.fate(op.Item, "taken")
		if a.exclusive || op.Item < a.lastAll {
			a.t.Errorf("write %d travels beside, or after, %d on all keys", op.Item, a.lastAll)
		}
		if op.All {
			if len(batch) > 1 || len(before) > 0 || op.Item < a.lastAny {
				a.t.Errorf("write %d, on all keys, travels with %d others, beside %v, after %d", op.Item, len(batch)-1, before, a.lastAny)
			}
			a.exclusive, a.lastAll = true, op.Item
		}
		a.lastAny = max(a.lastAny, op.Item)
		for _, key := range op.Keys {
			if other, ok := before[key]; ok {
				a.t.Errorf("writes %d and %d are in two batches at once, both on key %d", other, op.Item, key)
			}
			if a.last[key] > op.Item {
				a.t.Errorf("write %d comes after %d, on key %d", op.Item, a.last[key], key)
			}
			a.running[key], a.last[key] = op.Item, op.Item
		}
	}
}

// end is before the queue knows.
func (a *auditor) end(op *write) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.exclusive = a.exclusive && !op.All
	for _, key := range op.Keys {
		if a.running[key] == op.Item {
			delete(a.running, key)
		}
	}
}

func randomRun(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	keys, writers := 1+random.IntN(8), 2+random.IntN(20)
	maxOps, inFlight := 1+random.IntN(5), 1+random.IntN(4)
	a := &auditor{t: t, running: make(map[int]int), last: make(map[int]int), fates: make(map[int]string)}
	var settlements sync.WaitGroup
	var q *Queue[int, int]
	config := Config[int, int]{
		MaxOps: maxOps, InFlight: inFlight, Limit: 1 + random.IntN(30),
		MaxWait: time.Duration(1+random.IntN(200)) * time.Millisecond,
	}
	if random.IntN(3) == 0 {
		config.MaxDelay = time.Duration(random.IntN(3)) * time.Millisecond
	}
	sleep := func(r *rand.Rand) {
		if n := r.IntN(5); n > 0 {
			time.Sleep(time.Duration(n) * time.Millisecond)
		}
	}
	config.Run = func(batch []*write) {
		a.begin(batch, maxOps, inFlight)
		r := rand.New(rand.NewPCG(seed, uint64(batch[0].Item)))
		sleep(r)
		for _, op := range batch {
			if r.IntN(10) == 0 {
				q.Doubt(op) // its caller has left
			}
			if r.IntN(10) > 0 {
				a.end(op)
				continue
			}
			op.Hold()
			settlements.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(op.Item)<<32))
				sleep(r)
				a.end(op)
				q.Release(op)
			})
		}
		sleep(r)
		a.mu.Lock()
		a.batches--
		a.mu.Unlock()
	}
	config.Dropped = func(op *write, _ error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.fate(op.Item, "dropped")
	}
	q = New(config)

	var running sync.WaitGroup
	for i := range writers {
		running.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)<<48))
			for range 60 {
				op := &write{All: r.IntN(40) == 0}
				if !op.All {
					op.Keys = r.Perm(keys)[:1+r.IntN(min(3, keys))]
				}
				a.mu.Lock()
				a.submitted++
				op.Item = a.submitted
				if q.Submit(op) != nil {
					a.fate(op.Item, "refused")
				}
				a.mu.Unlock()
				sleep(r)
				switch r.IntN(8) {
				case 0:
					if q.Leave(op) {
						a.mu.Lock()
						a.fate(op.Item, "left")
						a.mu.Unlock()
					}
				case 1:
					lent := r.Perm(keys)[:1]
					if err := q.Await(t.Context(), lent); err != nil {
						t.Errorf("Await: %v", err)
					}
					q.Take(lent)
					sleep(r)
					q.Return(lent)
				}
			}
		})
	}
	running.Wait()
	idle := q.Close()
	if random.IntN(2) == 0 {
		q.Drop()
	}
	<-idle
	settlements.Wait()
	synctest.Wait()

	if missing := missing(a); len(missing) > 0 {
		t.Errorf("%d of %d writes have no fate: %v", len(missing), a.submitted, missing)
	}
	if len(q.keys) > 0 || q.Len() > 0 || q.taken > 0 || q.first != nil || q.eldest != nil || q.readyCount != 0 || q.doubtedAll != 0 {
		t.Errorf("an idle queue remembers %d keys, %d waiting, %d taken, %d ready", len(q.keys), q.Len(), q.taken, q.readyCount)
	}
	if len(a.running) > 0 && !t.Failed() {
		t.Errorf("still under way: %v", a.running)
	}
}

func missing(a *auditor) (list []int) {
	for n := 1; n <= a.submitted; n++ {
		if a.fates[n] == "" {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}
