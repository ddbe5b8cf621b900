package lockstep

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// The errors that programs compare with, by errors.Is. What each of them says
// about a write stands in the package's table of failures.
var (
	// ErrNotFound is returned by reads of a key that has no row.
	ErrNotFound = errors.New("lockstep: not found")
	// ErrConflict says that the row was not what the write expected. The error
	// is a *ConflictError, which carries the version that was found.
	ErrConflict = errors.New("lockstep: conflict")
	// ErrInvalid says that the key, the value or the option can never be
	// accepted. Trying again does not help.
	ErrInvalid = errors.New("lockstep: invalid")
	// ErrWouldWait is a store's answer to a Hasty commit. No caller of a cache sees it.
	ErrWouldWait = errors.New("lockstep: the commit would have to wait")
	// ErrTooLarge says that a key or an encoded value is over its limit.
	ErrTooLarge = errors.New("lockstep: too large")
	// ErrUnavailable says that the database could not be asked, or that too many
	// writes are waiting for it. The same call may succeed later.
	ErrUnavailable = errors.New("lockstep: unavailable")
	// ErrUnknownOutcome says that a write may or may not have been committed.
	ErrUnknownOutcome = errors.New("lockstep: outcome unknown")
	// ErrUnsupported says that the store, or a cache in that Mode, cannot do what was
	// asked.
	ErrUnsupported = errors.New("lockstep: not supported")
	// ErrInTransaction says that a cache, or Transact, was used directly with the
	// context of a transaction, beside In(tx).
	ErrInTransaction = errors.New("lockstep: used directly inside a transaction, beside In(tx)")
	// ErrClosed is returned after Close, of the cache or of its store.
	ErrClosed = errors.New("lockstep: closed")
)

// Keep is returned by the function given to Update to leave the row as it is.
var Keep = errors.New("lockstep: keep the row as it is")

// ConflictError tells what a conditional write found. It is ErrConflict.
type ConflictError struct {
	// Key is the key whose row was not as expected.
	Key any
	// Exists tells whether the database holds a row for the key.
	Exists bool
	// Version is the version of that row, or of its tombstone; 0 where the store
	// keeps none.
	Version Version
}

func (e *ConflictError) Error() string {
	if !e.Exists {
		return fmt.Sprintf("lockstep: conflict: key %v has no row", e.Key)
	}
	return fmt.Sprintf("lockstep: conflict: key %v is at version %d", e.Key, e.Version)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// WriteOutcome is what a failed write has done to the database.
type WriteOutcome uint8

const (
	// NotApplied: nothing of the write was, or will be, applied.
	NotApplied WriteOutcome = iota
	// Unknown: the write may have been applied, or may yet be. It is settled in
	// the background; WriteError.Wait tells how.
	Unknown
)

func (o WriteOutcome) String() string {
	if o == Unknown {
		return "outcome unknown"
	}
	return "not applied"
}

// WriteError is, outermost, the error of every write that did not return nil.
// It is ErrUnknownOutcome when Outcome is Unknown, and only then; whatever is
// not ErrUnknownOutcome was not applied.
type WriteError struct {
	Outcome WriteOutcome
	// Err is the cause.
	Err error

	pending pendingOutcome
}

// pendingOutcome is a write whose outcome will be known later.
type pendingOutcome interface {
	settled() <-chan struct{}
	// outcome may be called once settled is closed.
	outcome() (version Version, err error)
}

func (e *WriteError) Error() string {
	// The cause is most often ours, and need not say so twice.
	return fmt.Sprintf("lockstep: write %s: %s", e.Outcome, strings.TrimPrefix(fmt.Sprint(e.Err), "lockstep: "))
}

// Unwrap returns the cause.
func (e *WriteError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrUnknownOutcome) tell the outcome, whatever the
// cause says.
func (e *WriteError) Is(target error) bool {
	return target == ErrUnknownOutcome && e.Outcome == Unknown
}

// Wait waits until the write's outcome is known, and tells whether it was
// applied; version is the version it gave its first key, where the store keeps
// versions and the settlement could tell. An error means that it is not known:
// ctx ended first, the cache was closed before it could ask, or the database has
// settled the write without leaving a trace of which way. A commit that has not
// returned is waited for, also after Close. For an error that is not
// ErrUnknownOutcome, Wait returns false at once.
func (e *WriteError) Wait(ctx context.Context) (applied bool, version Version, err error) {
	if e.Outcome != Unknown {
		return false, 0, nil
	}
	if e.pending == nil {
		return false, 0, e
	}
	select {
	case <-e.pending.settled():
	case <-ctx.Done():
		err = ended(ctx)
	}
	// Of several that are ready select takes any: what is known goes first.
	select {
	case <-e.pending.settled():
	default:
		return false, 0, err
	}
	version, err = e.pending.outcome()
	switch {
	case err == nil:
		return true, version, nil
	case errors.Is(err, ErrUnknownOutcome):
		return false, 0, err
	default:
		return false, 0, nil
	}
}
