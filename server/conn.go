package server

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

const (
	// flushAt is how many bytes of replies are built before some are sent; also how much
	// a peer has WriteTimeout for.
	flushAt = 1 << 20
	// keptOutput is how much memory for replies a connection keeps that is in use.
	keptOutput = 64 << 10
	// restful is how long a connection must be idle to give its buffers back.
	restful = 10 * time.Second
	// lingering is how long the end of a connection may take that is closed by us.
	lingering = time.Second
)

// conn is a connection. What is not said to be anybody's belongs to its goroutine.
type conn struct {
	server  *Server
	nc      net.Conn
	id      int64     // for anybody
	created time.Time // for anybody

	r *resp.Reader
	w resp.Writer

	counts *stripe
	tally  tally

	authenticated bool
	readOnly      bool      // its user is
	usersSeen     uint64    // how often users had changed when it was last asked who its user is
	stranger      time.Time // since when it has been the other way round
	silence       silence
	closing       bool     // after the reply that is being built
	dropped       bool     // at once, without a reply
	current       *command // the last one that was run, or nil

	multi       *multi          // since MULTI, or nil
	watched     map[string]seen // since WATCH
	watchedSize int
	executing   bool // the reply of EXEC is being built

	group []*member // writes that wait to be run together
	alone request   // the command about keys that is run by itself

	begun  time.Time // when the first bytes of a request came that is not whole, or zero
	rested time.Time // when the last request was answered
	shrunk bool      // the buffers were given back since

	out      outbox         // for anybody
	messages resp.Version   // out.version, which is changed here only
	follows  following      // of CLIENT TRACKING
	wrote    bool           // there are replies to writes: see tracking.deliver
	subs     *subscriptions // nil where there never was one
	kept     int            // so many bytes of w stay there whatever CLIENT REPLY has said

	mu     sync.Mutex
	readBy time.Time // the deadline that is set for reading, or zero
	drains bool
	nudged bool
	shaken bool // the handshake is over, which must not be disturbed
	about  about

	left bool // it is being closed, and no client any more; the server's mutex guards it
}

// silence is what CLIENT REPLY has said.
type silence struct {
	off  bool // no replies
	next bool // none to the next command
	this bool // none to this one
}

var (
	errDrained  = errors.New("the server shuts down")
	errIdle     = errors.New("idle for too long")
	errSlow     = errors.New("a request took too long to come")
	errStranger = errors.New("did not say who it is")
	errRest     = errors.New("idle") // gives buffers back, and goes on
)

var closingOf = map[error]closing{errIdle: closedIdle, errSlow: closedDrip, errStranger: closedStranger}

func newConn(s *Server, nc net.Conn) *conn {
	now := time.Now()
	c := &conn{server: s, nc: nc, created: now, rested: now, counts: &s.counts.stripes[0]}
	c.r = resp.NewReader(counted{c}, s.options.Limits)
	c.out.conn, c.out.version, c.messages = c, resp.RESP2, resp.RESP2
	c.about = about{version: resp.RESP2, active: now}
	c.arrive()
	return c
}

// arrive has the connection be that of somebody who has not said who it is.
func (c *conn) arrive() {
	c.usersSeen = c.server.usersChanges.Load() // before it is asked, so that no change is missed
	user, open := c.server.open()
	c.become(defaultUser, user, open)
}

// become has the connection be a user's, who has shown to be that or has yet to.
func (c *conn) become(name string, user User, known bool) {
	c.authenticated, c.readOnly, c.stranger = known, user.ReadOnly, time.Now()
	c.r.SetAuthenticated(known)
	c.say(func(a *about) { a.user, a.known = name, known })
}

// serve runs the connection to its end.
func (c *conn) serve() {
	defer c.end()
	defer c.server.forget(c)
	defer func() {
		if fault := recover(); fault != nil {
			c.server.options.Logger.Error("server: a command panicked; its connection is closed",
				"panic", fault, "stack", string(debug.Stack()))
		}
	}()
	if !c.shake() {
		return
	}
	c.mu.Lock()
	c.shaken = true
	c.mu.Unlock()
	if c.run() {
		c.server.leave(c)
		c.forsake()
		c.linger()
	}
}

