package lockstep

import (
	"sync/atomic"
	"time"
)

// Entry is a row as the cache knows it.
type Entry[K comparable, V any] struct {
	Key   K
	Value V
	// Version is the row's; 0 where the store keeps none.
	Version Version
	// CreatedAt is when this copy entered memory. For an entry that does not come
	// from memory it is when it was read.
	CreatedAt time.Time
	// AccessedAt is when the copy was last used, to the second.
	AccessedAt time.Time
	// TTL is how long memory may still answer for the copy; 0 for as long as it
	// is there.
	TTL time.Duration
	// ExpiresAt is when the row's lifetime is over, by the database's clock; zero
	// for a row that stays.
	ExpiresAt time.Time
}

// entry is a copy in memory, of a row or of the fact that there is none. All but
// use is immutable.
type entry[V any] struct {
	value   V
	version Version
	created int64 // clock nanoseconds
	// lives is nil for a copy of a row that stays, kept for as long as it is there.
	lives  *lives
	use    atomic.Uint32 // the clock's second of the last use, plus one; 0 before the first
	exists bool
}

type lives struct {
	deadline  int64     // clock nanoseconds: when the copy must stop answering
	expiresAt time.Time // the row's
}

func (e *entry[V]) deadline() int64 {
	if e.lives == nil {
		return 0
	}
	return e.lives.deadline
}

// newEntry makes a copy of a row that was read, or written, no earlier than at
// began. ttl is how long it may answer; 0 for as long as it is there.
//
// The row's own end is counted from began with what the database said was left:
// at or before the database's own moment, whatever the two clocks say.
func (c *Cache[K, V]) newEntry(row Row[V], began int64, ttl time.Duration) *entry[V] {
	e := &entry[V]{version: row.Version, created: c.clock.Precise()}
	e.exists = row.Exists && !row.over()
	mortal := e.exists && !row.ExpiresAt.IsZero()
	if e.exists {
		e.value = row.Value
		if c.options.Clone != nil {
			e.value = c.options.Clone(e.value)
		}
	}
	var deadline int64
	if ttl > 0 {
		deadline = saturate(began, ttl)
	}
	if mortal {
		if end := saturate(began, row.Remaining); deadline == 0 || end < deadline {
			deadline = end
		}
	}
	if deadline != 0 || mortal {
		e.lives = &lives{deadline: deadline}
		if mortal {
			e.lives.expiresAt = row.ExpiresAt
		}
	}
	return e
}

// over tells whether the row's lifetime was over when the database answered.
func (r Row[V]) over() bool { return !r.ExpiresAt.IsZero() && r.Remaining <= 0 }

// ttlOf is how long a copy of the row may answer, by the options. The second
// result is false for a copy that must not be kept at all.
func (c *Cache[K, V]) ttlOf(row Row[V]) (ttl time.Duration, keep bool) {
	if row.Exists && !row.over() {
		return c.options.TTL, true
	}
	return max(0, c.options.NegativeTTL), c.options.NegativeTTL >= 0
}

func seconds(clock int64) uint32 { return uint32(clock / int64(time.Second)) }

// used notes a hit at a clock's second, and tells whether it is the first in that
// second.
func (e *entry[V]) used(second uint32) (first bool) {
	if e.use.Load() == second+1 {
		return false
	}
	e.use.Store(second + 1)
	return true
}

// accessed is the clock at the last use, to the second; the copy's beginning
// counts as one.
func (e *entry[V]) accessed() int64 {
	if use := e.use.Load(); use > 0 {
		return max(e.created, int64(use-1)*int64(time.Second))
	}
	return e.created
}

// fresh tells whether the copy may answer. A deadline is compared with the real
// clock: the coarse one would let a row answer after its end.
func (c *Cache[K, V]) fresh(e *entry[V]) bool {
	return e.lives == nil || e.lives.deadline == 0 || c.clock.Precise() < e.lives.deadline
}

// lapsed tells whether the row's lifetime may be over.
func (c *Cache[K, V]) lapsed(e *entry[V]) bool {
	return e.lives != nil && !e.lives.expiresAt.IsZero() && !c.fresh(e)
}

// out returns the copy's value for a caller.
func (c *Cache[K, V]) out(e *entry[V]) V {
	if c.options.Clone != nil && e.exists {
		return c.options.Clone(e.value)
	}
	return e.value
}

func (c *Cache[K, V]) public(key K, e *entry[V]) Entry[K, V] {
	p := Entry[K, V]{
		Key: key, Value: c.out(e), Version: e.version,
		CreatedAt:  c.clock.Time(e.created),
		AccessedAt: c.clock.Time(e.accessed()),
	}
	if e.lives != nil {
		p.ExpiresAt = e.lives.expiresAt
		if e.lives.deadline != 0 {
			p.TTL = max(1, time.Duration(e.lives.deadline-c.clock.Precise()))
		}
	}
	return p
}
