package pgstore

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// source is where sessions come from: a pgxpool.Pool, or a *sql.DB over pgx.
type source interface {
	lease(ctx context.Context) (lease, error)
}

// lease is a connection for as long as we have it to ourselves.
type lease interface {
	// use calls f with the connection, which f must not keep.
	use(f func(c *pgx.Conn) error) error
	// own gives the connection to the caller for good, or one like it, and gives the
	// lease back. Nobody has looked at the server of one like it.
	own(ctx context.Context) (*pgx.Conn, error)
	// release gives the connection back to its pool.
	release()
}

type poolSource struct{ pool *pgxpool.Pool }

type poolLease struct{ conn *pgxpool.Conn }

func (s poolSource) lease(ctx context.Context) (lease, error) {
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return poolLease{c}, nil
}

func (l poolLease) use(f func(c *pgx.Conn) error) error { return f(l.conn.Conn()) }
func (l poolLease) release()                            { l.conn.Release() }

// own: the pool opens another one in its place when it needs one.
func (l poolLease) own(context.Context) (*pgx.Conn, error) { return l.conn.Hijack(), nil }

// sqlSource takes the pgx connection out of a *sql.DB's, so that there is one way
// of talking to the server: the results of a statement that goes through
// database/sql's own interface are read row by row through driver.Value, without
// arrays and without pipelines.
type sqlSource struct{ db *sql.DB }

type sqlLease struct{ conn *sql.Conn }

func (s sqlSource) lease(ctx context.Context) (lease, error) {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return sqlLease{c}, nil
}

func (l sqlLease) use(f func(c *pgx.Conn) error) error {
	return l.conn.Raw(func(dc any) error {
		c, ok := dc.(interface{ Conn() *pgx.Conn })
		if !ok {
			return unsupported("the *sql.DB has connections of type %T; its driver must be github.com/jackc/pgx/v5/stdlib", dc)
		}
		return f(c.Conn())
	})
}

// release: database/sql asks the driver, which drops a connection that is closed
// or in a transaction.
func (l sqlLease) release() { l.conn.Close() }

// own: a connection that is kept would count in the *sql.DB's limit, which may be 1.
func (l sqlLease) own(ctx context.Context) (*pgx.Conn, error) {
	defer l.release()
	var config *pgx.ConnConfig
	if err := l.use(func(c *pgx.Conn) error {
		config = c.Config()
		return nil
	}); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}

// identity is who a session is at the server. A pid alone is used again.
type identity struct {
	pid     uint32
	started int64 // backend_start, in µs
	user    int64 // the oid of the role that it was begun by
	// born orders identities and attempts of this process: a session that was known
	// before an attempt began, and lives, shows that the server has not crashed in
	// between.
	born   uint64
	server serverID
	// prepares: its statements may go beneath pgx (binary.go).
	prepares bool
	// texts: its parameters go as text.
	texts bool
}

var births atomic.Uint64

// session is a connection that we have to ourselves, and whose server has been
// looked at.
type session struct {
	db    *Database
	lease lease
	id    *identity
	// fresh: this is the connection's first use. One that was idle in its pool may have
	// been ended by the server without anybody noticing.
	fresh bool
	// spent: the caller's own SQL may have left something in the session. It is closed,
	// and not given back: no statement takes back all of that and nothing else.
	spent bool
	// back: it has been given back.
	back bool
}

// stale tells whether an error may be due to nothing but a connection that had been
// idle, or whose prepared statements somebody has taken away: what was asked is asked
// again of another, if that does no harm. There are no more of them than the pool has
// connections.
func (s *session) stale(ctx context.Context, err error) bool {
	return !s.fresh && (lost(err) || outdated(err)) && ctx.Err() == nil
}

// readAgain tells whether what was read is to be read again: also where the server asks for
// it, as it may where sessions begin at SERIALIZABLE by themselves.
func (s *session) readAgain(ctx context.Context, err error, try int) bool {
	return s.stale(ctx, err) || err != nil && fateOf(err) == fateAgain && try < tries && ctx.Err() == nil
}

// identityKey is where a connection keeps its *identity.
const identityKey = "github.com/lockstep-cache/lockstep/store/pgstore"

// session takes a connection. Its first use of each costs two round trips more, in
// which the server and the settings of the session are looked at. Those that are still
// at another server than the latest are closed.
func (db *Database) session(ctx context.Context) (*session, error) {
	for overtaken := 0; ; {
		s, err := db.anySession(ctx)
		switch {
		case errors.Is(err, errOvertaken) && overtaken < maxOvertaken:
			overtaken++
		case err != nil || db.server.Is(s.id.server):
			return s, err
		default:
			db.drop(s)
		}
	}
}

// maxOvertaken bounds how many connections to a server that was overtaken are passed
// over: the pool may make nothing but such.
const maxOvertaken = 10

func (db *Database) anySession(ctx context.Context) (*session, error) {
	if err := db.enter(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		db.leave()
		return nil, gaveUp(ctx, "waiting for a connection")
	}
	l, err := db.source.lease(ctx)
	if err != nil {
		db.leave()
		return nil, err
	}
	s := &session{db: db, lease: l}
	err = l.use(func(c *pgx.Conn) error {
		data := c.PgConn().CustomData()
		if id, ok := data[identityKey].(*identity); ok {
			s.id = id
			return nil
		}
		id, err := db.look(ctx, c)
		if err != nil {
			return err
		}
		s.fresh, s.id = true, id
		data[identityKey] = s.id
		return nil
	})
	if err != nil {
		db.drop(s)
		return nil, err
	}
	return s, nil
}

