// Package gate keeps, for each key that something is under way on, what that is:
// commits that have not been published, and loads. It decides who may fill
// memory, and whose load a reader may share. It does no I/O and knows no clock.
//
// # States of a key
//
//	idle     no slot. Memory answers; nothing else is going on.
//	loading  a load runs. It may fill memory when it lands.
//	busy     at least one hold: a commit is on its way to the database, or is
//	         there, or its outcome is not known. Nothing fills memory.
//
// # Invariants
//
//  1. An entry is in memory only if no commit of its key that is not published
//     could have been seen by a reader that a later reader knows of. So a load
//     fills memory only if its key was not busy at any moment between the load's
//     start and the fill, and was not invalidated or observed meanwhile. Such a
//     load is called clean, any other tainted; a tainted load never becomes
//     clean again.
//  2. A reader joins a running load only if it is clean. Otherwise the load may
//     have read the row before a write that the reader knows of, so it waits for
//     one that starts after it asked: the key's next. One load of a key runs at
//     a time, so whoever has seen a newer row than a running load did cannot have
//     got it from another load.
//  3. Gate check and fill are one critical section: the shard's lock is held over
//     both. The locks that memory takes inside are its own, and short.
//  4. The last of a key's holds decides what memory holds: the newest published
//     row if every hold was one committer's and nothing interfered; else nothing.
//     A hold that ends before the last one leaves memory without the key, so its
//     writer can be answered.
//  5. A load that lands while its key is busy takes memory's copy away: its
//     readers may be told what is not published yet, and whoever asks after them
//     must not be told less. So does one that was asked for in spite of a copy, and
//     may not fill memory: a refresh, or a load of what has expired. Nor may what is
//     published then be less, as it is where another program has written the row after
//     the commit: a row that readers were shown, and memory was not given, bounds from
//     below what memory may have.
//  6. An insertion under way makes no key busy, for nobody knows its key yet. What it
//     can make wrong is an absence, whosever key it gets; see insert.go.
package gate

import (
	"context"
	"hash/maphash"
	"sync"
)

// Memory is what the gate fills. The methods are called with a shard locked.
type Memory[K comparable, E any] interface {
	Set(K, E)
	Delete(K)
	Get(K) (E, bool)
	Clear()
	// Absent tells whether the entry says that there is no row. DeleteAbsent removes
	// those that do, but may miss what comes meanwhile.
	Absent(E) bool
	DeleteAbsent()
}

const shardCount = 128

// Gate is safe for concurrent use. An operation takes one shard's lock for well
// under a microsecond; those on all keys take every shard's, one after another.
type Gate[K comparable, E any] struct {
	life    context.Context
	memory  Memory[K, E]
	atLeast func(a, b E) bool
	seed    maphash.Seed
	shards  [shardCount]shard[K, E]

	insertions insertions
}

type shard[K comparable, E any] struct {
	mu    sync.Mutex
	slots map[K]*slot[K, E]
	// allHolds counts the holds on every key at once.
	allHolds int
	// changed are keys whose newest row somebody may know, while insertions are under
	// way: the number of the last insertion that had begun by then. forgotten is the
	// same for all keys. See Inserted.
	changed   map[K]uint64
	forgotten uint64
	spare     *slot[K, E]
	_         [16]byte // a shard to a cache line
}

// slot is the state of a key that is not idle. Its shard's lock guards it.
type slot[K comparable, E any] struct {
	running, next *Flight[K, E]

	holds int
	owner uint64
	// mixed: another owner held the key as well, or it was invalidated or
	// observed while held. What the holds publish is then not installed.
	mixed bool
	// published is what the last hold that changed the row left.
	published Publication[E]
	// newest is the newest row that readers were shown while the key was held, if shown:
	// what is published and may be older is not installed.
	shown  bool
	newest E
}

// Publication is what a hold that ends knows about the row.
type Publication[E any] struct {
	kind  kind
	entry E
}

type kind uint8

const (
	unchanged kind = iota
	install
	drop
)

// Unchanged: the commit did not happen. What memory holds was right.
func Unchanged[E any]() Publication[E] { return Publication[E]{} }

// Install: the row is now e.
func Install[E any](e E) Publication[E] { return Publication[E]{kind: install, entry: e} }

// Drop: the row has, or may have, changed, and is not known.
func Drop[E any]() Publication[E] { return Publication[E]{kind: drop} }

