package server

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// lateRig is a server in a bubble, whose peers take what they are sent when they read it.
type lateRig struct {
	*Server
	t   *testing.T
	log locked
}

func inBubble(t *testing.T, f func(t *testing.T, r *lateRig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &lateRig{t: t}
		s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), Logger: slog.New(slog.NewTextHandler(&r.log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		r.Server = s
		defer s.Shutdown(context.Background())
		f(t, r)
	})
}

// connect returns a client. Its connection ends as the server sees it by what wrap makes of it.
func (r *lateRig) connect(wrap func(net.Conn) net.Conn) (*peer, *outbox) {
	theirs, ours := net.Pipe()
	r.t.Cleanup(func() { theirs.Close() })
	if wrap != nil {
		ours = wrap(ours)
	}
	r.accept(ours)
	r.mu.Lock()
	defer r.mu.Unlock()
	return &peer{theirs, r.t, resp.NewDecoder(theirs, resp.DecodeLimits{})}, &r.conns[r.lastID].out
}

// write has a key written that the peers have read, and returns how long its writer waited. Each peer
// takes the invalidation after a time.
func (r *lateRig) write(w *peer, late time.Duration, peers ...*peer) time.Duration {
	r.t.Helper()
	for _, p := range peers {
		p.ask("GET k", text("1"))
	}
	begin := time.Now()
	go w.send("SET k 1\r\n")
	answered := make(chan time.Duration, 1)
	go func() {
		w.want("+OK\r\n")
		answered <- time.Since(begin)
	}()
	time.Sleep(late)
	for _, p := range peers {
		p.want(invalidated("k"))
	}
	return <-answered
}

const justInTime = DefaultInvalidationTimeout * 9 / 10

// TestPeerThatTakesInvalidationsJustInTimeIsClosed when writers have waited a second for it.
func TestPeerThatTakesInvalidationsJustInTimeIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *lateRig) {
		w, _ := r.connect(nil)
		p, _ := r.connect(nil)
		w.ask("SET k 1", "+OK\r\n")
		p.hello("")
		var waited time.Duration
		for range 11 {
			waited += r.write(w, justInTime, p)
		}
		if waited != 11*justInTime {
			t.Errorf("writers have waited for %v", waited)
		}
		p.ask("GET k", text("1"))
		begin := time.Now()
		w.ask("SET k 2", "+OK\r\n")
		waited += time.Since(begin)
		if most := (lateBudget + 1) * DefaultInvalidationTimeout; waited > most {
			t.Errorf("writers have waited for %v, and may for %v", waited, most)
		}
		p.wantEnd()
		if !strings.Contains(r.log.String(), "takes its invalidations late again and again") {
			t.Errorf("the log is %q", r.log.String())
		}
		if got := infoOf(r.Server, "lockstep"); got["lockstep_closed_invalidations_late"] != "1" || got["lockstep_closed_invalidation_timeout"] != "0" {
			t.Errorf("INFO has %v", got)
		}
		begin = time.Now()
		if w.ask("SET k 3", "+OK\r\n"); time.Since(begin) != 0 {
			t.Errorf("a writer waits for %v afterwards", time.Since(begin))
		}
	})
}

// TestPeerThatIsLateOnceIsKept, and once more when it has been good for as long as that takes.
func TestPeerThatIsLateOnceIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T, r *lateRig) {
		w, _ := r.connect(nil)
		p, _ := r.connect(nil)
		w.ask("SET k 1", "+OK\r\n")
		p.hello("")
		for range 100 {
			if got := r.write(w, justInTime, p); got != justInTime {
				t.Fatalf("the writer waited for %v", got)
			}
			for range 10 {
				r.write(w, 0, p)
			}
			time.Sleep(lateShare * justInTime)
		}
		p.ask("PING", pong)
	})
}

