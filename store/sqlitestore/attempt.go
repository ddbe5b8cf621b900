package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	lib "modernc.org/sqlite/lib"

	"github.com/lockstep-cache/lockstep"
)

// attempt is one write transaction, from the moment it has the write lock of
// this process until its fate is known.
//
// It runs on a goroutine of its own, unless the caller is patient, because a
// call into SQLite cannot be left: a sync that hangs hangs its caller. When the
// caller's context ends first, one compare-and-swap decides between the two
// answers that are true: the attempt had not reached its COMMIT, which it then
// never sends, and nothing is applied; or it had, and the outcome is unknown
// until the call returns. Interrupting COMMIT is no third way: SQLite looks at
// the interrupt before it has written anything, so that it would change nothing
// but how sure we are.
type attempt struct {
	db    *Database
	conn  *conn
	phase atomic.Uint32

	// done is closed when the fields below are final and the lock is given back.
	done   chan struct{}
	err    error // nil when committed
	result any   // what the body has made of it, for the caller and for Settle
	// unclear says that the statement that commits has failed and may have committed
	// all the same, or has left its frames in the log, where a recovery after a crash
	// may find them.
	unclear bool
	// lent says that the caller's SQL has run on the connection.
	lent bool
	// verify tells, with the write lock held, whether the rows that the attempt
	// has written are there. It is set before COMMIT is sent.
	verify func(c *conn) (applied bool, err error)
}

const (
	working    = iota // nothing that commits has been sent
	committing        // the statement that commits is on its way
	abandoned         // the caller has left, and has been told "not applied"
)

var errAbandoned = errors.New("the caller has left")

// unknownOutcome is the error of a commit that may or may not have been applied.
type unknownOutcome struct {
	attempt *attempt
	cause   error
}

func (e *unknownOutcome) Error() string {
	return fmt.Sprintf("%v: sqlite: %v", lockstep.ErrUnknownOutcome, e.cause)
}
func (e *unknownOutcome) Unwrap() error        { return e.cause }
func (e *unknownOutcome) Is(target error) bool { return target == lockstep.ErrUnknownOutcome }

// write runs body as one attempt. Its error is an *unknownOutcome or says that
// nothing was applied. Body must touch nothing of the caller's: it may go on for
// a moment after write has returned.
func (db *Database) write(ctx context.Context, body func(ctx context.Context, a *attempt) error) (any, error) {
	a, err := db.newAttempt(ctx)
	if err != nil {
		return nil, err
	}
	return a.wait(ctx, func() { a.finish(a.run(ctx, body)) })
}

