package memory

import (
	"sync/atomic"
	"time"
)

// Entry is a copy of a row, or of the fact that there is none. All but its notes
// of use is immutable, so whoever holds one while it is replaced reads something
// consistent. It is one allocation, but for its Lives.
type Entry[K comparable, V any] struct {
	Key     K
	Value   V
	Version uint64
	Created int64 // Clock nanoseconds
	// Lives is nil for a copy of a row that stays, kept for as long as it is there.
	Lives *Lives
	use   atomic.Uint32 // the Clock's second of the last use, plus one; 0 before the first
	noted atomic.Uint32 // the Map's epoch of the last note, and how many in it
	place *place        // the Map's; written before the entry is in it
	// Ahead is for who loads the row anew before the copy's time is over. The Map does not
	// look at it.
	Ahead atomic.Uint32
	// Exists is false for the copy of an absence.
	Exists bool
}

// place is what the policy knows of a key's entry, and of those that replace it with as
// little to tell: replacing a place costs the policy a node and its maintenance, much of
// what a write costs memory.
type place struct {
	leaves int64 // as Entry.leaves
	weight uint32
}

// Lives says when a copy's time is over, and when its row's.
type Lives struct {
	// Deadline is when the copy must stop answering, in Clock nanoseconds; 0 for
	// never.
	Deadline int64
	// Kept is when it leaves the Map, in Clock nanoseconds, if that is later.
	Kept int64
	// End is when the row is over, in Clock nanoseconds, at or before the database's
	// own moment; 0 for a row that stays. ExpiresAt is the same by the database's
	// clock.
	End       int64
	ExpiresAt time.Time
}

// Deadline returns that of the copy's Lives.
func (e *Entry[K, V]) Deadline() int64 {
	if e.Lives == nil {
		return 0
	}
	return e.Lives.Deadline
}

// leaves is when the copy leaves the Map; 0 for never.
func (e *Entry[K, V]) leaves() int64 {
	if e.Lives == nil {
		return 0
	}
	return max(e.Lives.Deadline, e.Lives.Kept)
}

// Accessed is the clock at the last use, to the second; the copy's beginning
// counts as one.
func (e *Entry[K, V]) Accessed() int64 {
	if use := e.use.Load(); use > 0 {
		return max(e.Created, int64(use-1)*int64(time.Second))
	}
	return e.Created
}
