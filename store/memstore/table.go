package memstore

import (
	"iter"
	"slices"
	"sort"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// keepTombstones is how long the version of a row that is gone is remembered.
// Beyond it the clock alone makes versions grow, which holds unless the clock is
// set back by more than that.
const keepTombstones = 24 * time.Hour

// record is a row or its tombstone. It never changes once it is in a table.
type record[V any] struct {
	value   V
	version lockstep.Version
	exists  bool
	// expiresAt ends the row's lifetime, if it is not zero; changedAt is when the
	// record was written.
	expiresAt, changedAt time.Time
	// place orders the keys of a table, for Scan.
	place uint64
}

// view is the record as a reader sees it now: a row that has expired is a
// tombstone to everybody, whether or not it has been purged.
func (r record[V]) view(now time.Time) lockstep.Row[V] {
	if !r.exists || r.expired(now) {
		return lockstep.Row[V]{Version: r.version}
	}
	row := lockstep.Row[V]{Value: r.value, Version: r.version, Exists: true, ExpiresAt: r.expiresAt}
	if !r.expiresAt.IsZero() {
		row.Remaining = r.expiresAt.Sub(now)
	}
	return row
}

func (r record[V]) expired(now time.Time) bool {
	return !r.expiresAt.IsZero() && !now.Before(r.expiresAt)
}

// forgettable tells whether the record has been a tombstone for long enough. A
// row written with a lifetime long past became one when it was written, not when
// its lifetime ended: its version is as young as that of any other change.
func (r record[V]) forgettable(now time.Time) bool {
	if r.exists && (r.expiresAt.IsZero() || now.Sub(r.expiresAt) < keepTombstones) {
		return false
	}
	return now.Sub(r.changedAt) >= keepTombstones
}

// table is what is committed. Its Database's locks guard it.
type table[K comparable, V any] struct {
	rows map[K]record[V]
	// order has every key of rows in the order of their places, which are never
	// given twice, and slots of keys that were purged since the last compaction.
	order []slot[K]
	dead  int    // slots of purged keys
	place uint64 // the last one given
	hand  int    // the slot that purge looks at next
}

type slot[K comparable] struct {
	key   K
	place uint64
}

func newTable[K comparable, V any]() table[K, V] {
	return table[K, V]{rows: make(map[K]record[V])}
}

func (t *table[K, V]) put(key K, r record[V]) {
	if old, ok := t.rows[key]; ok {
		r.place = old.place
	} else {
		t.place++
		r.place = t.place
		t.order = append(t.order, slot[K]{key, r.place})
	}
	t.rows[key] = r
}

// after yields the records whose place is beyond the given one, in order.
func (t *table[K, V]) after(place uint64) iter.Seq2[K, record[V]] {
	return func(yield func(K, record[V]) bool) {
		first := sort.Search(len(t.order), func(i int) bool { return t.order[i].place > place })
		for _, s := range t.order[first:] {
			if r, ok := t.rows[s.key]; ok && r.place == s.place && !yield(s.key, r) {
				return
			}
		}
	}
}

// purge forgets old tombstones. Each commit looks at a few slots for every row
// that it changed: the cost is constant, and every slot gets its turn without a
// goroutine to do it.
func (t *table[K, V]) purge(now time.Time, slots int) {
	for range min(slots, len(t.order)) {
		if t.hand >= len(t.order) {
			t.hand = 0
		}
		s := t.order[t.hand]
		t.hand++
		if r, ok := t.rows[s.key]; ok && r.place == s.place && r.forgettable(now) {
			delete(t.rows, s.key)
			t.dead++
		}
	}
	if t.dead > 16 && t.dead > len(t.order)/2 {
		t.order = slices.DeleteFunc(t.order, func(s slot[K]) bool {
			r, ok := t.rows[s.key]
			return !ok || r.place != s.place
		})
		t.dead, t.hand = 0, 0
	}
}

// draft is what a commit under way would make of a table. Its owner holds the
// database's turn, so that the table does not change below it.
type draft[K comparable, V any] struct {
	table *table[K, V]
	rows  map[K]record[V]
	now   time.Time
}

func newDraft[K comparable, V any](t *table[K, V], now time.Time) *draft[K, V] {
	return &draft[K, V]{table: t, rows: make(map[K]record[V]), now: now}
}

func (d *draft[K, V]) get(key K) record[V] {
	if r, ok := d.rows[key]; ok {
		return r
	}
	return d.table.rows[key]
}

// apply makes a set's changes, or none of them. Whatever the set demands is
// judged before the first change.
func (d *draft[K, V]) apply(set lockstep.ChangeSet[K, V]) lockstep.Outcome[V] {
	for _, c := range set.Checks {
		row := d.get(c.Key).view(d.now)
		if row.Exists == c.Absent || !c.Absent && row.Version != c.Version {
			return conflict(c.Key, row)
		}
	}
	for _, c := range set.Changes {
		row := d.get(c.Key).view(d.now)
		if !meets(row, c.Expect) {
			return conflict(c.Key, row)
		}
	}
	if set.DeleteAll {
		d.deleteAll()
	}
	outcome := lockstep.Outcome[V]{
		Rows:    make([]lockstep.Row[V], len(set.Changes)),
		Existed: make([]bool, len(set.Changes)),
	}
	for i, c := range set.Changes {
		outcome.Existed[i] = d.get(c.Key).view(d.now).Exists
		outcome.Rows[i] = d.change(c).view(d.now)
	}
	return outcome
}

func (d *draft[K, V]) change(c lockstep.Change[K, V]) record[V] {
	old := d.get(c.Key)
	if c.Delete && !old.exists {
		return old // Deleting nothing changes nothing, the version included.
	}
	r := record[V]{
		version:   max(old.version+1, lockstep.Version(d.now.UnixMicro())),
		exists:    !c.Delete,
		changedAt: d.now,
	}
	if !c.Delete {
		r.value, r.expiresAt = c.Value, c.ExpiresAt.Round(0)
		if c.Lifetime > 0 {
			r.expiresAt = d.now.Add(c.Lifetime).Round(0)
		}
	}
	d.rows[c.Key] = r
	return r
}

func (d *draft[K, V]) deleteAll() {
	for key := range d.table.rows {
		d.change(lockstep.Change[K, V]{Key: key, Delete: true})
	}
	for key := range d.rows {
		d.change(lockstep.Change[K, V]{Key: key, Delete: true})
	}
}

// install makes the draft's rows the table's.
func (d *draft[K, V]) install() {
	for key, r := range d.rows {
		d.table.put(key, r)
	}
	d.table.purge(d.now, 4*len(d.rows)+4)
}

func meets[V any](row lockstep.Row[V], e lockstep.Expect) bool {
	switch e.Kind {
	case lockstep.ExpectAbsent:
		return !row.Exists
	case lockstep.ExpectVersion:
		return row.Exists && row.Version == e.Version
	default:
		return true
	}
}

func conflict[K comparable, V any](key K, row lockstep.Row[V]) lockstep.Outcome[V] {
	return lockstep.Outcome[V]{Err: &lockstep.ConflictError{Key: key, Exists: row.Exists, Version: row.Version}}
}
