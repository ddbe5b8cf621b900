package pgstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Rows whose keys the database gives are inserted one statement each, all in one
// round trip, and after what else the sets write: one statement for all of them
// returns the keys in the order of the rows in every version so far, which nobody
// promises, and two rows that are alike could not be told apart afterwards. The keys
// are known before COMMIT is sent, so that the rows are read back as all others are,
// and tell, after a crash, what has become of it.
//
// The advisory locks that stand for absent rows are taken when the keys are known,
// before the commit. Whoever relies on the absence of such a key either has the lock
// already, and is waited for, or looks when the row is there.

// planInsertion adds a row to the wave.
func (w *tableWork[K, V]) planInsertion(i int, set *tableSet[K, V]) (err error) {
	r := &rowWrite{set: i, columns: set.changes[0].Prepared.(*mapping.Prepared).Columns}
	if w.b.t.m.Versioned() {
		if r.version, err = kv.NextVersion(0, w.clock); err != nil {
			return invalid("the new row: %w", err)
		}
		r.least = r.version
	}
	w.wave.giving = append(w.wave.giving, r)
	w.out[i] = lockstep.Outcome[V]{Rows: make([]lockstep.Row[V], 1), Existed: make([]bool, 1)}
	return nil
}

// give sends the wave, makes the rows that have no keys yet, and leaves a wave that
// reads them.
func (w *tableWork[K, V]) give(ctx context.Context, s *session) error {
	rows := w.wave.giving
	if len(rows) == 0 {
		return nil
	}
	w.wave.giving = nil
	commands := w.commands()
	for _, r := range rows {
		commands = append(commands, w.b.giving(r))
	}
	w.wrote = true
	if err := s.run(ctx, commands...); err != nil {
		return err
	}
	w.finish()
	for _, r := range rows {
		if r.key == nil {
			return invalid("table %s: a trigger has ignored a new row", w.b.t.shape)
		}
		k, err := w.b.t.m.ScanKey([]driver.Value{r.key[0]})
		if err != nil {
			return invalid("the new row: %w", err)
		}
		r.text = mapping.KeyText(r.key)
		w.b.sets[r.set].changes[0].Key = k
		w.out[r.set].Keys = []any{k}
		w.last[r.text] = r
	}
	w.wave = wave{given: rows, rows: rows}
	return nil
}

// giving is the statement that makes a row, and tells its key.
func (b *tableBatch[K, V]) giving(r *rowWrite) command {
	t := b.t
	var args []any
	for _, place := range t.sql.set {
		value := r.columns[place]
		if place == t.m.Version {
			value = r.version
		}
		args = append(args, wire(t.m.Value[place].Type).pack([]any{value}))
	}
	return command{sql: t.sql.give, args: args, failed: refusedRow, row: func(scan func(...any) error) error {
		c := wire(t.m.Key[0].Type).cell()
		if err := scan(c.into); err != nil {
			return err
		}
		r.key = []any{c.value()}
		return nil
	}}
}

// notGiven is the error of an insertion that the database has refused. A key that has
// a row, as where a sequence is behind, is no row that has appeared meanwhile.
type notGiven struct{ error }

func (e notGiven) Unwrap() error { return e.error }

// refusedRow says of which row the database speaks. What the default of the key lacks,
// the right to use a sequence for one, is no fault of the sets beside it.
func refusedRow(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && strings.HasPrefix(pg.Code, "42") {
		return notGiven{invalid("the new row: %w", err)}
	}
	return notGiven{err}
}
