package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// fate is what a failed statement says about the transaction that it was to
// commit.
type fate uint8

const (
	// fateGone: nothing of it was applied, and the same attempt may succeed later.
	fateGone fate = iota
	// fateAgain: nothing of it was applied, because of somebody else's transaction
	// that is over by now: the same attempt is made again at once.
	fateAgain
	// fateBlocked: nothing of it was applied; somebody else holds a row for longer
	// than was allowed.
	fateBlocked
	// fateRefused: nothing of it was applied, because of a row that it had.
	fateRefused
	// fateUnknown: it may have been applied.
	fateUnknown
)

// fateOf classifies the error of the statement that commits: COMMIT itself, what
// travels with it, or a lone statement in autocommit mode. Every statement before
// COMMIT is the easier case: whatever it says, nothing has been committed.
//
//	what the driver or the server says                                    fate
//	nothing was sent (see neverSent)                                      gone
//	40001 serialization_failure, 40P01 deadlock_detected,                 again
//	40002 and other of class 40, 0A000 (a cached plan is out of date),
//	26000 (a prepared statement has gone)
//	55P03 lock_not_available                                              blocked
//	22xxx data, 23xxx constraints, 44000, 54xxx limits, P0001 a trigger   refused
//	40003 statement_completion_unknown, 08xxx, 57P01–57P05 shutdowns      unknown
//	any other error of severity ERROR: 25xxx, 42xxx, 53xxx, 57014 …       gone
//	FATAL, PANIC                                                          unknown
//	no answer: a broken connection, a context that ended                  unknown
//
// An ERROR that answers COMMIT comes from before the commit record is written;
// after it the server raises nothing less than a PANIC. A backend that is
// terminated (FATAL 57P01) may have committed: one that waits for a synchronous
// standby has, and says so in nothing but a warning. A cancelled wait for a
// standby (57014) is no error at all: the server reports success.
func fateOf(err error) fate {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return fateOfServer(pg)
	}
	return fateUnknown
}

// neverSent tells whether an error comes from before anything was sent: the driver
// vouches for it and has the connection still open. Its word alone is not enough:
// pgx 5.12 reports a connection that broke while it waited for the answer to a
// simple query as "conn closed", and that as safe to retry (MultiResultReader peeks
// at the answer, which closes the connection, and then asks again).
func neverSent(err error, closed bool) bool { return !closed && pgconn.SafeToRetry(err) }

func fateOfServer(pg *pgconn.PgError) fate {
	severity := pg.SeverityUnlocalized
	if severity == "" {
		severity = pg.Severity
	}
	if severity != "ERROR" || len(pg.Code) != 5 {
		return fateUnknown
	}
	switch pg.Code {
	case "40003", "57P01", "57P02", "57P03", "57P04", "57P05":
		return fateUnknown
	case "0A000", "26000":
		return fateAgain
	case "55P03":
		return fateBlocked
	case "P0001":
		return fateRefused
	}
	switch pg.Code[:2] {
	case "08":
		return fateUnknown
	case "40":
		return fateAgain
	case "22", "23", "44", "54":
		return fateRefused
	}
	return fateGone
}

// outdated tells whether a prepared statement has gone, or its plan no longer fits.
func outdated(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "0A000" || pg.Code == "26000")
}

// lost tells whether it was the connection that failed, and not what was asked.
func lost(err error) bool {
	return err != nil && !named(err) && !errors.Is(err, keytext.ErrDecode) && !errors.Is(err, errUntold) && fateOf(err) == fateUnknown
}

// invalid, unavailable and the others put an error under the one that programs
// compare with; both stay reachable by errors.Is and errors.As.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: postgres: %w", lockstep.ErrInvalid, fmt.Errorf(format, args...))
}

func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: postgres: %w", lockstep.ErrUnavailable, fmt.Errorf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: postgres: %w", lockstep.ErrUnsupported, fmt.Errorf(format, args...))
}

func tooLarge(format string, args ...any) error {
	return fmt.Errorf("%w: postgres: %w", lockstep.ErrTooLarge, fmt.Errorf(format, args...))
}

// named tells whether an error is one that programs compare with already.
func named(err error) bool {
	for _, n := range []error{lockstep.ErrInvalid, lockstep.ErrTooLarge, lockstep.ErrConflict,
		lockstep.ErrUnavailable, lockstep.ErrUnsupported, lockstep.ErrClosed, lockstep.ErrUnknownOutcome} {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}

// notApplied is the error of something that was not committed, for a reason of
// fate f.
func notApplied(f fate, err error) error {
	switch {
	case named(err):
		return err
	case f == fateRefused:
		return invalid("%w", err)
	}
	return unavailable("%w", err)
}

// gaveUp is the error of a call that waited for what until its context ended.
func gaveUp(ctx context.Context, what string) error {
	return unavailable("%s: %w", what, context.Cause(ctx))
}

// openError is the error of something that was tried when the database or a table
// was opened: what the server refuses will not be better the next time.
func openError(err error) error {
	if err == nil || named(err) {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && len(pg.Code) == 5 {
		switch pg.Code[:2] {
		case "08", "40", "53", "55", "57", "58", "XX":
		default:
			return invalid("%w", err)
		}
	}
	return unavailable("%w", err)
}
