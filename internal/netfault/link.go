package netfault

import (
	"net"
	"sync"
)

// link is a client's connection and the server's that goes with it.
type link struct {
	client, server *net.TCPConn
	seen           []byte // the end of what the client sent; guarded by Proxy.mu

	mu      sync.Mutex
	waiting []*Rule // for the server's next answers
	once    sync.Once
	gone    chan struct{} // closed by cut
	closed  chan struct{} // closed when the server has closed its end
}

func newLink(client, server *net.TCPConn) *link {
	return &link{client: client, server: server, gone: make(chan struct{}), closed: make(chan struct{})}
}

// cut takes the client away, and tells the server so. It returns whether it was there.
func (l *link) cut() (first bool) {
	l.once.Do(func() {
		first = true
		l.client.Close()
		l.server.CloseWrite()
		close(l.gone)
	})
	return first
}

// end closes both connections.
func (l *link) end() {
	l.cut()
	l.server.Close()
}

// left tells whether the server has closed its end.
func (l *link) left() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

func (l *link) expect(r *Rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, r)
}

// answered returns the rule whose answer this is, or nil.
func (l *link) answered() (r *Rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		r, l.waiting = l.waiting[0], l.waiting[1:]
	}
	return r
}