// TestManyLatePeersCostAWriteOneWait, and each is charged what was waited for it, and not
// for each writer that waited.
func TestManyLatePeersCostAWriteOneWait(t *testing.T) {
	inBubble(t, func(t *testing.T, r *lateRig) {
		w, _ := r.connect(nil)
		other, _ := r.connect(nil)
		w.ask("SET k 1", "+OK\r\n")
		var peers []*peer
		var boxes []*outbox
		for range 20 {
			p, o := r.connect(nil)
			p.hello("")
			peers, boxes = append(peers, p), append(boxes, o)
		}
		begin, beside := time.Now(), make(chan time.Duration, 1)
		go func() {
			time.Sleep(time.Millisecond)
			other.ask("SET l 1", "+OK\r\n")
			beside <- time.Since(begin)
		}()
		if got := r.write(w, justInTime, peers...); got != justInTime {
			t.Errorf("the writer waited for %v", got)
		}
		if got := <-beside; got != justInTime {
			t.Errorf("another writer waited for %v", got)
		}
		for i, o := range boxes {
			o.mu.Lock()
			if d := justInTime - o.late.level; d < 0 || d > justInTime/10 || o.late.waiters != 0 {
				t.Errorf("peer %d is charged %v, and %d wait", i, o.late.level, o.late.waiters)
			}
			o.mu.Unlock()
		}
	})
}

// TestSocketThatIsFullIsCharged of real connections, with TLS and without; one that reads on
// is kept then, and who has used up the budget is not.
func TestSocketThatIsFullIsCharged(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	for _, secure := range []bool{false, true} {
		s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), InvalidationTimeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Serve(listener) }()
		t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
		w := dial(t, listener.Addr().String())
		w.ask("PING", pong) // it is accepted
		deaf, ours := socketPair(t)
		if secure {
			deaf, ours = tls.Client(deaf, &tls.Config{InsecureSkipVerify: true}), tls.Server(ours, certificate.TLS.Clone())
		}
		s.accept(ours)
		p := newPeer(t, deaf)
		p.hello("BCAST")
		big := strings.Repeat("x", 1<<18)
		w.send(string(resp.AppendRequest(nil, "SET", "big", big)))
		w.want("+OK\r\n")
		p.want(invalidated("big"))
		const replies = 10
		p.send(strings.Repeat("GET big\r\n", replies))
		s.mu.Lock()
		o := &s.conns[s.lastID].out
		s.mu.Unlock()
		level := func() time.Duration {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.late.level
		}
		until(t, o.full)
		w.send("SET k 1\r\n")
		until(t, func() bool { return level() > 0 })
		// It reads on. What was sent before the invalidation are whole replies, and all of it comes.
		seen := 0
		for told := false; !told || seen < replies; {
			v, err := p.replies.Decode()
			if err != nil {
				t.Fatal(err)
			}
			told = told || v.Kind == resp.Push
			if v.Kind != resp.Push {
				seen++
			}
		}
		w.want("+OK\r\n")
		// And then it does not, and has used up what it had.
		p.send(strings.Repeat("GET big\r\n", replies))
		until(t, o.full)
		o.mu.Lock()
		o.late.level, o.late.at = lateBudget*s.options.InvalidationTimeout, time.Now().Add(time.Hour)
		o.mu.Unlock()
		w.ask("SET k 1", "+OK\r\n")
		if n := s.counts.totals().closed; n[closedLate] != 1 {
			t.Errorf("closed: %v", n)
		}
		_, _ = io.Copy(io.Discard, deaf)
	}
}

// until waits for what a socket is soon.
func until(t *testing.T, is func() bool) {
	t.Helper()
	for begin := time.Now(); !is(); runtime.Gosched() {
		if time.Since(begin) > patience {
			t.Fatal("it is not so")
		}
	}
}

// socketPair returns the two ends of a connection that takes little.
func socketPair(t *testing.T) (theirs, ours net.Conn) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if theirs, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	if ours, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.(*net.TCPConn).SetReadBuffer(64 << 10) // which does not grow then
	_ = ours.(*net.TCPConn).SetWriteBuffer(64 << 10)
	return theirs, ours
}
