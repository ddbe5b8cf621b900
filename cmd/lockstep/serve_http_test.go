package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// fetch returns a page's status and text, or its error.
func fetch(addr, path string) string {
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + addr + path)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return fmt.Sprint(r.StatusCode, " ", string(text), err)
}

// TestServeHTTP: over a database that goes away and comes back, and at the end, of which
// readiness tells before anything is closed.
func TestServeHTTP(t *testing.T) {
	leave := make(chan time.Time)
	defer func() { leaveAfter, askedEvery = time.After, time.Second }()
	askedEvery = 10 * time.Millisecond
	leaveAfter = func(time.Duration) <-chan time.Time { return leave }
	database := dbtest.StartPostgres(t)
	t.Setenv("LOCKSTEP_STORE", database.URL())
	s := startServe(t, "--redis", "127.0.0.1:0", "--http", "127.0.0.1:0", "--leave", "1h")
	redis, web := dial(t, s.addrs[0]), s.addrs[1]
	redis.want("SET a 1", "OK")
	is := func(path, want string) {
		t.Helper()
		if got := fetch(web, path); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %.300q, want %q", path, got, want)
		}
	}
	is("/healthz", "200 live")
	is("/readyz", "200 ready")
	is("/nothing", "404 ")
	is("/", "404 ")
	if got := fetch(web, "/metrics"); !strings.HasPrefix(got, "200 ") || !strings.Contains(got, "\nlockstep_writes_total{outcome=\"committed\"} 1\n") {
		t.Errorf("%.2000s", got)
	}
	// The database is asked now and then.
	until := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !strings.HasPrefix(fetch(web, "/readyz"), want); {
			if time.Now().After(deadline) {
				t.Fatalf("/readyz does not become %q: %s", want, fetch(web, "/readyz"))
			}
		}
	}
	database.Stop()
	until("503 not ready: the database")
	redis.want("GET a", "1")
	is("/healthz", "200 live")
	database.Start()
	until("200 ready")

	s.end()
	until("503 not ready: the server is ending")
	redis.want("SET a 2", "OK") // it goes on as before
	close(leave)
	if status := s.stop(); status != 0 {
		t.Errorf("status %d: %s", status, s.stderr.String())
	}
	if got := fetch(web, "/healthz"); !strings.Contains(got, "refused") {
		t.Errorf("after the end: %s", got)
	}
	if strings.Contains(s.stderr.String(), "password") {
		t.Error(s.stderr.String())
	}
}

// TestPagesHaveAsManyConnectionsAsThereArePlaces: one more waits until one is closed.
func TestPagesHaveAsManyConnectionsAsThereArePlaces(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	f := &fewer{listener, make(chan struct{}, 2)}
	for range 3 {
		dial(t, listener.Addr().String())
	}
	accepted := make(chan net.Conn)
	go func() {
		for range 3 {
			conn, err := f.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- conn
		}
	}()
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Error("there was a third")
	default:
	}
	first.Close()
	first.Close() // a place is left once
	(<-accepted).Close()
	second.Close()
	if n := len(f.places); n != 0 {
		t.Errorf("%d places are taken", n)
	}
}
