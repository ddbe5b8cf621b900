package pgstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
)

// Join lets caches over stores of db (InJoined) write in a transaction that the program
// began by itself, in the pool of the stores or in another one. It is to be ended by the
// Joined's Commit or Rollback, and not by tx's. It costs two round trips, and Commit one
// more than tx.Commit. A tracer of the pool's is told of a query "lockstep" that was not
// sent, once for each call.
//
// The error is ErrUnsupported for a database that was opened with Pooled: nobody could end
// the session of a transaction that was forgotten. It is ErrInvalid when the transaction
// is over, aborted, or a savepoint's (Begin of a Tx); when it is one of another database;
// when it is read-only, or not at READ COMMITTED, which the stores' statements rely on;
// when synchronous_commit or another setting is one that OpenDatabase would refuse.
//
// An error of a statement aborts the transaction, as always with PostgreSQL. While a Joined's
// Commit or Rollback has not returned nil, tx is not to be used any more.
//
// Who forgets a transaction, or ends it by tx's own Commit, is found out after JoinTimeout,
// by a connection that is opened for it with the settings of tx's, in no pool: the
// transaction's id tells how it ended, and a session that is still in it is ended
// (pg_terminate_backend). A transaction in which no cache has written is left alone.
func Join(ctx context.Context, db *Database, tx pgx.Tx, options ...lockstep.JoinOption) (*lockstep.Joined, error) {
	if tx == nil {
		return nil, invalid("the transaction is nil")
	}
	if strings.Contains(fmt.Sprintf("%T", tx), "Nested") {
		return nil, invalid("the transaction is a savepoint inside another one (%T)", tx)
	}
	return join(ctx, db, pgxTx{tx}, options)
}

// JoinSQL is Join for a transaction of a *sql.DB whose driver is
// github.com/jackc/pgx/v5/stdlib; any other is refused with ErrUnsupported.
func JoinSQL(ctx context.Context, db *Database, tx *sql.Tx, options ...lockstep.JoinOption) (*lockstep.Joined, error) {
	if tx == nil {
		return nil, invalid("the transaction is nil")
	}
	return join(ctx, db, sqlTx{tx}, options)
}

func join(ctx context.Context, db *Database, tx programTx, options []lockstep.JoinOption) (*lockstep.Joined, error) {
	if db == nil {
		return nil, invalid("the database is nil")
	}
	if db.opts.Pooled {
		return nil, unsupported("the database was opened with Pooled: a transaction of the program's that is forgotten could not be ended behind a pooler")
	}
	if err := db.enter(); err != nil {
		return nil, err
	}
	defer db.leave()
	l := &joinLease{tx: tx, ctx: ctx}
	t := &joinedTxn{lease: l}
	t.a = &attempt{db: db, session: &session{db: db, lease: l, fresh: true}, verify: t.verifyJoined}
	if err := t.check(ctx); err != nil {
		return nil, err
	}
	return lockstep.Join(db, t, options...)
}

// programTx is a transaction of the program's.
type programTx interface {
	exec(ctx context.Context, query string, args ...any) error
	commit(ctx context.Context) error
	rollback(ctx context.Context) error
}

type pgxTx struct{ tx pgx.Tx }

func (t pgxTx) exec(ctx context.Context, query string, args ...any) error {
	_, err := t.tx.Exec(ctx, query, args...)
	return err
}
func (t pgxTx) commit(ctx context.Context) error   { return t.tx.Commit(ctx) }
func (t pgxTx) rollback(ctx context.Context) error { return t.tx.Rollback(ctx) }

type sqlTx struct{ tx *sql.Tx }

func (t sqlTx) exec(ctx context.Context, query string, args ...any) error {
	_, err := t.tx.ExecContext(ctx, query, args...)
	return err
}

// commit and rollback of database/sql take no context.
func (t sqlTx) commit(ctx context.Context) error   { return within(ctx, t.tx.Commit) }
func (t sqlTx) rollback(ctx context.Context) error { return within(ctx, t.tx.Rollback) }

func within(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("it has not returned: %w", context.Cause(ctx))
	}
}

