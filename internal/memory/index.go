package memory

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
)

// index finds the entry of a key. It is a hash table whose reads take no lock and
// write nothing: the bucket of a key is one cache line, which holds seven bits of
// each hash and the entries' addresses, so a hit touches that line and the entry
// with its key, and nothing between them. Maps for every purpose keep a node with
// the key and a pointer to the value, one cache miss more; at the size where a
// cache matters, that miss was a third of a hit.
//
// The layout is that of F14 (Bronson and Shi, 2019) without its vector
// instructions: a bucket that is full passes its surplus on to the next one and
// counts what passes, so a look-up knows whether to go on, and a deletion leaves
// no tombstone. Tables double, and halve, a shard at a time.
//
// A look-up is linearizable, though it may read a table that has been replaced:
// that table stands still since then, and it was the shard's when the look-up
// began. An entry does not move within a table, so one that is there all the time
// is found.
type index[K comparable, V any] struct {
	seed   maphash.Seed
	shards [indexShards]indexShard[K, V]
}

const (
	indexShardBits = 6
	indexShards    = 1 << indexShardBits
	bucketSlots    = 7
)

type indexShard[K comparable, V any] struct {
	table atomic.Pointer[table[K, V]]
	// mu is held by whoever changes the table.
	mu sync.Mutex
	n  int // entries in table
	_  [40]byte
}

type table[K comparable, V any] struct {
	buckets []bucket[K, V] // a power of two of them
}

// bucket is one cache line. The lowest seven bytes of meta are the tags of the
// slots, zero for an empty one; the highest is the number of entries that passed
// because the bucket was full, and stays at 255 once it was there.
type bucket[K comparable, V any] struct {
	meta  atomic.Uint64
	slots [bucketSlots]atomic.Pointer[Entry[K, V]]
}

const (
	lowBits   = 0x0001010101010101
	highBits  = 0x0080808080808080
	passedOne = 1 << 56
	passedMax = 255 << 56
)

// tag is never zero, and independent of the bits that choose shard and bucket.
func tag(hash uint64) uint64 { return hash>>(64-indexShardBits-7)&0x7f | 0x80 }

// matches has the highest bit set of each byte in which meta has the tag, and
// perhaps of one above such a byte: whoever looks compares keys anyway.
func matches(meta, tag uint64) uint64 {
	diff := meta ^ tag*lowBits
	return (diff - lowBits) &^ diff & highBits
}

func newIndex[K comparable, V any]() *index[K, V] {
	x := &index[K, V]{seed: maphash.MakeSeed()}
	for i := range x.shards {
		x.shards[i].table.Store(newTable[K, V](1))
	}
	return x
}

func newTable[K comparable, V any](buckets int) *table[K, V] {
	return &table[K, V]{buckets: make([]bucket[K, V], buckets)}
}

func (x *index[K, V]) locate(key K) (hash uint64, shard *indexShard[K, V]) {
	hash = maphash.Comparable(x.seed, key)
	return hash, &x.shards[hash>>(64-indexShardBits)]
}

// get returns the key's entry, or nil.
func (x *index[K, V]) get(key K) *Entry[K, V] {
	hash, s := x.locate(key)
	buckets := s.table.Load().buckets
	tag := tag(hash)
	for range buckets {
		b := &buckets[hash&uint64(len(buckets)-1)]
		meta := b.meta.Load()
		for m := matches(meta, tag); m != 0; m &= m - 1 {
			if e := b.slots[bits.TrailingZeros64(m)/8].Load(); e != nil && e.Key == key {
				return e
			}
		}
		if meta < passedOne {
			return nil
		}
		hash++
	}
	return nil
}

