package netfault

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Proxy stands between clients and a server, and breaks what it is asked to break.
// All methods may be called by any goroutine at any time.
type Proxy struct {
	server   string
	listener net.Listener
	stop     context.CancelFunc // ends attempts to reach the server
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	rules  []*Rule // not met yet, in the order made
	met    []*Rule // whose answer has not come
	links  map[*link]struct{}
	holds  int           // under way
	held   chan struct{} // nil with no hold under way, and closed when the last one ends
	counts Counts
}

// Counts are what a proxy has done.
type Counts struct {
	// Connections were made to the server for a client; for those of Unreachable it did
	// not accept one.
	Connections, Unreachable int
	// RequestsCut, RepliesCut and RepliesHeld are rules that have happened.
	RequestsCut, RepliesCut, RepliesHeld int
	// ConnectionsCut are those that CutAll has closed.
	ConnectionsCut int
	// Holds were begun by Hold.
	Holds int
}

// New starts a proxy, on a free port of the loopback, before the server at an address
// (host:port), which need not be there yet: a client whose server cannot be reached finds
// its connection closed.
func New(serverAddr string) (*Proxy, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("netfault: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{server: serverAddr, listener: listener, stop: stop, links: map[*link]struct{}{}}
	p.running.Go(func() { p.accept(ctx) })
	return p, nil
}

// Addr is where clients connect, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends the proxy and all its connections, and returns when they are closed.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	for l := range p.links {
		l.end()
	}
	p.mu.Unlock()
	p.stop()
	p.listener.Close()
	p.running.Wait()
}

// CutAll closes all connections now, with answers on their way lost, also those that
// wait for a hold to end. New ones are accepted. Rules that were not met stay.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if l.cut() {
			p.counts.ConnectionsCut++
		}
	}
}

// Hold lets everything wait: what is sent from now on, in both directions, the ends of
// connections too, gets no further before release is called. New connections are
// accepted, and answered nothing. release may be called more than once; with several
// holds under way, the last release is the one that counts. What had reached the proxy
// before may still be passed on.
func (p *Proxy) Hold() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds == 0 {
		p.held = make(chan struct{})
	}
	p.holds++
	p.counts.Holds++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.holds--; p.holds == 0 {
			close(p.held)
			p.held = nil
		}
	})
}

// pass returns when no hold is under way; false for a link that was cut.
func (p *Proxy) pass(l *link) bool {
	for {
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		if held == nil {
			return true
		}
		select {
		case <-held:
		case <-l.gone:
			return false
		}
	}
}

// Connections is how many the server has of this proxy's: those that it has not closed,
// whether or not their clients are there.
func (p *Proxy) Connections() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open()
}

func (p *Proxy) open() (n int) {
	for l := range p.links {
		if !l.left() {
			n++
		}
	}
	return n
}

// AwaitServer returns when the server has closed every connection that there is now. It
// does so when it has noticed that the client is gone, and has ended what that one had
// asked for: nothing of these connections is under way then. Whoever calls it has closed
// the clients, or cut them off. A connection that is still there when ctx ends is an
// error.
func (p *Proxy) AwaitServer(ctx context.Context) error {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for i, l := range links {
		select {
		case <-l.closed:
		case <-ctx.Done():
			n := 0
			for _, l := range links[i:] {
				if !l.left() {
					n++
				}
			}
			if n == 0 {
				return nil
			}
			return fmt.Errorf("netfault: the server has not closed %d of %d connections: %w", n, len(links), context.Cause(ctx))
		}
	}
	return nil
}

// Counts are what the proxy has done so far.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

func (p *Proxy) accept(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // the proxy is closed
		}
		p.running.Go(func() { p.serve(ctx, client.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(ctx context.Context, client *net.TCPConn) {
	server, err := new(net.Dialer).DialContext(ctx, "tcp", p.server)
	if err != nil {
		p.count(func(c *Counts) { c.Unreachable++ })
		client.Close()
		return
	}
	l := newLink(client, server.(*net.TCPConn))
	p.mu.Lock()
	p.counts.Connections++
	p.links[l] = struct{}{}
	if p.closed {
		l.end()
	}
	p.mu.Unlock()
	p.running.Go(func() { p.requests(l) })
	p.answers(l)
	p.pass(l) // that the server has closed the connection is news as any other
	l.end()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// requests passes on what the client sends.
func (p *Proxy) requests(l *link) {
	buf := make([]byte, 32<<10)
	for {
		n, err := l.client.Read(buf)
		if !p.pass(l) {
			return
		}
		if n > 0 {
			if r := p.find(l, buf[:n]); r != nil {
				if r.action == cutRequest {
					l.cut()
					p.happened(r)
					return
				}
				l.expect(r)
			}
			if _, err := l.server.Write(buf[:n]); err != nil {
				l.cut()
				return
			}
		}
		if err != nil {
			// A client that goes away does not take back what it sent: the server
			// gets all of it, and its answer still counts for the rules.
			l.server.CloseWrite()
			return
		}
	}
}

// answers passes on what the server sends, until it sends no more. What it sends to a
// client that was cut off goes nowhere.
func (p *Proxy) answers(l *link) {
	defer close(l.closed)
	buf := make([]byte, 32<<10)
	for {
		n, err := l.server.Read(buf)
		if n > 0 && p.pass(l) {
			p.answer(l, buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) answer(l *link, sent []byte) {
	if r := l.answered(); r != nil {
		if r.action == cutReply {
			l.cut()
			p.happened(r)
			return
		}
		p.happened(r)
		select {
		case <-r.release:
		case <-l.gone:
			return
		}
	}
	// That the client is gone is for requests to find out.
	l.client.Write(sent)
}

func (p *Proxy) count(f func(c *Counts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.counts)
}
