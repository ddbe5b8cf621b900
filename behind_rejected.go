package lockstep

import (
	"slices"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/internal/behind"
)

// Rejected is a row of a write that was acknowledged in Mode WriteBehind, and that the
// database has refused, or of which nobody can tell whether it has it.
type Rejected[K comparable, V any] struct {
	Key   K
	Value V // the zero value where Delete is set
	// Delete: the row was to be removed.
	Delete bool
	// Err is why. It is ErrUnknownOutcome where the database could not tell whether it has
	// committed the row; every other one says that it has not.
	Err error
	// At is when that became known.
	At time.Time
}

// rejections are the latest of them.
type rejections[K comparable, V any] struct {
	most int

	mu   sync.Mutex
	rows []Rejected[K, V] // guarded by mu
}

// add returns how many rows were given up for the new ones.
func (r *rejections[K, V]) add(rows []Rejected[K, V]) (lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, rows...)
	lost = max(0, len(r.rows)-r.most)
	r.rows = slices.Delete(r.rows, 0, lost)
	return lost
}

// Rejected returns the rows of acknowledged writes that the database has refused, the
// oldest first, and at most Behind.MaxRejected of them. Of writes of one key that were
// flushed together it has the last. It is empty in every other mode than WriteBehind.
func (c *Cache[K, V]) Rejected() []Rejected[K, V] {
	if c.behind == nil {
		return nil
	}
	r := &c.behind.rejected
	r.mu.Lock()
	rows := slices.Clone(r.rows)
	r.mu.Unlock()
	if c.options.Clone == nil {
		return rows
	}
	// Here, and not when they were refused: a Clone that panics must not end the flushes.
	for i := range rows {
		if !rows[i].Delete {
			rows[i].Value = c.options.Clone(rows[i].Value)
		}
	}
	return rows
}

// reject keeps a set that will not be made any more.
func (b *writeBehind[K, V]) reject(f *flush[K, V], set behind.Set, err error) {
	b.counts.rejected.Add(uint64(set.Writes))
	for range set.Calls {
		b.c.counts.outcome(err, false)
	}
	rows := make([]Rejected[K, V], len(set.Places))
	now := time.Now()
	for i, place := range set.Places {
		d := f.Items[place].Value
		rows[i] = Rejected[K, V]{Key: d.change.Key, Value: d.entry.Value, Delete: d.change.Delete, Err: err, At: now}
	}
	b.c.options.Logger.Error("lockstep: the database has refused acknowledged writes", "rows", len(rows), "writes", set.Writes, "first", rows[0].Key, "error", err)
	if lost := b.rejected.add(rows); lost > 0 {
		b.c.options.Logger.Error("lockstep: refused rows are no longer kept for Rejected, which has no room (Behind.MaxRejected)", "rows", lost)
	}
}

// tellRejected comes when the rows are not seen any more.
func (b *writeBehind[K, V]) tellRejected(set *ChangeSet[K, V], err error) {
	c := b.c
	keys := make([]K, len(set.Changes))
	for i := range set.Changes {
		keys[i] = set.Changes[i].Key
	}
	c.tellOutside(OutsideEvent[K]{Keys: keys})
	if hook := c.options.Hooks.Rejected; hook != nil {
		c.events.Push(func() { hook(RejectedEvent[K]{Keys: keys, Err: err}) })
	}
}
