package memory

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

func indexed(key string, value int) *Entry[string, int] {
	return &Entry[string, int]{Key: key, Value: value}
}

func TestABucketIsACacheLine(t *testing.T) {
	if size := unsafe.Sizeof(bucket[string, int]{}); unsafe.Sizeof(uintptr(0)) == 8 && size != 64 {
		t.Errorf("a bucket has %d bytes", size)
	}
}

// The index does what a Go map does, while it grows and shrinks.
func TestIndexIsAMap(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	x := newIndex[string, int]()
	model := make(map[string]*Entry[string, int])
	check := func() {
		t.Helper()
		yielded := 0
		for key, e := range x.all() {
			yielded++
			if model[key] != e {
				t.Fatalf("seed %d: all yields %s = %p, want %p", seed, key, e, model[key])
			}
		}
		if yielded != len(model) {
			t.Fatalf("seed %d: all yields %d entries of %d", seed, yielded, len(model))
		}
	}
	for phase, keys := range []int{10, 20_000, 100, 5_000, 1} {
		for range 40_000 {
			key := fmt.Sprint(random.IntN(max(keys, 2)))
			switch action := random.IntN(100); {
			case action < 50:
				e := indexed(key, phase)
				x.set(e, 1)
				model[key] = e
			case action < 55:
				x.remove(key, new(place)) // not the one that is there
			case action < 60:
				if e := model[key]; e != nil && x.remove(key, e.place) != e {
					t.Fatalf("seed %d: %s is not removed by its place", seed, key)
				}
				delete(model, key)
			case action < 75:
				x.remove(key, nil)
				delete(model, key)
			default:
				if got := x.get(key); got != model[key] {
					t.Fatalf("seed %d: get(%s) = %p, want %p", seed, key, got, model[key])
				}
			}
		}
		check()
		for key := range model {
			if len(model) > keys/10 {
				x.remove(key, nil)
				delete(model, key)
			}
		}
		check()
	}
	x.set(indexed("left", 1), 1)
	x.clear(func(e *Entry[string, int]) {
		if e.Key != "left" && model[e.Key] != e {
			t.Errorf("seed %d: clear removes %s = %p, want %p", seed, e.Key, e, model[e.Key])
		}
		delete(model, e.Key)
	})
	check()
	buckets := 0
	for i := range x.shards {
		buckets += len(x.shards[i].table.Load().buckets)
	}
	if buckets != indexShards {
		t.Errorf("an empty index keeps %d buckets", buckets)
	}
}

func TestIndexShrinks(t *testing.T) {
	const many, few = 100_000, 100
	x := newIndex[string, int]()
	for i := range many {
		x.set(indexed(fmt.Sprint(i), i), 1)
	}
	for i := few; i < many; i++ {
		x.remove(fmt.Sprint(i), nil)
	}
	slots := 0
	for i := range x.shards {
		slots += len(x.shards[i].table.Load().buckets) * bucketSlots
	}
	if slots > few*30 {
		t.Errorf("%d slots for %d entries", slots, few)
	}
	for i := range few {
		if e := x.get(fmt.Sprint(i)); e == nil || e.Value != i {
			t.Errorf("get(%d) = %+v", i, e)
		}
	}
}

// Keys of one hash are the worst that can happen: all but seven lie outside their
// bucket, and more pass it than its count can tell.
func TestKeysOfOneHash(t *testing.T) {
	const keys, hash = 2_000, 0x0123456789abcdef
	table := newTable[string, int](512)
	for i := range keys {
		table.add(hash, indexed(fmt.Sprint(i), i))
	}
	found := func(key string) bool {
		slot, b, i := table.find(hash, key)
		return slot != nil && slot.Load().Key == key && &b.slots[i] == slot
	}
	for i := range keys {
		if !found(fmt.Sprint(i)) {
			t.Fatalf("%d is not found", i)
		}
	}
	if found("another") {
		t.Error("another key is found")
	}
	for _, i := range rand.Perm(keys) {
		_, b, slot := table.find(hash, fmt.Sprint(i))
		table.remove(hash, b, slot)
		if found(fmt.Sprint(i)) {
			t.Fatalf("%d is found after its removal", i)
		}
	}
	for range table.all {
		t.Fatal("the table is not empty")
	}
	// A bucket that lost count lets every look-up pass, until the next rebuild;
	// those that did not are as new.
	for i := range table.buckets {
		if meta := table.buckets[i].meta.Load(); meta != 0 && meta != passedMax {
			t.Errorf("bucket %d: meta is %#x", i, meta)
		}
	}
}

// A full table whose every count is at its end must not be searched for ever.
func TestALookUpEnds(t *testing.T) {
	table := newTable[string, int](4)
	for i := range table.buckets {
		table.buckets[i].meta.Store(passedMax)
	}
	if slot, _, _ := table.find(1, "k"); slot != nil {
		t.Error("found")
	}
	x := newIndex[string, int]()
	for i := range x.shards {
		x.shards[i].table.Store(table)
	}
	if x.get("k") != nil {
		t.Error("found")
	}
}

// A reader finds what is there all the time, whatever becomes of its table and of
// the keys beside it; and never another key's entry.
func TestAnEntryThatStaysIsAlwaysFound(t *testing.T) {
	const staying, rounds = 50, 40
	x := newIndex[string, int]()
	for i := range staying {
		x.set(indexed(fmt.Sprint("stays", i), 0), 1)
	}
	var done atomic.Bool
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			var seen [staying]int
			for n := 0; !done.Load(); n++ {
				i := n % staying
				key := fmt.Sprint("stays", i)
				e := x.get(key)
				if e == nil || e.Key != key || e.Value < seen[i] {
					t.Errorf("get(%s) = %+v after %d", key, e, seen[i])
					return
				}
				seen[i] = e.Value
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for round := range rounds {
				for i := range 1_000 {
					x.set(indexed(fmt.Sprint(w, "goes", i), i), 1)
				}
				for i := w; i < staying; i += 2 {
					x.set(indexed(fmt.Sprint("stays", i), round+1), 1)
				}
				for i := range 1_000 {
					x.remove(fmt.Sprint(w, "goes", i), nil)
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
}