// joinLease is the connection of a transaction of the program's, for as long as that is
// open. It is reached through the transaction, by an argument that pgx shows the
// connection to before it sends anything: when the transaction is over, the connection
// may be somebody else's already, and database/sql does not give it away at all.
type joinLease struct {
	tx  programTx
	ctx context.Context // of the call under way
	// conn is the connection, for the rest of the call, of a pgx.Tx: nobody ends that
	// meanwhile. database/sql may, when the transaction's context ends.
	conn *pgx.Conn
}

// call begins a call.
func (l *joinLease) call(ctx context.Context) { l.ctx, l.conn = ctx, nil }

func (l *joinLease) use(f func(c *pgx.Conn) error) error {
	if l.conn != nil {
		return f(l.conn)
	}
	v := &visit{f: f}
	err := l.tx.exec(l.ctx, "lockstep", v)
	switch {
	case v.conn != nil:
		if _, alone := l.tx.(pgxTx); alone {
			l.conn = v.conn
		}
		return v.err
	case err == nil, errors.Is(err, errForeign):
		return errForeign
	}
	return err
}

func (l *joinLease) own(context.Context) (*pgx.Conn, error) {
	return nil, unsupported("the connection is the program's")
}
func (l *joinLease) release() {}

// visit is such an argument.
type visit struct {
	f    func(c *pgx.Conn) error
	conn *pgx.Conn
	err  error
}

var (
	errVisited = errors.New("there is nothing to send")
	errForeign = unsupported("the transaction is not one of pgx's: its driver must be github.com/jackc/pgx/v5, or /v5/stdlib")
)

// Value is what database/sql asks for where the driver is not pgx's.
func (v *visit) Value() (driver.Value, error) { return nil, errForeign }

// RewriteQuery implements pgx.QueryRewriter.
func (v *visit) RewriteQuery(_ context.Context, c *pgx.Conn, _ string, _ []any) (string, []any, error) {
	v.conn, v.err = c, v.f(c)
	return "", nil, errVisited
}

// joinedTxn is a transaction of the program's, as a lockstep.Txn.
type joinedTxn struct {
	txn
	lease *joinLease
	// config opens another session as the transaction's.
	config *pgx.ConnConfig
	// sent: its commit was sent.
	sent bool
}

// check makes sure of what the promise rests on, and notes by what the transaction will
// be known.
func (t *joinedTxn) check(ctx context.Context) error {
	db := t.a.db
	err := t.lease.use(func(c *pgx.Conn) error {
		if err := inTransaction(c); err != nil {
			return err
		}
		seen, err := inspect(ctx, c)
		if err != nil {
			return err
		}
		var isolation, name string
		err = c.QueryRow(ctx, `SELECT current_setting('transaction_isolation'), current_database()::text, `+epochSQL,
			pgx.QueryExecModeExec).Scan(&isolation, &name, &t.a.epoch)
		if err != nil {
			return err
		}
		switch {
		case name != db.name:
			return invalid("the transaction is one of database %q, and not of %q", name, db.name)
		case seen.readOnly != "off":
			return invalid("the transaction is read-only")
		case isolation != "read committed":
			return invalid("the transaction's isolation level is %s, and must be read committed", isolation)
		}
		if err := seen.check(db.opts, c.PgConn().PID()); err != nil {
			return err
		}
		// How durable the program's transaction is need not be how durable the stores' are.
		lasting, other := seen.server, seen.server
		if lasting.crash = 0; t.a.epoch != nil {
			other.crash = *t.a.epoch
		}
		switch {
		case db.server.Is(lasting):
			seen.server = lasting
		case db.server.Is(other):
			seen.server = other
		default:
			return invalid("the transaction is one of another server than the stores', or the server was restarted and no store has used it since")
		}
		db.heard(seen.clock, 0)
		t.a.born = births.Add(1)
		t.a.id = identity{pid: seen.pid, started: seen.started, user: seen.user, born: t.a.born, server: seen.server}
		t.a.session.id = &t.a.id
		t.config = c.Config()
		return nil
	})
	switch {
	case err == nil || named(err):
		return err
	case over(err):
		return invalid("%w", err)
	}
	return notApplied(fateGone, err)
}

