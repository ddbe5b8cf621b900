package kv

import "github.com/lockstep-cache/lockstep"

// Batch is a call of Commit. It holds nothing of the caller's: a commit that its
// caller has left goes on with it.
type Batch[K comparable, V any] struct {
	Sets     []lockstep.ChangeSet[K, V]
	Outcomes []lockstep.Outcome[V]
	// Keys are the distinct keys of all sets, and Encoded what the column holds
	// for them.
	Keys    []K
	Encoded []any

	index map[K]int
}

// NewBatch copies the sets, and prepares the changes that are not. A set that
// cannot be tried has an Outcome with an error.
func NewBatch[K comparable, V any](r *Rows[K, V], sets []lockstep.ChangeSet[K, V]) Batch[K, V] {
	b := Batch[K, V]{
		Sets:     make([]lockstep.ChangeSet[K, V], len(sets)),
		Outcomes: make([]lockstep.Outcome[V], len(sets)),
		index:    make(map[K]int, len(sets)),
	}
	for i, set := range sets {
		b.Sets[i], b.Outcomes[i].Err = b.take(r, set)
	}
	return b
}

func (b *Batch[K, V]) take(r *Rows[K, V], set lockstep.ChangeSet[K, V]) (lockstep.ChangeSet[K, V], error) {
	if set.DeleteAll && len(set.Changes)+len(set.Checks) > 0 {
		return set, ErrNotAlone
	}
	own := lockstep.ChangeSet[K, V]{
		Changes:   make([]lockstep.Change[K, V], len(set.Changes)),
		Checks:    append([]lockstep.Check[K](nil), set.Checks...),
		DeleteAll: set.DeleteAll,
	}
	for i, c := range set.Changes {
		if _, ok := c.Prepared.(*Prepared); !ok {
			var err error
			if c, _, err = r.Prepare(c); err != nil {
				return own, err
			}
		}
		own.Changes[i] = c
		b.add(c.Key, c.Prepared.(*Prepared).Key)
	}
	for _, c := range own.Checks {
		if _, ok := b.index[c.Key]; !ok {
			key, err := r.Key.Encode(c.Key)
			if err != nil {
				return own, err
			}
			b.add(c.Key, key)
		}
	}
	return own, nil
}

// ErrNotAlone refuses a set that asks for DeleteAll and something else.
var ErrNotAlone = invalid("DeleteAll beside changes or checks")

func (b *Batch[K, V]) add(k K, encoded any) {
	if _, ok := b.index[k]; !ok {
		b.index[k] = len(b.Keys)
		b.Keys = append(b.Keys, k)
		b.Encoded = append(b.Encoded, encoded)
	}
}

// Index is where a key that some set names is in Keys and Encoded.
func (b *Batch[K, V]) Index(k K) int { return b.index[k] }

// Idle tells whether no set is left to be tried.
func (b *Batch[K, V]) Idle() bool {
	for _, o := range b.Outcomes {
		if o.Err == nil {
			return false
		}
	}
	return true
}
