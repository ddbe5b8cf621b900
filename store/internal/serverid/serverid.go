// Package serverid remembers which server a database's sessions are of, and tells when
// it is another: after a failover, after a restore, after a restart. What was read from
// the one before may not be what the database holds now.
package serverid

import (
	"sync"
	"sync/atomic"
)

// Tracker belongs to a Database. ID is whatever tells two servers, or two runs of one,
// apart. The zero value has met no server.
//
// A session is used only while it Is of the server that was met last. So a load either
// asks the new server, or has looked before the change was told of, and then is one
// that the listeners still find under way. Nobody passes Met or Is while they are told:
// what the new server says is not reported while memory may still answer for the old
// one.
type Tracker[ID comparable] struct {
	current atomic.Pointer[ID] // nil before the first, and while the listeners are told

	mu        sync.Mutex
	last      *ID
	refused   *ID
	listeners map[*listener]struct{}
	changed   chan struct{} // closed when it is another
}

type listener struct{ f func() }

// Met notes the server of a new session.
func (t *Tracker[ID]) Met(id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != nil && *t.last == id {
		return
	}
	first := t.last == nil && t.refused == nil
	t.last, t.refused = &id, nil
	if !first {
		t.tell()
	}
	t.current.Store(&id)
}

// Refused notes that a server will not do: one that has become a replica, for example.
// That is told once. The sessions of the server that was met last, if that is another
// one, may go on.
func (t *Tracker[ID]) Refused(id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused != nil && *t.refused == id {
		return
	}
	t.refused = &id
	if t.last != nil && *t.last == id {
		t.last = nil
	}
	t.tell()
	t.current.Store(t.last)
}

func (t *Tracker[ID]) tell() {
	t.current.Store(nil)
	for l := range t.listeners {
		l.f()
	}
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// Is tells whether id is the server that was met last. It takes no lock as a rule.
func (t *Tracker[ID]) Is(id ID) bool {
	if c := t.current.Load(); c != nil {
		return *c == id
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last != nil && *t.last == id
}

// Watch is Is, and returns a channel that is closed at the next change.
func (t *Tracker[ID]) Watch(id ID) (same bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.last != nil && *t.last == id, t.changed
}

// Listen has f called at every change, until stop is called. It implements
// Capabilities.Replaced: f is quick, and calls nothing of the store's.
func (t *Tracker[ID]) Listen(f func()) (stop func()) {
	l := &listener{f}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners == nil {
		t.listeners = map[*listener]struct{}{}
	}
	t.listeners[l] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.listeners, l)
	}
}

// Heard tells whether anybody listens.
func (t *Tracker[ID]) Heard() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.listeners) > 0
}
