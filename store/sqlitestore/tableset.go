package sqlitestore

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// applySet checks a set and makes its changes. An Outcome with an Err has left no
// trace; an error is about the transaction. In company says that other sets
// depend on the transaction's going on; so has what earlier sets of a transaction
// have touched, and is nil for a set that has to stand alone.
func (t *Table[K, V]) applySet(c *conn, set *tableSet[K, V], so *touched, company bool) (lockstep.Outcome[V], []step, error) {
	none := lockstep.Outcome[V]{}
	var before map[string][]driver.Value
	var err error
	if set.inserts {
		set.bound, set.written = nil, 0 // of an earlier run
	} else {
		if before, err = t.readRaw(c, set.bound); err != nil {
			return none, nil, err
		}
		if err := t.admits(set, before); err != nil {
			if isRowError(err) {
				return lockstep.Outcome[V]{Err: err}, nil, nil
			}
			return none, nil, err
		}
	}
	savepoint := company && (len(set.changes) > 1 || set.deleteAll || t.deferred.Load())
	if savepoint {
		if _, err := c.exec("SAVEPOINT lockstep_set"); err != nil {
			return none, nil, err
		}
	}
	out, steps, err := t.change(c, set, so, before)
	// In a transaction of several sets a later one may resolve it, or COMMIT refuses
	// them all.
	if err == nil && so == nil && unresolved(c) {
		if company && !savepoint {
			t.deferred.Store(true)
			return none, nil, errAgain
		}
		err = invalid("table %s: FOREIGN KEY constraint failed (a deferred one)", t.m.Table)
	}
	switch {
	case err == nil && savepoint:
		_, err = c.exec("RELEASE lockstep_set")
		return out, steps, err
	case err == nil:
		return out, steps, nil
	case !isRowError(err):
		return none, nil, err
	}
	if company && !savepoint {
		t.deferred.Store(true)
		return none, nil, errAgain
	}
	refusal := lockstep.Outcome[V]{Err: notApplied(t.m.Table, err)}
	if savepoint {
		if _, err := c.exec("ROLLBACK TO lockstep_set"); err != nil {
			// RAISE(ROLLBACK) in a trigger has taken the others' changes with it.
			return refusal, nil, errAgain
		}
		if _, err := c.exec("RELEASE lockstep_set"); err != nil {
			return refusal, nil, errAgain
		}
		return refusal, nil, nil
	}
	// Alone, a set is taken back with its transaction.
	return refusal, nil, errAgain
}

// isRowError tells whether an error is about the set, and not about the database.
func isRowError(err error) bool {
	return errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, lockstep.ErrConflict) || refusesRow(err)
}

// unresolved tells whether a deferred foreign key is violated as things stand.
func unresolved(c *conn) bool {
	n, _, err := c.raw.(sqlite.DBStatus).Status(sqlite.DBStatusDeferredFKs, false)
	return err == nil && n != 0
}

// readRaw returns the columns of the rows that exist, the key's first, by the
// text of their key.
func (t *Table[K, V]) readRaw(c *conn, bound []any) (map[string][]driver.Value, error) {
	rows := make(map[string][]driver.Value, len(bound)/len(t.m.Key))
	err := inChunks(bound, len(t.m.Key), func(size int, args []any) error {
		return c.query(t.sql.load[size], args, func(row []driver.Value) error {
			rows[mapping.KeyText(row[:len(t.m.Key)])] = slices.Clone(row)
			return nil
		})
	})
	return rows, err
}

func (t *Table[K, V]) key(set *tableSet[K, V], k K) []any {
	n := len(t.m.Key)
	at := set.index[k] * n
	return set.bound[at : at+n]
}

// admits decides whether the set's checks and expectations hold.
func (t *Table[K, V]) admits(set *tableSet[K, V], before map[string][]driver.Value) error {
	return t.m.Admits(set.changes, set.checks, func(k K) []driver.Value {
		row := before[mapping.KeyText(t.key(set, k))]
		if row == nil {
			return nil
		}
		return row[len(t.m.Key):]
	})
}

// change makes the set's changes, and reads the rows again.
func (t *Table[K, V]) change(c *conn, set *tableSet[K, V], so *touched, before map[string][]driver.Value) (lockstep.Outcome[V], []step, error) {
	n := len(t.m.Key)
	out := lockstep.Outcome[V]{
		Rows:    make([]lockstep.Row[V], len(set.changes)),
		Existed: make([]bool, len(set.changes)),
	}
	if set.deleteAll {
		var steps []step
		err := t.witnessed(c, set, so, func() (err error) {
			steps, err = t.deleteAll(c)
			return err
		})
		return out, steps, err
	}
	steps := make([]step, len(set.changes))
	err := t.witnessed(c, set, so, func() error {
		if set.inserts {
			return t.insertRow(c, set, &out, steps)
		}
		return t.changeRows(c, set, before, out, steps)
	})
	if err != nil {
		return out, nil, err
	}
	after, err := t.readRaw(c, set.bound[:set.written*n])
	if err != nil {
		return out, nil, err
	}
	for i := range steps {
		row := after[mapping.KeyText(steps[i].key)]
		steps[i].after = row
		if row == nil || out.Rows == nil {
			continue
		}
		if out.Rows[i], err = t.m.Row(set.changes[i].Key, row[n:]); err != nil {
			// The schema accepts what the fields cannot hold: the row is committed, and
			// its readers will say what is wrong with it.
			out.Rows = nil
		}
	}
	return out, steps, nil
}