// over tells whether a transaction of the program's says that it has been ended.
func over(err error) bool { return errors.Is(err, pgx.ErrTxClosed) || errors.Is(err, sql.ErrTxDone) }

// inTransaction fails unless a transaction is open on the connection: statements would
// commit by themselves.
func inTransaction(c *pgx.Conn) error {
	switch status := c.PgConn().TxStatus(); {
	case c.IsClosed():
		return unavailable("the transaction's connection was lost")
	case status == 'E':
		return invalid("an error has aborted the transaction")
	case status != 'T':
		return invalid("the transaction has been ended by a statement")
	}
	return nil
}

// call prepares for a call, whose context is ctx.
func (t *joinedTxn) call(ctx context.Context) error {
	t.lease.call(ctx)
	err := t.lease.use(inTransaction)
	if over(err) {
		return invalid("%w", err)
	}
	return err
}

// Commit implements lockstep.Txn.
func (t *joinedTxn) Commit(ctx context.Context) error {
	if t.over != nil {
		err := t.over
		if rerr := t.Rollback(ctx); rerr != nil {
			return rerr
		}
		return notApplied(fateGone, err)
	}
	t.over, t.sent = errOver, true
	if err := t.recheck(ctx); err != nil {
		if t.a.xact != 0 && t.same(ctx) != nil || over(err) {
			t.lease.tx.rollback(ctx) // of what may have taken its place
			return t.unknown(err)
		}
		if rerr := t.lease.tx.rollback(ctx); rerr != nil {
			return t.unknown(fmt.Errorf("%w; the rollback: %w", err, rerr))
		}
		return notApplied(fateGone, err)
	}
	err := t.lease.tx.commit(ctx)
	if err == nil {
		return nil
	}
	if f := fateOf(err); f != fateUnknown {
		return notApplied(f, err)
	}
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return notApplied(fateGone, err)
	}
	return t.unknown(err)
}

// same makes sure, as far as can be asked, that the transaction that is open is the one in
// which the stores have written, and not one that statements have put in its place.
func (t *joinedTxn) same(ctx context.Context) error {
	if t.a.xact == 0 {
		return nil
	}
	t.lease.call(ctx)
	aborted := false
	err := t.lease.use(func(c *pgx.Conn) error {
		aborted = c.PgConn().TxStatus() == 'E'
		return inTransaction(c)
	})
	if err != nil {
		if aborted {
			return nil
		}
		return err
	}
	var xact string
	err = t.a.session.run(ctx, command{sql: recallSQL, row: func(scan func(...any) error) error {
		return scan(&xact, new(string), new(string), new(string))
	}})
	if err == nil && xact != strconv.FormatUint(t.a.xact, 10) {
		err = errVanished
	}
	return err
}

// recheck makes sure that the transaction is the one in which the stores have written,
// and that the promise can still be kept in it.
func (t *joinedTxn) recheck(ctx context.Context) error {
	if err := t.call(ctx); err != nil || t.a.xact == 0 {
		return err
	}
	var xact, isolation, readOnly, synchronous string
	err := t.a.session.run(ctx, command{sql: recallSQL, row: func(scan func(...any) error) error {
		return scan(&xact, &isolation, &readOnly, &synchronous)
	}})
	switch {
	case err != nil:
		return err
	case xact != strconv.FormatUint(t.a.xact, 10):
		return errVanished
	case synchronous == "off" && !t.a.db.opts.AllowUnsafeDurability:
		return changed("synchronous_commit", synchronous)
	}
	return nil
}

func (t *joinedTxn) unknown(cause error) error { return &unknownOutcome{attempt: t.a, cause: cause} }

