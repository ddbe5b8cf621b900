package sqlitestore

import (
	"context"
	"database/sql/driver"
	"time"
)

const (
	// keepTombstones is how long the version of a deleted row is kept. It has to
	// outlast every commit that could still be in doubt.
	keepTombstones = 24 * time.Hour
	// sweepRows bounds a sweep's transaction, and with it how long a commit waits
	// for one.
	sweepRows = 256
	// sweepTimeout bounds a sweep that waits for another process.
	sweepTimeout = 10 * time.Second
)

// sweep turns rows whose lifetime is over into tombstones, and removes
// tombstones that are a day old. The first keeps the version, because for every
// reader the row was absent already; the second raises the table's floor.
func (s *Store[K, V]) sweep(c *conn) (more bool, err error) {
	at := now()
	over, old := at.UnixMicro(), at.Add(-keepTombstones).UnixMicro()
	overdue, err := c.integer(s.sql.overdue, over)
	if err != nil {
		return false, err
	}
	stale, err := c.integer(s.sql.stale, old, int64(1))
	if err != nil || overdue == 0 && stale == 0 {
		return false, err
	}
	ctx, cancel := context.WithTimeout(background, sweepTimeout)
	defer cancel()
	result, err := s.db.write(ctx, func(ctx context.Context, a *attempt) error {
		if err := a.begin(ctx); err != nil {
			return err
		}
		ended, err := a.conn.exec(s.sql.end, over, int64(sweepRows))
		if err != nil {
			return err
		}
		purged, err := s.purge(a.conn, old)
		if err != nil {
			return err
		}
		// Nobody waits for this outcome: what was not done is found again.
		a.verify = func(*conn) (bool, error) { return false, errUntold }
		a.result = ended >= sweepRows || purged >= sweepRows
		return a.commit()
	})
	if err != nil {
		return false, err
	}
	return result.(bool), nil
}

func (s *Store[K, V]) purge(c *conn, old int64) (purged int64, err error) {
	var floor int64
	err = c.query(s.sql.stale, []any{old, int64(sweepRows)}, func(row []driver.Value) error {
		purged, _ = row[0].(int64)
		floor, _ = row[1].(int64)
		return nil
	})
	if err != nil || purged == 0 {
		return 0, err
	}
	// The floor rises before the rows go: a writer in between gets a version that
	// is higher than it need be.
	s.clock.raise(floor)
	if _, err := c.exec(s.sql.purge, old, int64(sweepRows)); err != nil {
		return 0, err
	}
	_, err = c.exec(s.sql.floor, floor, s.opts.Table)
	return purged, err
}
