package resilience

import (
	"context"
	"errors"

	"github.com/lockstep-cache/lockstep"
)

// passing tells whether what failed with err may be made again.
func (op Operation) passing(err error) bool {
	if op == OpCommit {
		return passingCommit(err)
	}
	return passingRead(err)
}

// passingCommit tells whether a failed commit may be made again. The default is
// no: a store that does not say ErrUnavailable has not said that nothing
// happened in a way that can pass.
func passingCommit(err error) bool {
	return errors.Is(err, lockstep.ErrUnavailable) && !final(err)
}

// passingRead tells whether something that changes nothing may be tried again.
// The default is yes: drivers have many errors for a broken connection. An
// ended context is none of them, unless the store calls it ErrUnavailable,
// which a store with a deadline of its own does.
func passingRead(err error) bool {
	if final(err) {
		return false
	}
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	return !ended || errors.Is(err, lockstep.ErrUnavailable)
}

// final tells whether an error is permanent or unknown, whatever else it is.
func final(err error) bool {
	for _, target := range []error{
		lockstep.ErrUnknownOutcome,
		lockstep.ErrInvalid,
		lockstep.ErrTooLarge,
		lockstep.ErrConflict,
		lockstep.ErrNotFound,
		lockstep.ErrUnsupported,
		lockstep.ErrInTransaction,
		lockstep.ErrClosed,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
