package lockstep

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/internal/alarm"
)

// limits are the ends of a cache's commits: a deadline, which is as far away for all of
// them, and the end of the cache.
type limits struct {
	timeout           time.Duration
	deadline, overdue *alarm.Alarm
	ended             atomic.Bool
}

// newLimits: overdue begins where the deadline ends.
func newLimits(timeout time.Duration) *limits {
	return &limits{timeout: timeout, deadline: alarm.New(timeout), overdue: alarm.New(overdueAfter(timeout) - timeout)}
}

// overdueAfter is how long a commit's callers wait. The eighth is for a store that
// honours the deadline: it may then say what happened.
func overdueAfter(timeout time.Duration) time.Duration {
	return time.Duration(saturate(int64(timeout), timeout/8))
}

// end is the end of the cache's life, for all commits under way.
func (l *limits) end() {
	l.ended.Store(true)
	for _, a := range []*alarm.Alarm{l.deadline, l.overdue} {
		for _, r := range a.Take() {
			switch s := r.(type) {
			case *supervision:
				s.closed()
			case *lateness:
				(*supervision)(s).closed()
			}
		}
	}
}

// supervision is the context of a commit under way. It ends at the commit's deadline,
// with its parent, and with the life of a cache that takes part. The commit's callers are
// answered in any case, by way of doubt.
//
// It has neither a timer nor a goroutine of its own, for each write pays for it.
type supervision struct {
	context.Context
	until  time.Time
	cancel context.CancelCauseFunc
	limits *limits
	// doubt is told why nobody knows and, for what has not been sent, why it is not
	// applied. It may be told more than once.
	doubt          func(why, unsent error)
	deadline, late alarm.Call
	stopped        atomic.Bool
	ends           []func() bool // of the contexts that end it, beside its parent
}

// lateness is a supervision's, of a commit that is still under way some time after its
// deadline.
type lateness supervision

// supervise begins it; stop ends it. The parent ends with the life of the cache whose limits
// these are, or is ended by doubt; others are the lives of those that take part beside
// it.
func (l *limits) supervise(parent context.Context, others []context.Context, doubt func(why, unsent error)) *supervision {
	s := &supervision{limits: l, until: time.Now().Add(l.timeout), doubt: doubt}
	s.Context, s.cancel = context.WithCancelCause(parent)
	l.deadline.Set(&s.deadline, s)
	if l.ended.Load() {
		go s.closed()
	}
	for _, life := range others {
		s.ends = append(s.ends, context.AfterFunc(life, s.closed))
	}
	return s
}

// endWith ends it with the context of a caller, for that reason.
func (s *supervision) endWith(caller context.Context) {
	if caller.Done() != nil {
		s.ends = append(s.ends, context.AfterFunc(caller, func() { s.cancel(ended(caller)) }))
	}
}

// stop may be called again.
func (s *supervision) stop() {
	s.stopped.Store(true)
	s.limits.deadline.Stop(&s.deadline)
	s.limits.overdue.Stop(&s.late)
	for _, end := range s.ends {
		end()
	}
	s.cancel(nil)
}

// Ring is the deadline.
func (s *supervision) Ring() {
	s.cancel(context.DeadlineExceeded)
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
	s.cancel(nil)
}

// Deadline is that of a context.WithDeadline, which would have a timer of its own; see
// package alarm. What is derived from it is cancelled at the deadline, with
// DeadlineExceeded for the cause.
func (s *supervision) Deadline() (time.Time, bool) {
	if sooner, ok := s.Context.Deadline(); ok && sooner.Before(s.until) {
		return sooner, true
	}
	return s.until, true
}

// Err is DeadlineExceeded after the deadline.
func (s *supervision) Err() error {
	err := s.Context.Err()
	if err != nil && context.Cause(s.Context) == context.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return err
}