// Rollback implements lockstep.Txn. database/sql itself rolls back a transaction whose
// context has ended, and a connection that is lost takes its transaction along; both are
// told from a commit by the transaction's id.
func (t *joinedTxn) Rollback(ctx context.Context) error {
	t.over = errOver
	vanished := t.same(ctx)
	err := t.lease.tx.rollback(ctx)
	if err == nil && vanished == nil {
		return nil
	}
	err = errors.Join(vanished, err)
	briefly, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if applied, serr := t.Settle(briefly); serr == nil && !applied {
		return nil
	}
	return t.unknown(err)
}

// Settle implements lockstep.Txn. It has a connection of its own: those of the pools may
// all be waiting for the transaction's rows. The program's cannot be used, for the program
// may be using it, and has perhaps given it back and to somebody else: so a session is
// ended only while the transaction's id is in progress.
func (t *joinedTxn) Settle(ctx context.Context) (applied bool, err error) {
	if t.a.xact == 0 && !t.sent {
		return false, nil // no cache has written anything
	}
	applied, err = t.settle(ctx)
	switch {
	case errors.Is(err, errUntold):
		return false, fmt.Errorf("%w: postgres: %w", lockstep.ErrUnknownOutcome, err)
	case err != nil:
		return false, notApplied(fateGone, err)
	}
	return applied, nil
}

func (t *joinedTxn) settle(ctx context.Context) (bool, error) {
	db := t.a.db
	if err := db.enter(); err != nil {
		return false, err
	}
	defer db.leave()
	c, err := pgx.ConnectConfig(ctx, t.config)
	if err != nil {
		return false, err
	}
	defer c.Close(ended)
	id, err := db.look(ctx, c)
	if err != nil {
		return false, err
	}
	s := &session{db: db, lease: ownLease{c}, id: id, fresh: true}
	if t.a.xact == 0 {
		return false, errUntold // it was committed without anything of the caches'
	}
	there, prepared, status, err := t.status(ctx, s)
	switch {
	case err != nil:
		return false, err
	case prepared:
		return false, errPrepared // its session is somebody else's by now
	case !there:
		return t.a.outcome(ctx, s, false)
	case status == inProgress:
		if there, err = t.a.fence(ctx, s); err != nil {
			return false, err
		}
	}
	return t.a.outcome(ctx, s, there)
}

// status tells whether the transaction's session is there, which shows that the server has
// not crashed, whether it is prepared, and what has become of its id.
func (t *joinedTxn) status(ctx context.Context, s *session) (there, prepared bool, status string, err error) {
	const query = `SELECT EXISTS (SELECT FROM pg_stat_get_activity($1::int) WHERE ` + startedSQL + ` = $2::bigint OR backend_start IS NULL AND usesysid::int8 = $3::int8),
	EXISTS (SELECT FROM pg_prepared_xacts WHERE transaction = $4::text::xid8::xid), coalesce(pg_xact_status($4::text::xid8), '')`
	err = s.run(ctx, command{sql: query, args: []any{int32(t.a.id.pid), t.a.id.started, t.a.id.user, strconv.FormatUint(t.a.xact, 10)},
		row: func(scan func(...any) error) error { return scan(&there, &prepared, &status) }})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "22023" {
		return false, false, "", nil // an id that was not given yet: the server has crashed
	}
	return there, prepared, status, err
}

// ownLease is a connection that is nobody else's.
type ownLease struct{ conn *pgx.Conn }

func (l ownLease) use(f func(c *pgx.Conn) error) error    { return f(l.conn) }
func (l ownLease) own(context.Context) (*pgx.Conn, error) { return l.conn, nil }
func (l ownLease) release()                               {}

// verifyJoined is txn.verify where the program may have taken back some of the sets, by a
// savepoint of its own: one that is there shows that the transaction was committed. That
// none is there shows only that nothing which was written through caches was, and is
// taken for the other answer: it is what the caches are asked about.
func (t *joinedTxn) verifyJoined(ctx context.Context, s *session) (bool, error) {
	told := false
	for _, found := range t.found {
		applied, err := found(ctx, s)
		switch {
		case errors.Is(err, errUntold):
		case err != nil || applied:
			return applied, err
		default:
			told = true
		}
	}
	if !told {
		return false, errUntold
	}
	return false, nil
}
