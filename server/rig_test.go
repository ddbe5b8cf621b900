package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// patience is how long anything may take that should happen at once.
const patience = 30 * time.Second

// start serves on a free port of the loopback until the test ends.
func start(t testing.TB, options Options) (s *Server, addr string) {
	t.Helper()
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := len(s.conns); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return s, listener.Addr().String()
}

// peer is a client.
type peer struct {
	net.Conn
	t       testing.TB
	replies *resp.Decoder
}

func dial(t testing.TB, addr string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newPeer(t, conn)
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &peer{conn, t, resp.NewDecoder(conn, resp.DecodeLimits{})}
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) want(reply string) {
	p.t.Helper()
	v, err := p.replies.Decode()
	if got := string(v.AppendTo(nil)); err != nil || got != reply {
		p.t.Fatalf("the reply is %q, %v; want %q", got, err, reply)
	}
}

func (p *peer) ask(request, reply string) {
	p.t.Helper()
	p.send(request + "\r\n")
	p.want(reply)
}

// wantEnd is for a connection that the server closes.
func (p *peer) wantEnd() {
	p.t.Helper()
	if v, err := p.replies.Decode(); err != io.EOF {
		p.t.Fatalf("%s, %v; want the end", v, err)
	}
}
