package pgstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
)

// Tx returns the live transaction in which tx will commit, for the caller's own
// statements, and begins it if need be. The statements are committed with what tx
// writes through its caches, and rolled back when its function returns an error, or
// runs again. Some cache over a store of this package must be a part of tx already
// (In). It works over a pool and over a *sql.DB alike; SQLTx is for code that wants
// database/sql's own type. A transaction with statements of the caller's own costs four
// round trips more than one without.
//
// The pgx.Tx belongs to the goroutine that runs the function, and ends with it. It
// runs at READ COMMITTED. Its rows and the results of its batches must be closed
// when the function returns: with some left open the transaction is not committed.
// An error of a statement aborts the transaction, as always with PostgreSQL, unless
// a savepoint is rolled back to (Begin gives one): if the function returns nil after
// it all the same, the transaction is not committed, and the error says why.
//
// Its Commit and Rollback are refused with ErrInvalid, and so are statements that end
// the transaction, and those that would outlast it: SET without LOCAL, LISTEN, PREPARE
// and their like. What may leave something behind in the session all the same (session
// locks, set_config, temporary tables, cursors WITH HOLD, DO, CALL, Prepare, Conn,
// LargeObjects) costs a connection: it is closed when the transaction is over; with
// DatabaseOptions.Pooled it is refused (ErrUnsupported). What is
// done by functions and triggers of the database's own is not seen.
//
// The statements are for rows that no cache keeps: those are written through the
// caches, which send what they write when the function has returned, and so the
// statements do not see it. What they set by SET LOCAL holds for the stores' statements, too; a setting
// that the promise rests on is looked at before the commit.
func Tx(tx *lockstep.Tx) (pgx.Tx, error) {
	t, err := tx.Txn()
	if err != nil {
		return nil, err
	}
	return lendPgx(t)
}

// SQLTx is Tx for code that takes database/sql's type. The stores must be over a
// *sql.DB (OpenDatabaseSQL); over a pool it is ErrUnsupported. Both may be used in one
// transaction.
func SQLTx(tx *lockstep.Tx) (*sql.Tx, error) {
	t, err := tx.Txn()
	if err != nil {
		return nil, err
	}
	return lendSQL(t)
}

// lend gives the caller's own statements a transaction that can go on.
func lend(t lockstep.Txn) (*loan, error) {
	x, ok := t.(*txn)
	if !ok {
		return nil, invalid("the transaction is one of another database (%T)", t)
	}
	if x.over != nil {
		return nil, invalid("%w", x.over)
	}
	if x.loan != nil {
		return x.loan, nil
	}
	var xact string
	err := x.a.session.run(x.ctx, command{sql: lendXactSQL, row: func(scan func(...any) error) error { return scan(&xact, &x.a.epoch) }})
	if err == nil {
		x.a.xact, err = strconv.ParseUint(xact, 10, 64)
	}
	if err != nil {
		x.over = notApplied(x.a.before(x.ctx, err), err)
		return nil, x.over
	}
	x.wrote = true
	x.loan = &loan{session: x.a.session}
	x.a.session.lease.use(func(c *pgx.Conn) error { x.loan.conn = c; return nil })
	return x.loan, nil
}

// loan is a transaction in the hands of the caller's own SQL: from when it is asked
// for until a store goes on with the transaction.
type loan struct {
	session *session
	conn    *pgx.Conn
	pgx     pgx.Tx
	sql     *callerSQL

	mu     sync.Mutex
	over   error // refuses every further statement
	failed error // why the transaction must not be committed
	last   error // of a statement
}

var (
	errEnds = invalid("the transaction ends by Transact, and not by its own Commit, Rollback or SQL")
	errStay = invalid("what this statement does to the session would outlast the transaction; " +
		"there are SET LOCAL, pg_advisory_xact_lock, and the pool's own connections")
	errNotHere = invalid("the statement is not one of those that run in this transaction: they read or change rows or the schema")
	// errVanished: by a way that was not seen for one, past the statements that are
	// looked at.
	errVanished = errors.New("the caller's own SQL has ended the transaction")
)

// admit tells whether a statement may be sent, which nothing rewrites any more.
func (l *loan) admit(query string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over != nil {
		return l.over
	}
	if l.conn.PgConn().ParameterStatus("standard_conforming_strings") == "off" {
		return invalid("standard_conforming_strings is off, with which a statement cannot be told from a string")
	}
	stays, err := staysInside(query)
	switch {
	case stays || err != nil && l.session.db.opts.Pooled:
	case l.session.db.opts.Pooled:
		return errPooledStay
	default:
		l.session.spent = true
	}
	return err
}