// end closes the connection, and waits for those who were sending something to it.
func (c *conn) end() {
	c.forsake()
	c.nc.Close()
	c.out.ended()
	c.unfollow() // not before: whoever writes must find it until its peer sees the end
	c.out.pushers.Wait()
}

// hangUp closes the connection for somebody who must not wait for its peer, as tls.Conn's
// Close does, up to five seconds, to say farewell to who does not read.
func (c *conn) hangUp() { socketOf(c.nc).Close() }

// socketOf is what is below TLS, where there is any.
func socketOf(nc net.Conn) net.Conn {
	if secure, ok := nc.(interface{ NetConn() net.Conn }); ok {
		return secure.NetConn()
	}
	return nc
}

// run reads, runs and answers until the connection is to be closed, and tells whether that
// is our wish rather than the peer's.
func (c *conn) run() (ours bool) {
	for {
		ran := false
		for !c.closing {
			args, err := c.r.Next()
			if err != nil {
				c.runGroup()
				c.misdirected()
				c.answer(func() { c.w.Error("ERR " + err.Error()) })
				c.server.counts.failed([]byte("ERR"))
				c.closing = true
				break
			}
			if args == nil {
				break
			}
			c.begun = time.Time{}
			ran = true
			c.do(args)
			if c.dropped {
				return false
			}
			if c.w.Len() >= flushAt {
				c.settle()
				if c.flush() != nil {
					return false
				}
			}
		}
		c.runGroup()
		c.settle()
		if ran {
			c.rested, c.shrunk = time.Now(), false
			c.publish() // before the replies: who has one may ask elsewhere what is said of it
		}
		if c.flush() != nil {
			return false
		}
		if c.closing {
			return true
		}
		if ran {
			// Who reads at once finds nothing, sleeps, and has to be woken. Where others are
			// ready to run, the next request has come by the time of this one's turn.
			runtime.Gosched()
		}
		switch err := c.fill(); err {
		case nil:
		case errDrained:
			return true
		case errIdle, errSlow, errStranger:
			c.server.counts.closed[closingOf[err]].Add(1)
			return true
		default:
			return false
		}
	}
}

// answer builds a reply, which CLIENT REPLY may have forbidden.
func (c *conn) answer(build func()) {
	c.kept = c.w.Len()
	build()
	if c.silenced() {
		c.w.Truncate(c.kept)
	}
}

// keep has what was built so far be sent though CLIENT REPLY forbids replies: messages,
// and what is said of subscriptions.
func (c *conn) keep() { c.kept = c.w.Len() }

// silenced tells whether the reply to the command that is run is not wanted, and goes on
// to the next command.
func (c *conn) silenced() bool {
	silent := c.silence.off || c.silence.this
	c.silence.this, c.silence.next = c.silence.next, false
	return silent
}

// flush sends what others have queued, and then the replies that were built.
func (c *conn) flush() error {
	if c.wrote {
		c.wrote = false
		c.server.tracking.deliver(&c.out)
	}
	o := &c.out
	if !o.used.Load() && c.w.Version() == c.messages {
		if c.w.Len() == 0 {
			return nil
		}
		o.turn.Lock()
		defer o.turn.Unlock()
		return c.sendReplies()
	}
	return c.flushAll()
}

// sendReplies has the turn.
func (c *conn) sendReplies() error {
	if err := c.out.write(c.w.Bytes()); err != nil {
		return err
	}
	c.w.Reset(keptOutput)
	c.kept = 0
	return nil
}

// flushAll is flush where others may have queued something.
func (c *conn) flushAll() error {
	o := &c.out
	o.turn.Lock()
	defer o.turn.Unlock()
	o.mu.Lock()
	messages, again, m := o.takeLocked(), o.again, o.mode
	o.version, c.messages = c.w.Version(), c.w.Version()
	o.reading, o.again, o.againSize, c.follows.reading = false, nil, 0, false
	o.mu.Unlock()
	if len(messages) > 0 {
		if err := o.write(messages); err != nil {
			return err
		}
		o.wrote(messages)
	}
	redirect := m.redirectsTo(c)
	if redirect == 0 {
		c.tellOwn(again)
	}
	if err := c.sendReplies(); err != nil {
		return err
	}
	if redirect != 0 {
		for _, i := range again {
			c.server.tracking.redirect(c, redirect, i, nil)
		}
	}
	return nil
}

