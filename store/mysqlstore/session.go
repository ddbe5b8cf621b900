package mysqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/txconn"
)

// session is a connection that is ours from when it is taken out of the program's
// pool until it is closed. It is never put back: it has settings of its own, which
// would surprise the program's statements, as the program's would surprise ours.
//
// It belongs to one goroutine at a time.
type session struct {
	conn *sql.Conn
	// network is conn's, if it is known: NewConnector.
	network net.Conn
	// program is set in the place of conn where the connection is the program's, and has a
	// transaction open: joinedTxn.
	program *txconn.Conn

	fence  fence
	server serverID
	stmts  map[string]driver.Stmt

	// lockWait is the session's innodb_lock_wait_timeout in seconds.
	lockWait int
	// broken says that the connection is of no use; alive, that the server may still
	// be running a statement of it.
	broken, alive bool
	idleSince     time.Time

	// writer is what @lockstep_writer is: mark.
	writer string

	// values are the parameters of one call, and named the same for a call with a context
	// that the driver watches.
	values []driver.Value
	named  []driver.NamedValue
}

// fence identifies a session in the server for as long as it may do anything there:
// it holds a user-level lock of that name. See fence.go.
type fence struct {
	name   string
	id     int64 // the connection's, in that server
	server string
}

// setup is what the session's statements rely on, whatever the DSN or the server's
// defaults say. The first %s is how the server spells the isolation level, the
// second how it limits the time of a statement, the third how long to wait for a
// row.
const setup = `SET NAMES utf8mb4 COLLATE utf8mb4_bin, autocommit=1, sql_mode='` + sqlMode + `',
time_zone='+00:00', %s_isolation='READ-COMMITTED', %s_read_only=0, completion_type='NO_CHAIN', %s=0,
innodb_lock_wait_timeout=%d, sql_select_limit=DEFAULT, sql_safe_updates=0, sql_big_selects=1, sql_auto_is_null=0`

const sqlMode = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO"

// errMadeTables: a connection may have temporary tables, which hide those of their names:
// what is written to them goes with the connection.
var errMadeTables = errors.New("each connection that the *sql.DB gives has made tables before, and what they hide cannot be told")

// others is how many connections are taken in the place of one that has made tables.
const others = 16

// open takes a connection out of the program's pool and makes a session of it. Those that
// have made tables are closed: their number tells, for neither server lists the temporary
// ones.
func (db *Database) open(ctx context.Context) (s *session, err error) {
	for range others {
		if s, err = db.openOne(ctx); !errors.Is(err, errMadeTables) {
			break
		}
	}
	return s, err
}

func (db *Database) openOne(ctx context.Context) (_ *session, err error) {
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, gaveUp(ctx, "waiting for a connection")
		}
		return nil, err
	}
	s := &session{
		conn:     conn,
		fence:    fence{name: newFenceName()},
		stmts:    map[string]driver.Stmt{},
		lockWait: impatience,
	}
	conn.Raw(func(c any) error {
		if c, ok := c.(severable); ok {
			s.network = c.network
		}
		return nil
	})
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	// Somebody may have left a transaction open on it, which is not ours to commit.
	if err := s.run(ctx, "ROLLBACK AND NO CHAIN NO RELEASE"); err != nil {
		return nil, err
	}
	if db.server.dialect == "" {
		return s, nil // only to ask which server it is
	}
	settings := fmt.Sprintf(setup, db.server.txPrefix, db.server.txPrefix, db.server.timeLimit, s.lockWait)
	if db.server.snapshots {
		settings += ", innodb_snapshot_isolation=0"
	}
	if err := s.run(ctx, settings); err != nil {
		return nil, err
	}
	if made, err := s.madeTables(ctx); made || err != nil {
		return nil, cmp.Or(err, errMadeTables)
	}
	asked := time.Now()
	row, err := s.row(ctx, "SELECT CONNECTION_ID(), GET_LOCK('"+s.fence.name+"', 0), "+db.server.identity+", "+clockSQL+", SUBSTR(UUID(), 20), "+readOnlySQL)
	if err != nil {
		return nil, err
	}
	s.fence.id, _ = integer(row[0])
	s.fence.server = text(row[2])
	if locked, _ := integer(row[1]); locked != 1 {
		return nil, unavailable("the session's own lock was not granted")
	}
	now, _ := integer(row[3])
	db.clock.read(now)
	readOnly, _ := integer(row[5])
	started, err := s.begun(ctx, now, asked)
	if err != nil {
		return nil, err
	}
	return s, db.meet(s, text(row[4]), started, readOnly != 0)
}