// Flight is one load of one key, running or waiting to run.
type Flight[K comparable, E any] struct {
	Key K
	// By is what the reader for whom it was made has given to JoinWith.
	By any
	// Ctx ends when nobody waits for the flight any more, with the cause for which the
	// last one has left.
	Ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	entry  E
	err    error

	// Guarded by the shard's lock.
	waiters int
	tainted bool
	// replaces: memory may hold an older copy, which goes if the flight cannot
	// put the new one in its place.
	replaces bool
}

// Done is closed when the flight has landed.
func (f *Flight[K, E]) Done() <-chan struct{} { return f.done }

// Result may be called once Done is closed.
func (f *Flight[K, E]) Result() (E, error) { return f.entry, f.err }

// New returns a gate in front of memory. atLeast tells of two entries of one key
// whether a is known to be at least as new as b; it is quick. The contexts of its flights
// end with life.
func New[K comparable, E any](life context.Context, memory Memory[K, E], atLeast func(a, b E) bool) *Gate[K, E] {
	g := &Gate[K, E]{life: life, memory: memory, atLeast: atLeast, seed: maphash.MakeSeed()}
	for i := range g.shards {
		g.shards[i].slots = make(map[K]*slot[K, E])
	}
	return g
}

func (g *Gate[K, E]) shard(key K) *shard[K, E] {
	return &g.shards[maphash.Comparable(g.seed, key)%shardCount]
}

// slotLocked returns the key's slot, making it if there is none.
func (s *shard[K, E]) slotLocked(key K) *slot[K, E] {
	sl := s.slots[key]
	if sl == nil {
		if sl, s.spare = s.spare, nil; sl == nil {
			sl = &slot[K, E]{}
		}
		s.slots[key] = sl
	}
	return sl
}

// tidyLocked forgets the key when nothing is under way on it.
func (s *shard[K, E]) tidyLocked(key K, sl *slot[K, E]) {
	if sl.holds == 0 && sl.running == nil {
		delete(s.slots, key)
		*sl = slot[K, E]{}
		s.spare = sl // most are there for one write
	}
}

// disturbLocked makes what is under way on the key unfit to fill memory.
func (sl *slot[K, E]) disturbLocked() {
	if sl.running != nil {
		sl.running.tainted = true
	}
	if sl.holds > 0 {
		sl.mixed = true
	}
}

// Invalidate removes the key from memory and defeats the loads and the
// publications that are under way on it.
func (g *Gate[K, E]) Invalidate(key K) {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.invalidateLocked(s, key)
}

func (g *Gate[K, E]) invalidateLocked(s *shard[K, E], key K) {
	g.memory.Delete(key)
	g.changedLocked(s, key)
	if sl := s.slots[key]; sl != nil {
		sl.disturbLocked()
	}
}

// InvalidateAll does for every key what Invalidate does for one.
func (g *Gate[K, E]) InvalidateAll() {
	g.everyShard(func(s *shard[K, E]) {
		g.forgetLocked(s)
		for _, sl := range s.slots {
			sl.disturbLocked()
		}
	})
	// What fills memory from here on was loaded after the call.
	g.memory.Clear()
}

func (g *Gate[K, E]) everyShard(f func(*shard[K, E])) {
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		f(s)
		s.mu.Unlock()
	}
}

// Observe is for whoever has read the row past memory and is about to tell
// somebody: observing counts as acknowledging. It removes memory's copy unless
// current says that it is at least as new, and defeats the loads under way,
// which may have read an older row.
func (g *Gate[K, E]) Observe(key K, current func(E) bool) {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := g.memory.Get(key); ok && !current(e) {
		g.memory.Delete(key)
	}
	g.changedLocked(s, key)
	if sl := s.slots[key]; sl != nil {
		sl.disturbLocked()
	}
}

// ObserveBusy removes every busy key from memory. Whoever has read many rows,
// and may have seen, or missed, what commits under way did to them, calls it
// before telling.
func (g *Gate[K, E]) ObserveBusy() {
	g.everyShard(func(s *shard[K, E]) {
		for key, sl := range s.slots {
			if sl.holds > 0 {
				g.memory.Delete(key)
			}
		}
	})
}

// IfIdle calls f with the shard locked if nothing is under way on the key. An absence
// may be ended by any insertion.
func (g *Gate[K, E]) IfIdle(key K, f func()) bool {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots[key] != nil || s.allHolds > 0 {
		return false
	}
	if e, ok := g.memory.Get(key); ok && g.memory.Absent(e) && g.inserting() {
		return false
	}
	f()
	return true
}
