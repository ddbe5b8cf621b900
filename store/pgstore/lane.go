package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// lanes are the fence of commits whose sessions cannot be ended: behind a pooler, which
// shows nobody's session, or without the privilege.
//
// A commit has a lane to itself, which is a row, and raises the row's seq from the one
// that it was begun with, in the same transaction and in the same round trip. Settling
// raises it, too. So whichever of the two comes first keeps the other from having
// happened: a commit that was stalled finds another seq, and fails; and a settlement
// that comes later waits for the row, and finds that it was committed. The row tells
// what became of the commit, whatever others have done to its rows since.
//
// The lane is raised last, after the rows were written: a commit that waits for a row of
// somebody else's does not hold its lane meanwhile, and is settled at once.
//
// A lane is used by one commit after the other, and there are as many as there were
// commits under way at once. One whose commit was in doubt is not used again, so that
// settling may be repeated. A lane that nobody has used for a day is removed, by any
// process; a commit that misses it fails, and is made again with another one.
//
// Rejected: a lane a process, of which one row would be every commit's to wait for; an
// advisory lock, which does not tell what became of a commit.
type lanes struct {
	table  string
	node   int64 // this Database's, at random
	unsafe bool

	mu   sync.Mutex
	free []*lane
	made int32
}

type lane struct {
	of     *lanes
	number int32
	seq    int64
}

const (
	lanesName = "lockstep_lanes"
	// keepLanes is how long a lane is kept that nobody uses. It outlasts every commit
	// that could still be in doubt, as tombstones do.
	keepLanes = 24 * time.Hour
)

// ensure makes the lanes' table.
func (l *lanes) ensure(ctx context.Context, c *pgx.Conn) error {
	var there bool
	if err := c.QueryRow(ctx, `SELECT to_regclass($1::text) IS NOT NULL`, l.table).Scan(&there); err != nil || there {
		return err
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ended)
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1::bigint)`, int64(ensureLock)); err != nil {
		return err
	}
	// Pages with room for many versions of a row: each commit makes one.
	if _, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (
	node bigint,          -- a process
	lane integer,         -- one of its commits at a time
	seq bigint NOT NULL,  -- raised by each, and by whoever settles it
	used bigint NOT NULL, -- µs since 1970
	PRIMARY KEY (node, lane)
) WITH (fillfactor = 20)`, l.table)); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// take returns a lane for one commit. Making one costs a round trip.
func (l *lanes) take(ctx context.Context, s *session) (*lane, error) {
	l.mu.Lock()
	if n := len(l.free); n > 0 {
		taken := l.free[n-1]
		l.free = l.free[:n-1]
		l.mu.Unlock()
		return taken, nil
	}
	l.made++
	made := &lane{of: l, number: l.made}
	l.mu.Unlock()
	insert := command{sql: fmt.Sprintf(`INSERT INTO %s (node, lane, seq, used) VALUES (%d, %d, 0, %s)`, l.table, l.node, made.number, clockSQL)}
	err := s.run(ctx, insert)
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == "42P01" { // undefined_table: it was removed when nobody had a lane
		if err = s.lease.use(func(c *pgx.Conn) error { return l.ensure(ctx, c) }); err == nil {
			err = s.run(ctx, insert)
		}
	}
	return made, err
}

// give takes a lane back after a commit that has, or has not, been made.
func (l *lane) give(committed bool) {
	if l == nil {
		return
	}
	if committed {
		l.seq++
	}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	l.of.free = append(l.of.free, l)
}

var (
	errLane = errors.New("the commit's lane is not as it was, or the server is not")
	// laneCode is what a division by the number of no rows says.
	laneCode = "22012"
)

// guard is the command that lets the transaction be committed only if nobody has settled
// it, and on the server that it was begun on: behind a pooler each transaction may come
// to another one, or to a session that somebody has changed.
func (l *lane) guard(id *identity) command {
	durable := ""
	if !l.of.unsafe {
		durable = ` AND current_setting('synchronous_commit') <> 'off'`
	}
	return command{
		sql: fmt.Sprintf(`WITH raised AS (UPDATE %s SET seq = seq + 1, used = %s WHERE node = %d AND lane = %d AND seq = %d
	AND %s = %d AND NOT pg_is_in_recovery()%s RETURNING 1) SELECT 1 / count(*) FROM raised`,
			l.of.table, clockSQL, l.of.node, l.number, l.seq, runSQL, id.server.started, durable),
		failed: func(err error) error {
			var pg *pgconn.PgError
			if errors.As(err, &pg) && pg.Code == laneCode {
				return errLane
			}
			return err
		},
	}
}

// settle makes sure that the commit either was made or never will be, and tells which.
// errUntold says that the lane is gone, and with it whatever could still be committed by
// it: on an older copy of the database, for one.
func (l *lane) settle(ctx context.Context, s *session) (applied bool, err error) {
	var seq int64
	raise := fmt.Sprintf(`UPDATE %s SET seq = CASE seq WHEN %[2]d THEN %[2]d + 2 ELSE seq END, used = %s
WHERE node = %d AND lane = %d RETURNING seq`, l.of.table, l.seq, clockSQL, l.of.node, l.number)
	err = s.run(ctx, command{sql: waitSQL, args: []any{patience(ctx, false)}},
		command{sql: raise, row: func(scan func(...any) error) error { return scan(&seq) }})
	switch {
	case err != nil:
		return false, err
	case seq == l.seq+1:
		return true, nil
	case seq == l.seq+2:
		return false, nil
	}
	return false, errUntold
}

// sweep removes lanes that nobody uses.
func (l *lanes) sweep(ctx context.Context, db *Database) (more bool, err error) {
	s, err := db.session(ctx)
	if err != nil {
		return false, err
	}
	var removed int64
	err = s.run(ctx, command{sql: fmt.Sprintf(`WITH old AS (DELETE FROM %[1]s WHERE (node, lane) IN
	(SELECT node, lane FROM %[1]s WHERE used < %[2]s - $1::bigint LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
RETURNING 1) SELECT count(*) FROM old`, l.table, clockSQL), args: []any{keepLanes.Microseconds(), int64(sweepRows)},
		row: func(scan func(...any) error) error { return scan(&removed) }})
	if err != nil {
		db.drop(s)
		return false, err
	}
	db.release(s)
	return removed >= sweepRows, nil
}

func newLanes(table string, unsafe bool) *lanes {
	return &lanes{table: table, node: rand.Int64(), unsafe: unsafe}
}
