package dbtest

import (
	"bytes"
	"net"
	"regexp"
	"slices"
	"sync"
	"testing"
)

// Proxy stands between clients and a server, and breaks what the test asks it to
// break. It passes bytes on, and knows no protocol: a connection must not be
// encrypted (the URLs of this package say so).
//
// # What matches
//
// A match is on the bytes that a client sends, however they are spread over
// packets, and exact. It must not be longer than 1024 bytes. Bytes from before
// the rule was made do not count, nor do those in which another rule was met. The
// first rule made is the first one met.
//
// What a client sends is not what the test wrote:
//
//   - pgx ends transactions with "commit", go-sql-driver/mysql with "COMMIT".
//   - A statement with arguments is prepared first. The prepared statement's text
//     travels in a message of its own, once for a connection, and is answered
//     before anything is executed; the message that executes it has the name of the
//     statement (pgx) or its number (mysql), and the arguments. So a rule that means
//     the execution matches a marker in an argument: text and bytes travel verbatim
//     in both protocols.
//   - A statement without arguments is sent as text, and executed at once; but pgx's
//     Query and QueryRow prepare those too.
//
// # What is an answer
//
// The answer to a message is what the server sends first after the message was
// passed on. With a client that waits for each answer, which is what both drivers
// do except for batches (pgx.Batch, pipelines), that is the answer to this
// message; after a COMMIT the server has committed, or has failed to.
//
// A rule that did not come about before the test ended fails the test, which has
// tested nothing.
// All methods may be called by any goroutine at any time.
type Proxy struct {
	t        testing.TB
	server   string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	rules  []*rule // not met yet, in the order made
	met    []*rule
	links  map[*link]struct{}
}

// rule is something to break, once.
type rule struct {
	match    []byte
	action   action
	happened chan struct{} // closed when what was asked for has happened
	release  chan struct{} // ends a hold
}

type action int

const (
	cutRequest action = iota
	cutReply
	holdReply
)

// NewProxy starts a proxy before the server at an address, which need not be
// there yet: a client whose server cannot be reached finds its connection closed.
// The proxy and all its connections end with the test.
func NewProxy(t testing.TB, serverAddr string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("dbtest: proxy: %v", err)
	}
	p := &Proxy{t: t, server: serverAddr, listener: listener, links: map[*link]struct{}{}}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Via starts a proxy before the server of a URL or DSN of this package, and
// returns the URL or DSN that leads through it.
func Via(t testing.TB, url string) (p *Proxy, via string) {
	t.Helper()
	addr := loopback.FindString(url)
	if addr == "" {
		t.Fatalf("dbtest: there is no address of the loopback in %q", url)
	}
	p = NewProxy(t, addr)
	return p, loopback.ReplaceAllLiteralString(url, p.Addr())
}

var loopback = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// Addr is where clients connect, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// CutReply makes one message be answered in vain: the next one that contains match
// is passed on, and when the server answers it, the client's and the server's
// connection are closed and the answer is lost. The channel is closed when that
// has happened.
func (p *Proxy) CutReply(match string) <-chan struct{} {
	p.t.Helper()
	return p.rule(match, cutReply).happened
}

// CutRequest makes one message not arrive: both connections are closed in place of
// passing on the next one that contains match. A beginning of it, without the end
// of match, may have been passed on; the server does nothing with that. The
// channel is closed when that has happened.
func (p *Proxy) CutRequest(match string) <-chan struct{} {
	p.t.Helper()
	return p.rule(match, cutRequest).happened
}

// HoldReply makes one answer come late: the next message that contains match is
// passed on, and the answer, with all that follows on that connection, waits for
// release. held is closed when the server has answered. release may be called at
// any time and more than once.
func (p *Proxy) HoldReply(match string) (held <-chan struct{}, release func()) {
	p.t.Helper()
	r := p.rule(match, holdReply)
	return r.happened, sync.OnceFunc(func() { close(r.release) })
}

// CutAll closes all connections now, with answers on their way lost. New ones are
// accepted. Rules that were not met stay.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

func (p *Proxy) rule(match string, a action) *rule {
	p.t.Helper()
	if match == "" || len(match) > maxMatch {
		p.t.Fatalf("dbtest: proxy: a match of %d bytes: it must have 1 to %d", len(match), maxMatch)
	}
	r := &rule{match: []byte(match), action: a, happened: make(chan struct{}), release: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, r)
	for l := range p.links {
		l.seen = nil
	}
	return r
}

// find returns the first rule that the bytes meet, which a client sent after those
// that were seen of it, and remembers what the next ones may continue.
func (p *Proxy) find(l *link, sent []byte) *rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rules) == 0 {
		return nil // the next rule starts from here
	}
	l.seen = append(l.seen, sent...)
	for i, r := range p.rules {
		if bytes.Contains(l.seen, r.match) {
			p.rules, p.met = slices.Delete(p.rules, i, i+1), append(p.met, r)
			l.seen = nil
			return r
		}
	}
	// What is kept is shorter than any match that was looked for in it, or holds
	// none of them.
	l.seen = bytes.Clone(l.seen[max(0, len(l.seen)-maxMatch+1):])
	return nil
}

const maxMatch = 1024

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // the proxy is closed
		}
		p.running.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.Close()
		return
	}
	l := &link{client: client, server: server.(*net.TCPConn), gone: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		l.cut()
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	p.running.Go(func() { p.requests(l) })
	p.answers(l)
	l.cut()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// requests passes on what the client sends.
func (p *Proxy) requests(l *link) {
	buf := make([]byte, 32<<10)
	for {
		n, err := l.client.Read(buf)
		if n > 0 {
			if r := p.find(l, buf[:n]); r != nil {
				if r.action == cutRequest {
					l.cut()
					close(r.happened)
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

// answers passes on what the server sends, until it sends no more.
func (p *Proxy) answers(l *link) {
	buf := make([]byte, 32<<10)
	for {
		n, err := l.server.Read(buf)
		if n > 0 {
			if r := l.answered(); r != nil {
				if r.action == cutReply {
					l.cut()
					close(r.happened)
					return
				}
				close(r.happened)
				select {
				case <-r.release:
				case <-l.gone:
					return
				}
			}
			// That the client is gone is for requests to find out.
			l.client.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// close ends the proxy, and reports rules that nothing met.
func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.listener.Close()
	p.CutAll()
	p.running.Wait()
	if p.t.Failed() {
		return
	}
	for _, r := range p.rules {
		p.t.Errorf("dbtest: proxy: nothing contained %q", r.match)
	}
	for _, r := range p.met {
		select {
		case <-r.happened:
		default:
			p.t.Errorf("dbtest: proxy: the server did not answer what contained %q", r.match)
		}
	}
}

// link is a client's connection and the server's that goes with it.
type link struct {
	client, server *net.TCPConn
	seen           []byte // the end of what the client sent; guarded by Proxy.mu

	mu      sync.Mutex
	waiting []*rule // for the server's next answers
	once    sync.Once
	gone    chan struct{} // closed by cut
}

// cut closes both connections.
func (l *link) cut() {
	l.once.Do(func() {
		l.client.Close()
		l.server.Close()
		close(l.gone)
	})
}

func (l *link) expect(r *rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, r)
}

// answered returns the rule whose answer this is, or nil.
func (l *link) answered() (r *rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		r, l.waiting = l.waiting[0], l.waiting[1:]
	}
	return r
}