// run calls body. It runs methods of the program's values, and one that panics
// must not keep the write lock.
func (a *attempt) run(ctx context.Context, body func(ctx context.Context, a *attempt) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.unclear = a.unclear || a.phase.Load() == committing
			err = invalid("a value's own method has panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return body(ctx, a)
}

func (db *Database) newAttempt(ctx context.Context) (*attempt, error) {
	if ctx.Err() != nil {
		return nil, gaveUp(ctx, "waiting for the write lock")
	}
	c, err := db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	if err := db.sameFile(); err != nil {
		db.release(c, true)
		return nil, err
	}
	return &attempt{db: db, conn: c, done: make(chan struct{})}, nil
}

// wait runs the attempt and returns when it is done or ctx has ended.
func (a *attempt) wait(ctx context.Context, run func()) (any, error) {
	if ctx.Done() == nil || lockstep.Patient(ctx) || lockstep.Hasty(ctx) {
		run()
		return a.answer()
	}
	early := ctx.Err() != nil && a.phase.CompareAndSwap(working, abandoned)
	go run() // an attempt that is abandoned already has to be ended
	if early {
		return nil, gaveUp(ctx, "the commit was not reached in time")
	}
	select {
	case <-a.done:
		return a.answer()
	case <-ctx.Done():
	}
	if a.phase.CompareAndSwap(working, abandoned) {
		return nil, gaveUp(ctx, "the commit was not reached in time")
	}
	select {
	case <-a.done:
		return a.answer()
	default:
		return nil, &unknownOutcome{attempt: a, cause: context.Cause(ctx)}
	}
}

// answer may be called once done is closed.
func (a *attempt) answer() (any, error) {
	switch {
	case a.err == nil:
		return a.result, nil
	case a.unclear:
		return nil, &unknownOutcome{attempt: a, cause: a.err}
	default:
		return nil, a.err
	}
}

// left tells whether to stop before the next statement.
func (a *attempt) left(ctx context.Context) error {
	if a.phase.Load() == abandoned {
		return errAbandoned
	}
	if ctx.Err() != nil {
		return gaveUp(ctx, "the commit was not reached in time")
	}
	return nil
}

// begin takes the file's write lock, for which other processes may make it wait.
func (a *attempt) begin(ctx context.Context) error {
	return retryBusy(ctx, a.db.closing, func() error {
		if err := a.left(ctx); err != nil {
			return err
		}
		_, err := a.conn.exec("BEGIN IMMEDIATE")
		return err
	})
}

// commit sends COMMIT. After an error the transaction is over or unclear.
func (a *attempt) commit() error {
	return a.decisive(func() error {
		_, err := a.conn.exec("COMMIT")
		return err
	})
}

// decisive runs the statement that commits: COMMIT, or a lone one.
func (a *attempt) decisive(send func() error) error {
	if !a.phase.CompareAndSwap(working, committing) {
		return errAbandoned
	}
	err := send()
	if err != nil && (fateOf(err) == fateUnknown || keepsRows(err)) {
		a.unclear = true
	}
	return err
}

// finish ends the attempt with what its body has returned, and gives the
// connection back.
func (a *attempt) finish(err error) {
	sound := true
	if err != nil {
		// The error may have rolled the transaction back by itself, or there was
		// none: ROLLBACK then answers with ERROR, its only use of that code.
		_, rerr := a.conn.exec("ROLLBACK")
		sound = !a.unclear && (rerr == nil || primary(rerr) == lib.SQLITE_ERROR)
		if !a.unclear {
			err = notApplied(a.db.path, err)
		}
	}
	a.err = err
	a.db.keeper.wrote(a.conn)
	// The caller's SQL may have set pragmas, attached files or made temporary tables.
	// A new connection costs a fifth of a millisecond.
	a.db.release(a.conn, sound && !a.lent)
	close(a.done)
}

// settle waits for the attempt's own end, fences if that is not clear, and tells
// whether it was applied. An errUntold says that it is over but cannot be told.
//
// The fence is a commit of another connection. What makes a failed commit rise
// again is a recovery that finds its frames, complete and with matching sums, at
// the end of the log. The next commit overwrites them from the first on, and a
// sum depends on all before it: nothing of the old tail can match any more.
func (a *attempt) settle(ctx context.Context) (applied bool, err error) {
	select {
	case <-a.done:
	case <-ctx.Done():
		return false, gaveUp(ctx, "the commit is still under way")
	}
	if !a.unclear {
		return a.err == nil, nil
	}
	fence, err := a.db.newAttempt(ctx)
	if err != nil {
		return false, err
	}
	var told error
	_, err = fence.wait(ctx, func() {
		fence.finish(func() error {
			if err := fence.begin(ctx); err != nil {
				return err
			}
			answer, err := a.verify(fence.conn)
			if errors.Is(err, errUntold) {
				told = err
			} else if err != nil {
				return err
			}
			fence.result = answer
			if err := fence.touch(); err != nil {
				return err
			}
			return fence.commit()
		}())
	})
	if errors.Is(err, lockstep.ErrUnknownOutcome) {
		// Not an answer: the fence may not stand.
		return false, unavailable("the fence was not committed: %v", err)
	}
	if err != nil {
		return false, err
	}
	if told != nil {
		return false, told
	}
	return fence.result.(bool), nil
}

// errUntold is verify's answer when somebody has changed every row since.
var errUntold = errors.New("every row of the commit has been changed since")

// touch dirties the first page without changing anything, in any database,
// whatever tables it has.
func (a *attempt) touch() error {
	v, err := a.conn.integer("PRAGMA user_version")
	if err != nil {
		return err
	}
	return a.conn.script(fmt.Sprintf("PRAGMA user_version=%d", v))
}
