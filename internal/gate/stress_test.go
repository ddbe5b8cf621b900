package gate

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// sharedMemory is a memory for many goroutines.
type sharedMemory struct{ m sync.Map }

func (s *sharedMemory) Set(key, e int) { s.m.Store(key, e) }
func (s *sharedMemory) Delete(key int) { s.m.Delete(key) }
func (s *sharedMemory) Clear()         { s.m.Clear() }

func (s *sharedMemory) Absent(e int) bool { return e%2 == 0 }

func (s *sharedMemory) DeleteAbsent() {
	s.m.Range(func(key, e any) bool {
		if s.Absent(e.(int)) {
			s.m.Delete(key)
		}
		return true
	})
}

func (s *sharedMemory) Get(key int) (int, bool) {
	e, ok := s.m.Load(key)
	if !ok {
		return 0, false
	}
	return e.(int), true
}

// Invariant 3, and all others at once: readers and writers on a few keys, each
// of whom requires of what it is told that it is not older than what was known
// when it asked.
func TestManyAtOnce(t *testing.T) {
	const keys, actors, steps = 3, 8, 2000
	var (
		memory = &sharedMemory{}
		gate   = New[int, int](context.Background(), memory, func(a, b int) bool { return a >= b })
		table  [keys]atomic.Int64 // commits of the key so far
		known  [keys]atomic.Int64 // those that somebody was told of
		writer [keys]sync.Mutex   // a key is in one batch at a time
		owners atomic.Uint64
		loads  sync.WaitGroup
	)
	told := func(key int, n int64) {
		for {
			old := known[key].Load()
			if n <= old || known[key].CompareAndSwap(old, n) {
				return
			}
		}
	}
	// pause is the database at work: others get on meanwhile.
	pause := func() {
		for range rand.IntN(8) {
			runtime.Gosched()
		}
	}
	land := func(f *Flight[int, int]) {
		for f != nil {
			pause()
			n := table[f.Key].Load()
			pause()
			f = gate.Land(f, int(n), nil, true)
		}
	}
	read := func(random *rand.Rand, key int) {
		floor := known[key].Load()
		e, ok := memory.Get(key)
		if !ok || random.IntN(8) == 0 {
			how := func(int) bool { return true }
			if ok {
				how = nil
			}
			f, start, hit := gate.Join(key, how)
			if e = hit; f != nil {
				if start {
					loads.Go(func() { land(f) })
				}
				<-f.Done()
				e, _ = f.Result()
				gate.Leave(f, nil)
			}
		}
		if int64(e) < floor {
			t.Errorf("a reader of %d who knew of %d is told %d", key, floor, e)
		}
		told(key, int64(e))
	}
	write := func(random *rand.Rand, batch []int) {
		owner := owners.Add(1)
		for _, key := range batch { // ascending
			writer[key].Lock()
			gate.Hold(key, owner, len(batch) > 1)
		}
		pause()
		wrote := make([]int64, len(batch))
		for i, key := range batch {
			wrote[i] = table[key].Add(1)
		}
		pause()
		if random.IntN(8) == 0 {
			gate.Evict(batch[0])
		}
		for i, key := range batch {
			p := Install(int(wrote[i]))
			if random.IntN(8) == 0 {
				p = Drop[int]()
			}
			gate.Release(key, p)
			writer[key].Unlock()
		}
		for i, key := range batch {
			told(key, wrote[i])
		}
	}
	var running sync.WaitGroup
	for i := range actors {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range steps {
				key := random.IntN(keys)
				switch random.IntN(40) {
				case 0:
					gate.Invalidate(key)
				case 1:
					gate.InvalidateAll()
				case 2:
					gate.HoldAll()
					pause()
					gate.ReleaseAll()
				case 3, 4:
					n := table[key].Load()
					pause()
					gate.ObserveBusy()
					gate.Observe(key, func(e int) bool { return int64(e) >= n })
					told(key, n)
				case 5:
					memory.Delete(key)
				case 6, 7, 8, 9, 10, 11:
					write(random, []int{key})
				case 12, 13:
					write(random, []int{0, 1 + random.IntN(keys-1)})
				default:
					read(random, key)
				}
			}
		})
	}
	running.Wait()
	loads.Wait()
	for i := range gate.shards {
		if n := len(gate.shards[i].slots); n > 0 {
			t.Errorf("the gate remembers %d keys on which nothing is under way", n)
		}
	}
	for key := range keys {
		if e, ok := memory.Get(key); ok && int64(e) != table[key].Load() {
			t.Errorf("memory has %d = %d at the end, the table %d", key, e, table[key].Load())
		}
	}
}
