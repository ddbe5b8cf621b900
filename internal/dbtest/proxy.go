package dbtest

import (
	"regexp"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/netfault"
)

// Proxy stands between clients and a server, and breaks what the test asks it to
// break. Package netfault says what matches, and what an answer is.
//
// A rule that did not come about before the test ended fails the test, which has
// tested nothing.
// All methods may be called by any goroutine at any time.
type Proxy struct {
	t     testing.TB
	proxy *netfault.Proxy
}

// NewProxy starts a proxy before the server at an address, which need not be
// there yet: a client whose server cannot be reached finds its connection closed.
// The proxy and all its connections end with the test.
func NewProxy(t testing.TB, serverAddr string) *Proxy {
	t.Helper()
	proxy, err := netfault.New(serverAddr)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{t, proxy}
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
func (p *Proxy) Addr() string { return p.proxy.Addr() }

// CutReply makes one message be answered in vain: the next one that contains match
// is passed on, and when the server answers it, the client's and the server's
// connection are closed and the answer is lost. The channel is closed when that
// has happened.
func (p *Proxy) CutReply(match string) <-chan struct{} {
	p.t.Helper()
	return p.rule(p.proxy.CutReply(match)).Happened()
}

// CutRequest makes one message not arrive: both connections are closed in place of
// passing on the next one that contains match. A beginning of it, without the end
// of match, may have been passed on; the server does nothing with that. The
// channel is closed when that has happened.
func (p *Proxy) CutRequest(match string) <-chan struct{} {
	p.t.Helper()
	return p.rule(p.proxy.CutRequest(match)).Happened()
}

// HoldReply makes one answer come late: the next message that contains match is
// passed on, and the answer, with all that follows on that connection, waits for
// release. held is closed when the server has answered. release may be called at
// any time and more than once.
func (p *Proxy) HoldReply(match string) (held <-chan struct{}, release func()) {
	p.t.Helper()
	r := p.rule(p.proxy.HoldReply(match))
	return r.Happened(), r.Release
}

// CutAll closes all connections now, with answers on their way lost. New ones are
// accepted. Rules that were not met stay.
func (p *Proxy) CutAll() { p.proxy.CutAll() }

// Hang makes the server one that accepts connections and answers nothing: until
// release, no byte passes in either direction. release may be called more than once.
func (p *Proxy) Hang() (release func()) { return p.proxy.Hold() }

func (p *Proxy) rule(r *netfault.Rule, err error) *netfault.Rule {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// close ends the proxy, and reports rules that did not come about.
func (p *Proxy) close() {
	p.proxy.Close()
	if p.t.Failed() {
		return
	}
	for _, err := range p.proxy.Outstanding() {
		p.t.Errorf("dbtest: proxy: %v", err)
	}
}