// queue has what was built be sent like messages, and before all that are queued from now
// on: with the next of them, or with the next replies.
func (c *conn) queue() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.appendLocked(c.w.Bytes())
	c.w.Reset(keptOutput)
	c.kept = 0
}

// fill waits until more has come. Its errors are those above, or the connection's.
func (c *conn) fill() error {
	for {
		now := time.Now()
		if c.begun.IsZero() && c.r.Buffered() > 0 {
			c.begun = now
		}
		by, why := c.deadline()
		if !by.IsZero() && !now.Before(by) {
			if why != errRest {
				return why
			}
			c.r.Shrink()
			c.w.Reset(0)
			c.shrunk = true
			continue
		}
		if err := c.wakeBy(by); err != nil {
			return err
		}
		err := c.r.Fill()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.wakeNever(); err != nil {
			return err
		}
	}
}

// deadline returns by when something must have come, and why; or zero.
func (c *conn) deadline() (by time.Time, why error) {
	sooner := func(t time.Time, reason error) {
		if by.IsZero() || t.Before(by) {
			by, why = t, reason
		}
	}
	o := &c.server.options
	idle := time.Duration(c.server.idle.Load())
	switch {
	case !c.begun.IsZero():
		sooner(c.begun.Add(o.RequestTimeout), errSlow)
	case idle > 0 && !c.subscribed():
		sooner(c.rested.Add(idle), errIdle)
	}
	if !c.authenticated {
		sooner(c.stranger.Add(o.AuthTimeout), errStranger)
	}
	if c.begun.IsZero() && !c.shrunk {
		sooner(c.rested.Add(restful), errRest)
	}
	return by, why
}

// wakeBy has the next read end at that time at the latest. One that ends before is not set
// anew: it finds that there is time left, once in a while rather than at each request.
func (c *conn) wakeBy(by time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drains {
		return errDrained
	}
	if c.nudged {
		c.nudged = false // the deadline that has passed ends the read, and then there is another look
		return nil
	}
	if by.Equal(c.readBy) || !c.readBy.IsZero() && !by.IsZero() && c.readBy.Before(by) {
		return nil
	}
	c.readBy = by
	return c.nc.SetReadDeadline(by)
}

// wakeNever takes the deadline away that has passed: no read would wait any more.
func (c *conn) wakeNever() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drains {
		return errDrained
	}
	c.readBy, c.nudged = time.Time{}, false
	return c.nc.SetReadDeadline(c.readBy)
}

// nudge has the connection look again how long it may wait.
func (c *conn) nudge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.drains && c.shaken {
		c.nudged, c.readBy = true, time.Unix(1, 0)
		_ = c.nc.SetReadDeadline(c.readBy)
	}
}

// drain has the connection end when what has been read of it is answered.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drains = true
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}

// linger tells the peer that nothing more comes, and waits until it has understood: to
// close a connection on which something unread has come destroys what was sent last.
func linger(nc net.Conn) {
	if closeHalf(nc) {
		_, _ = io.Copy(io.Discard, nc)
	}
}

// linger is for a connection to which others may be sending something: for as long as the
// end may take, and no longer, or a listener who does not read would keep Shutdown.
func (c *conn) linger() {
	_ = c.nc.SetWriteDeadline(time.Now().Add(lingering))
	c.out.turn.Lock()
	closed := closeHalf(c.nc)
	if closed {
		c.out.ended() // in the same turn: who fails to send would have the last reply destroyed
	}
	c.out.turn.Unlock()
	if closed {
		_, _ = io.Copy(io.Discard, c.nc)
	}
}

// closeHalf closes our half of a connection, and gives it a second for the rest.
func closeHalf(nc net.Conn) bool {
	half, ok := nc.(interface{ CloseWrite() error })
	return ok && nc.SetDeadline(time.Now().Add(lingering)) == nil && half.CloseWrite() == nil
}
