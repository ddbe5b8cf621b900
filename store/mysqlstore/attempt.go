package mysqlstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// attempt is a write transaction from the moment it has a session until its fate is
// known. It runs on its caller's goroutine: the driver leaves a statement when its
// context ends, and closes the connection.
//
// What that means depends on the statement. As long as the one that commits has not
// been sent, the server rolls back when it notices, and nothing was applied. After
// that nobody knows until the session was ended, and the rows were read.
type attempt struct {
	db *Database
	s  *session
	// stamp is written into every row: whoever finds it there knows that the attempt
	// was applied.
	stamp int64
	// begun says that a transaction is open, as far as is known here.
	begun bool
	// serial says that the transaction, if one is open, locks gaps between rows.
	serial bool
	// unclear says that the statement that commits was sent, and what it said does
	// not tell whether it was applied.
	unclear bool
	result  any // what the body has made of it, for the caller and for Settle
	// verify tells whether the rows that the attempt has written are there. It is set
	// before the statement that commits is sent, and called when the session is gone.
	verify func(ctx context.Context, s *session) (applied bool, err error)
}

// unknownOutcome is the error of a commit that may or may not have been applied.
type unknownOutcome struct {
	attempt *attempt
	cause   error
}

func (e *unknownOutcome) Error() string {
	return fmt.Sprintf("%v: mysql: %v", lockstep.ErrUnknownOutcome, e.cause)
}
func (e *unknownOutcome) Unwrap() error        { return e.cause }
func (e *unknownOutcome) Is(target error) bool { return target == lockstep.ErrUnknownOutcome }

// write runs body as one attempt, whose changes are those of a writer: session.mark. Its error is an *unknownOutcome or says that
// nothing was applied.
func (db *Database) write(ctx context.Context, writer string, body func(ctx context.Context, a *attempt) error) (any, error) {
	a, err := db.newAttempt(ctx, writer)
	if err != nil {
		return nil, err
	}
	returned := false
	defer func() {
		if !returned { // a method of the program's values has ended the goroutine
			a.s.broken, a.s.alive = true, true
			db.release(a.s)
		}
	}()
	err = a.finish(ctx, a.run(ctx, body))
	if returned = true; err != nil {
		return nil, err
	}
	return a.result, nil
}

func (db *Database) newAttempt(ctx context.Context, writer string) (*attempt, error) {
	s, err := db.acquireFor(ctx, writer)
	if err != nil {
		return nil, err
	}
	if err := s.mark(ctx, writer); err != nil {
		s.broken, s.alive = true, s.alive || ctx.Err() != nil
		db.release(s)
		return nil, unasked(err)
	}
	return &attempt{db: db, s: s, stamp: 1 + rand.Int64N(1<<63-1)}, nil
}

