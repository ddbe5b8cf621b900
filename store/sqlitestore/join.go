package sqlitestore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"os"
	"sync"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/txconn"
)

// Join lets caches over stores of db (InJoined) write in a transaction that the program
// began by itself, in a *sql.DB of its own over the same file. It is to be ended by the
// Joined's Commit or Rollback, and not by tx's.
//
// It asks the transaction's connection some questions, and returns an error that is
// ErrInvalid when the transaction is over, when it is one of another file, not one of
// the driver modernc.org/sqlite (two SQLite libraries in one process do not see each
// other's locks), read-only by query_only, or not as durable as db: synchronous must be
// FULL or EXTRA, unless db was opened with AllowUnsafeDurability.
//
// A transaction that will write is best begun as one, with _txlock=immediate in the
// program's DSN. One that was begun otherwise takes the file's write lock at its first write,
// for which it waits as long as that write's context allows; if it has read before, and
// others have committed since, SQLite does not let it write any more, which is
// ErrUnavailable. From its first write on all other writes to the file wait for it, those
// of the caches until their CommitTimeout. Foreign keys are enforced if the program's connection
// enforces them. A mapped table in whose schema triggers or foreign keys change rows by
// themselves cannot be joined (ErrUnsupported): nobody would tell what they do.
//
// A statement of the program's own that never ends keeps a forgotten transaction from
// being ended, and its keys from memory.
func Join(ctx context.Context, db *Database, tx *sql.Tx, options ...lockstep.JoinOption) (*lockstep.Joined, error) {
	if db == nil {
		return nil, invalid("the database is nil")
	}
	if tx == nil {
		return nil, invalid("the transaction is nil")
	}
	select {
	case <-db.closing:
		return nil, lockstep.ErrClosed
	default:
	}
	t := &joinedTxn{tx: tx}
	t.sql = txconn.Conn{Tx: tx, Under: ctx}
	t.a = &attempt{db: db, conn: &conn{raw: &t.sql, stmts: map[string]driver.Stmt{}}, done: make(chan struct{}), unclear: true}
	close(t.a.done) // nothing of it runs on a goroutine of the attempt's
	t.a.verify = t.verifyJoined
	t.tables = map[any]any{}
	if err := t.check(); err != nil {
		return nil, err
	}
	if err := t.a.conn.script("SAVEPOINT " + joinedSavepoint); err != nil {
		return nil, notApplied(db.path, err)
	}
	return lockstep.Join(db, t, options...)
}

// joinedSavepoint is there for as long as the transaction is the one that was joined.
const joinedSavepoint = "lockstep_joined"

// joinedTxn is a transaction of the program's, as a lockstep.Txn. What stores apply to
// it they apply as to one of their own, by a connection that goes through the *sql.Tx.
type joinedTxn struct {
	txn
	tx  *sql.Tx
	sql txconn.Conn // its statements have the context of the call under way
	// locked: it has the file's write lock.
	locked bool
	// committing is the result of tx.Commit, once that was called, and undoing that
	// of tx.Rollback.
	committing, undoing *txconn.Call
	mu                  sync.Mutex // guards undoing
}

// check makes sure of what the promise rests on.
func (t *joinedTxn) check() error {
	db, c := t.a.db, t.a.conn
	if err := t.open(); err != nil {
		return err
	}
	var file string
	err := c.query("SELECT file FROM pragma_database_list WHERE name = 'main'", nil, func(row []driver.Value) error {
		file, _ = row[0].(string)
		return nil
	})
	if err != nil {
		return notApplied(db.path, err)
	}
	st, err := os.Stat(file)
	switch {
	case file == "":
		return invalid("the transaction is one of a database in memory, and not of %s", db.path)
	case err != nil:
		return unavailable("the transaction's file: %w", err)
	case !os.SameFile(st, db.file):
		return invalid("the transaction is one of %s, and not of %s", file, db.path)
	}
	readOnly, err := c.integer("PRAGMA query_only")
	if err != nil {
		return notApplied(db.path, err)
	}
	if readOnly != 0 {
		return invalid("the transaction's connection is read-only (PRAGMA query_only)")
	}
	synchronous, err := c.integer("PRAGMA main.synchronous")
	if err != nil {
		return notApplied(db.path, err)
	}
	least := int64(2)
	if db.opts.AllowUnsafeDurability {
		least = 1
	}
	if synchronous < least {
		return invalid("synchronous is %d on the transaction's connection, and %d is needed for durable commits", synchronous, least)
	}
	return nil
}

// open makes sure that a transaction is open on the connection: statements would commit
// by themselves otherwise. A second one cannot begin inside it, which only the right
// driver says in this way.
func (t *joinedTxn) open() error {
	err := t.a.conn.script("BEGIN")
	var se *sqlite.Error
	switch {
	case err == nil:
		t.a.conn.script("ROLLBACK")
		return invalid("the transaction has been ended by a statement")
	case errors.Is(err, sql.ErrTxDone):
		return invalid("%w", err)
	case t.sql.Under.Err() != nil:
		return gaveUp(t.sql.Under, "asking the transaction")
	case !errors.As(err, &se):
		return invalid("the transaction is not one of the driver modernc.org/sqlite: %w", err)
	case primary(err) != lib.SQLITE_ERROR:
		return notApplied(t.a.db.path, err)
	}
	return nil
}

