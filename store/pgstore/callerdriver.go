package pgstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/lockstep-cache/lockstep"
)

func lendSQL(t lockstep.Txn) (*sql.Tx, error) {
	if x, ok := t.(*txn); ok {
		if _, ok := x.a.session.lease.(sqlLease); !ok {
			return nil, unsupported("the stores are over a *pgxpool.Pool; SQLTx needs one over a *sql.DB (OpenDatabaseSQL), and Tx works over both")
		}
	}
	l, err := lend(t)
	if err != nil {
		return nil, err
	}
	if l.sql == nil {
		if l.sql, err = newCallerSQL(l); err != nil {
			return nil, err
		}
	}
	return l.sql.tx, nil
}

// callerSQL lends a connection to database/sql, through a driver that passes on
// statements and nothing that ends the transaction. Going through database/sql's own
// interface makes it a real *sql.Tx, which is what people's code takes.
type callerSQL struct {
	db *sql.DB
	tx *sql.Tx
}

func newCallerSQL(l *loan) (*callerSQL, error) {
	lent := &lentConn{loan: l}
	// The connection is this session's until it is given back, and nobody else's, so
	// that it may be used outside of Raw.
	err := l.session.lease.(sqlLease).conn.Raw(func(dc any) error {
		var ok bool
		if lent.raw, ok = dc.(stdlibConn); !ok {
			return unsupported("the *sql.DB has connections of type %T, which is not pgx's own", dc)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(lender{lent})
	// The transaction's own context ends with txn, not with the call's.
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &callerSQL{db, tx}, nil
}

// close closes the statements and rows that were left open.
func (c *callerSQL) close() {
	c.tx.Rollback()
	c.db.Close()
}

// stdlibConn is what github.com/jackc/pgx/v5/stdlib's connections can do.
type stdlibConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
}

type lender struct{ lent *lentConn }

func (l lender) Connect(context.Context) (driver.Conn, error) { return l.lent, nil }
func (l lender) Driver() driver.Driver                        { return lenderDriver{} }

type lenderDriver struct{}

func (lenderDriver) Open(string) (driver.Conn, error) { return nil, errEnds }

// lentConn is the connection as database/sql sees it.
type lentConn struct {
	raw  stdlibConn
	loan *loan
}

func (c *lentConn) Close() error              { return nil }
func (c *lentConn) Begin() (driver.Tx, error) { return lentTx{c.loan}, nil }
func (c *lentConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return lentTx{c.loan}, nil
}

// lentTx lets database/sql think that it has ended the transaction only when it is us
// who end it. Otherwise it counts its own as over, and so must we.
type lentTx struct{ loan *loan }

func (t lentTx) Commit() error { return t.end() }

func (t lentTx) Rollback() error {
	if t.loan.usable() != nil {
		return nil
	}
	return t.end()
}

func (t lentTx) end() error {
	t.loan.fail(errEnds)
	return errEnds
}

func (c *lentConn) CheckNamedValue(v *driver.NamedValue) error { return c.raw.CheckNamedValue(v) }

func (c *lentConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext leaves nothing behind: database/sql closes the statement with its
// transaction.
func (c *lentConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.loan.admit(query); err != nil {
		return nil, err
	}
	s, err := c.raw.PrepareContext(ctx, query)
	if err != nil {
		return nil, c.loan.note(err)
	}
	return lentStmt{s, c}, nil
}

func (c *lentConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	query, args, err := c.admit(ctx, query, args)
	if err != nil {
		return nil, err
	}
	res, err := c.raw.ExecContext(ctx, query, args)
	return res, c.loan.note(err)
}

func (c *lentConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	query, args, err := c.admit(ctx, query, args)
	if err != nil {
		return nil, err
	}
	rows, err := c.raw.QueryContext(ctx, query, args)
	return rows, c.loan.note(err)
}

// admit is admitWith, for database/sql, which takes pgx's own arguments too.
func (c *lentConn) admit(ctx context.Context, query string, args []driver.NamedValue) (string, []driver.NamedValue, error) {
	values := make([]any, len(args))
	for i, a := range args {
		values[i] = a.Value
	}
	query, values, err := c.loan.admitWith(ctx, query, values)
	named := make([]driver.NamedValue, len(values))
	for i, v := range values {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return query, named, err
}

type lentStmt struct {
	driver.Stmt
	c *lentConn
}

func (s lentStmt) CheckNamedValue(v *driver.NamedValue) error { return s.c.CheckNamedValue(v) }

func (s lentStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.c.loan.usable(); err != nil {
		return nil, err
	}
	res, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	return res, s.c.loan.note(err)
}

func (s lentStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.c.loan.usable(); err != nil {
		return nil, err
	}
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	return rows, s.c.loan.note(err)
}
