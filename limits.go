package lockstep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep/internal/alarm"
)

// limits are the ends of a cache's commits, which have all the same time.
type limits struct {
	timeout           time.Duration
	deadline, overdue *alarm.Alarm
}

func newLimits(timeout time.Duration) *limits {
	return &limits{timeout: timeout, deadline: alarm.New(timeout), overdue: alarm.New(overdueAfter(timeout))}
}

// supervise is for a commit under way: its context ends at its deadline, or with
// the life of a cache that takes part. Its callers are answered in any case: doubt
// is told why nobody knows and, for what has not been sent, why it is not applied.
// stop ends it, and may be called again.
func (l *limits) supervise(parent context.Context, lives []context.Context, doubt func(why, unsent error)) (ctx context.Context, stop func()) {
	inner, cancel := context.WithCancelCause(parent)
	ctx = limited{inner, time.Now().Add(l.timeout)}
	stops := make([]func(), 0, 2+len(lives))
	stops = append(stops,
		l.deadline.Set(func() { cancel(context.DeadlineExceeded) }),
		l.overdue.Set(func() {
			why := fmt.Errorf("the commit did not return within %v (CommitTimeout)", l.timeout)
			doubt(why, fmt.Errorf("%w: %w", ErrUnavailable, why))
		}))
	for _, life := range lives {
		stop := context.AfterFunc(life, func() {
			doubt(errors.New("the cache was closed during the commit"), ErrClosed)
			cancel(nil)
		})
		stops = append(stops, func() { stop() })
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// limited is context.WithDeadline without a timer of its own; see package alarm. What
// is derived from it is cancelled at the deadline, with DeadlineExceeded for the cause.
type limited struct {
	context.Context
	deadline time.Time
}

func (l limited) Deadline() (time.Time, bool) {
	if sooner, ok := l.Context.Deadline(); ok && sooner.Before(l.deadline) {
		return sooner, true
	}
	return l.deadline, true
}

func (l limited) Err() error {
	err := l.Context.Err()
	if err != nil && context.Cause(l.Context) == context.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return err
}

// overdueAfter is how long a commit's callers wait. The eighth is for a store that
// honours the deadline: it may then say what happened.
func overdueAfter(timeout time.Duration) time.Duration {
	return time.Duration(saturate(int64(timeout), timeout/8))
}