// call prepares for a call, whose context is ctx.
func (t *joinedTxn) call(ctx context.Context) error {
	t.sql.Under = ctx
	return t.open()
}

// lock takes the file's write lock. A busy handler of the program's connection waits in
// SQLite, where the context interrupts it.
func (t *joinedTxn) lock(ctx context.Context, table string) error {
	if t.locked {
		return nil
	}
	err := retryBusy(ctx, t.a.db.closing, func() error {
		_, err := t.a.conn.exec("DELETE FROM " + inMain(table) + " WHERE 0") // it writes nothing
		var se *sqlite.Error
		if errors.As(err, &se) && se.Code() == lib.SQLITE_BUSY_SNAPSHOT {
			return unavailable("the transaction has read before, and others have committed since; begin it as one that writes (_txlock=immediate): %v", err)
		}
		return err
	})
	if primary(err) == lib.SQLITE_READONLY {
		return invalid("the transaction's connection is read-only: %w", err)
	}
	t.locked = err == nil
	return err
}

// toRead and toWrite return the transaction behind t, if it is one of db that can go on,
// for a call whose context is ctx.
func (db *Database) toRead(ctx context.Context, t lockstep.Txn) (*txn, error) {
	j, ok := t.(*joinedTxn)
	if !ok {
		return db.open(t)
	}
	x, err := db.open(&j.txn)
	if err == nil {
		err = j.call(ctx)
	}
	return x, err
}

func (db *Database) toWrite(ctx context.Context, t lockstep.Txn, table string) (*txn, error) {
	x, err := db.toRead(ctx, t)
	if j, ok := t.(*joinedTxn); ok && err == nil {
		if err = j.lock(ctx, table); err != nil {
			err = notApplied(db.path, err)
		}
	}
	return x, err
}

// Commit implements lockstep.Txn.
func (t *joinedTxn) Commit(ctx context.Context) error {
	if t.over != nil {
		if err := t.Rollback(ctx); err != nil {
			return err
		}
		return notApplied(t.a.db.path, t.over)
	}
	t.over = errOver
	t.sql.Under = ctx
	// Other savepoints of the program's end with it.
	if err := t.a.conn.script("RELEASE " + joinedSavepoint); err != nil {
		// Whoever has ended the one that was joined has left this one open perhaps.
		t.undo()
		return t.unknown(err)
	}
	t.committing = txconn.Start(t.tx.Commit)
	err := t.committing.Wait(ctx)
	if err == nil || !txconn.Left(err) && !errors.Is(err, sql.ErrTxDone) && fateOf(err) != fateUnknown {
		return notAppliedUnlessNil(t.a.db.path, err)
	}
	return t.unknown(err)
}

func notAppliedUnlessNil(path string, err error) error {
	if err == nil {
		return nil
	}
	return notApplied(path, err) // the driver has rolled it back
}

func (t *joinedTxn) unknown(cause error) error { return &unknownOutcome{attempt: t.a, cause: cause} }

// Rollback implements lockstep.Txn. database/sql itself rolls back a transaction whose
// context has ended, which is told from a commit by looking at the rows.
func (t *joinedTxn) Rollback(ctx context.Context) error {
	if t.over == nil {
		t.over = errOver
	}
	t.sql.Under = ctx
	another := t.a.conn.script("RELEASE " + joinedSavepoint)
	err := t.undo().Wait(ctx)
	if err == nil && another == nil {
		return nil
	}
	if !txconn.Left(err) {
		briefly, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if applied, serr := t.Settle(briefly); serr == nil && !applied {
			return nil
		}
	}
	return t.unknown(errors.Join(another, err))
}

// undo begins tx.Rollback, which waits for a statement of the program's to end.
func (t *joinedTxn) undo() *txconn.Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.undoing == nil {
		t.undoing = txconn.Start(t.tx.Rollback)
	}
	return t.undoing
}

// Settle implements lockstep.Txn. That the transaction is over shows in the write lock,
// which it had if it had written anything. A lock that is waited for is that of the
// transaction itself only until tx.Rollback, which needs no connection, has ended it; so
// the writers that have the lock of this process's writers, and wait for the file's, go
// on before the fence's turn comes.
func (t *joinedTxn) Settle(ctx context.Context) (applied bool, err error) {
	if t.committing != nil {
		if err := t.committing.Wait(ctx); err == nil {
			return true, nil
		} else if txconn.Left(err) {
			return false, gaveUp(ctx, "the commit is still under way")
		}
	}
	switch err := t.undo().Wait(ctx); {
	case txconn.Left(err):
		return false, gaveUp(ctx, "a statement in the transaction is still under way")
	case t.committing == nil && len(t.found) == 0:
		return false, nil // no cache has written anything
	case err == nil && t.committing == nil:
		// Unless statements of the program's have put it in the place of the one that was
		// joined, this is the answer. The rows know better, if they know.
		applied, err = t.txn.Settle(ctx)
		if errors.Is(err, lockstep.ErrUnknownOutcome) {
			return false, nil
		}
		return applied, err
	}
	return t.txn.Settle(ctx)
}

// verifyJoined is txn.verify where the program may have taken back some of the sets, by a
// savepoint of its own: one that is there shows that the transaction was committed. That
// none is there shows only that nothing which was written through caches was, and is
// taken for the other answer: it is what the caches are asked about.
func (t *joinedTxn) verifyJoined(c *conn) (bool, error) {
	told := false
	for _, found := range t.found {
		applied, err := found(c)
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
