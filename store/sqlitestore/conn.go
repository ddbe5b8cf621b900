package sqlitestore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
)

// conn is one connection and its prepared statements, used by one goroutine at a
// time.
//
// It is the driver's connection and not a *sql.Conn: database/sql costs a tenth
// of a point read, and would hide which statements are prepared. It calls the
// driver without a context that can end. Given one, the driver starts a
// goroutine for each statement, and answers with the context's error also when
// the statement has succeeded (stmt.exec overwrites the result), which would
// turn committed rows into unknown ones. Who wants to stop looks at the context
// between two statements.
type conn struct {
	raw   driver.Conn
	stmts map[string]driver.Stmt
	args  []driver.NamedValue

	// heard is told of rows, see watch; watched says that the driver knows of us.
	heard   func(r rowName, what string)
	watched bool
}

var background = context.Background()

// dsn names path as SQLite's URI syntax wants it. The driver cuts a DSN at its
// first question mark, so that one in the path must be escaped, as SQLite's own
// parser demands.
func dsn(path, mode string) string {
	p := filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" {
		p = "/" + p
	}
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return "file:" + strings.Join(segments, "/") + "?mode=" + mode + "&_error_rc=1&_time_format=sqlite"
}

// connect opens the file and applies the pragmas in the order given.
func connect(path, mode string, pragmas ...string) (*conn, error) {
	connector, err := sqlite.NewConnector(dsn(path, mode))
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(background)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw, stmts: map[string]driver.Stmt{}}
	for _, p := range pragmas {
		if err := c.script("PRAGMA " + p); err != nil {
			raw.Close()
			return nil, fmt.Errorf("PRAGMA %s: %w", p, err)
		}
	}
	return c, nil
}

func (c *conn) close() error {
	for _, s := range c.stmts {
		s.Close()
	}
	c.stmts = nil
	if c.watched { // the driver would keep it, and us, for ever
		c.raw.(sqlite.HookRegisterer).RegisterPreUpdateHook(nil)
	}
	return c.raw.Close()
}

// script runs SQL that is not worth keeping prepared.
func (c *conn) script(query string) error {
	_, err := c.raw.(driver.ExecerContext).ExecContext(background, query, nil)
	return err
}

func (c *conn) prepare(query string) (driver.Stmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.raw.(driver.ConnPrepareContext).PrepareContext(background, query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = s
	return s, nil
}

// bind numbers the arguments. The slice is the connection's own, and good until
// the next statement.
func (c *conn) bind(args []any) []driver.NamedValue {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args
}

// exec runs a prepared statement and returns the number of rows it changed.
func (c *conn) exec(query string, args ...any) (int64, error) {
	s, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := s.(driver.StmtExecContext).ExecContext(background, c.bind(args))
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// query runs a prepared statement and calls each with every row. The slice is
// used again for the next row; strings and byte slices in it are copies.
func (c *conn) query(query string, args []any, each func(row []driver.Value) error) (err error) {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(background, c.bind(args))
	if err != nil {
		return err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(row); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// value returns the only column of a query's only row, nil if there is no row.
func (c *conn) value(query string, args ...any) (v driver.Value, err error) {
	err = c.query(query, args, func(row []driver.Value) error {
		v = row[0]
		return nil
	})
	return v, err
}

// integer is value for a query that answers with a number; NULL and no row are 0.
func (c *conn) integer(query string, args ...any) (int64, error) {
	v, err := c.value(query, args...)
	if err != nil {
		return 0, err
	}
	n, ok := v.(int64)
	if !ok && v != nil {
		return 0, fmt.Errorf("%s: %v (%T) is not an integer", query, v, v)
	}
	return n, nil
}