// look looks at the server of a connection that is used for the first time.
func (db *Database) look(ctx context.Context, c *pgx.Conn) (*identity, error) {
	if db.opts.Pooled {
		if err := poolable(c); err != nil {
			return nil, err
		}
	}
	seen, err := inspect(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := seen.check(db.opts, c.PgConn().PID()); err != nil {
		if db.opened {
			if seen.recovery {
				db.server.Refused(seen.server)
			}
			// It is no fault of a key or of a set.
			return nil, unavailable("a new session: %v", err)
		}
		return nil, err
	}
	if db.succession.overtaken(seen.server, seen.clock) {
		return nil, unavailable("a new session: %w", errOvertaken)
	}
	db.heard(seen.clock, 0)
	db.server.Met(seen.server)
	return &identity{pid: seen.pid, started: seen.started, user: seen.user, born: births.Add(1),
		server: seen.server, prepares: prepares(c), texts: seen.texts}, nil
}

// closed tells whether the driver has given the connection up.
func (s *session) closed() bool {
	if l, ok := s.lease.(poolLease); ok { // which allocates nothing
		return l.conn.Conn().IsClosed()
	}
	closed := true
	s.lease.use(func(c *pgx.Conn) error {
		closed = c.IsClosed()
		return nil
	})
	return closed
}

// release gives a session back whose transaction is over.
func (db *Database) release(s *session) {
	s.back = true
	if s.spent {
		s.close()
	}
	s.lease.release()
	db.leave()
}

// drop gives a session back that must not be used again. Closing the connection
// tells the server, which may take its time to notice; who has to be sure fences.
func (db *Database) drop(s *session) {
	s.close()
	db.release(s)
}

// forsake is deferred where methods of the program's values are called while the session is
// out: one that ends the goroutine (runtime.Goexit, as t.Fatal does) would take it along.
func (s *session) forsake() {
	if !s.back {
		s.db.drop(s)
	}
}

func (s *session) close() {
	s.lease.use(func(c *pgx.Conn) error {
		// The context has ended: Close then neither waits nor says good-bye in the
		// middle of something.
		c.Close(ended)
		return nil
	})
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// command is a statement and what becomes of its answer.
type command struct {
	sql  string
	args []any
	// binary are the arguments instead of args, in a session that prepares.
	binary *arguments
	// row is called with each row, if it is set.
	row func(scan func(dest ...any) error) error
	// tag is called at the end, if it is set.
	tag func(tag pgconn.CommandTag) error
	// failed, if it is set, says more of an error of this very command.
	failed func(err error) error
}

// run sends the commands in one round trip, and stops at the first error. In a
// session without a transaction several commands are one. When a connection meets a
// statement for the first time, the driver has it prepared, in a round trip before.
func (s *session) run(ctx context.Context, commands ...command) error {
	if !s.db.opts.Pooled {
		return s.send(ctx, commands...)
	}
	outside := false
	s.lease.use(func(c *pgx.Conn) error {
		outside = c.PgConn().TxStatus() == 'I'
		return nil
	})
	if outside {
		commands = s.ask(commands)
	}
	err := s.send(ctx, commands...)
	if errors.Is(err, errMoved) {
		s.lease.use(func(c *pgx.Conn) error {
			s.db.again(ctx, c)
			return nil
		})
	}
	return err
}

// send is run for what commits, which asks by itself where it is (lane.guard).
func (s *session) send(ctx context.Context, commands ...command) error {
	return s.lease.use(func(c *pgx.Conn) error {
		if len(commands) == 1 {
			m := commands[0]
			if m.binary != nil {
				return m.runBinary(ctx, c)
			}
			if len(m.args) == 0 { // not worth preparing
				return m.read(c.Query(ctx, m.sql, pgx.QueryExecModeSimpleProtocol))
			}
			return m.read(c.Query(ctx, m.sql, m.args...))
		}
		var batch pgx.Batch
		for _, m := range commands {
			batch.Queue(m.sql, m.args...)
		}
		results := c.SendBatch(ctx, &batch)
		var first error
		for _, m := range commands {
			if first = m.read(results.Query()); first != nil {
				break
			}
		}
		err := results.Close()
		if first == nil {
			first = err
		}
		return first
	})
}

func (m command) read(rows pgx.Rows, err error) error {
	if err = m.readRows(rows, err); err != nil && m.failed != nil {
		return m.failed(err)
	}
	return err
}

func (m command) readRows(rows pgx.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for m.row != nil && rows.Next() {
		if err := m.row(rows.Scan); err != nil {
			return err
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	if m.tag != nil {
		return m.tag(rows.CommandTag())
	}
	return nil
}

// rollback ends a transaction that has gone wrong, and gives the session back.
func (db *Database) rollback(ctx context.Context, s *session) {
	if err := s.run(ctx, command{sql: "ROLLBACK"}); err != nil {
		db.drop(s)
		return
	}
	db.release(s)
}

// commitCommand is COMMIT. The server answers it with ROLLBACK, and no error, when
// an earlier statement of the transaction has failed.
var commitCommand = command{sql: "COMMIT", tag: func(tag pgconn.CommandTag) error {
	if tag.String() != "COMMIT" {
		return errRolledBack
	}
	return nil
}}

var errRolledBack = errors.New("the server has rolled the transaction back")

const beginSQL = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
