package server

import (
	"syscall"
	"time"
)

// lateness is how long writers have waited, lately, for a connection whose peer did not take
// what it was sent. Who takes each invalidation just before InvalidationTimeout would have
// every write wait for as long, and never be closed. So there is a budget: a leaky bucket into
// which goes the time for which at least one writer waited, and the socket was full. The lock
// of the connection's outbox guards it.
//
// Of a machine that is busy, the peer is not guilty. What is charged is therefore not how long
// a writer waited, which on such a machine may be for a goroutine of ours that has not been
// run, but what the kernel says at some moments of the wait: it has no room for more, and
// somebody has more. And no time between two such moments counts for more than it was meant to
// be, however late we were to look.
type lateness struct {
	waiters int
	since   time.Time // the last moment, while there are waiters
	full    bool      // what it was then
	look    *time.Timer

	level time.Duration // of the bucket, as it was
	at    time.Time     // then
}

// What a connection may keep writers waiting is lateBudget times Options.InvalidationTimeout,
// and comes back at a lateShare of the time that goes by: at the default a second, and in the
// long run a hundredth of the time. So it is closed after ten writes or so that it has kept
// to the last moment, and one of those every ten seconds is forgiven for ever.
const (
	lateBudget = 10
	lateShare  = 100
	// lateLooks is how often the socket is looked at during InvalidationTimeout.
	lateLooks = 20
)

// busyMachine is for how many such looks more a writer waits, when InvalidationTimeout is over,
// for a connection whose socket has room: we are the ones who are late. It is ten times as long.
const busyMachine = 10 * lateLooks

func (o *outbox) lateStep() time.Duration {
	return max(o.conn.server.options.InvalidationTimeout/lateLooks, time.Millisecond)
}

// waitBegins is told of a writer that waits for the connection, and tells whether there is
// anything to wait for.
func (o *outbox) waitBegins() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || !o.owed {
		return false
	}
	l := &o.late
	if l.waiters++; l.waiters > 1 {
		return true
	}
	l.since, l.full = time.Now(), o.full()
	if l.look == nil {
		l.look = time.AfterFunc(o.lateStep(), o.lookAgain)
	} else {
		l.look.Reset(o.lateStep())
	}
	return true
}

// waitEndsLocked tells whether the budget is used up.
func (o *outbox) waitEndsLocked() (spent bool) {
	l := &o.late
	spent = o.chargeLocked()
	if l.waiters--; l.waiters == 0 {
		l.look.Stop()
	}
	return spent
}

func (o *outbox) lookAgain() {
	o.mu.Lock()
	l := &o.late
	if l.waiters == 0 || o.closed {
		o.mu.Unlock()
		return
	}
	spent := o.chargeLocked()
	l.full = o.full()
	l.look.Reset(o.lateStep())
	o.mu.Unlock()
	if spent {
		o.tooLate()
	}
}

// chargeLocked charges what has gone by since the last moment, if the socket was full then,
// and an invalidation is not through that was put down. (A writer may be waiting for others.)
func (o *outbox) chargeLocked() (spent bool) {
	l, now := &o.late, time.Now()
	if l.full && o.owed {
		l.level = max(0, l.level-now.Sub(l.at)/lateShare) + min(now.Sub(l.since), o.lateStep())
		l.at = now
	}
	l.since = now
	return l.level > lateBudget*o.conn.server.options.InvalidationTimeout
}

// full tells whether something is being written to the socket, which has no room for it.
func (o *outbox) full() bool {
	if o.turn.TryLock() {
		o.turn.Unlock()
		return false
	}
	socket, ok := socketOf(o.conn.nc).(syscall.Conn)
	if !ok {
		return true // it is being written to, and more is not known of it
	}
	raw, err := socket.SyscallConn()
	return err == nil && !writable(raw)
}

// tooLate closes the connection of a peer that has used up its budget.
func (o *outbox) tooLate() {
	o.giveUp(closedLate, "server: a client takes its invalidations late again and again; its connection is closed")
}
