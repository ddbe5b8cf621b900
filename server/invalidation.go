package server

import (
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// invalidation is of one key, or of all; or it says that a connection is gone to which
// they were to be sent.
type invalidation struct {
	key  string
	all  bool
	gone int64
}

// append appends the message, in RESP3.
func (i invalidation) append(w *resp.Writer) {
	w.Push(2)
	if i.gone != 0 {
		w.BulkString("tracking-redir-broken")
		w.Integer(i.gone)
		return
	}
	w.BulkString("invalidate")
	i.appendKeys(w)
}

func (i invalidation) appendKeys(w *resp.Writer) {
	if i.all {
		w.Null()
		return
	}
	w.Array(1)
	w.BulkString(i.key)
}

// tell puts an invalidation into the outbox of who is to get it: who tracks, or the one
// that he has named. What a connection itself has written it says by itself, behind its
// reply (writing.own).
func (t *tracking) tell(f *follower, i invalidation, w *writing, broadcast bool) {
	c := f.conn.Load()
	if c == nil {
		return
	}
	o := &c.out
	o.mu.Lock()
	m := o.mode
	own := w != nil && w.conn == c
	switch {
	case !m.on || m.bcast != broadcast && !i.all,
		own && m.noLoop && !i.all:
		o.mu.Unlock()
		return
	case own && m.redirectsTo(c) == 0:
		w.own = append(w.own, i)
		o.mu.Unlock()
		return
	}
	if o.reading && !own {
		o.againLocked(i)
	}
	id := m.redirectsTo(c)
	if id == 0 {
		o.invalidateLocked(i, false)
	}
	o.mu.Unlock()
	if id != 0 {
		t.redirect(c, id, i, w)
	}
}

// redirectsTo is where a connection has its invalidations sent, 0 for itself.
func (m mode) redirectsTo(c *conn) int64 {
	if m.redirect == c.id {
		return 0
	}
	return m.redirect
}

// redirect tells another connection, or, if that is gone, the one that named it, which
// may be the writer.
func (t *tracking) redirect(c *conn, id int64, i invalidation, w *writing) {
	if target := t.server.client(id); target != nil {
		target.out.mu.Lock()
		defer target.out.mu.Unlock()
		target.out.invalidateLocked(i, true)
		return
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.mode.broken = true
	switch {
	case c.out.version != resp.RESP3:
	case w != nil && w.conn == c:
		w.own = append(w.own, invalidation{gone: id})
	default:
		c.out.messageLocked(invalidation{gone: id}.append)
	}
}

// deliver waits until what was put down until now is with the kernel, and closes the
// connections whose peers do not take it within Options.InvalidationTimeout, which is that
// of all of them together, or have been late too often (lateness). It is called before the
// replies to writes leave.
func (t *tracking) deliver(self *outbox) {
	t.undeliveredMu.Lock()
	var waiting []*outbox
	for o := range t.undelivered {
		if o != self { // it leaves with the replies, before them
			waiting = append(waiting, o)
		}
	}
	t.undeliveredMu.Unlock()
	// All of them are waited for from here on, whichever comes first below.
	waiting = slices.DeleteFunc(waiting, func(o *outbox) bool { return !o.waitBegins() })
	if len(waiting) == 0 {
		return
	}
	over := make(chan struct{})
	timer := time.AfterFunc(t.server.options.InvalidationTimeout, func() { close(over) })
	defer timer.Stop()
	for _, o := range waiting {
		o.await(over)
	}
}
