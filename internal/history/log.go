package history

import (
	"sync/atomic"
	"time"
)

// Clock stamps the calls and returns of a history. If one operation's return is
// stamped below another's call, it had returned before the other was called.
type Clock struct {
	start time.Time
	count *atomic.Int64
}

// stampBits leave room for a million stamps within one instant, and for two
// hours.
const stampBits = 20

// RealTime is a clock for goroutines that run in real time. Reading it does not
// synchronize them, so that it hides no data race. Stamps within one nanosecond
// are equal, and such operations count as concurrent.
func RealTime() Clock { return Clock{start: time.Now()} }

// FakeTime is a clock for a bubble of fake time, where much happens within one
// instant: it counts besides.
func FakeTime() Clock { return Clock{start: time.Now(), count: new(atomic.Int64)} }

// Fake tells whether it is a FakeTime.
func (c Clock) Fake() bool { return c.count != nil }

func (c Clock) now() int64 {
	stamp := int64(time.Since(c.start)) << stampBits
	if c.count != nil {
		stamp += c.count.Add(1)
	}
	return stamp
}

// later is the moment after a stamp by d, as early and as late as it can be.
func later(stamp int64, d time.Duration) (earliest, latest int64) {
	if stamp == Forever {
		return Forever, Forever
	}
	earliest = (stamp>>stampBits + int64(d)) << stampBits
	return earliest, earliest + 1<<stampBits - 1
}

// Log is one client's part of a history. It belongs to one goroutine.
type Log struct {
	clock  Clock
	client int
	ops    []*Op
}

// NewLog returns an empty log.
func NewLog(clock Clock, client int) *Log { return &Log{clock: clock, client: client} }

// Ops returns what has been recorded.
func (l *Log) Ops() []*Op { return l.ops }

// Call begins an operation. It is not in the log before Return.
func (l *Log) Call(name string) Op {
	return Op{Client: l.client, Name: name, Call: l.clock.now()}
}

// Return ends an operation and records it. What comes back is the log's: its
// Fate and Return may be set later, when they are known.
func (l *Log) Return(op Op) *Op {
	op.Return = l.clock.now()
	l.ops = append(l.ops, &op)
	return &op
}
