package sqlitestore

import (
	"context"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/lockstep-cache/lockstep"
)

// fate is what a failed statement says about the transaction it belonged to.
type fate uint8

const (
	// fateGone: nothing of it was applied, and the same attempt may succeed later.
	fateGone fate = iota
	// fateRefused: nothing of it was applied, and trying again does not help.
	fateRefused
	// fateUnknown: only for the statement that commits; whether its frames will
	// be found in the log by a later recovery cannot be told from the code.
	fateUnknown
)

// fateOf classifies SQLite's result codes for the statement that commits: COMMIT
// itself, or a lone statement in autocommit mode. Every statement before COMMIT
// is the easier case: whatever it says, nothing has been committed.
//
//	code                           when it comes                         fate
//	BUSY, LOCKED                   before a frame is written             gone
//	INTERRUPT, NOMEM, PROTOCOL     before a frame is written             gone
//	FULL                           the commit frame, which is the last,  gone
//	                               did not fit
//	CANTOPEN, PERM, READONLY       the file is not ours to write         gone
//	CONSTRAINT                     a deferred constraint is violated;    refused
//	                               or the lone statement's own, but see
//	                               keepsRows
//	MISMATCH, TOOBIG, RANGE,       the statement or a value is wrong     refused
//	ERROR, AUTH, SCHEMA
//	IOERR_*                        a write or a sync failed: the frames  unknown
//	                               may have reached the disk
//	CORRUPT, NOTADB, anything      nothing can be relied on              unknown
//	else
//
// FULL relies on SQLite's default of not padding the log to whole sectors after
// the commit frame (psow), which this package leaves on.
func fateOf(err error) fate {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return fateUnknown
	}
	return fateOfCode(se.Code())
}

func fateOfCode(code int) fate {
	switch code & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_INTERRUPT, lib.SQLITE_NOMEM,
		lib.SQLITE_PROTOCOL, lib.SQLITE_FULL, lib.SQLITE_CANTOPEN, lib.SQLITE_PERM,
		lib.SQLITE_READONLY:
		return fateGone
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH, lib.SQLITE_TOOBIG, lib.SQLITE_RANGE,
		lib.SQLITE_ERROR, lib.SQLITE_AUTH, lib.SQLITE_SCHEMA:
		return fateRefused
	}
	return fateUnknown
}

// keepsRows tells whether a lone statement that has failed may have been committed
// up to where it failed: RAISE(FAIL) in a trigger ends a statement, and takes back
// nothing. RAISE(ABORT) has the same code. COMMIT fires no triggers.
func keepsRows(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && se.Code() == lib.SQLITE_CONSTRAINT_TRIGGER
}

// refusesRow tells whether a statement failed because of the row it was given,
// which the other rows of the batch do not share.
func refusesRow(err error) bool {
	switch primary(err) {
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH, lib.SQLITE_TOOBIG:
		return true
	case lib.SQLITE_ERROR:
		// RAISE in a trigger is SQLITE_CONSTRAINT_TRIGGER; a plain ERROR out of a
		// trigger's or a generated column's expression is about the row, too.
		return true
	}
	return false
}

func isBusy(err error) bool {
	c := primary(err)
	return c == lib.SQLITE_BUSY || c == lib.SQLITE_LOCKED || errors.Is(err, errHeldUp)
}

func primary(err error) int {
	var se *sqlite.Error
	if errors.As(err, &se) {
		return se.Code() & 0xff
	}
	return 0
}

// invalid, unavailable and the others put an error under the one that programs
// compare with; both stay reachable by errors.Is and errors.As.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: sqlite: %w", lockstep.ErrInvalid, fmt.Errorf(format, args...))
}

func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: sqlite: %w", lockstep.ErrUnavailable, fmt.Errorf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: sqlite: %w", lockstep.ErrUnsupported, fmt.Errorf(format, args...))
}

// notApplied is the error of a statement that failed before its transaction was
// committed.
func notApplied(path string, err error) error {
	for _, named := range []error{lockstep.ErrInvalid, lockstep.ErrTooLarge, lockstep.ErrConflict,
		lockstep.ErrUnavailable, lockstep.ErrUnsupported, lockstep.ErrClosed, lockstep.ErrWouldWait} {
		if errors.Is(err, named) {
			return err
		}
	}
	if fateOf(err) == fateRefused {
		return invalid("%s: %w", path, err)
	}
	return unavailable("%s: %w", path, err)
}

// gaveUp is the error of a call that waited for what until its context ended.
func gaveUp(ctx context.Context, what string) error {
	return unavailable("%s: %w", what, context.Cause(ctx))
}
