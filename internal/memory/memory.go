// Package memory is the bounded map that entries live in: a concurrent map that
// answers, and otter's W-TinyLFU, which decides what makes room in it.
//
// It also removes, within about two seconds, what has expired and is not kept for
// longer. It does not decide
// whether an entry may still answer: it reads a clock that is up to a second slow,
// which makes a hit cheap, so whoever gets an entry with a deadline compares it
// with a real clock.
//
// Get is lock-free and leaves no trace; Used notes a use, and is lock-free but for
// the few of which the policy must hear, which cost more than a look-up. Set and
// Delete take the lock of one hash bucket
// in each map; they are called under the gate's lock, never around I/O. The size
// bound is soft: the map may exceed it for as long as its maintenance runs behind.
package memory

import (
	"iter"
	"math"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// Cause says why an entry left the map without being asked to.
type Cause uint8

const (
	// Evicted entries made room for others.
	Evicted Cause = iota
	// Expired entries were past their deadline.
	Expired
)

// Config describes a Map.
type Config[K comparable, V any] struct {
	// MaxEntries or MaxWeight bounds the map; the other is 0.
	MaxEntries int
	MaxWeight  uint64
	// Weigh is needed with MaxWeight.
	Weigh func(*Entry[K, V]) uint32
	// Removed is called for each entry that was evicted or expired, with locks of the
	// Map's held: it must be quick and must not call the Map.
	Removed func(*Entry[K, V], Cause)
	Clock   *Clock
}

// Map is safe for concurrent use.
//
// It is two maps: index answers, and policy decides what leaves it. They are
// changed one after the other, index first, and whatever leaves policy leaves
// index, if it still has the same place. So index never keeps what policy does not
// know of, beyond the moment of a call; policy may know a key that index has just
// lost, which costs a place until it is evicted. Of an entry that takes over another
// one's place, the policy hears no more than of a use.
type Map[K comparable, V any] struct {
	index   *index[K, V]
	policy  *otter.Cache[K, *place]
	weigh   func(*Entry[K, V]) uint32 // nil: the map is not bounded by weight
	removed func(*Entry[K, V], Cause)
	clock   *Clock
	// epoch is the number of the epoch times epochStep, plus notesPerEpoch: what an
	// entry's noted is when it has had all its notes.
	epoch     atomic.Uint32
	evictions atomic.Uint64 // in this epoch
}

// New returns an empty map. It starts a goroutine; Close ends it.
func New[K comparable, V any](config Config[K, V]) (*Map[K, V], error) {
	m := &Map[K, V]{index: newIndex[K, V](), removed: config.Removed, clock: config.Clock}
	m.epoch.Store(epochStep + notesPerEpoch)
	options := &otter.Options[K, *place]{
		MaximumSize:   config.MaxEntries,
		MaximumWeight: config.MaxWeight,
		Clock:         config.Clock,
		// Maintenance runs in the call that finds it due. By default it is given to a
		// goroutine of its own, at each write of a cache that is not busy: that wakes a
		// core, which the database on the same machine then has to wait for, and takes
		// longer than the maintenance of one write. What a pass leaves over is for the
		// next call, or for the next second.
		Executor: func(maintain func()) { maintain() },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[K, *place]) time.Duration {
			if e.Value.leaves == 0 {
				return math.MaxInt64
			}
			return max(1, time.Duration(e.Value.leaves-config.Clock.NowNano()))
		}),
		// The atomic handler runs inline. The other kind starts a goroutine for
		// each entry that is replaced.
		OnAtomicDeletion: func(e otter.DeletionEvent[K, *place]) {
			removed := m.index.remove(e.Key, e.Value)
			if e.Cause == otter.CauseOverflow {
				m.evicted()
			}
			switch {
			case removed == nil: // who took it from the index tells
			case e.Cause == otter.CauseOverflow:
				m.removed(removed, Evicted)
			case e.Cause == otter.CauseExpiration:
				m.removed(removed, Expired)
			default:
				m.tellExpired(removed)
			}
		},
	}
	if weigh := config.Weigh; weigh != nil {
		m.weigh = weigh
		options.Weigher = func(_ K, p *place) uint32 { return p.weight }
	}
	var err error
	if m.policy, err = otter.New(options); err != nil {
		return nil, err
	}
	return m, nil
}

// Get returns the entry and leaves no trace.
func (m *Map[K, V]) Get(key K) (*Entry[K, V], bool) {
	e := m.index.get(key)
	return e, e != nil
}

