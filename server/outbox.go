package server

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/lockstep-cache/lockstep/resp"
)

// outbox is the side of a connection that others may write to: messages of channels, and
// invalidations. They put whole messages into a queue, and never wait for the peer; what is
// in the queue is sent by a goroutine that lives while there is something to send, or by
// the connection's own, before its next replies. So a connection to which nobody has
// anything to say has neither a goroutine nor a queue.
//
// The queue is bounded by Options.OutputLimit. Beyond it the connection is closed.
type outbox struct {
	conn *conn

	// turn is held while something is written to the socket: whole replies, or whole
	// messages. It is taken before mu.
	turn    sync.Mutex
	writeBy time.Time // the deadline that is set for writing; turn guards it

	// used is set before anything is ever queued. It spares those who never are written
	// to the other lock.
	used atomic.Bool

	mu      sync.Mutex
	queue   []byte // whole messages; mu guards it, as what follows
	spare   []byte // a buffer that was sent
	pushing bool   // there is a goroutine that sends
	over    bool   // nothing is sent any more: the connection is closed, or about to be
	closed  bool   // it is closed: who waits for something to be sent need not
	// queued and sent count bytes: what is between them waits, or is being written.
	queued, sent uint64
	moved        chan struct{} // closed when sent or closed changes; nil if nobody waits
	version      resp.Version  // of messages
	subscribed   bool          // to anything

	// Of CLIENT TRACKING.
	mode mode
	// reading: replies are being built of values that may be invalidated. What is, is
	// kept in again, to be told once more behind them.
	reading   bool
	again     []invalidation
	againSize int    // of the memory that it takes, roughly
	told      uint64 // so many bytes of queued are known to have the last invalidation
	owed      bool   // tracking.undelivered has it
	late      lateness

	pushers sync.WaitGroup // grows only while over is false, under mu
}

// putLocked appends a message, which is whole, and has it sent. It tells whether it has been
// taken: not where the connection is about to be closed.
func (o *outbox) putLocked(message []byte) bool {
	if !o.appendLocked(message) {
		return false
	}
	if !o.pushing {
		o.pushing = true
		o.pushers.Add(1)
		go o.push()
	}
	return true
}

// appendLocked is putLocked without having it sent.
func (o *outbox) appendLocked(message []byte) bool {
	if o.over {
		return false
	}
	limit := o.conn.server.options.OutputLimit
	if waiting := o.queued - o.sent + uint64(len(message)); waiting > uint64(limit) {
		o.conn.server.counts.closed[closedOutput].Add(1)
		o.conn.server.options.Logger.Warn("server: a client does not read what it is sent; its connection is closed",
			"client", o.conn.id, "address", o.conn.nc.RemoteAddr(), "bytes", waiting, "OutputLimit", limit)
		o.overLocked()
		// Not here: a mutex is held that others want.
		o.pushers.Add(1)
		go func() {
			defer o.pushers.Done()
			o.cut()
		}()
		return false
	}
	o.used.Store(true)
	if o.queue == nil {
		o.queue, o.spare = o.spare, nil
	}
	o.queue = append(o.queue, message...)
	o.queued += uint64(len(message))
	return true
}

func (o *outbox) overLocked() {
	o.over = true
	o.queue, o.spare = nil, nil
}

// takeLocked returns what is to be sent now.
func (o *outbox) takeLocked() []byte {
	queue := o.queue
	o.queue = nil
	return queue
}

// push sends what is queued until nothing is.
func (o *outbox) push() {
	defer o.pushers.Done()
	for o.pushOnce() {
	}
}

func (o *outbox) pushOnce() bool {
	o.turn.Lock()
	defer o.turn.Unlock()
	o.mu.Lock()
	messages := o.takeLocked()
	if len(messages) == 0 {
		o.pushing = false
		o.mu.Unlock()
		return false
	}
	o.mu.Unlock()
	if o.write(messages) != nil {
		o.cut()
		return false
	}
	o.wrote(messages)
	return true
}

// wrote says that messages from the queue are with the kernel.
func (o *outbox) wrote(messages []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent += uint64(len(messages))
	if cap(messages) <= keptOutput && o.spare == nil && !o.over {
		o.spare = messages[:0]
	}
	o.movedLocked()
}

func (o *outbox) movedLocked() {
	if o.late.full {
		_ = o.chargeLocked() // whoever waits sees what it comes to
		o.late.full = false
	}
	if o.owed && (o.sent >= o.told && !o.over || o.closed) {
		o.owed = false
		t := o.conn.server.tracking
		t.undeliveredMu.Lock()
		delete(t.undelivered, o)
		t.undeliveredMu.Unlock()
	}
	if o.moved != nil {
		close(o.moved)
		o.moved = nil
	}
}

