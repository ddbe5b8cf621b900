package pgstore

import (
	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// tableBatch is a call of Commit, or of Apply. It holds nothing of the caller's: a
// commit that its caller has left goes on with it.
type tableBatch[K comparable, V any] struct {
	t        *Table[K, V]
	sets     []tableSet[K, V]
	outcomes []lockstep.Outcome[V]
	// taken is how often a row has appeared where there was none.
	taken int
}

type tableSet[K comparable, V any] struct {
	changes   []lockstep.Change[K, V]
	checks    []lockstep.Check[K]
	deleteAll bool
	inserts   bool // it makes a row whose key is given when it is made
	// keys are the distinct ones that it names, of changes and then of checks, and
	// texts their mapping.KeyText.
	keys  [][]any
	texts []string
	index map[K]int
}

// bytes is how much the set writes.
func (s *tableSet[K, V]) bytes() (n int) {
	for _, c := range s.changes {
		n += c.Prepared.(*mapping.Prepared).Bytes()
	}
	return n
}

func (s *tableSet[K, V]) text(k K) string { return s.texts[s.index[k]] }

func (t *Table[K, V]) newBatch(sets []lockstep.ChangeSet[K, V]) *tableBatch[K, V] {
	b := &tableBatch[K, V]{t: t, sets: make([]tableSet[K, V], len(sets)), outcomes: make([]lockstep.Outcome[V], len(sets))}
	room := t.db.newRoom()
	for i, set := range sets {
		err := t.take(set, &b.sets[i])
		if err == nil {
			err = room.take(b.sets[i].bytes())
		}
		b.outcomes[i].Err = err
	}
	return b
}

func (t *Table[K, V]) take(set lockstep.ChangeSet[K, V], own *tableSet[K, V]) error {
	if own.deleteAll = set.DeleteAll; own.deleteAll && len(set.Changes)+len(set.Checks) > 0 {
		return kv.ErrNotAlone
	}
	var err error
	if own.inserts, err = kv.Insertion(set); err != nil && t.m.Inserts {
		return err
	}
	own.index = make(map[K]int, len(set.Changes)+len(set.Checks))
	add := func(k K, key []any) {
		if _, ok := own.index[k]; !ok {
			own.index[k] = len(own.keys)
			own.keys, own.texts = append(own.keys, key), append(own.texts, mapping.KeyText(key))
		}
	}
	for _, c := range set.Changes {
		if _, ok := c.Prepared.(*mapping.Prepared); !ok {
			var err error
			if c, _, err = t.m.Prepare(c); err != nil {
				return err
			}
		}
		own.changes = append(own.changes, c)
		if own.inserts {
			return nil
		}
		add(c.Key, c.Prepared.(*mapping.Prepared).Key)
	}
	for _, c := range set.Checks {
		key, err := t.m.TakeCheck(c)
		if err != nil {
			return err
		}
		own.checks = append(own.checks, c)
		add(c.Key, key)
	}
	return nil
}

// active are the sets that are still to be tried.
func (b *tableBatch[K, V]) active() (sets []int) {
	for i, o := range b.outcomes {
		if o.Err == nil {
			sets = append(sets, i)
		}
	}
	return sets
}

// named are the distinct keys that some sets name.
func (b *tableBatch[K, V]) named(sets []int) (keys [][]any, texts []string) {
	seen := map[string]bool{}
	for _, i := range sets {
		for j, text := range b.sets[i].texts {
			if !seen[text] {
				seen[text] = true
				keys, texts = append(keys, b.sets[i].keys[j]), append(texts, text)
			}
		}
	}
	return keys, texts
}

// wave is what some sets write, each row once. Its statements delete, update and
// insert in that order, whatever the order of the sets: they have no row in common.
type wave struct {
	inserts, updates, deletes []*rowWrite
	// giving are to be inserted without their keys, and given have been.
	giving, given []*rowWrite
	keys          map[string]bool
	// rows are all its rows, for reading them back.
	rows []*rowWrite
}

// rowWrite is one change that a commit makes.
type rowWrite struct {
	set, change int
	key         []any
	text        string
	delete      bool
	version     int64
	counted     bool  // version is the next of the row's, and ahead of the clock
	least       int64 // that the row must have got, whatever a trigger makes of version
	columns     []any // of every mapped column
}

func (w *wave) add(r *rowWrite, exists bool) {
	if w.keys == nil {
		w.keys = map[string]bool{}
	}
	w.keys[r.text] = true
	w.rows = append(w.rows, r)
	switch {
	case r.delete:
		w.deletes = append(w.deletes, r)
	case exists:
		w.updates = append(w.updates, r)
	default:
		w.inserts = append(w.inserts, r)
	}
}