// madeTables tells whether the connection has made any, or tried to. MariaDB counts the
// temporary ones apart.
func (s *session) madeTables(ctx context.Context) (made bool, err error) {
	err = s.stream(ctx, "SHOW SESSION STATUS WHERE Variable_name IN ('Com_create_table', 'Com_create_temporary_table')", func(row []driver.Value) error {
		made = made || text(row[1]) != "0"
		return nil
	})
	return made, err
}

// isTemporary tells whether a temporary table has the place of one that is named as in SQL.
func (s *session) isTemporary(ctx context.Context, table string) (bool, error) {
	row, err := s.row(ctx, "SHOW CREATE TABLE "+table)
	return err == nil && strings.HasPrefix(text(row[1]), "CREATE TEMPORARY"), err
}

// close ends the session for good.
func (s *session) close() {
	s.broken = true
	// ErrBadConn makes database/sql close the connection instead of keeping it.
	s.conn.Raw(func(any) error { return driver.ErrBadConn })
	s.conn.Close()
}

// raw runs f on the driver's connection, with the context for the driver.
func (s *session) raw(ctx context.Context, f func(ctx context.Context, c driver.Conn) error) (err error) {
	if s.program != nil {
		if err = f(ctx, s.program); number(err) == errReadOnlyTxn {
			err = invalid("the transaction is read-only: %w", err)
		}
		return err // whether the connection is lost is not for one error to say
	}
	if s.broken {
		return driver.ErrBadConn
	}
	whole := func() bool { return true }
	driverCtx := ctx
	if s.network != nil && ctx.Done() != nil {
		if err := ctx.Err(); err != nil {
			return err // nothing was sent
		}
		driverCtx, whole = context.Background(), sever(ctx, s.network) // the driver has nothing to watch
	}
	outer := s.conn.Raw(func(c any) error {
		err = f(driverCtx, c.(driver.Conn))
		return nil
	})
	if outer != nil {
		err = outer
	}
	if !whole() {
		s.broken = true // also where the answer was there before
		if err != nil && number(err) == 0 {
			// Not its cause, which may be anything: an error of the server's to another call.
			err = fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
	}
	if breaks(err) {
		s.broken = true
		s.alive = !errors.Is(err, driver.ErrBadConn)
	}
	return err
}

// usable tells whether an idle session's connection is still there. It costs a look
// at the socket, without which a connection that the server has closed would be an
// unknown outcome.
func (s *session) usable(ctx context.Context) bool {
	return !s.broken && s.raw(context.Background(), func(_ context.Context, c driver.Conn) error {
		if r, ok := c.(driver.SessionResetter); ok {
			return r.ResetSession(ctx)
		}
		return nil
	}) == nil
}

// run sends a statement without parameters or rows as text.
func (s *session) run(ctx context.Context, query string) error {
	return s.raw(ctx, func(ctx context.Context, c driver.Conn) error {
		_, err := c.(driver.ExecerContext).ExecContext(ctx, query, nil)
		return err
	})
}

// row sends a query as text and returns its first row, nil if there is none.
func (s *session) row(ctx context.Context, query string) (row []driver.Value, err error) {
	err = s.raw(ctx, func(ctx context.Context, c driver.Conn) error {
		rows, err := c.(driver.QueryerContext).QueryContext(ctx, query, nil)
		if err != nil {
			return err
		}
		return each(rows, func(cols []driver.Value) error {
			if row == nil {
				row = keep(cols)
			}
			return nil
		})
	})
	return row, err
}

// stream sends a query as text and calls f with each of its rows, whose bytes are only
// lent.
func (s *session) stream(ctx context.Context, query string, f func(row []driver.Value) error) error {
	return s.raw(ctx, func(ctx context.Context, c driver.Conn) error {
		rows, err := c.(driver.QueryerContext).QueryContext(ctx, query, nil)
		if err != nil {
			return err
		}
		return each(rows, f)
	})
}

// keep copies a row, whose bytes are the driver's buffer.
func keep(cols []driver.Value) []driver.Value {
	row := make([]driver.Value, len(cols))
	for i, v := range cols {
		if b, ok := v.([]byte); ok {
			v = append([]byte{}, b...)
		}
		row[i] = v
	}
	return row
}

// query runs a prepared statement and calls f with each of its rows, whose bytes are
// only lent. An error of f is returned when all rows have been read.
func (s *session) query(ctx context.Context, query string, args []any, f func(row []driver.Value) error) error {
	var fErr error
	err := s.prepared(ctx, query, args, func(ctx context.Context, stmt driver.Stmt) error {
		rows, err := s.ask(ctx, stmt)
		if err != nil {
			return err
		}
		return each(rows, func(row []driver.Value) error {
			if fErr == nil {
				fErr = f(row)
			}
			return nil
		})
	})
	if err == nil {
		err = fErr
	}
	return err
}

// exec runs a prepared statement. Inserted is what it has passed to LAST_INSERT_ID.
func (s *session) exec(ctx context.Context, query string, args ...any) (affected, inserted int64, err error) {
	err = s.prepared(ctx, query, args, func(ctx context.Context, stmt driver.Stmt) error {
		result, err := s.tell(ctx, stmt)
		if err != nil {
			return err
		}
		affected, _ = result.RowsAffected()
		inserted, _ = result.LastInsertId()
		return nil
	})
	return affected, inserted, err
}

// prepared lends f the prepared statement of a text, with its arguments in s.values.
func (s *session) prepared(ctx context.Context, query string, args []any, f func(ctx context.Context, stmt driver.Stmt) error) error {
	stmt, ok := s.stmts[query]
	if !ok {
		err := s.raw(ctx, func(ctx context.Context, c driver.Conn) (err error) {
			s.makeRoom()
			stmt, err = c.(driver.ConnPrepareContext).PrepareContext(ctx, query)
			return err
		})
		if err != nil {
			return err
		}
		s.stmts[query] = stmt
	}
	s.values = s.values[:0]
	for _, v := range args {
		s.values = append(s.values, v)
	}
	defer func() {
		clear(s.values) // a session is kept, and must not keep the program's values
		clear(s.named)
	}()
	return s.raw(ctx, func(ctx context.Context, _ driver.Conn) error { return f(ctx, stmt) })
}

// maxStatements is how many statements a session keeps prepared. A server has room for
// 16,382 of all its clients together, as a rule.
const maxStatements = 256

// makeRoom closes a statement, if there are so many, whichever: a session that uses more of
// them in turn then still has most when it comes to them again, and would have none of them
// if it always closed the oldest. It costs no round trip.
func (s *session) makeRoom() {
	for query, stmt := range s.stmts {
		if len(s.stmts) < maxStatements {
			return
		}
		stmt.Close()
		delete(s.stmts, query)
	}
}

// ask runs a statement that returns rows, and tell one that does not.
func (s *session) ask(ctx context.Context, stmt driver.Stmt) (driver.Rows, error) {
	if s.unwatched() {
		return stmt.Query(s.values)
	}
	return stmt.(driver.StmtQueryContext).QueryContext(ctx, s.names())
}

func (s *session) tell(ctx context.Context, stmt driver.Stmt) (driver.Result, error) {
	if s.unwatched() {
		return stmt.Exec(s.values)
	}
	return stmt.(driver.StmtExecContext).ExecContext(ctx, s.names())
}

// unwatched: the context that raw has for the driver never ends. The driver's calls that
// take none do the same as those that do, without a copy of all parameters.
func (s *session) unwatched() bool { return s.network != nil && s.program == nil }

func (s *session) names() []driver.NamedValue {
	s.named = s.named[:0]
	for i, v := range s.values {
		s.named = append(s.named, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return s.named
}

func each(rows driver.Rows, f func(row []driver.Value) error) error {
	cols := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(cols); {
		case err == io.EOF:
			return rows.Close()
		case err != nil:
			rows.Close()
			return err
		}
		if err := f(cols); err != nil {
			rows.Close()
			return err
		}
	}
}

// waits sets how long a statement waits for a locked row, in seconds.
func (s *session) waits(ctx context.Context, seconds int) error {
	if s.lockWait == seconds {
		return nil
	}
	err := s.run(ctx, fmt.Sprintf("SET innodb_lock_wait_timeout=%d", seconds))
	if err == nil {
		s.lockWait = seconds
	}
	return err
}

// integer reads a column of an integer type; false for NULL and everything else.
func integer(v driver.Value) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case uint64:
		return int64(v), true
	}
	return 0, false
}

func text(v driver.Value) string {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case string:
		return v
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}

// keyValue makes of a key column what keytext wants of one of that form.
func keyValue(form keytext.Form, v driver.Value) any {
	switch b, ok := v.([]byte); {
	case ok && form == keytext.Text:
		return string(b)
	case ok && form == keytext.Bytes:
		return b
	}
	return v
}
