package mapping

import (
	"database/sql/driver"
	"iter"
	"maps"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// Batch is a call of Commit, or of Apply. It holds nothing of the caller's: a
// commit that its caller has left goes on with it.
type Batch[K comparable, V any] struct {
	M        *Mapping[K, V]
	Sets     []Set[K, V]
	Outcomes []lockstep.Outcome[V]
}

// Set is a ChangeSet, with the keys that it names.
type Set[K comparable, V any] struct {
	Changes   []lockstep.Change[K, V] // all prepared
	Checks    []lockstep.Check[K]
	DeleteAll bool
	Inserts   bool // it makes a row whose key the database gives, and names none
	// Keys are the distinct ones, of changes and then of checks, and Texts their
	// KeyText.
	Keys  [][]any
	Texts []string
	index map[K]int
}

// Text is the KeyText of a key that the set names.
func (s *Set[K, V]) Text(k K) string { return s.Texts[s.index[k]] }

// Named are the keys that the set names, in no order.
func (s *Set[K, V]) Named() iter.Seq[K] { return maps.Keys(s.index) }

// NewBatch copies the sets, and prepares the changes that are not. A set that cannot
// be tried has an Outcome with an error.
func (m *Mapping[K, V]) NewBatch(sets []lockstep.ChangeSet[K, V]) *Batch[K, V] {
	b := &Batch[K, V]{M: m, Sets: make([]Set[K, V], len(sets)), Outcomes: make([]lockstep.Outcome[V], len(sets))}
	for i, set := range sets {
		b.Outcomes[i].Err = m.take(set, &b.Sets[i])
	}
	return b
}

func (m *Mapping[K, V]) take(set lockstep.ChangeSet[K, V], own *Set[K, V]) error {
	if own.DeleteAll = set.DeleteAll; own.DeleteAll && len(set.Changes)+len(set.Checks) > 0 {
		return kv.ErrNotAlone
	}
	var err error
	if own.Inserts, err = kv.Insertion(set); err != nil && m.Inserts {
		return err
	}
	own.index = make(map[K]int, len(set.Changes)+len(set.Checks))
	add := func(k K, key []any) {
		if _, ok := own.index[k]; !ok {
			own.index[k] = len(own.Keys)
			own.Keys, own.Texts = append(own.Keys, key), append(own.Texts, KeyText(key))
		}
	}
	for _, c := range set.Changes {
		if _, ok := c.Prepared.(*Prepared); !ok {
			var err error
			if c, _, err = m.Prepare(c); err != nil {
				return err
			}
		}
		own.Changes = append(own.Changes, c)
		if own.Inserts {
			return nil
		}
		add(c.Key, c.Prepared.(*Prepared).Key)
	}
	for _, c := range set.Checks {
		key, err := m.TakeCheck(c)
		if err != nil {
			return err
		}
		own.Checks = append(own.Checks, c)
		add(c.Key, key)
	}
	return nil
}

// Active are the sets that are still to be tried.
func (b *Batch[K, V]) Active() (sets []int) {
	for i, o := range b.Outcomes {
		if o.Err == nil {
			sets = append(sets, i)
		}
	}
	return sets
}

// Named are the distinct keys that some sets name, and their KeyText.
func (b *Batch[K, V]) Named(sets []int) (keys [][]any, texts []string) {
	seen := map[string]bool{}
	for _, i := range sets {
		for j, text := range b.Sets[i].Texts {
			if !seen[text] {
				seen[text] = true
				keys, texts = append(keys, b.Sets[i].Keys[j]), append(texts, text)
			}
		}
	}
	return keys, texts
}

// Write is one change that a commit makes.
type Write struct {
	Set, Change int
	Key         []any
	Text        string // of Key
	Delete      bool
	Version     int64
	Columns     []any // of every mapped column
	// Lowered: the row has got a lower version than it was written with, by a trigger that
	// counts, say, and others' rows may get the same.
	Lowered bool
}

// Wave is what some sets write, each row once. Its statements delete, update and
// insert in that order, whatever the order of the sets: they have no row in common.
type Wave struct {
	Inserts, Updates, Deletes []*Write
	// Giving are rows without a key, to be made after all others; Given names them.
	Giving []*Write
	// Rows are all its rows that have a key, for reading them back.
	Rows []*Write
	keys map[string]bool
}

// Empty tells whether nothing has been planned.
func (w *Wave) Empty() bool { return len(w.Rows)+len(w.Giving) == 0 }

// Has tells whether the wave writes the row of a key.
func (w *Wave) Has(text string) bool { return w.keys[text] }

func (w *Wave) add(r *Write, exists bool) {
	if w.keys == nil {
		w.keys = map[string]bool{}
	}
	w.keys[r.Text] = true
	w.Rows = append(w.Rows, r)
	switch {
	case r.Delete:
		w.Deletes = append(w.Deletes, r)
	case exists:
		w.Updates = append(w.Updates, r)
	default:
		w.Inserts = append(w.Inserts, r)
	}
}

// Work is what the sets of a batch come to, inside a transaction that has locked
// their rows. It does no I/O: a store reads the rows, plans the sets in order, writes
// the wave whenever a set names a row of it, and reads its rows back.
type Work[K comparable, V any] struct {
	*Batch[K, V]
	Out []lockstep.Outcome[V]
	// Rows are the rows of the keys that are named, the key's columns first, as the
	// work has left them; an absent row is not in it. First has them as they were found.
	Rows, First map[string][]driver.Value
	// Last is the last change of each row, for finding out an unknown outcome.
	Last map[string]*Write
	// Clock is what kv.NextVersion takes.
	Clock int64
	// Wave is what has been planned and not been written.
	Wave Wave
	// Removed, when set, is told the version of every deletion, and the key's text: no
	// tombstone keeps it.
	Removed func(text string, version int64)
	// versions are the highest that the work has given each row.
	versions map[string]int64
}

// NewWork begins with no rows at all.
func (b *Batch[K, V]) NewWork(out []lockstep.Outcome[V]) *Work[K, V] {
	return &Work[K, V]{Batch: b, Out: out, Rows: map[string][]driver.Value{}, Last: map[string]*Write{}, versions: map[string]int64{}}
}

// Found takes the rows for those that the transaction has found.
func (w *Work[K, V]) Found() { w.First = maps.Clone(w.Rows) }

// Crosses tells whether a set names a row of the wave.
func (w *Work[K, V]) Crosses(set *Set[K, V]) bool {
	for _, text := range set.Texts {
		if w.Wave.Has(text) {
			return true
		}
	}
	return false
}

// Plan decides one set, and adds what it writes to the wave. Its error is the set's.
func (w *Work[K, V]) Plan(i int) error {
	m, set := w.M, &w.Sets[i]
	if set.Inserts {
		return w.planInsertion(i)
	}
	n := len(m.Key)
	err := m.Admits(set.Changes, set.Checks, func(k K) []driver.Value {
		if row := w.Rows[set.Text(k)]; row != nil {
			return row[n:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	out := lockstep.Outcome[V]{Rows: make([]lockstep.Row[V], len(set.Changes)), Existed: make([]bool, len(set.Changes))}
	writes := make([]*Write, len(set.Changes))
	for j, c := range set.Changes {
		p := c.Prepared.(*Prepared)
		r := &Write{Set: i, Change: j, Key: p.Key, Text: set.Text(c.Key), Delete: c.Delete, Columns: p.Columns}
		row := w.Rows[r.Text]
		out.Existed[j] = row != nil
		if m.Versioned() {
			last := w.versions[r.Text]
			if row != nil {
				last = max(last, m.VersionOf(row[n:]))
			}
			if r.Version, err = kv.NextVersion(last, w.Clock); err != nil {
				return m.d.invalid("key %v: %w", c.Key, err)
			}
		}
		writes[j] = r
	}
	for j, r := range writes {
		w.versions[r.Text] = r.Version
		if r.Delete {
			if w.Removed != nil {
				w.Removed(r.Text, r.Version)
			}
			out.Rows[j].Version = lockstep.Version(r.Version)
			if !out.Existed[j] {
				continue
			}
		}
		w.Wave.add(r, out.Existed[j])
		w.Last[r.Text] = r
	}
	w.Out[i] = out
	return nil
}

func (w *Work[K, V]) planInsertion(i int) (err error) {
	r := &Write{Set: i, Columns: w.Sets[i].Changes[0].Prepared.(*Prepared).Columns}
	if w.M.Versioned() {
		if r.Version, err = kv.NextVersion(0, w.Clock); err != nil {
			return w.M.d.invalid("the new row: %w", err)
		}
	}
	w.Wave.Giving = append(w.Wave.Giving, r)
	w.Out[i] = lockstep.Outcome[V]{Rows: make([]lockstep.Row[V], 1), Existed: make([]bool, 1)}
	return nil
}

// Given names the row of an insertion by the key that the database has given it. Its
// error is the set's.
func (w *Work[K, V]) Given(r *Write, key []driver.Value) error {
	k, err := w.M.ScanKey(key)
	if err != nil {
		return w.M.d.invalid("the new row: %w", err)
	}
	r.Text, r.Key = KeyText(key), make([]any, len(key))
	for i, v := range key {
		r.Key[i] = v
	}
	w.Sets[r.Set].Changes[0].Key = k
	w.Out[r.Set].Keys = []any{k}
	w.versions[r.Text] = r.Version
	w.Wave.add(r, false)
	return nil
}

// Written tells the outcomes what has become of the wave's rows, which have been read
// into Rows, and begins a new wave. The versions are what the rows have: a statement may
// have raised them.
func (w *Work[K, V]) Written() {
	n := len(w.M.Key)
	for _, r := range w.Wave.Rows {
		w.Last[r.Text] = r // one that was given its key is not there yet
		out, row := &w.Out[r.Set], w.Rows[r.Text]
		if row != nil && w.M.Versioned() {
			version := w.M.VersionOf(row[n:])
			r.Lowered, r.Version = version < r.Version, version
			w.versions[r.Text] = max(w.versions[r.Text], r.Version)
		}
		if row == nil || out.Rows == nil {
			continue
		}
		var err error
		if out.Rows[r.Change], err = w.M.Row(w.Sets[r.Set].Changes[r.Change].Key, row[n:]); err != nil {
			// The schema accepts what the fields cannot hold: the row is committed, and
			// its readers will say what is wrong with it.
			out.Rows = nil
		}
	}
	w.Wave = Wave{}
}

// Tells says whether a row that was before, and is now, shows that it was written;
// told is false for a row that was changed since, or looks the same either way. What
// a row would have become is known only as far as it was sent: generated columns,
// defaults and triggers are passed over. A row whose version is between the two was
// changed by somebody who has not seen ours; a lower one, or a new row's, may be of
// somebody who gives it no version, and come after ours. Without versions, two states that
// look the same are the same: a row that somebody has set back to what it was counts as
// not written.
func (m *Mapping[K, V]) Tells(r *Write, before, now []driver.Value) (applied, told bool) {
	same := EqualRows(before, now)
	switch {
	case r.Delete && before == nil:
		return false, false
	case r.Delete && now == nil:
		return true, true
	case r.Delete || now == nil:
		return false, same
	case m.Versioned():
		version := m.VersionOf(now[len(m.Key):])
		if version == r.Version {
			return true, true
		}
		return false, version < r.Version && before != nil && version >= m.VersionOf(before[len(m.Key):])
	case before != nil && m.Holds(r, before, false):
		return false, false
	}
	wrote := m.Holds(r, now, before == nil)
	return wrote && !same, wrote || same
}

// Holds tells whether the row has what was written to it. One that was made for it has
// defaults where there was nothing to write.
func (m *Mapping[K, V]) Holds(r *Write, row []driver.Value, made bool) bool {
	for i, f := range m.Value {
		if f.Written && !(made && f.Default != "" && r.Columns[i] == nil) && !Equal(r.Columns[i], row[len(m.Key)+i]) {
			return false
		}
	}
	return true
}