// Used notes a use of the entry, at the Clock's second.
//
// The policy need not hear of each: what it learns matters only when something has
// to leave, and then what counts is which entries were used again, and roughly how
// often. So it hears of an entry's first notesPerEpoch uses in each epoch, and an
// epoch ends when one in epochPart of the entries has been evicted: where hits are
// many and evictions few, a note is rare. BenchmarkHitRate holds the hit rate
// against that of a policy which hears of all. Notes of a fixed part of the hits
// instead, one in 32, cost 6 points of it at one row in a hundred.
func (m *Map[K, V]) Used(e *Entry[K, V]) {
	if epoch := m.epoch.Load(); e.noted.Load() != epoch || e.use.Load() != m.clock.Second()+1 {
		m.note(e, epoch)
	}
}

const (
	notesPerEpoch = 3
	epochPart     = 8
	// epochStep is one epoch in Map.epoch and Entry.noted, whose low bits count notes.
	epochStep = notesPerEpoch + 1
)

// note is the rest of Used.
func (m *Map[K, V]) note(e *Entry[K, V], epoch uint32) {
	e.use.Store(m.clock.Second() + 1)
	m.count(e, epoch)
}

// count has the policy hear of a use, if it is to. Of several that run at once, some may be
// counted as one; the policy then hears of one more.
func (m *Map[K, V]) count(e *Entry[K, V], epoch uint32) {
	noted := e.noted.Load()
	if noted == epoch {
		return
	}
	if noted/epochStep != epoch/epochStep {
		noted = epoch - notesPerEpoch
	}
	e.noted.Store(noted + 1)
	m.policy.GetIfPresent(e.Key)
}

// evicted counts an eviction, and ends the epoch if there were enough.
func (m *Map[K, V]) evicted() {
	if n := m.evictions.Add(1); n >= uint64(m.policy.EstimatedSize()/epochPart) {
		m.evictions.Store(0)
		m.epoch.Add(epochStep)
	}
}

// Set puts the entry in the key's place, which is e.Key. Each entry is set once.
func (m *Map[K, V]) Set(key K, e *Entry[K, V]) {
	weight := uint32(1)
	if m.weigh != nil {
		weight = m.weigh(e)
	}
	old := m.index.set(e, weight)
	if old != nil && old.place == e.place {
		m.count(e, m.epoch.Load())
	} else {
		m.policy.Set(key, e.place)
	}
	if old != nil {
		m.tellExpired(old)
	}
}

// tellExpired is for an entry that has left the index for another reason, before the sweep
// that would have found it expired.
func (m *Map[K, V]) tellExpired(e *Entry[K, V]) {
	if d := e.Deadline(); d != 0 && d <= m.clock.Precise() {
		m.removed(e, Expired)
	}
}

// Delete removes the key.
func (m *Map[K, V]) Delete(key K) {
	removed := m.index.remove(key, nil)
	m.policy.Invalidate(key)
	if removed != nil {
		m.tellExpired(removed)
	}
}

// Clear removes every key that was there when it began.
func (m *Map[K, V]) Clear() {
	m.index.clear(m.tellExpired)
	m.policy.InvalidateAll()
}

// Absent tells whether the entry is the copy of an absence.
func (m *Map[K, V]) Absent(e *Entry[K, V]) bool { return !e.Exists }

// DeleteAbsent removes the copies of absences that were there when it began. It looks
// at every entry.
func (m *Map[K, V]) DeleteAbsent() {
	for key, e := range m.All() {
		if !e.Exists {
			m.Delete(key)
		}
	}
}

// All yields the entries; those that come or go meanwhile may be among them.
func (m *Map[K, V]) All() iter.Seq2[K, *Entry[K, V]] { return m.index.all() }

// Size returns the number of entries, their weight where the map is bounded by
// it, and the bound.
func (m *Map[K, V]) Size() (entries, weight, maximum uint64) {
	if m.weigh != nil {
		weight = m.policy.WeightedSize()
	}
	return uint64(max(0, m.policy.EstimatedSize())), weight, m.policy.GetMaximum()
}

// Settle runs the maintenance that is due, evictions among it.
func (m *Map[K, V]) Settle() { m.policy.CleanUp() }

// Close ends the map's goroutine. The entries stay.
func (m *Map[K, V]) Close() { m.policy.StopAllGoroutines() }
