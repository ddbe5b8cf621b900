package lockstep

import (
	"errors"
	"fmt"
	"sync"
)

// verdict is what becomes of a write. The one who asked for it waits until it
// can be answered; the answer may be that nobody knows yet, and then the verdict
// goes on without the asker until it is final.
//
//	waiting → final
//	waiting → in doubt → final
type verdict struct {
	mu      sync.Mutex
	told    bool          // the asker can be told something; guarded by mu, as what follows
	telling chan struct{} // closed when told; made when somebody waits for it
	doubted bool          // the asker was, or will be, told that nobody knows
	sent    bool          // it cannot be called off any more; for joint transactions only
	final   bool          // version and err are what became of the write
	known   chan struct{} // closed when final; made when somebody wants it
	version Version
	err     error // nil: applied; ErrUnknownOutcome: cannot be told any more; else not applied
	why     error // why it is in doubt
}

// answered is closed when the asker can be told something.
func (v *verdict) answered() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return lazily(&v.telling, v.told)
}

// past is the channel of what has happened. A write that its writer has committed
// himself, as most that are alone are, makes none of its own.
var past = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// lazily is the channel of what will be told by closing c, if that is not nil by then, or is
// over. Whoever calls it, and whoever closes c, holds one lock.
func lazily(c *chan struct{}, over bool) <-chan struct{} {
	if over {
		return past
	}
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

// finish makes the verdict final, unless it is so already. report is told whether
// it had been in doubt, and is called in between, so that what it reports comes in
// the order in which it happened.
func (v *verdict) finish(version Version, err error, report func(wasDoubted bool)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.finishLocked(version, err, report)
}

// send says that the write is about to become irrevocable. It returns false if
// it was called off, and must not be sent.
func (v *verdict) send() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sent = v.sent || !v.final
	return v.sent
}

// callOff makes the verdict final unless the write has been sent.
func (v *verdict) callOff(err error, report func(wasDoubted bool)) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.sent {
		v.finishLocked(0, err, report)
	}
	return !v.sent
}

func (v *verdict) finishLocked(version Version, err error, report func(wasDoubted bool)) {
	if v.final {
		return
	}
	v.final, v.version, v.err = true, version, err
	report(v.doubted)
	if v.known != nil {
		close(v.known)
	}
	v.tellLocked()
}

// doubt puts a waiting verdict in doubt.
func (v *verdict) doubt(why error, report func(error)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.final || v.doubted {
		return
	}
	v.doubted, v.why = true, why
	report(v.unknownLocked())
	v.tellLocked()
}

func (v *verdict) tellLocked() {
	if v.told {
		return
	}
	v.told = true
	if v.telling != nil {
		close(v.telling)
	}
}

func (v *verdict) unknownLocked() *WriteError {
	return &WriteError{Outcome: Unknown, Err: v.why, pending: v}
}

// answer is what the asker is told. It may be called once answered is closed.
func (v *verdict) answer() (Version, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.doubted {
		return 0, v.unknownLocked()
	}
	return v.version, v.wrapLocked()
}

func (v *verdict) wrapLocked() error {
	switch {
	case v.err == nil:
		return nil
	case errors.Is(v.err, ErrUnknownOutcome):
		return &WriteError{Outcome: Unknown, Err: v.err, pending: v}
	default:
		return notApplied(v.err)
	}
}

func (v *verdict) settled() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return lazily(&v.known, v.final)
}

func (v *verdict) outcome() (Version, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.version, v.err
}

// notApplied wraps the reason why a write did not happen. A reason that is
// itself a finished write's error, or that calls itself unknown, is not passed on
// as such: it would be read as this write's outcome.
func notApplied(err error) error {
	var inner *WriteError
	if errors.As(err, &inner) && inner.Outcome == NotApplied && sameError(err, error(inner)) {
		return inner
	}
	if errors.Is(err, ErrUnknownOutcome) {
		err = fmt.Errorf("%v", err)
	}
	return &WriteError{Outcome: NotApplied, Err: err}
}
