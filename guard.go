package lockstep

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// Code that is not ours, a store's or the program's, may panic, and may end the
// goroutine that it runs on: runtime.Goexit, which t.FailNow calls. A panic can
// be recovered from. The end of a goroutine cannot, so what others wait for has
// to be done by somebody else then: by a deferred function where it calls no code
// that is not ours, and else by another goroutine.

// guarded turns a panic in code that is not ours into an error, which is kind,
// or ErrUnavailable.
func guarded(what string, kind error, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if kind == nil {
				kind = ErrUnavailable
			}
			err = fmt.Errorf("%w: panic in %s: %v\n%s", kind, what, p, debug.Stack())
		}
	}()
	return f()
}

// errCommitExited is the outcome of a commit that ended its goroutine.
var errCommitExited = fmt.Errorf("%w: a commit ended its goroutine instead of returning (runtime.Goexit)", ErrUnknownOutcome)

// aside is guarded for code that may end its goroutine: it gets one of its own,
// and to end it is an error like a panic. It costs about a microsecond.
func aside(what string, kind error, f func() error) error {
	if kind == nil {
		kind = ErrUnavailable
	}
	err := fmt.Errorf("%w: %s ended its goroutine instead of returning (runtime.Goexit)", kind, what)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = guarded(what, kind, f)
	}()
	<-done
	return err
}

// errLoadExited is what the readers get whose load has ended its goroutine.
var errLoadExited = errors.New("lockstep: a load ended its goroutine instead of returning (runtime.Goexit)")
