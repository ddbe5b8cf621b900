package mysqlstore

import (
	"context"
	"database/sql/driver"
	"time"
)

const (
	// keepTombstones is how long the version of a deleted row is kept. It has to
	// outlast every commit that could still be in doubt.
	keepTombstones = 24 * time.Hour
	// sweepRows bounds a sweep's transaction, and with it how long a commit waits for
	// one.
	sweepRows = 256
	// sweepTimeout bounds a sweep that waits for the server.
	sweepTimeout = 10 * time.Second
)

// sweep turns rows whose lifetime is over into tombstones, and removes tombstones
// that are a day old. The first keeps the version, because for every reader the row
// was absent already; the second raises the table's floor. It leaves alone what
// somebody has locked. Several processes may sweep one table.
func (s *Store[K, V]) sweep(ctx context.Context) (more bool, err error) {
	result, err := s.db.write(ctx, s.outside.as(), func(ctx context.Context, a *attempt) error {
		if err := a.s.waits(ctx, impatience); err != nil {
			return err
		}
		row, err := a.s.row(ctx, s.sql.clock)
		if err != nil {
			return err
		}
		now, _ := integer(row[0])
		var keys []any
		if err := a.s.query(ctx, s.sql.over, []any{now}, func(row []driver.Value) error {
			keys = append(keys, keep(row)[0])
			return nil
		}); err != nil {
			return err
		}
		a.result = len(keys) >= sweepRows
		if len(keys) == 0 {
			return nil
		}
		return s.sweepKeys(ctx, a, keys, now)
	})
	if err != nil {
		return false, err
	}
	return result.(bool), nil
}

func (s *Store[K, V]) sweepKeys(ctx context.Context, a *attempt, keys []any, now int64) error {
	if err := a.begin(ctx, false); err != nil {
		return err
	}
	// Rows are locked by their keys first, as everybody locks them.
	var locked []any
	var floor int64
	if err := inChunks(keys, func(size int, args []any) error {
		return a.s.query(ctx, s.sql.stateSkip[size], args, func(row []driver.Value) error {
			locked = append(locked, keep(row[:1])[0])
			st := stateOf(row[1], row[2], row[3])
			if gone, _ := integer(row[2]); !st.Live && gone <= now {
				floor = max(floor, st.Version)
			}
			return nil
		})
	}); err != nil {
		return err
	}
	if err := inChunks(locked, func(size int, args []any) error {
		_, _, err := a.s.exec(ctx, s.sql.purge[size], args...)
		return err
	}, now); err != nil {
		return err
	}
	if err := inChunks(locked, func(size int, args []any) error {
		_, _, err := a.s.exec(ctx, s.sql.bury[size], args...)
		return err
	}, now+keepTombstones.Microseconds(), now); err != nil {
		return err
	}
	if floor > 0 {
		// The floor rises before the rows go: a writer in between gets a version that
		// is higher than it need be.
		s.clock.raise(floor)
		if _, _, err := a.s.exec(ctx, "UPDATE "+s.db.qualified(metaName)+" SET `floor` = GREATEST(`floor`, ?) WHERE `name` = ?",
			floor, s.db.fold(s.opts.Table)); err != nil {
			return err
		}
	}
	// Nobody waits for this outcome: what was not done is found again.
	a.verify = func(context.Context, *session) (bool, error) { return false, errUntold }
	return a.commit(ctx)
}
