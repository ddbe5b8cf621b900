package sqlitestore

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Commit implements lockstep.Store. The sets are applied one after the other in
// one transaction; each row is read, changed and read again. A set that the
// schema refuses (NOT NULL, CHECK, UNIQUE, a foreign key, a trigger) is taken
// back alone, and its error is ErrInvalid and says what SQLite says.
func (t *Table[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	if t.opts.ReadOnly {
		return nil, unsupported("table %s was opened with ReadOnly", t.m.Table)
	}
	b := t.newBatch(sets)
	result, err := t.db.write(ctx, func(ctx context.Context, a *attempt) error {
		a.verify = b.found
		for {
			err := b.run(ctx, a)
			if errors.Is(err, errAgain) && slices.Contains(b.refused, false) {
				b.forget()
				continue
			}
			if errors.Is(err, errAgain) {
				err = nil // nothing is left, and nothing is open
			}
			a.result = b.outcomes
			return err
		}
	})
	if err != nil {
		return nil, err
	}
	return result.([]lockstep.Outcome[V]), nil
}

// tableBatch is a call of Commit. It holds nothing of the caller's.
type tableBatch[K comparable, V any] struct {
	t        *Table[K, V]
	sets     []tableSet[K, V]
	outcomes []lockstep.Outcome[V]
	// refused marks the sets that are not to be tried, or not again.
	refused []bool
	trail   []step
}

type tableSet[K comparable, V any] struct {
	changes   []lockstep.Change[K, V]
	checks    []lockstep.Check[K]
	deleteAll bool
	// inserts: it makes a row whose key is given when it is made; bound has it then.
	inserts bool
	// bound are the columns of the distinct keys, one key after the other: those of
	// the changes, then those of checks alone. index is a key's place in it.
	bound   []any
	written int // how many keys the changes have
	index   map[K]int
}

// step is one row before and after a change, by which an unknown outcome is
// found out; nil is no row.
type step struct {
	key           []any
	before, after []driver.Value
}

// changes tells whether the row is another one after it.
func (s step) changes() bool { return !mapping.EqualRows(s.before, s.after) }

func (t *Table[K, V]) newBatch(sets []lockstep.ChangeSet[K, V]) *tableBatch[K, V] {
	b := &tableBatch[K, V]{
		t:        t,
		sets:     make([]tableSet[K, V], len(sets)),
		outcomes: make([]lockstep.Outcome[V], len(sets)),
		refused:  make([]bool, len(sets)),
	}
	for i, set := range sets {
		b.outcomes[i].Err = t.take(set, &b.sets[i])
		b.refused[i] = b.outcomes[i].Err != nil
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
			own.index[k] = len(own.index)
			own.bound = append(own.bound, key...)
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
	own.written = len(own.index)
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

// errAgain asks for the whole batch to be run again: a set that is now marked as
// refused has taken the transaction with it, or has to be taken back alone.
var errAgain = errors.New("the batch has to be run again")

// forget takes back what run has noted, but for the refusals.
func (b *tableBatch[K, V]) forget() {
	b.trail = nil
	for i := range b.outcomes {
		if !b.refused[i] {
			b.outcomes[i] = lockstep.Outcome[V]{}
		}
	}
}

func (b *tableBatch[K, V]) run(ctx context.Context, a *attempt) error {
	if err := a.begin(ctx); err != nil {
		return err
	}
	for i := range b.sets {
		if b.refused[i] {
			continue
		}
		if err := a.left(ctx); err != nil {
			return err
		}
		out, steps, err := b.t.applySet(a.conn, &b.sets[i], nil, len(b.sets) > 1)
		if errors.Is(err, errAgain) {
			if out.Err != nil {
				b.outcomes[i], b.refused[i] = out, true
			}
			a.conn.exec("ROLLBACK") // there may be nothing left to roll back
			return errAgain
		}
		if err != nil {
			return err
		}
		b.outcomes[i] = out
		b.follow(&b.sets[i], steps)
	}
	if err := a.left(ctx); err != nil {
		return err
	}
	return a.commit()
}

// follow adds a set's steps to the trail. What DeleteAll has taken away says no
// more of the sets before it.
func (b *tableBatch[K, V]) follow(set *tableSet[K, V], steps []step) {
	if set.deleteAll {
		b.trail = nil
	}
	b.trail = append(b.trail, steps...)
}

// found tells whether the rows are as the batch has left them, for Settle.
// Without versions two states that look the same are the same: a row that
// somebody has set back to what it was counts as not written.
func (b *tableBatch[K, V]) found(c *conn) (bool, error) {
	n := len(b.t.m.Key)
	// Of several changes of one row, the last tells.
	first := map[string][]driver.Value{}
	for _, s := range b.trail {
		if _, ok := first[mapping.KeyText(s.key)]; !ok {
			first[mapping.KeyText(s.key)] = s.before
		}
	}
	same := true
	for i := len(b.trail) - 1; i >= 0; i-- {
		s := b.trail[i]
		before, ok := first[mapping.KeyText(s.key)]
		if !ok {
			continue
		}
		delete(first, mapping.KeyText(s.key))
		rows, err := b.t.readRaw(c, s.key)
		if err != nil {
			return false, err
		}
		now := rows[mapping.KeyText(s.key)]
		if mapping.EqualRows(before, s.after) {
			same = same && mapping.EqualRows(now, s.after)
			continue
		}
		switch {
		case mapping.EqualRows(now, s.after):
			return true, nil
		case mapping.EqualRows(now, before):
			return false, nil
		case now != nil && s.after != nil && b.t.m.VersionOf(now[n:]) < b.t.m.VersionOf(s.after[n:]):
			return false, nil
		}
		same = false
	}
	if same {
		return true, nil // it changed nothing, and nothing has changed
	}
	return false, errUntold
}

// apply implements Capabilities.Apply.
func (t *Table[K, V]) apply(ctx context.Context, tx lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
	x, err := t.db.toWrite(ctx, tx, t.m.Table)
	if err != nil {
		return lockstep.Outcome[V]{}, err
	}
	b := t.newBatch([]lockstep.ChangeSet[K, V]{set})
	if b.sets[0].inserts && b.outcomes[0].Err == nil {
		b.outcomes[0].Err = unsupported("table %s: an insertion in a transaction", t.m.Table)
	}
	if err := b.outcomes[0].Err; err != nil {
		x.fail(err)
		return b.outcomes[0], nil
	}
	out, steps, err := t.applySet(x.a.conn, &b.sets[0], &x.touched, false)
	switch {
	case errors.Is(err, errAgain):
		x.fail(out.Err)
	case err != nil:
		x.fail(err)
		return lockstep.Outcome[V]{}, notApplied(t.db.path, err)
	case out.Err != nil:
		x.fail(out.Err)
	}
	all, ok := x.tables[t].(*tableBatch[K, V])
	if !ok {
		all, x.tables[t] = b, b
		x.found = append(x.found, func(c *conn) (bool, error) {
			if !slices.ContainsFunc(b.trail, step.changes) {
				return false, errUntold
			}
			return b.found(c)
		})
	}
	all.follow(&b.sets[0], steps)
	return out, nil
}
