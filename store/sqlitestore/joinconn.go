package sqlitestore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
)

// txConn is a *sql.Tx of the program's as a driver's connection, so that what is written
// for our own connections works on it: database/sql does not give away the one behind it.
// Its statements have the context of the call under way.
type txConn struct {
	tx  *sql.Tx
	ctx context.Context
}

func (c *txConn) Close() error              { return nil } // the program's
func (c *txConn) Begin() (driver.Tx, error) { return nil, errEnds }
func (c *txConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(background, query)
}

func (c *txConn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	s, err := c.tx.PrepareContext(c.ctx, query)
	if err != nil {
		return nil, err
	}
	return &txStmt{c, s}, nil
}

func (c *txConn) ExecContext(_ context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.tx.ExecContext(c.ctx, query, values(args)...)
}

// txStmt is a statement of it. database/sql closes it with the transaction.
type txStmt struct {
	c    *txConn
	stmt *sql.Stmt
}

func (s *txStmt) Close() error                               { return s.stmt.Close() }
func (s *txStmt) NumInput() int                              { return -1 }
func (s *txStmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s *txStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

func (s *txStmt) ExecContext(_ context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.stmt.ExecContext(s.c.ctx, values(args)...)
}

func (s *txStmt) QueryContext(_ context.Context, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := s.stmt.QueryContext(s.c.ctx, values(args)...)
	if err != nil {
		return nil, err
	}
	columns, err := rows.Columns()
	if err != nil {
		rows.Close()
		return nil, err
	}
	return &txRows{rows, columns}, nil
}

func values(args []driver.NamedValue) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = a.Value
	}
	return out
}

type txRows struct {
	rows    *sql.Rows
	columns []string
}

func (r *txRows) Columns() []string { return r.columns }
func (r *txRows) Close() error      { return r.rows.Close() }

// Next copies strings and bytes, as the driver does.
func (r *txRows) Next(dest []driver.Value) error {
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	into := make([]any, len(dest))
	for i := range dest {
		dest[i] = nil
		into[i] = (*any)(&dest[i])
	}
	return r.rows.Scan(into...)
}
