// Package txconn makes a driver's connection of a *sql.Tx, so that what a store has
// written for connections of its own works in a transaction of the program's:
// database/sql does not give away the connection behind one.
package txconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
)

// Conn is a transaction as a driver.Conn. It belongs to one goroutine at a time.
type Conn struct {
	Tx *sql.Tx
	// Under, when it is set, is the context of every statement, whatever the one that
	// it is given.
	Under context.Context
}

var errEnds = errors.New("the transaction is the program's, and is begun and ended by it")

func (c *Conn) Close() error              { return nil } // the program's
func (c *Conn) Begin() (driver.Tx, error) { return nil, errEnds }
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *Conn) under(ctx context.Context) context.Context {
	if c.Under != nil {
		return c.Under
	}
	return ctx
}

func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.Tx.PrepareContext(c.under(ctx), query)
	if err != nil {
		return nil, err
	}
	return &stmt{c, s}, nil
}

func (c *Conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Tx.ExecContext(c.under(ctx), query, values(args)...)
}

func (c *Conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return rowsOf(c.Tx.QueryContext(c.under(ctx), query, values(args)...))
}

// stmt is a statement of it. database/sql closes it with the transaction.
type stmt struct {
	c    *Conn
	stmt *sql.Stmt
}

func (s *stmt) Close() error                               { return s.stmt.Close() }
func (s *stmt) NumInput() int                              { return -1 }
func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s *stmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.stmt.ExecContext(s.c.under(ctx), values(args)...)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return rowsOf(s.stmt.QueryContext(s.c.under(ctx), values(args)...))
}

func values(args []driver.NamedValue) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = a.Value
	}
	return out
}

type rows struct {
	rows    *sql.Rows
	columns []string
}

func rowsOf(r *sql.Rows, err error) (driver.Rows, error) {
	if err != nil {
		return nil, err
	}
	columns, err := r.Columns()
	if err != nil {
		r.Close()
		return nil, err
	}
	return &rows{r, columns}, nil
}

func (r *rows) Columns() []string { return r.columns }
func (r *rows) Close() error      { return r.rows.Close() }

// Next copies strings and bytes.
func (r *rows) Next(dest []driver.Value) error {
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
