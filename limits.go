package lockstep

import (
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
