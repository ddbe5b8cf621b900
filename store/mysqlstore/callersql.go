package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/lockstep-cache/lockstep"
)

// Tx returns the live transaction in which tx will commit, for the caller's own
// statements, and begins it if need be. The statements are committed with what tx
// writes through its caches, and rolled back when its function returns an error, or
// runs again. Some cache over a store of this package must be a part of tx already
// (In).
//
// The *sql.Tx belongs to the goroutine that runs the function. It runs at READ
// COMMITTED, or in a Database with a mapped table at REPEATABLE READ, and its rows must
// be closed before the function returns. Statements are those that read or change rows,
// savepoints and temporary tables; whatever ends the transaction, or might (DDL, SET, CALL), is refused, as are the *sql.Tx's
// own Commit and Rollback: the transaction ends with tx. What a cache would write to a
// temporary table that hides its own is refused. After an error that has
// made the server roll the whole transaction back (a deadlock, a lost connection, a
// statement interrupted by its context), every further statement fails, and so does
// the commit. They are for rows that no cache keeps: those are written through the
// caches, which send what they write when the function has returned, and so the
// statements do not see it.
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
	return x.sql.open(x.ctx, x.a.s)
}

// callerSQL lends the connection of a transaction to database/sql, through a driver
// that passes on statements and nothing that ends the transaction. Going through
// database/sql's own interface makes it a real *sql.Tx, which is what people's code
// takes.
type callerSQL struct {
	db   *sql.DB
	tx   *sql.Tx
	lent *lentConn
}

// lentSavepoint is there for as long as the transaction is the one that was lent.
const lentSavepoint = "lockstep_lent"

func (c *callerSQL) open(ctx context.Context, s *session) (*sql.Tx, error) {
	if c.tx != nil {
		return c.tx, nil
	}
	if err := s.mark(ctx, ""); err != nil {
		return nil, err
	}
	if err := s.run(ctx, "SAVEPOINT "+lentSavepoint); err != nil {
		return nil, err
	}
	lent := &lentConn{}
	// The connection is this session's until it is closed, and nobody else's, so that
	// it may be used outside of Raw.
	if err := s.raw(ctx, func(_ context.Context, raw driver.Conn) error { lent.raw = raw; return nil }); err != nil {
		return nil, err
	}
	db := sql.OpenDB(lender{lent})
	// The transaction's own context ends with txn, not with the call's.
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		db.Close()
		return nil, err
	}
	c.db, c.tx, c.lent = db, tx, lent
	return tx, nil
}

// broken is the error that has ended the transaction from inside, if one has.
func (c *callerSQL) broken() error {
	if c.tx == nil {
		return nil
	}
	c.lent.mu.Lock()
	defer c.lent.mu.Unlock()
	return c.lent.broken
}

// hides tells whether a temporary table of the caller's has the place of one that a store
// writes, named as in SQL.
func (c *callerSQL) hides(ctx context.Context, s *session, table string) (bool, error) {
	if c.tx == nil {
		return false, nil
	}
	c.lent.mu.Lock()
	temporary := c.lent.temporary
	c.lent.mu.Unlock()
	if !temporary {
		return false, nil
	}
	return s.isTemporary(ctx, table)
}

// fail refuses every further statement.
func (c *callerSQL) fail(err error) {
	if c.tx != nil {
		c.lent.fail(err)
	}
}

// close takes the connection back.
func (c *callerSQL) close() {
	if c.tx == nil {
		return
	}
	c.lent.end()
	c.tx.Rollback() // closes the statements and rows that were left open
	c.db.Close()
}

type lender struct{ lent *lentConn }

func (l lender) Connect(context.Context) (driver.Conn, error) { return l.lent, nil }
func (l lender) Driver() driver.Driver                        { return lenderDriver{} }

type lenderDriver struct{}

func (lenderDriver) Open(string) (driver.Conn, error) { return nil, errEnds }

var (
	errEnds    = errors.New("mysql: the transaction ends by Transact, and not by its own Commit, Rollback or SQL")
	errNotHere = errors.New("mysql: only statements that read or change rows can run in this transaction; " +
		"others, such as DDL, SET and CALL, may end it")
)

// lentConn is the connection as database/sql sees it.
type lentConn struct {
	raw driver.Conn

	mu     sync.Mutex
	ended  bool
	broken error // the error that has rolled the transaction back
	// temporary: a statement may have made a temporary table.
	temporary bool
}

func (c *lentConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
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
	}
	c.temporary = c.temporary || strings.Contains(strings.ToUpper(query), "TEMPORARY")
	return staysInside(query)
}

// note remembers an error after which the server has rolled the transaction back, or
// may have: everything that followed would be committed by itself.
func (c *lentConn) note(err error) error {
	if err == nil || err == io.EOF || err == driver.ErrSkip {
		return err
	}
	// A wait for a lock that has ended takes the transaction along if
	// innodb_rollback_on_timeout says so.
	if n := number(err); breaks(err) || n == errDeadlock || n == errLockWait || n == errChanged {
		c.fail(err)
	}
	return err
}

func (c *lentConn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
	}
}

func (c *lentConn) Close() error              { return nil }
func (c *lentConn) Begin() (driver.Tx, error) { return lentTx{c}, nil }
func (c *lentConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return lentTx{c}, nil
}

// lentTx lets database/sql think that it has ended the transaction only when it is
// us who end it.
type lentTx struct{ c *lentConn }

func (t lentTx) Commit() error { t.c.fail(errEnds); return errEnds }
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

func (c *lentConn) CheckNamedValue(v *driver.NamedValue) error {
	return c.raw.(driver.NamedValueChecker).CheckNamedValue(v)
}

func (c *lentConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
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
	if err != nil {
		return nil, c.note(err)
	}
	return lentRows{rows, c}, nil
}

type lentStmt struct {
	driver.Stmt
	c *lentConn
}

func (s lentStmt) CheckNamedValue(v *driver.NamedValue) error { return s.c.CheckNamedValue(v) }

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
	if err != nil {
		return nil, s.c.note(err)
	}
	return lentRows{rows, s.c}, nil
}

// lentRows notes errors that come between two rows.
type lentRows struct {
	driver.Rows
	c *lentConn
}

func (r lentRows) Next(dest []driver.Value) error { return r.c.note(r.Rows.Next(dest)) }
func (r lentRows) Close() error                   { return r.c.note(r.Rows.Close()) }
