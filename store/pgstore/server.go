package pgstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// serverID tells the server behind a session from every other, and a run of it from the
// next. A failover or a restore may leave sessions at two servers: those of a pool, say,
// at the old one, where nothing changes any more, and new ones at the other. A server
// that was merely started again is taken for another, too: nothing in it says that an
// older copy of its files was not put in their place.
//
// A session cannot outlive its server's run, so that looking at a new one is enough, and
// loads and commits cost nothing more.
type serverID struct {
	started int64 // when, in µs
	// system and timeline are of the files: the first from initdb, the second raised by
	// each promotion. Both are 0 where the server does not tell them.
	system, timeline int64
	// crash changes when a backend has crashed and taken the others with it, in the same
	// run: where commits may be lost by that. See epochSQL.
	crash int64
}

// succession knows which server took over from which.
type succession struct {
	mu     sync.Mutex
	latest serverID
	since  int64 // its clock when it was met first, in µs
}

// overtaken tells whether a new session is at a server from which the latest has taken
// over, and which does not know: a pool may have connections to it that nobody has used
// yet. It has the same origin and an earlier timeline, and runs since before the latest
// was met; an older copy that was restored later has been started later. Who goes back to
// the one before without starting it again has to start the program again.
func (s *succession) overtaken(id serverID, now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id.system != 0 && id.system == s.latest.system && id.timeline < s.latest.timeline && id.started < s.since {
		return true
	}
	if id != s.latest {
		s.latest, s.since = id, now
	}
	return false
}

var errOvertaken = errors.New("the server is one from which another has taken over (its timeline is an earlier one)")

const (
	// noticeEvery is how long memory may answer for a server that has ended, where
	// nothing else is asked of it.
	noticeEvery   = time.Second
	noticeTimeout = 5 * time.Second
)

// notice finds out whether there is another server. A cache whose reads are all hits
// would not: its sessions lie idle in the pool, and one that has been ended does not
// show that before it is used.
func (db *Database) notice(ctx context.Context) {
	if !db.server.Heard() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	for {
		s, err := db.session(ctx)
		if err != nil {
			return
		}
		if !s.fresh {
			err = s.run(ctx, command{sql: "SELECT 1"})
		}
		if err == nil {
			db.release(s)
			return
		}
		db.drop(s)
		if !s.stale(ctx, err) {
			return
		}
	}
}

// lineageSQL is a statement of its own because a server may refuse it: the functions can
// be revoked, and what only speaks PostgreSQL's protocol lacks them. The timeline of
// pg_control_checkpoint() would be that of the last checkpoint.
const lineageSQL = `SELECT system_identifier, CASE WHEN pg_is_in_recovery() THEN 0
	ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8 END FROM pg_control_system()`

// lineage asks for the identity of the server's files.
func lineage(ctx context.Context, c *pgx.Conn, id *serverID) error {
	err := c.QueryRow(ctx, lineageSQL, pgx.QueryExecModeExec).Scan(&id.system, &id.timeline)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && fateOfServer(refused) != fateUnknown {
		return nil
	}
	return err
}
