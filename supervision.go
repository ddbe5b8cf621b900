package lockstep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/internal/alarm"
)

// supervision is the context of a commit under way. It ends at the commit's deadline,
// with the life of a cache that takes part, and with what endWith and endWithin are told
// of. The commit's callers are answered in any case, by way of doubt.
//
// Each write pays for it, so it is one object with neither a timer nor a goroutine, and
// makes a channel only for who asks for it. Rejected: one of package context's inside
// it, which would be a child in a map of the cache's life, and have such a map for its own.
// What is derived from it is ended by AfterFunc, which that package asks for.
type supervision struct {
	values   context.Context // of the cache's life
	until    time.Time
	limits   *limits
	deadline alarm.Call
	late     alarm.Call
	stopped  atomic.Bool
	ends     []func() bool // of the contexts that end it
	// doubt is told why nobody knows and, for what has not been sent, why it is not
	// applied. It may be told more than once.
	doubt func(why, unsent error)

	mu      sync.Mutex
	err     error           // nil: it goes on; guarded by mu, as what follows
	done    chan struct{}   // closed when it has ended; made when somebody asks for it
	why     context.Context // one that has ended because of the same cause, if it has one
	waiting []*func()       // of AfterFunc
	one     [1]*func()      // the room of the first
}

// lateness is a supervision's, of a commit that is still under way some time after its
// deadline.
type lateness supervision

// supervise begins it; stop ends it. It has the values of a context that does not end
// before the life of the cache whose limits these are, or which endWithin is told of. Others
// are the lives of the caches that take part beside it.
func (l *limits) supervise(values context.Context, others []context.Context, doubt func(why, unsent error)) *supervision {
	s := &supervision{values: values, limits: l, doubt: doubt}
	s.until = l.deadline.Set(&s.deadline, s)
	if l.ended.Load() {
		s.end(context.Cause(values))
		go s.closed()
	}
	for _, life := range others {
		s.ends = append(s.ends, context.AfterFunc(life, s.closed))
	}
	return s
}

// endWith ends it with the context of a caller, for that one's reason.
func (s *supervision) endWith(caller context.Context) {
	if caller.Done() != nil {
		s.ends = append(s.ends, context.AfterFunc(caller, func() { s.end(ended(caller)) }))
	}
}

// endWithin ends it with a context of ours, for the same cause: where that is ErrClosed,
// it is this commit's own, as a caller's would not be.
func (s *supervision) endWithin(ours context.Context) {
	s.ends = append(s.ends, context.AfterFunc(ours, func() { s.end(context.Cause(ours)) }))
}

// stop may be called again.
func (s *supervision) stop() {
	s.stopped.Store(true)
	s.limits.deadline.Stop(&s.deadline)
	s.limits.overdue.Stop(&s.late)
	for _, end := range s.ends {
		end()
	}
	s.end(nil)
}

// Ring is the deadline.
func (s *supervision) Ring() {
	s.end(context.DeadlineExceeded)
	s.limits.overdue.Set(&s.late, (*lateness)(s))
	switch {
	case s.stopped.Load():
		s.limits.overdue.Stop(&s.late)
	case s.limits.ended.Load():
		s.closed()
	}
}

// Ring answers the callers of a store that has not come back.
func (s *lateness) Ring() {
	why := fmt.Errorf("the commit did not return within %v (CommitTimeout)", s.limits.timeout)
	s.doubt(why, fmt.Errorf("%w: %w", ErrUnavailable, why))
}

func (s *supervision) closed() {
	s.doubt(errors.New("the cache was closed during the commit"), ErrClosed)
	s.end(context.Cause(s.values))
}

// end ends the context, because of cause if it is not nil.
func (s *supervision) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = context.Canceled
	if cause == context.DeadlineExceeded {
		s.err = cause
	}
	if cause != nil { // else of a commit that is over, as nearly always
		why, end := context.WithCancelCause(context.WithoutCancel(s.values))
		end(cause)
		s.why = why
	}
	if s.done != nil {
		close(s.done)
	}
	for _, f := range s.waiting {
		go (*f)()
	}
	s.waiting = nil
}

// Deadline implements context.Context.
func (s *supervision) Deadline() (time.Time, bool) { return s.until, true }

// Done implements context.Context.
func (s *supervision) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return lazily(&s.done, s.err != nil)
}

// Err is DeadlineExceeded after the deadline, the commit's or that of a context that has
// ended it, and Canceled after any other end.
func (s *supervision) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Value implements context.Context. By way of it context.Cause finds the cause.
func (s *supervision) Value(key any) any {
	s.mu.Lock()
	why := s.why
	s.mu.Unlock()
	if why != nil {
		return why.Value(key)
	}
	return s.values.Value(key)
}

// AfterFunc is what context.AfterFunc does with this context.
func (s *supervision) AfterFunc(f func()) (stop func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		go f()
		return func() bool { return false }
	}
	if s.waiting == nil {
		s.waiting = s.one[:0]
	}
	s.waiting = append(s.waiting, &f)
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		i := slices.Index(s.waiting, &f)
		if i < 0 {
			return false
		}
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return true
	}
}
