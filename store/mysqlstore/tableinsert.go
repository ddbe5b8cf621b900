package mysqlstore

import (
	"context"
	"database/sql/driver"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Rows whose keys the database gives are inserted one statement each, after what else
// the sets of the batch write. One statement for many would tell the first of the keys
// alone; that the others follow it depends on innodb_autoinc_lock_mode, on
// auto_increment_increment and on triggers. The keys are known before COMMIT is sent, so
// that the rows are read back as all others are, and tell, after a lost reply, what has
// become of it.
//
// MariaDB returns the key from the row itself, whatever has made it. MySQL has only the
// number in its reply, which is that of AUTO_INCREMENT, or what a trigger has put in its
// place; a key by default is therefore no given one there. A trigger that calls
// LAST_INSERT_ID with a number of its own, and makes the key as well, is not seen
// through on MySQL: that risk is accepted.

// give makes the wave's rows that have no keys yet.
func (w *tableWork[K, V]) give(ctx context.Context) error {
	rows := w.Wave.Giving
	if len(rows) == 0 {
		return nil
	}
	for _, r := range rows {
		key, err := w.makeRow(ctx, r)
		if err != nil {
			return err
		}
		if err := w.Given(r, key); err != nil {
			return err
		}
	}
	// All other sets of the wave were written first. One that names a key which was given
	// now, because it deletes that row, say, would in truth come before the insertion or
	// after it, as the order of the batch has it.
	if w.oneByOne {
		return nil
	}
	_, texts := w.Named(w.active())
	named := make(map[string]bool, len(texts))
	for _, text := range texts {
		named[text] = true
	}
	for _, r := range rows {
		if named[r.Text] {
			return errOneByOne
		}
	}
	return nil
}

// makeRow inserts a row, and returns its key.
func (w *tableWork[K, V]) makeRow(ctx context.Context, r *mapping.Write) (key []driver.Value, err error) {
	q, t := w.t.sql.giveNow, w.t
	if w.patient {
		q = t.sql.give
	}
	args := make([]any, 0, len(t.sql.set))
	for _, place := range t.sql.set {
		args = append(args, w.value(r, place))
	}
	if err := w.a.left(ctx); err != nil {
		return nil, err
	}
	if t.sql.returns {
		err = w.a.s.query(ctx, q, args, func(cols []driver.Value) error {
			key = []driver.Value{t.wires[0].normal(cols[0])}
			return nil
		})
	} else {
		var n int64
		_, n, err = w.a.s.exec(ctx, q, args...)
		key = []driver.Value{n}
		if t.shape.column(t.m.Key[0].Column).unsigned {
			key[0] = integerOf(uint64(n))
		}
	}
	return key, err
}