// write writes to the socket. The caller has the turn.
func (o *outbox) write(b []byte) error {
	for len(b) > 0 {
		// A deadline costs more than to look at the clock; one that has half of its time
		// left is good enough.
		now := time.Now()
		if timeout := o.conn.server.options.WriteTimeout; o.writeBy.Sub(now) < timeout/2 {
			o.writeBy = now.Add(timeout)
			if err := o.conn.nc.SetWriteDeadline(o.writeBy); err != nil {
				return err
			}
		}
		n, err := o.conn.nc.Write(b[:min(len(b), flushAt)])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				o.conn.server.counts.closed[closedUnread].Add(1)
			}
			return err
		}
		o.conn.counts.writes.Add(1)
		o.conn.counts.out.Add(uint64(n))
		b = b[n:]
	}
	return nil
}

// messageLocked is putLocked for who builds the message.
func (o *outbox) messageLocked(build func(w *resp.Writer)) {
	var w resp.Writer
	w.SetVersion(o.version)
	build(&w)
	o.putLocked(w.Bytes())
}

// invalidateLocked puts an invalidation down, to be delivered before the replies of any
// write leave. For who speaks RESP2 there is no such message, unless another connection
// has its invalidations sent here, and this one has subscribed.
func (o *outbox) invalidateLocked(i invalidation, redirected bool) {
	switch {
	case o.closed:
		return
	case o.version == resp.RESP3:
		o.messageLocked(i.append)
	case redirected && o.subscribed:
		o.messageLocked(func(w *resp.Writer) {
			w.Push(3)
			w.BulkString("message")
			w.BulkString("__redis__:invalidate")
			i.appendKeys(w)
		})
	default:
		return
	}
	// Also where it was not taken, because the connection is about to be closed.
	o.told = o.queued
	if !o.owed {
		o.owed = true
		t := o.conn.server.tracking
		t.undeliveredMu.Lock()
		t.undelivered[o] = struct{}{}
		t.undeliveredMu.Unlock()
	}
}

// againLocked has an invalidation follow the replies that are being built. These may wait for
// the database, while there is no end of invalidations: where they come to OutputLimit, too,
// one that everything is out of date is put in the place of all of them. The peer reads and
// has done nothing wrong; all that it loses is its copies.
func (o *outbox) againLocked(i invalidation) {
	switch {
	case len(o.again) == 1 && o.again[0].all:
		return
	case i.all, o.againSize > o.conn.server.options.OutputLimit:
		o.again, o.againSize = []invalidation{{all: true}}, 0
		return
	}
	o.again = append(o.again, i)
	o.againSize += int(unsafe.Sizeof(i)) + len(i.key)
}

// await waits until the kernel has every invalidation that has been put down, or the
// connection is closed. It closes it where its peer has not made room for them before over,
// or has been late too often. It follows waitBegins.
func (o *outbox) await(over <-chan struct{}) {
	o.mu.Lock()
	told, inTime, patience := o.told, true, busyMachine
	for inTime && (o.sent < told || o.over) && !o.closed {
		if o.moved == nil {
			o.moved = make(chan struct{})
		}
		moved := o.moved
		o.mu.Unlock()
		select {
		case <-moved:
		case <-over:
			if patience--; patience < 0 || o.full() {
				inTime = false
				break
			}
			again := make(chan struct{})
			time.AfterFunc(o.lateStep(), func() { close(again) })
			over = again
		}
		o.mu.Lock()
	}
	spent := o.waitEndsLocked()
	o.mu.Unlock()
	switch {
	case !inTime:
		o.tooSlow()
	case spent:
		o.tooLate()
	}
}

// tooSlow closes the connection of a peer that has not taken an invalidation in time.
func (o *outbox) tooSlow() {
	o.giveUp(closedSlow, "server: a client does not take an invalidation; its connection is closed")
}

func (o *outbox) giveUp(why closing, message string) {
	o.mu.Lock()
	first := !o.over
	o.overLocked()
	o.mu.Unlock()
	if first {
		o.conn.server.counts.closed[why].Add(1)
		o.conn.server.options.Logger.Warn(message,
			"client", o.conn.id, "address", o.conn.nc.RemoteAddr(), "InvalidationTimeout", o.conn.server.options.InvalidationTimeout)
	}
	o.cut()
}

// cut closes the connection whatever is under way on it. What the kernel has not sent yet
// is thrown away, so that a peer that reads on finds the end at once, and not behind what
// is out of date.
func (o *outbox) cut() {
	nc := socketOf(o.conn.nc) // no farewell to who does not read
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	nc.Close()
	o.ended()
}

// ended is for a connection on which the peer sees the end, whatever it has read.
func (o *outbox) ended() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.overLocked()
	o.closed = true
	o.movedLocked()
}

// waiting is how many bytes are queued, or being written.
func (o *outbox) waiting() int {
	if !o.used.Load() {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue)
}
