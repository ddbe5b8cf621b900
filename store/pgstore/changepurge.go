package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// keepChanges is how long a change can be read at least. A watcher that has not
	// looked for so long is told that it was outrun.
	keepChanges = time.Hour
	// purgeRows bounds a transaction that removes changes.
	purgeRows = 2000
)

// keep has the keeper purge the log of a watched table's schema.
func (db *Database) keep(o *outside) {
	if o != nil {
		db.keeper.add(o.log.log(), o.log.purge(db))
	}
}

// purge removes changes that every watcher has read, or should have. The log has no
// times. It is measured by a mark instead: the oldest transaction that was under way
// when it was set. When the mark is an hour old, all before it may go, and the next
// one is set. That is said first, in the horizon; a watcher whose snapshot is from
// before the horizon may have missed something, and sees that in the statement in
// which it missed it.
//
// A log that was restored into another server, by pg_restore, has ids that are still
// to come there; they go too.
func (l *changeLog) purge(db *Database) sweep {
	advance := fmt.Sprintf(`UPDATE %s SET purged = least(mark, pg_snapshot_xmin(pg_current_snapshot())),
	mark = pg_snapshot_xmin(pg_current_snapshot()), marked_at = now() WHERE marked_at < now() - $1::int8 * interval '1 second'`, l.horizon())
	remove := fmt.Sprintf(`DELETE FROM %[1]s WHERE ctid = ANY (ARRAY(
	(SELECT ctid FROM %[1]s WHERE xid < (SELECT purged FROM %[2]s) ORDER BY xid LIMIT $1::int8)
	UNION ALL (SELECT ctid FROM %[1]s WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) ORDER BY xid LIMIT $1::int8)))`, l.log(), l.horizon())
	return func(ctx context.Context) (more bool, err error) {
		s, err := db.session(ctx)
		if err != nil {
			return false, err
		}
		var removed int64
		err = s.run(ctx, command{sql: advance, args: []any{int64(keepChanges.Seconds())}})
		if err == nil {
			err = s.run(ctx, command{sql: remove, args: []any{int64(purgeRows)}, tag: func(tag pgconn.CommandTag) error {
				removed = tag.RowsAffected()
				return nil
			}})
		}
		if err != nil {
			db.drop(s)
			return false, err
		}
		db.release(s)
		return removed >= purgeRows, nil
	}
}
