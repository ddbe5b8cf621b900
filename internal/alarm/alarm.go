// Package alarm is one timer for many calls that have the same time limit, nearly
// all of which end long before it.
//
// A timer of its own for each call costs little where the processor is busy. Where it
// is not, the first timer of all is set beside a thread that sleeps in the network
// poller, which is woken to be told of it and goes back to sleep: some microseconds of
// both cores for each call, in which the answer of a database on the same machine does
// not come either.
//
// All limits being equal, what is set later ends later. So the calls form a queue, and
// the timer stands at the end of one of them that was first in it, perhaps long ago: it
// is moved when it goes off, and not when a call ends.
package alarm

import (
	"sync"
	"time"
)

// Alarm is safe for concurrent use. Its methods take one short lock.
type Alarm struct {
	after time.Duration

	mu sync.Mutex
	// All that follows is guarded by mu.
	first, last *Call
	timer       *time.Timer
	armed       bool // the timer will go off, at or before the end of first
}

// Call is a call's place in an Alarm. It is a part of what stands for the call, so that
// setting an alarm allocates nothing.
type Call struct {
	at         time.Time
	ring       Ringer
	set        bool // it is in the queue
	prev, next *Call
}

// Ringer is told when a call's time is over, on a goroutine that others wait for: it is
// quick.
type Ringer interface{ Ring() }

// New returns an alarm for calls that may take so long.
func New(after time.Duration) *Alarm { return &Alarm{after: after} }

// Set has r told when the time of the call, which is not set, is over, and returns when
// that is.
func (a *Alarm) Set(c *Call, r Ringer) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.at, c.ring, c.set = time.Now().Add(a.after), r, true
	if c.prev = a.last; c.prev != nil {
		c.prev.next = c
	} else {
		a.first = c
	}
	a.last = c
	a.armLocked(a.after)
	return c.at
}

// Stop keeps the call's Ringer from being told, unless it has been or is about to be. A
// call that is not set stays so.
func (a *Alarm) Stop(c *Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removeLocked(c)
}

// Take stops all calls, and returns their Ringers.
func (a *Alarm) Take() (set []Ringer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.first != nil {
		set = append(set, a.first.ring)
		a.removeLocked(a.first)
	}
	return set
}

func (a *Alarm) armLocked(in time.Duration) {
	switch {
	case a.armed:
		return
	case a.timer == nil:
		a.timer = time.AfterFunc(in, a.ring)
	default:
		a.timer.Reset(in)
	}
	a.armed = true
}

func (a *Alarm) removeLocked(c *Call) {
	if !c.set {
		return
	}
	c.set = false
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		a.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		a.last = c.prev
	}
	c.prev, c.next = nil, nil
}

// ring tells those whose time is over, and moves the timer to the end
// of the one that is first then. Without one it is left as it is, until the next Set.
func (a *Alarm) ring() {
	for _, r := range a.over() {
		r.Ring()
	}
}

func (a *Alarm) over() (over []Ringer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = false
	for a.first != nil {
		c := a.first
		if left := time.Until(c.at); left > 0 {
			a.armLocked(left)
			break
		}
		a.removeLocked(c)
		over = append(over, c.ring)
	}
	return over
}
