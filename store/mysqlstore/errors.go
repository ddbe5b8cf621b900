package mysqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
)

// fate is what a failed statement says about the transaction it belonged to.
type fate uint8

const (
	// fateGone: nothing of it was applied, and the same attempt may succeed later.
	fateGone fate = iota
	// fateRefused: nothing of it was applied, and trying again does not help.
	fateRefused
	// fateUnknown: only for the statement that commits.
	fateUnknown
)

// Numbers of the servers' errors that the code asks for by name.
const (
	errDuplicate   = 1062
	errLockWait    = 1205
	errDeadlock    = 1213
	errChanged     = 1020 // the row has changed since the snapshot
	errReprepare   = 1615
	errNoWait      = 3572 // MySQL's NOWAIT; MariaDB says errLockWait
	errNoThread    = 1094
	errNoStatement = 1243 // a proxy has forgotten what was prepared
	errOverruled   = 3101 // by group replication, in the commit
	errNoTable     = 1146
	errNoDatabase  = 1049
	errNoSavepoint = 1305
	errGenerated   = 3105 // MySQL refuses to prepare what writes a generated column
	errNotOwner    = 1095
	// A transaction is open, and one is read-only.
	errInTransaction = 1568
	errReadOnlyTxn   = 1792
	errDenied        = 1045
	errDeniedDB      = 1044
	errInterrupted   = 1317
	errKilled        = 1927
	errIdle          = 4031 // MySQL has ended a session that was idle for too long
	// The server has become read-only.
	errOption       = 1290
	errReadOnlyMode = 1836
)

// fateOf classifies what the statement that commits has said: COMMIT itself, or a
// lone statement in autocommit mode. Every statement before COMMIT is the easier
// case: whatever it says, nothing has been committed.
//
//	what it says                                 when                            fate
//	driver.ErrBadConn                            nothing was sent, or            gone
//	                                             rejectReadOnly has closed the
//	                                             connection on a refusal
//	ErrPktTooLarge                               nothing was sent                refused
//	1205, 1213, 1020, 1615, 3572, 1243, 3101     a lock, a deadlock, a stale     gone
//	                                             statement: rolled back
//	1290, 1792, 1836                             the server has become read-only gone
//	1021, 1114, 1041, 1037, 1040, 1203, 1206,    no room, no memory, too many,   gone
//	1226, 1461, 1637, 3032                       or offline_mode lets nobody in
//	1053, 1317, 1927, 1969, 3024, 3169, 4031     the session is being ended, or  unknown
//	                                             the statement was: perhaps after
//	                                             the commit
//	1026, 1030, 1105, 1180, 1598, 3100           the engine or the binary log    unknown
//	                                             has failed in the commit
//	1158–1161, 2006, 2013                        the network, as the server or   unknown
//	                                             a proxy saw it
//	any other number                             the statement or a value is     refused
//	                                             wrong; the statement was rolled
//	                                             back
//	ErrInvalidConn, a context's end, an I/O      sent, and no answer             unknown
//	error, anything else
//
// A number of the unknown class costs a settlement, which finds out within
// milliseconds; a number that is wrongly in another class would be a lie. That is
// why KILL QUERY is there, which as a rule has rolled the statement back.
func fateOf(err error) fate {
	var me *mysql.MySQLError
	if !errors.As(err, &me) {
		switch {
		case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone):
			return fateGone
		case errors.Is(err, mysql.ErrPktTooLarge):
			return fateRefused
		}
		return fateUnknown
	}
	switch me.Number {
	case errLockWait, errDeadlock, errChanged, errReprepare, errNoWait, errNoStatement, errOverruled,
		errOption, errReadOnlyTxn, errReadOnlyMode,
		1021, 1114, 1041, 1037, 1040, 1203, 1206, 1226, 1461, 1637, 3032:
		return fateGone
	case 1053, errInterrupted, errKilled, 1969, 3024, 3169, errIdle,
		1026, 1030, 1105, 1180, 1598, 3100,
		1158, 1159, 1160, 1161, 2006, 2013:
		return fateUnknown
	}
	return fateRefused
}

// number is the server's error number, or 0.
func number(err error) uint16 {
	if err == nil {
		return 0 // as a rule; errors.As would allocate
	}
	var me *mysql.MySQLError
	if errors.As(err, &me) {
		return me.Number
	}
	return 0
}

// collided tells whether a transaction failed because of somebody else's locks, and
// may be begun again.
func collided(err error) bool {
	switch number(err) {
	case errLockWait, errDeadlock, errChanged, errReprepare, errNoWait, errOverruled:
		return true
	}
	return errors.Is(err, errAppeared)
}

// errAppeared: a row that was absent when it was looked for has been inserted by
// somebody else.
var errAppeared = errors.New("a row has appeared since it was looked for")

// refusesRow tells whether a statement failed because of a row it was given, which
// the other rows of the batch do not share.
func refusesRow(err error) bool {
	switch number(err) {
	case 1142, 1143, 1146, 1054, 1064, 1227, 1100, 1099:
		return false // privileges, the table, the statement
	case 0:
		return errors.Is(err, mysql.ErrPktTooLarge)
	}
	return fateOf(err) == fateRefused
}

// breaks tells whether the connection is of no use after err.
func breaks(err error) bool {
	if err == nil || errors.Is(err, mysql.ErrPktTooLarge) {
		return false
	}
	switch number(err) {
	case 0, 1053, errKilled, errIdle, errNoStatement, 1158, 1159, 1160, 1161, 1153, 2006, 2013:
		return true
	}
	return false
}

// invalid, unavailable and the others put an error under the one that programs
// compare with; both stay reachable by errors.Is and errors.As.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: mysql: %w", lockstep.ErrInvalid, fmt.Errorf(format, args...))
}

func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: mysql: %w", lockstep.ErrUnavailable, fmt.Errorf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: mysql: %w", lockstep.ErrUnsupported, fmt.Errorf(format, args...))
}

// isNamed tells whether programs can compare err with one of ours already.
func isNamed(err error) bool {
	for _, named := range []error{lockstep.ErrInvalid, lockstep.ErrTooLarge, lockstep.ErrConflict,
		lockstep.ErrUnavailable, lockstep.ErrUnsupported, lockstep.ErrClosed} {
		if errors.Is(err, named) {
			return true
		}
	}
	return false
}

// notApplied is the error of a statement that failed before its transaction was
// committed.
func notApplied(err error) error {
	switch {
	case isNamed(err):
		return err
	case errors.Is(err, mysql.ErrPktTooLarge), number(err) == 1153:
		return fmt.Errorf("%w: mysql: %w", lockstep.ErrTooLarge, err)
	case fateOf(err) == fateRefused:
		return invalid("%w", err)
	}
	return unavailable("%w", err)
}

// unasked is the error of a call that has not got an answer. Whatever the server
// has against it, the keys and the rows are not at fault, which is what ErrInvalid
// would say.
func unasked(err error) error {
	if isNamed(err) {
		return err
	}
	return unavailable("%w", err)
}

// openError is what a failed check at open says.
func openError(err error) error {
	switch number(err) {
	case errDenied, errDeniedDB, errNoDatabase, 1698, 1251:
		return invalid("%w", err)
	}
	return notApplied(err)
}

// gaveUp is the error of a call that waited for what until its context ended.
func gaveUp(ctx context.Context, what string) error {
	return unavailable("%s: %w", what, context.Cause(ctx))
}