// spend notes that the session is of no use to others any more.
func (l *loan) spend() {
	if l.session.db.opts.Pooled {
		l.fail(errPooledStay)
		return
	}
	l.session.spent = true
}

// usable tells whether the loan goes on.
func (l *loan) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// note remembers what has aborted the transaction, to tell it in the end.
func (l *loan) note(err error) error {
	var pg *pgconn.PgError
	server := errors.As(err, &pg)
	if server && pg.Code != inAborted || !server && err != nil && l.conn.IsClosed() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.last = err
	}
	return err
}

// inAborted is the SQLSTATE of every statement that follows the one that has aborted
// a transaction.
const inAborted = "25P02"

// fail refuses every further statement, and the commit.
func (l *loan) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over == nil {
		l.over, l.failed = err, err
	}
}

// end takes the transaction back. Its error says why it must not be committed.
// Nothing of it asks the server.
func (l *loan) end() error {
	l.mu.Lock()
	if l.over == nil {
		l.over = errOver
	}
	failed, last := l.failed, l.last
	l.mu.Unlock()
	server := l.conn.PgConn()
	open := server.IsBusy()
	if open {
		// Who closed them would have to read them to their end, which may be far.
		l.conn.Close(ended)
	}
	if l.sql != nil {
		l.sql.close()
	}
	switch {
	case failed != nil:
		return failed
	case open:
		return invalid("rows, or the results of a batch, were still open when the function returned")
	case server.IsClosed():
		return unavailable("the connection was lost: %w", orUnseen(last))
	case server.TxStatus() == 'E':
		last = orUnseen(last)
		return notApplied(fateOf(last), fmt.Errorf("a statement has aborted the transaction: %w", last))
	}
	return nil
}

func orUnseen(err error) error {
	if err == nil {
		return errors.New("no statement has told why")
	}
	return err
}

// recall takes the transaction back from the caller's own SQL, if it has it, and makes
// sure that it is the one that was lent, and that the promise can still be kept in it.
// One that has vanished was committed or rolled back, and whatever a store did now
// would be committed by itself.
func (t *txn) recall(ctx context.Context) error {
	if t.loan == nil {
		return nil
	}
	l := t.loan
	t.loan = nil
	if err := l.end(); err != nil {
		return err
	}
	// The server tells this one by itself, and pgx sends nothing as text without it.
	if encoding := l.conn.PgConn().ParameterStatus("client_encoding"); encoding != "UTF8" {
		return changed("client_encoding", encoding)
	}
	var xact, isolation, readOnly, synchronous string
	err := t.a.session.run(ctx, command{sql: recallSQL, row: func(scan func(...any) error) error {
		return scan(&xact, &isolation, &readOnly, &synchronous)
	}})
	switch {
	case err != nil:
		return notApplied(t.a.before(ctx, err), err)
	case xact != strconv.FormatUint(t.a.xact, 10):
		return errVanished
	case isolation != "read committed":
		return changed("transaction_isolation", isolation)
	case readOnly != "off":
		return changed("transaction_read_only", readOnly)
	case synchronous == "off" && !t.a.db.opts.AllowUnsafeDurability:
		return changed("synchronous_commit", synchronous)
	}
	return nil
}

func changed(setting, value string) error {
	return invalid("the caller's own SQL has set %s to %s in the transaction", setting, value)
}

const (
	lendXactSQL = `SELECT pg_current_xact_id()::text, ` + epochSQL
	// A transaction of its own, which this statement would be, has no id.
	recallSQL = `SELECT coalesce(pg_current_xact_id_if_assigned()::text, ''),
	current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('synchronous_commit')`
)

// vanished is the end of a transaction that the caller's SQL has ended. The session
// knows which way, for it has been there since.
func (t *txn) vanished(ctx context.Context) error {
	var status *string
	err := t.a.session.run(ctx, command{sql: statusSQL, args: []any{strconv.FormatUint(t.a.xact, 10)},
		row: func(scan func(...any) error) error { return scan(&status, new(*int64)) }})
	t.a.over(false) // it was not asked for
	t.a.verify = t.verify
	if err != nil || status == nil || *status != inProgress {
		t.a.xact = 0
	}
	if err == nil && status != nil && *status != inProgress {
		applied := *status == "committed"
		t.a.verify = func(context.Context, *session) (bool, error) { return applied, nil }
	}
	t.a.db.drop(t.a.session)
	return &unknownOutcome{attempt: t.a, cause: errVanished}
}
