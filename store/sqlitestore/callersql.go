package sqlitestore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"sync"

	lib "modernc.org/sqlite/lib"

	"github.com/lockstep-cache/lockstep"
)

// Tx returns the live transaction in which tx will commit, for the caller's own
// statements, and begins it if need be: from then on every other write to the file
// waits for it. The statements are committed with what tx writes through its
// caches, and rolled back when its function returns an error, or runs again. Some
// cache over a store of this package must be a part of tx already (In).
//
// The *sql.Tx belongs to the goroutine that runs the function. Its Commit and
// Rollback, and statements that would do the same, are refused: the transaction
// ends with tx. After an error that made SQLite roll the whole transaction back (a
// full disk, a statement interrupted by its context), every further statement
// fails, and so does the commit. What the statements do to the connection (a
// pragma, an attached file, a temporary table) ends with the transaction. They are
// for rows that no cache keeps: those are written through the caches, which send
// what they write when the function has returned, and so the statements do not see
// it.
func Tx(tx *lockstep.Tx) (*sql.Tx, error) {
	t, err := tx.Txn()
	if err != nil {
		return nil, err
	}
	return lend(t)
}

// lend gives the caller's own statements a transaction that can go on.
func lend(t lockstep.Txn) (*sql.Tx, error) {
	x, ok := t.(*txn)
	if !ok {
		return nil, invalid("the transaction is one of another database (%T)", t)
	}
	if x.over != nil {
		return nil, invalid("%w", x.over)
	}
	x.a.lent = true
	return x.sql.open(x.a.conn)
}

// callerSQL lends the connection of a transaction to database/sql, through a
// driver that passes on statements and nothing that ends the transaction. Going
// through database/sql's own interface makes it a real *sql.Tx, which is what
// people's code takes.
type callerSQL struct {
	db   *sql.DB
	tx   *sql.Tx
	lent *lentConn
}

func (c *callerSQL) open(conn *conn) (*sql.Tx, error) {
	if c.tx != nil {
		return c.tx, nil
	}
	c.lent = &lentConn{raw: conn.raw}
	c.db = sql.OpenDB(lender{c.lent})
	// The transaction's own context ends with txn, not with the call's.
	tx, err := c.db.BeginTx(background, nil)
	if err != nil {
		c.db.Close()
		return nil, err
	}
	c.tx = tx
	return tx, nil
}

// fail refuses every further statement.
func (c *callerSQL) fail(err error) {
	if c.tx != nil {
		c.lent.fail(err)
	}
}

// close takes the connection back, and returns the error that has ended the
// transaction from inside, if one has.
func (c *callerSQL) close() error {
	if c.tx == nil {
		return nil
	}
	err := c.lent.end()
	c.tx.Rollback() // closes the statements and rows that were left open
	c.db.Close()
	return err
}

type lender struct{ lent *lentConn }

func (l lender) Connect(context.Context) (driver.Conn, error) { return l.lent, nil }
func (l lender) Driver() driver.Driver                        { return lenderDriver{} }

type lenderDriver struct{}

func (lenderDriver) Open(string) (driver.Conn, error) { return nil, errEnds }

var errEnds = errors.New("sqlite: the transaction ends by Transact, and not by its own Commit, Rollback or SQL")

// lentConn is the connection as database/sql sees it.
type lentConn struct {
	raw driver.Conn

	mu     sync.Mutex
	ended  bool
	broken error // the error that has rolled the transaction back
}

func (c *lentConn) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	return c.broken
}

// usable tells whether a statement may run.
func (c *lentConn) usable(query string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.broken != nil:
		return c.broken
	case c.ended:
		return errOver
	case endsTransaction(query):
		return errEnds
	}
	return nil
}

// note remembers an error after which SQLite may have rolled the transaction
// back: everything that followed would be committed by itself.
func (c *lentConn) note(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	switch primary(err) {
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_ERROR, lib.SQLITE_MISMATCH, lib.SQLITE_RANGE,
		lib.SQLITE_TOOBIG, lib.SQLITE_AUTH, lib.SQLITE_SCHEMA:
		// The statement was undone, and the transaction goes on. A conflict clause
		// of ROLLBACK is the exception; COMMIT then fails, as no transaction is
		// open, and later statements are refused by the check below.
		if strings.Contains(err.Error(), "ROLLBACK") || !c.open() {
			break
		}
		return err
	}
	c.fail(err)
	return err
}

func (c *lentConn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
	}
}

// open tells whether the transaction is: a second one cannot begin inside it.
func (c *lentConn) open() bool {
	_, err := c.raw.(driver.ExecerContext).ExecContext(background, "BEGIN", nil)
	if err != nil {
		return true
	}
	c.raw.(driver.ExecerContext).ExecContext(background, "ROLLBACK", nil)
	return false
}

func (c *lentConn) Close() error              { return nil }
func (c *lentConn) Begin() (driver.Tx, error) { return lentTx{}, nil }
func (c *lentConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return lentTx{c}, nil
}

// lentTx lets database/sql think that it has ended the transaction only when it
// is us who end it.
type lentTx struct{ c *lentConn }

func (t lentTx) Commit() error { return errEnds }
func (t lentTx) Rollback() error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if !t.c.ended {
		// database/sql counts its own transaction as over; so must we.
		t.c.broken = errors.Join(t.c.broken, errEnds)
		return errEnds
	}
	return nil
}

func (c *lentConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(background, query)
}

func (c *lentConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.usable(query); err != nil {
		return nil, err
	}
	s, err := c.raw.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	if err != nil {
		return nil, c.note(err)
	}
	return lentStmt{s, c}, nil
}

func (c *lentConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.usable(query); err != nil {
		return nil, err
	}
	res, err := c.raw.(driver.ExecerContext).ExecContext(ctx, query, args)
	return res, c.note(err)
}

func (c *lentConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.usable(query); err != nil {
		return nil, err
	}
	rows, err := c.raw.(driver.QueryerContext).QueryContext(ctx, query, args)
	return rows, c.note(err)
}

type lentStmt struct {
	driver.Stmt
	c *lentConn
}

func (s lentStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.c.usable(""); err != nil {
		return nil, err
	}
	res, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	return res, s.c.note(err)
}

func (s lentStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.c.usable(""); err != nil {
		return nil, err
	}
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	return rows, s.c.note(err)
}
