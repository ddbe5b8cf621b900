package lockstep

import (
	"time"

	"github.com/lockstep-cache/lockstep/internal/memory"
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
	// is there. Below zero it says for how long the copy has been Stale.
	TTL time.Duration
	// Stale says that the copy's TTL is over, and that it answers because the
	// database could not be asked: see Options.StaleIfError.
	Stale bool
	// Dirty says that the database does not have the row yet, in Mode WriteBehind. Version
	// is then 0.
	Dirty bool
	// ExpiresAt is when the row's lifetime is over, by the database's clock; zero
	// for a row that stays.
	ExpiresAt time.Time
}

// entry is a copy in memory, of a row or of the fact that there is none.
type entry[K comparable, V any] = memory.Entry[K, V]

// newEntry makes a copy of a row that was read, or written, no earlier than at
// began. ttl is how long it may answer; 0 for as long as it is there. A row's copy is
// kept for longer where StaleIfError asks for it; that of an absence is not, for an
// answer that there is no row could not be marked.
//
// The row's own end is counted from began with what the database said was left:
// at or before the database's own moment, whatever the two clocks say.
func (c *Cache[K, V]) newEntry(key K, row Row[V], began int64, ttl time.Duration) *entry[K, V] {
	e := &entry[K, V]{Key: key, Version: uint64(row.Version), Created: c.clock.Precise()}
	e.Exists = row.Exists && !row.over()
	if e.Exists {
		e.Value = row.Value
		if c.options.Clone != nil {
			e.Value = c.options.Clone(e.Value)
		}
	}
	var lives memory.Lives
	if ttl > 0 {
		lives.Deadline = saturate(began, ttl)
		if e.Exists {
			lives.Kept = saturate(lives.Deadline, c.options.StaleIfError)
		}
	}
	if e.Exists && !row.ExpiresAt.IsZero() {
		lives.End, lives.ExpiresAt = saturate(began, row.Remaining), row.ExpiresAt
		if lives.Deadline == 0 || lives.End < lives.Deadline {
			lives.Deadline = lives.End
		}
		lives.Kept = min(lives.Kept, lives.End)
	}
	if lives.Deadline != 0 {
		its := lives // most copies have none, and allocate none
		e.Lives = &its
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

// fresh tells whether the copy may answer. A deadline is compared with the real
// clock: the coarse one would let a row answer after its end.
func (c *Cache[K, V]) fresh(e *entry[K, V]) bool {
	return e.Lives == nil || e.Lives.Deadline == 0 || c.clock.Precise() < e.Lives.Deadline
}

// lapsed tells whether the row's lifetime may be over.
func (c *Cache[K, V]) lapsed(e *entry[K, V]) bool {
	return e.Lives != nil && e.Lives.End != 0 && c.clock.Precise() >= e.Lives.End
}

// out returns the copy's value for a caller.
func (c *Cache[K, V]) out(e *entry[K, V]) V {
	if c.options.Clone != nil && e.Exists {
		return c.options.Clone(e.Value)
	}
	return e.Value
}

func (c *Cache[K, V]) public(key K, e *entry[K, V], stale bool) Entry[K, V] {
	p := Entry[K, V]{
		Key: key, Value: c.out(e), Version: Version(e.Version),
		CreatedAt:  c.clock.Time(e.Created),
		AccessedAt: c.clock.Time(e.Accessed()),
		Stale:      stale,
		Dirty:      c.behind != nil && c.behind.get(key) == e,
	}
	if e.Lives != nil {
		p.ExpiresAt = e.Lives.ExpiresAt
		if e.Lives.Deadline != 0 {
			p.TTL = time.Duration(e.Lives.Deadline - c.clock.Precise())
			if stale {
				p.TTL = min(-1, p.TTL)
			} else {
				p.TTL = max(1, p.TTL)
			}
		}
	}
	return p
}
