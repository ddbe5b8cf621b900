package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/txconn"
)

// Join lets caches over stores of db (InJoined) write in a transaction that the program
// began by itself, in the *sql.DB of the stores or in another one at the same server. It
// is to be ended by the Joined's Commit or Rollback, and not by tx's. It costs some eight
// round trips, a cache's call in it four more than its statements do, which are prepared
// anew, and Commit two more than tx.Commit.
//
// The error is ErrInvalid when the transaction is over, or has been ended by a statement,
// and when it is one of another server.
//
// The transaction may have any isolation level. At REPEATABLE READ, the servers' default,
// what a cache reads in it is as it was at the transaction's first read, and a row that is
// to be made in a key-value table locks the gap that it goes into; READ COMMITTED is in
// fewer people's way. The connection may have any settings: the stores' statements run with
// their own, and the program's are back when the call returns. Rows of the program's own
// statements have to be closed before a cache is called, or the driver closes the
// connection. The program's savepoints may take back what was written through caches; those
// that begin with "lockstep" are the stores'.
//
// A call that its context interrupts costs the connection, and with it the transaction,
// which can only be rolled back then.
//
// Who forgets a transaction finds it rolled back after JoinTimeout, by tx.Rollback, as soon
// as a statement of the program's that is under way in it has returned. One that was ended
// past the Joined, by tx's own Commit or by the end of the context that it was begun with, is
// found out by a look at the rows that were written, when their locks are free. The
// connection of a transaction whose reply was lost is ended (KILL CONNECTION), and no other
// one's. To know it again, it takes a user-level lock (GET_LOCK) that it keeps for as
// long as it is open; RELEASE_ALL_LOCKS() must not be called in it.
func Join(ctx context.Context, db *Database, tx *sql.Tx, options ...lockstep.JoinOption) (*lockstep.Joined, error) {
	if db == nil {
		return nil, invalid("the database is nil")
	}
	if tx == nil {
		return nil, invalid("the transaction is nil")
	}
	if err := db.closed(); err != nil {
		return nil, err
	}
	t := newJoinedTxn(db, tx)
	if err := t.meet(ctx); err != nil {
		return nil, err
	}
	return lockstep.Join(db, t, options...)
}

func newJoinedTxn(db *Database, tx *sql.Tx) *joinedTxn {
	t := &joinedTxn{tx: tx}
	t.txn.joined = t
	// serial: whether a row is absent that a cache makes is said by its insertion, at
	// whatever isolation level. A set of more keys would need gaps to be locked, and does
	// not come this way: InJoined makes one change at a time.
	t.a = &attempt{
		db: db, s: programSession(tx), stamp: 1 + rand.Int64N(1<<63-1), begun: true, serial: true, verify: t.verify,
	}
	return t
}

// joinedSavepoint is there for as long as the transaction is the one that was joined.
const joinedSavepoint = "lockstep_joined"

// joinedTxn is a transaction of the program's, as a lockstep.Txn. What stores apply to it
// they apply as to one of their own, in a session that goes through the *sql.Tx: see
// joinsession.go.
//
// Its connection is the program's. Once database/sql has it back it may be somebody
// else's, and must be left alone. So it is ended only where it is known to be lost, since
// no pool gives away one that the driver has closed.
type joinedTxn struct {
	txn
	tx *sql.Tx
	// lost: the driver has closed the connection.
	lost bool
	// sent: its COMMIT was sent. replaced: it was found to be over, or another one to have
	// taken its place.
	sent, replaced bool
	// touched lock, one by one, the rows that sets were to write, and let them go: while
	// the transaction is open that cannot be done to those that they have written.
	touched []func(ctx context.Context, s *session) error

	mu      sync.Mutex
	undoing *txconn.Call // tx.Rollback, once it was called; guarded by mu
}

// touches notes which rows a set is to write, before it does.
func (t *txn) touches(lock func(ctx context.Context, s *session) error) {
	if t.joined != nil {
		t.joined.touched = append(t.joined.touched, lock)
	}
}

// Commit implements lockstep.Txn. COMMIT is sent as a statement, and tx.Commit has nothing
// left to do: the statement ends with its context, and then the connection is lost for
// certain, and can be ended.
func (t *joinedTxn) Commit(ctx context.Context) error {
	if t.over == nil {
		t.over = t.moved()
	}
	if t.over != nil {
		return t.undone(ctx, t.over)
	}
	t.over = errOver
	if err := t.same(ctx); err != nil {
		if t.replaced {
			t.undo() // of what may have taken its place
			return t.unknown(err)
		}
		return t.undone(ctx, err)
	}
	t.sent = true
	if err := t.a.s.run(ctx, "COMMIT AND NO CHAIN NO RELEASE"); err != nil {
		if fateOf(err) == fateUnknown {
			return t.unknown(err)
		}
		if rerr := t.undo().Wait(ctx); rerr != nil {
			return t.unknown(fmt.Errorf("%w; the rollback: %w", err, rerr))
		}
		return notApplied(err)
	}
	for _, f := range t.after {
		f()
	}
	txconn.Start(t.tx.Commit).Wait(ctx) // whatever it says
	return nil
}

