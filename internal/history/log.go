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
func RealTime() Clock { return RealTimeSince(time.Now()) }

// RealTimeSince counts from a moment in the past. Where two processes are never there
// at the same time, and each is told as it begins what the clock was before, their
// stamps are in order.
func RealTimeSince(start time.Time) Clock { return Clock{start: start} }

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
	clock   Clock
	client  int
	journal Journal // may be nil
	calls   int64
	ops     []*Op
}

// NewLog returns an empty log.
func NewLog(clock Clock, client int, journal Journal) *Log {
	return &Log{clock: clock, client: client, journal: journal}
}

// Ops returns what has been recorded.
func (l *Log) Ops() []*Op { return l.ops }

// Call begins an operation. It is not in the log before Return.
func (l *Log) Call(name string) Op {
	l.calls++
	return Op{Client: l.client, Number: l.calls, Name: name, Call: l.clock.now()}
}

// Intend tells the journal of a write that is about to be asked for, with what it
// would read and write. Each intention of a call takes the place of the one before.
func (l *Log) Intend(op Op) {
	if l.journal != nil {
		l.journal.Begun(&op)
	}
}

// Return ends an operation and records it. What comes back is the log's: its
// Fate and Return may be set later, when they are known, and Settle called then.
func (l *Log) Return(op Op) *Op { return l.ReturnWithin(op, 0) }

// ReturnWithin is Return for an operation that may take effect for so long after it
// has returned, as a change does that a cache is not told of at once.
func (l *Log) ReturnWithin(op Op, d time.Duration) *Op {
	op.Return = l.clock.now()
	if d > 0 {
		_, op.Return = later(op.Return, d)
	}
	l.ops = append(l.ops, &op)
	if l.journal != nil {
		l.journal.Ended(&op)
	}
	return &op
}

// Settle sets what has become of an operation whose fate was unknown: nothing of it
// takes effect from now on. It may be called on a goroutine of its own.
func (l *Log) Settle(op *Op, fate Fate) {
	op.Fate, op.Return = fate, l.clock.now()
	if l.journal != nil {
		l.journal.Settled(op)
	}
}