// run calls body. It runs methods of the program's values, and one that panics must
// not keep the session.
func (a *attempt) run(ctx context.Context, body func(ctx context.Context, a *attempt) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.s.broken = true
			err = invalid("a value's own method has panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return body(ctx, a)
}

// left tells whether to stop before the next statement.
func (a *attempt) left(ctx context.Context) error {
	if ctx.Err() != nil {
		return gaveUp(ctx, "the commit was not reached in time")
	}
	return nil
}

// begin opens a transaction. One that is serial sees no row appear, in the ranges
// that it has locked, until it ends.
func (a *attempt) begin(ctx context.Context, serial bool) error {
	if err := a.left(ctx); err != nil {
		return err
	}
	if serial {
		if err := a.s.run(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"); err != nil {
			return err
		}
	}
	if err := a.s.run(ctx, "START TRANSACTION"); err != nil {
		return err
	}
	a.begun, a.serial = true, serial
	return nil
}

// commit sends COMMIT. After an error the transaction is over or unclear.
func (a *attempt) commit(ctx context.Context) error {
	return a.decisive(ctx, func() error { return a.s.run(ctx, "COMMIT") })
}

// decisive runs the statement that commits: COMMIT, or a lone one.
func (a *attempt) decisive(ctx context.Context, send func() error) error {
	if err := a.left(ctx); err != nil {
		return err
	}
	err := send()
	switch {
	case err == nil:
		a.begun = false
	case fateOf(err) == fateUnknown:
		a.unclear = true
	}
	return err
}

const (
	// rollbackTimeout is how long a session is worth being waited for.
	rollbackTimeout = 5 * time.Second
	// rollbackGrace is the same once the caller has left, who may be waiting himself.
	rollbackGrace = 250 * time.Millisecond
)

// rollback ends the transaction without effect. Its error says that the session is
// of no use any more; then the server rolls back.
func (a *attempt) rollback(caller context.Context) error {
	if !a.begun {
		return nil
	}
	a.begun = false
	ctx, cancel := context.WithTimeout(context.Background(), rollbackTimeout)
	defer cancel()
	defer context.AfterFunc(caller, func() { time.AfterFunc(rollbackGrace, cancel) })()
	err := a.s.run(ctx, "ROLLBACK")
	if err != nil && !a.s.broken {
		a.s.broken, a.s.alive = true, true
	}
	return err
}

// again runs body until it no longer collides with other transactions, or ctx ends.
// Body begins from nothing each time.
func (a *attempt) again(ctx context.Context, body func() error) error {
	for pause := 500 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := body()
		if err == nil || a.unclear || !collided(err) {
			return err
		}
		if rerr := a.rollback(ctx); rerr != nil {
			return err
		}
		if serr := sleep(ctx, rand.N(pause)); serr != nil {
			return unavailable("%w (%w)", err, context.Cause(ctx))
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish ends the attempt with what its body has returned, and gives the session
// back.
func (a *attempt) finish(ctx context.Context, err error) error {
	switch {
	case a.unclear:
		// Its session is ended by whoever settles, and meanwhile as well as it goes.
		a.s.broken, a.s.alive = true, true
		err = &unknownOutcome{attempt: a, cause: err}
	case err != nil:
		a.rollback(ctx)
		if n := number(err); n == errOption || n == errReadOnlyMode {
			a.db.which.Refused(a.s.server)
			a.s.broken = true
		}
		if ctx.Err() != nil && !isNamed(err) {
			err = unavailable("%w (%w)", context.Cause(ctx), err)
		}
		err = notApplied(err)
	}
	a.db.release(a.s)
	return err
}

// evidence is what the rows that a transaction has written to a table show of it. What
// shows more is greater.
type evidence uint8

const (
	// showsNothing: no row tells, and none was changed since.
	showsNothing evidence = iota
	// showsGone: what was deleted is gone, which others may have done since.
	showsGone
	// showsChanged: no row tells for sure, and some was changed since.
	showsChanged
	showsRefused
	// showsApplied outweighs that: of a transaction that the program began, its savepoints
	// may have taken back a part.
	showsApplied
)

// tells is verify's answer.
func (e evidence) tells() (applied bool, err error) {
	switch e {
	case showsGone, showsApplied:
		return true, nil
	case showsRefused:
		return false, nil
	}
	return false, errUntold
}

// errUntold is verify's answer when somebody has changed every row since.
var errUntold = errors.New("every row of the commit has been changed since")

// settle ends the session of the attempt, and tells whether it was applied. An
// errUntold says that nothing of it can take effect any more, but that it cannot be
// told what did.
func (a *attempt) settle(ctx context.Context) (applied bool, err error) {
	if err := a.db.closed(); err != nil {
		return false, err
	}
	if err := elsewhere(a.db.end(ctx, a.s.fence)); err != nil {
		return false, err
	}
	return a.outcome(ctx)
}

// elsewhere is errUntold after a failover: the server that was asked takes no more writes,
// or nobody could tell anything about this database. Whether it has passed this one on is
// not to be seen in a row that is as it was.
func elsewhere(err error) error {
	if errors.Is(err, errElsewhere) {
		return fmt.Errorf("%w: %w", errUntold, err)
	}
	return err
}

// outcome tells whether an attempt that can take effect no more was applied.
func (a *attempt) outcome(ctx context.Context) (applied bool, err error) {
	err = a.db.read(ctx, func(s *session) error {
		if s.fence.server != a.s.fence.server {
			return elsewhere(errElsewhere)
		}
		applied, err = a.verify(ctx, s)
		return err
	})
	if err != nil && !errors.Is(err, errUntold) {
		err = unasked(err)
	}
	return applied, err
}
