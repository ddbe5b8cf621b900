package kv

import (
	"slices"

	"github.com/lockstep-cache/lockstep"
)

// Batch is a call of Commit.
type Batch[K comparable, V any] struct {
	// Sets are the caller's own until Own: neither they nor what they hold may be
	// changed in place.
	Sets     []lockstep.ChangeSet[K, V]
	Outcomes []lockstep.Outcome[V]
	// Keys are the distinct keys of all sets, and Encoded what the column holds
	// for them.
	Keys    []K
	Encoded []any

	// index has the places of the keys, if it is in use: where there are more than few.
	index   map[K]int
	indexed bool
}

const (
	// few is how many keys are looked through sooner than a map is filled.
	few = 8
	// MostKept is how many keys a batch may have whose room is worth being kept.
	MostKept = 1024
)

// NewBatch copies the sets, and prepares the changes that are not. A set that
// cannot be tried has an Outcome with an error.
func NewBatch[K comparable, V any](r *Rows[K, V], sets []lockstep.ChangeSet[K, V]) (b Batch[K, V]) {
	b.Borrow(r, sets)
	b.Own()
	return b
}

// Borrow is NewBatch without the copy, and with the room of the batch that b was
// before: the batch must not outlive the call that was given the sets, unless Own is
// called before that returns. A commit of many small sets then allocates less.
func (b *Batch[K, V]) Borrow(r *Rows[K, V], sets []lockstep.ChangeSet[K, V]) {
	n := 0
	for _, set := range sets {
		n += len(set.Changes) + len(set.Checks)
	}
	b.Sets, b.Outcomes = sets, make([]lockstep.Outcome[V], len(sets))
	b.Keys, b.Encoded = slices.Grow(b.Keys[:0], n), slices.Grow(b.Encoded[:0], n)
	if b.indexed = n > few; b.indexed && b.index == nil {
		b.index = make(map[K]int, n)
	}
	for i, set := range sets {
		changes, err := b.take(r, set)
		if b.Outcomes[i].Err = err; changes == nil {
			continue
		}
		if &b.Sets[0] == &sets[0] {
			b.Sets = slices.Clone(sets)
		}
		b.Sets[i].Changes = changes
	}
}

// Forget makes of a batch that was borrowed, and not owned, one that holds nothing but
// room for another. Its Outcomes are whoever's has them.
func (b *Batch[K, V]) Forget() {
	if cap(b.Keys) > MostKept {
		*b = Batch[K, V]{}
		return
	}
	clear(b.Keys)
	clear(b.Encoded)
	if b.indexed {
		clear(b.index)
	}
	*b = Batch[K, V]{Keys: b.Keys[:0], Encoded: b.Encoded[:0], index: b.index}
}

// Own makes the batch hold nothing of the caller's, so that it can outlive the call.
func (b *Batch[K, V]) Own() {
	changes, checks := 0, 0
	for _, set := range b.Sets {
		changes += len(set.Changes)
		checks += len(set.Checks)
	}
	allChanges, allChecks := make([]lockstep.Change[K, V], 0, changes), make([]lockstep.Check[K], 0, checks)
	b.Sets = slices.Clone(b.Sets)
	for i := range b.Sets {
		set := &b.Sets[i]
		n, m := len(allChanges), len(allChecks)
		allChanges, allChecks = append(allChanges, set.Changes...), append(allChecks, set.Checks...)
		set.Changes, set.Checks = slices.Clip(allChanges[n:]), slices.Clip(allChecks[m:])
	}
}

// take notes a set's keys, and prepares the changes that are not: it then returns
// all of them, and nil otherwise.
func (b *Batch[K, V]) take(r *Rows[K, V], set lockstep.ChangeSet[K, V]) (prepared []lockstep.Change[K, V], err error) {
	if set.DeleteAll && len(set.Changes)+len(set.Checks) > 0 {
		return nil, ErrNotAlone
	}
	for i, c := range set.Changes {
		if _, ok := c.Prepared.(*Prepared); !ok {
			if prepared == nil {
				prepared = slices.Clone(set.Changes)
			}
			if c, _, err = r.Prepare(c); err != nil {
				return prepared, err
			}
			prepared[i] = c
		}
		b.add(c.Key, c.Prepared.(*Prepared).Key)
	}
	for _, c := range set.Checks {
		if _, ok := b.Place(c.Key); !ok {
			key, err := r.Key.Encode(c.Key)
			if err != nil {
				return prepared, err
			}
			b.add(c.Key, key)
		}
	}
	return prepared, nil
}

// ErrNotAlone refuses a set that asks for DeleteAll and something else.
var ErrNotAlone = invalid("DeleteAll beside changes or checks")

func (b *Batch[K, V]) add(k K, encoded any) {
	if _, ok := b.Place(k); ok {
		return
	}
	if b.indexed {
		b.index[k] = len(b.Keys)
	}
	b.Keys = append(b.Keys, k)
	b.Encoded = append(b.Encoded, encoded)
}

// Index is where a key that some set names is in Keys and Encoded.
func (b *Batch[K, V]) Index(k K) int {
	place, _ := b.Place(k)
	return place
}

// Place is Index, and whether some set names the key.
func (b *Batch[K, V]) Place(k K) (place int, named bool) {
	if b.indexed {
		place, named = b.index[k]
		return place, named
	}
	place = slices.Index(b.Keys, k)
	return max(place, 0), place >= 0
}

// Idle tells whether no set is left to be tried.
func (b *Batch[K, V]) Idle() bool {
	for _, o := range b.Outcomes {
		if o.Err == nil {
			return false
		}
	}
	return true
}

// Zeros is a slice of n zeros, in the room of s if that is enough.
func Zeros[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}