// insertRow makes a row, and names it by the key that it was given.
func (t *Table[K, V]) insertRow(c *conn, set *tableSet[K, V], out *lockstep.Outcome[V], steps []step) error {
	version := int64(0)
	if t.m.Versioned() {
		var err error
		if version, err = kv.NextVersion(0, t.clock.read()); err != nil {
			return invalid("the new row: %w", err)
		}
	}
	ch := &set.changes[0]
	var key []driver.Value
	err := c.query(t.sql.give, t.columns(ch.Prepared.(*mapping.Prepared), version), func(row []driver.Value) error {
		key = slices.Clone(row)
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("the new row: %w", err)
	case key == nil:
		return invalid("the new row: a trigger has ignored the change")
	case key[0] == nil:
		return invalid("the new row: its key would be NULL")
	}
	if ch.Key, err = t.m.ScanKey(key); err != nil {
		return invalid("the new row: %w", err)
	}
	set.bound, set.written = []any{key[0]}, 1
	out.Keys = []any{ch.Key}
	steps[0] = step{key: set.bound}
	return nil
}

// columns are the written ones of a change.
func (t *Table[K, V]) columns(p *mapping.Prepared, version int64) (columns []any) {
	for i, part := range t.m.Value {
		switch {
		case i == t.m.Version:
			columns = append(columns, version)
		case part.Written:
			columns = append(columns, p.Columns[i])
		}
	}
	return columns
}

// changeRows makes the changes, and notes what was there before them.
func (t *Table[K, V]) changeRows(c *conn, set *tableSet[K, V], before map[string][]driver.Value, out lockstep.Outcome[V], steps []step) error {
	n := len(t.m.Key)
	for i, ch := range set.changes {
		key := ch.Prepared.(*mapping.Prepared).Key
		row := before[mapping.KeyText(key)]
		out.Existed[i] = row != nil
		steps[i] = step{key: key, before: row}
		version := int64(0)
		if t.m.Versioned() {
			last := int64(0)
			if row != nil {
				last = t.m.VersionOf(row[n:])
			}
			var err error
			if version, err = kv.NextVersion(last, t.clock.read()); err != nil {
				return invalid("key %v: %w", ch.Key, err)
			}
		}
		if err := t.write(c, ch, row != nil, version); err != nil {
			return err
		}
		if ch.Delete {
			// No tombstone keeps this version; the floor does while this process runs.
			t.clock.raise(version)
			out.Rows[i].Version = lockstep.Version(version)
		}
	}
	return nil
}

// deleteAll tells by the first row what has become of them all. Where there is
// none, it changes nothing.
func (t *Table[K, V]) deleteAll(c *conn) (steps []step, err error) {
	err = c.query(t.sql.scanFirst, []any{int64(1)}, func(row []driver.Value) error {
		s := step{before: slices.Clone(row)}
		for _, part := range s.before[:len(t.m.Key)] {
			s.key = append(s.key, part)
		}
		steps = append(steps, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if t.m.Versioned() {
		highest, err := c.integer(t.sql.highest)
		if err != nil {
			return nil, err
		}
		if _, err := kv.NextVersion(highest, 0); err != nil {
			return nil, invalid("table %s: %w", t.m.Table, err)
		}
		t.clock.raise(highest + 1)
	}
	if _, err := c.exec(t.sql.removeAll); err != nil {
		return nil, err
	}
	left, err := c.integer(t.sql.left)
	if err == nil && left != 0 {
		err = invalid("table %s: a trigger keeps rows from being deleted, or has made new ones", t.m.Table)
	}
	return steps, err
}

// write makes one change. There is no upsert: under the write lock it is known
// whether the row is there, and an upsert would fire the triggers of an insertion
// for a row that exists.
func (t *Table[K, V]) write(c *conn, ch lockstep.Change[K, V], exists bool, version int64) error {
	p := ch.Prepared.(*mapping.Prepared)
	var columns []any
	if !ch.Delete {
		columns = t.columns(p, version)
	}
	var changed int64
	var err error
	switch {
	case ch.Delete && !exists:
		return nil
	case ch.Delete:
		changed, err = c.exec(t.sql.remove, p.Key...)
	case !exists:
		changed, err = c.exec(t.sql.insert, append(slices.Clone(p.Key), columns...)...)
	case t.sql.update == "":
		return nil // no column to write
	default:
		changed, err = c.exec(t.sql.update, append(columns, p.Key...)...)
	}
	if err != nil {
		return fmt.Errorf("key %v: %w", ch.Key, err)
	}
	if changed == 0 && ch.Delete {
		// What the deletion of its parent, in the same set, has taken with it is gone.
		rows, err := t.readRaw(c, p.Key)
		if err != nil || len(rows) == 0 {
			return err
		}
	}
	if changed == 0 {
		return invalid("key %v: a trigger has ignored the change", ch.Key)
	}
	return nil
}