// set puts the entry in the key's slot, and returns the one that it replaces, or nil.
// It gets the place of that one, if it is to leave at the same time and weighs as much,
// and else a new one.
func (x *index[K, V]) set(e *Entry[K, V], weight uint32) (old *Entry[K, V]) {
	hash, s := x.locate(e.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	slot, _, _ := t.find(hash, e.Key)
	if slot != nil {
		old = slot.Load()
	}
	if leaves := e.leaves(); old != nil && *old.place == (place{leaves, weight}) {
		e.place = old.place
		e.noted.Store(old.noted.Load())
	} else {
		e.place = &place{leaves, weight}
	}
	if slot != nil {
		slot.Store(e)
		return old
	}
	if s.n++; s.n > t.most() {
		t = x.rebuild(s, 2*len(t.buckets))
	}
	t.add(hash, e)
	return nil
}

// remove removes the key's entry, if only is nil or its place, and returns it; nil if
// there was none.
func (x *index[K, V]) remove(key K, only *place) (removed *Entry[K, V]) {
	hash, s := x.locate(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	slot, b, i := t.find(hash, key)
	if slot == nil {
		return nil
	}
	if removed = slot.Load(); only != nil && removed.place != only {
		return nil
	}
	t.remove(hash, b, i)
	if s.n--; len(t.buckets) > 1 && s.n < t.most()/8 {
		x.rebuild(s, len(t.buckets)/2)
	}
	return removed
}

// clear removes all entries, and calls removed with each, a shard's lock held.
func (x *index[K, V]) clear(removed func(*Entry[K, V])) {
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		for e := range s.table.Load().all {
			removed(e)
		}
		s.n = 0
		s.table.Store(newTable[K, V](1))
		s.mu.Unlock()
	}
}

// all yields the entries, a shard at a time.
func (x *index[K, V]) all() iter.Seq2[K, *Entry[K, V]] {
	return func(yield func(K, *Entry[K, V]) bool) {
		for i := range x.shards {
			for _, e := range x.shards[i].entries() {
				if !yield(e.Key, e) {
					return
				}
			}
		}
	}
}

// entries returns the shard's, as of one moment.
func (s *indexShard[K, V]) entries() []*Entry[K, V] {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]*Entry[K, V], 0, s.n)
	for e := range s.table.Load().all {
		found = append(found, e)
	}
	return found
}

// rebuild gives the shard a table of another size. Its lock is held.
func (x *index[K, V]) rebuild(s *indexShard[K, V], buckets int) *table[K, V] {
	bigger := newTable[K, V](buckets)
	for e := range s.table.Load().all {
		bigger.add(maphash.Comparable(x.seed, e.Key), e)
	}
	s.table.Store(bigger)
	return bigger
}

// most is how many entries the table may hold: seven tenths of its slots, at
// which one entry in twenty-five lies outside its own bucket.
func (t *table[K, V]) most() int { return len(t.buckets) * bucketSlots * 7 / 10 }

func (t *table[K, V]) all(yield func(*Entry[K, V]) bool) {
	for i := range t.buckets {
		for j := range t.buckets[i].slots {
			if e := t.buckets[i].slots[j].Load(); e != nil && !yield(e) {
				return
			}
		}
	}
}

// find returns the slot of the key, and where it is: the slot's number in its
// bucket.
func (t *table[K, V]) find(hash uint64, key K) (slot *atomic.Pointer[Entry[K, V]], b *bucket[K, V], i int) {
	tag := tag(hash)
	for range t.buckets {
		b = t.bucket(hash)
		meta := b.meta.Load()
		for m := matches(meta, tag); m != 0; m &= m - 1 {
			i = bits.TrailingZeros64(m) / 8
			if e := b.slots[i].Load(); e != nil && e.Key == key {
				return &b.slots[i], b, i
			}
		}
		if meta < passedOne {
			break
		}
		hash++
	}
	return nil, nil, 0
}

func (t *table[K, V]) bucket(hash uint64) *bucket[K, V] {
	return &t.buckets[hash&uint64(len(t.buckets)-1)]
}

// add gives a key that the table does not have a slot. There must be room.
func (t *table[K, V]) add(hash uint64, e *Entry[K, V]) {
	tag := tag(hash)
	for {
		b := t.bucket(hash)
		meta := b.meta.Load()
		if free := matches(meta, 0); free != 0 {
			i := bits.TrailingZeros64(free) / 8
			b.slots[i].Store(e)
			b.meta.Store(meta | tag<<(8*i))
			return
		}
		if meta < passedMax {
			b.meta.Store(meta + passedOne)
		}
		hash++
	}
}

// remove empties slot i of b, where find has found the hash's key.
func (t *table[K, V]) remove(hash uint64, b *bucket[K, V], i int) {
	b.meta.Store(b.meta.Load() &^ (0xff << (8 * i)))
	b.slots[i].Store(nil)
	for at := t.bucket(hash); at != b; at = t.bucket(hash) {
		if meta := at.meta.Load(); meta < passedMax {
			at.meta.Store(meta - passedOne)
		}
		hash++
	}
}
