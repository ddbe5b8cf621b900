// Package memory is the bounded map that entries live in: a concurrent map that
// answers, and otter's W-TinyLFU, which decides what makes room in it.
//
// It also removes, within about two seconds, what has expired. It does not decide
// whether an entry may still answer: it reads a clock that is up to a second slow,
// which makes a hit cheap, so whoever gets an entry with a deadline compares it
// with a real clock.
//
// Get is lock-free and notes nothing; Note tells the policy that an entry was
// used, which costs more than the look-up itself, so a caller notes as few of its
// hits as the policy can do with. Set and Delete take the lock of one hash bucket
// in each map; they are called under the gate's lock, never around I/O. The size
// bound is soft: the map may exceed it for as long as its maintenance runs behind.
package memory

import (
	"iter"
	"math"
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
	// Removed is called for each entry that was evicted or expired, with a
	// bucket's lock held: it must be quick and must not call the Map.
	Removed func(*Entry[K, V], Cause)
	Clock   *Clock
}

// Map is safe for concurrent use.
//
// It is two maps: index answers, and policy decides what leaves it. They are
// changed one after the other, index first, and whatever leaves policy leaves
// index, if it is still the same entry. So index never keeps what policy does not
// know of, beyond the moment of a call; policy may know a key that index has just
// lost, which costs a place until it is evicted.
type Map[K comparable, V any] struct {
	index    *index[K, V]
	policy   *otter.Cache[K, *Entry[K, V]]
	weighted bool
}

// New returns an empty map. It starts a goroutine; Close ends it.
func New[K comparable, V any](config Config[K, V]) (*Map[K, V], error) {
	m := &Map[K, V]{index: newIndex[K, V](), weighted: config.MaxWeight > 0}
	options := &otter.Options[K, *Entry[K, V]]{
		MaximumSize:   config.MaxEntries,
		MaximumWeight: config.MaxWeight,
		Clock:         config.Clock,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[K, *Entry[K, V]]) time.Duration {
			if e.Value.Deadline() == 0 {
				return math.MaxInt64
			}
			return max(1, time.Duration(e.Value.Deadline()-config.Clock.NowNano()))
		}),
		// The atomic handler runs inline. The other kind starts a goroutine for
		// each entry that is replaced.
		OnAtomicDeletion: func(e otter.DeletionEvent[K, *Entry[K, V]]) {
			m.index.remove(e.Key, e.Value)
			switch e.Cause {
			case otter.CauseOverflow:
				config.Removed(e.Value, Evicted)
			case otter.CauseExpiration:
				config.Removed(e.Value, Expired)
			default:
				// A new copy may have come before the sweep that would have found the
				// old one expired.
				if d := e.Value.Deadline(); d != 0 && d <= config.Clock.Precise() {
					config.Removed(e.Value, Expired)
				}
			}
		},
	}
	if weigh := config.Weigh; weigh != nil {
		options.Weigher = func(_ K, e *Entry[K, V]) uint32 { return weigh(e) }
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

// Note tells the policy that the key was used: it moves up, and counts once more
// in the frequency that decides which entry makes room.
func (m *Map[K, V]) Note(key K) { m.policy.GetIfPresent(key) }

// Set puts the entry in the key's place, which is e.Key.
func (m *Map[K, V]) Set(key K, e *Entry[K, V]) {
	m.index.set(e)
	m.policy.Set(key, e)
}

// Delete removes the key.
func (m *Map[K, V]) Delete(key K) {
	m.index.remove(key, nil)
	m.policy.Invalidate(key)
}

// Clear removes every key that was there when it began.
func (m *Map[K, V]) Clear() {
	m.index.clear()
	m.policy.InvalidateAll()
}

// All yields the entries; those that come or go meanwhile may be among them.
func (m *Map[K, V]) All() iter.Seq2[K, *Entry[K, V]] { return m.index.all() }

// Size returns the number of entries, their weight where the map is bounded by
// it, and the bound.
func (m *Map[K, V]) Size() (entries, weight, maximum uint64) {
	if m.weighted {
		weight = m.policy.WeightedSize()
	}
	return uint64(max(0, m.policy.EstimatedSize())), weight, m.policy.GetMaximum()
}

// Settle runs the maintenance that is due, evictions among it.
func (m *Map[K, V]) Settle() { m.policy.CleanUp() }

// Close ends the map's goroutine. The entries stay.
func (m *Map[K, V]) Close() { m.policy.StopAllGoroutines() }