// same makes sure that the transaction that is open is the one that was joined. After a
// deadlock in a set there is none, and nobody has committed it.
func (t *joinedTxn) same(ctx context.Context) error {
	err := t.a.s.run(ctx, "RELEASE SAVEPOINT "+joinedSavepoint)
	if errors.Is(err, sql.ErrTxDone) || number(err) == errNoSavepoint && number(t.over) != errDeadlock {
		t.replaced = true
	}
	return err
}

// undone rolls back because of why.
func (t *joinedTxn) undone(ctx context.Context, why error) error {
	if err := t.Rollback(ctx); err != nil {
		return err
	}
	return notApplied(why)
}

func (t *joinedTxn) unknown(cause error) error { return &unknownOutcome{attempt: t.a, cause: cause} }

// Rollback implements lockstep.Txn. database/sql itself rolls back a transaction whose
// context has ended, which is told from a commit by looking at the rows.
func (t *joinedTxn) Rollback(ctx context.Context) error {
	another := t.same(ctx)
	t.over = errOver
	err := t.undo().Wait(ctx)
	if err == nil && another == nil {
		return nil
	}
	briefly, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if applied, serr := t.Settle(briefly); serr == nil && !applied {
		return nil
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

// undoForgotten is undo, after a look at whether the transaction is still the one that
// was joined. A statement of the program's that is under way is waited for, and one whose
// rows are open costs the connection.
func (t *joinedTxn) undoForgotten() *txconn.Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.undoing == nil {
		t.undoing = txconn.Start(func() error {
			t.same(context.Background())
			return t.tx.Rollback()
		})
	}
	return t.undoing
}

// Settle implements lockstep.Txn. tx.Rollback needs no connection of the pool's, which may
// all be waiting for the transaction's rows.
func (t *joinedTxn) Settle(ctx context.Context) (applied bool, err error) {
	undone := t.undoForgotten().Wait(ctx)
	switch {
	case txconn.Left(undone):
		return false, gaveUp(ctx, "a statement in the transaction is still under way")
	case len(t.touched) == 0 && !t.sent:
		return false, nil // no cache has written anything
	}
	if err := t.a.db.closed(); err != nil {
		return false, err
	}
	if undone != nil {
		err = t.outlive(ctx, t.lost || closes(undone))
	}
	if err == nil && len(t.found) == 0 && !t.sent {
		return false, nil // a set that fails leaves nothing
	}
	if err == nil {
		applied, err = t.a.outcome(ctx)
	}
	switch {
	case !errors.Is(err, errUntold):
		return applied, err
	case !errors.Is(undone, sql.ErrTxDone) && !t.sent && !t.replaced:
		// It was us who have ended it, and nobody was seen to have done so before. The rows
		// know better, if they know.
		return false, nil
	}
	return false, fmt.Errorf("%w: mysql: %w", lockstep.ErrUnknownOutcome, err)
}

// closes tells whether an error of tx.Rollback, which has asked the driver, says that the
// driver had closed the connection.
func closes(err error) bool { return !errors.Is(err, sql.ErrTxDone) && number(err) == 0 }

// outlive returns when the transaction is over. A connection that is lost is ended. Of
// another one, which the program may have been given back, the transaction is waited for: it
// is over when the rows can be locked that it has written, for every statement that has
// written them was answered before. To lock them is enough here, where it is not in
// settling a commit of our own, of which a statement may be on its way.
func (t *joinedTxn) outlive(ctx context.Context, lost bool) error {
	db, f := t.a.db, t.a.s.fence
	if lost {
		err := db.end(ctx, f)
		if number(err) != errNotOwner {
			return elsewhere(err)
		}
		// It is another user's, and goes when the server sees that its client has.
	}
	s, err := db.open(ctx)
	if err != nil {
		return unasked(err)
	}
	defer s.close()
	if s.fence.server != f.server {
		return elsewhere(errElsewhere)
	}
	for i := 0; i < len(t.touched); {
		there, err := s.sees(ctx, f)
		if err != nil || !there {
			return err
		}
		switch err := t.touched[i](ctx, s); {
		case err == nil:
			i++
		case ctx.Err() != nil:
			return gaveUp(ctx, "the transaction is still open")
		case !collided(err):
			return unasked(err)
		}
	}
	return nil
}
