package mysqlstore

import (
	"context"
	"strconv"
	"sync"
	"time"
)

// serverID tells the server behind a session from every other, and a run of it from the
// next. A server that was merely started again is taken for another, too: nothing in it
// says that an older copy of its files was not put in their place.
//
// A session cannot outlive its server's run, so that looking at a new one is enough, and
// loads and commits cost nothing more. What can change under a session is read_only, by
// which a server is made a replica: see notice.
type serverID struct {
	server string // server.identity
	// node is the end of a UUID() of the server's, with which it tells its own from
	// those of others, and of other runs: by an address or a random number, and 14 bits
	// of another. MariaDB has nothing else that is made anew by each run.
	node string
	// started is when, in µs. No server says it but by Uptime, in whole seconds.
	started int64
}

// starts makes one number of what several sessions have found for one run.
type starts struct {
	mu   sync.Mutex
	last serverID
}

// uptimeStep is by how much two of them may differ.
const uptimeStep = 2 * time.Second

func (s *starts) of(id serverID) serverID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = s.asLast(id)
	return s.last
}

// known is of for a session that is not one of ours.
func (s *starts) known(id serverID) serverID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asLast(id)
}

func (s *starts) asLast(id serverID) serverID {
	last := s.last
	if last.started = id.started; last == id {
		if d := s.last.started - id.started; -uptimeStep.Microseconds() <= d && d <= uptimeStep.Microseconds() {
			return s.last
		}
	}
	return id
}

// readOnlySQL tells whether a server takes no writes from its users: a replica, as a
// rule, which may lag.
const readOnlySQL = "@@global.read_only OR @@global.innodb_read_only"

// begun tells when the server was started. Its clock said now after asked: where the
// server, or we, were kept waiting between that and its uptime, both are asked for again.
func (s *session) begun(ctx context.Context, now int64, asked time.Time) (int64, error) {
	for try := 1; ; try++ {
		status, err := s.row(ctx, "SHOW GLOBAL STATUS LIKE 'Uptime'")
		if err != nil {
			return 0, err
		}
		var uptime int64
		if len(status) == 2 {
			uptime, _ = strconv.ParseInt(text(status[1]), 10, 64)
		}
		if time.Since(asked) < uptimeStep/2 || try == 10 {
			return now - uptime*1e6, nil
		}
		asked = time.Now()
		row, err := s.row(ctx, "SELECT "+clockSQL)
		if err != nil {
			return 0, err
		}
		now, _ = integer(row[0])
	}
}

// meet notes the server of a new session, and refuses one that has become read-only.
func (db *Database) meet(s *session, node string, started int64, readOnly bool) error {
	s.server = db.starts.of(serverID{s.fence.server, node, started})
	if readOnly && db.inspected {
		db.which.Refused(s.server)
		return errReadOnly()
	}
	db.which.Met(s.server)
	return nil
}

func errReadOnly() error {
	return unavailable("read_only is on by now: the server takes no writes, or it has become a replica, which may lag")
}

const (
	// noticeEvery is how long memory may answer for a server that has ended, or has
	// become a replica, where nothing that is asked of it shows that.
	noticeEvery   = time.Second
	noticeTimeout = 5 * time.Second
)

// notice finds out whether there is another server, or the one that there is has become
// a replica. A cache whose reads are all hits would not: its sessions lie idle, and one
// that has been ended does not show that before it is used.
//
// That read_only is looked at here and not with each load is accepted: between the moment
// when it is set and the next look, or the next write, which the server refuses, a load
// may be answered by what has just become a replica. A column in each load would be asked
// for a row that may not be there.
func (db *Database) notice(ctx context.Context) {
	if !db.which.Heard() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	db.read(ctx, func(s *session) error {
		row, err := s.row(ctx, "SELECT "+readOnlySQL)
		if err != nil {
			return err
		}
		if on, _ := integer(row[0]); on != 0 {
			db.which.Refused(s.server)
			s.broken = true
		}
		return nil
	})
}
