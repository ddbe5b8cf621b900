package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/server"
	"github.com/lockstep-cache/lockstep/store/memstore"
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
	left := sync.OnceFunc(func() { close(leave) })
	defer left()
	t.Cleanup(func() { leaveAfter, askedEvery = time.After, time.Second }) // when the server has ended
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
	redis.want("GET a", "1")
	database.Stop()
	until("503 not ready: the server has lost its claim")
	is("/healthz", "200 live")
	redis.want("GET a", "1") // from memory
	database.Start()
	until("200 ready")

	s.end()
	until("503 not ready: the server is ending")
	redis.want("SET a 2", "OK") // it goes on as before
	left()
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

// mute is a store whose database does not answer.
type mute struct {
	lockstep.Store[string, server.Value]
	asked atomic.Int64
}

func (s *mute) Load(ctx context.Context, _ []string) (map[string]lockstep.Row[server.Value], error) {
	s.asked.Add(1)
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestReadinessDoesNotWaitForTheDatabase for more than two seconds, nor ask it once for
// each who looks.
func TestReadinessDoesNotWaitForTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &mute{Store: memstore.New(memstore.Options[string, server.Value]{})}
		logged := new(log)
		logger := slog.New(slog.NewTextHandler(logged, nil))
		s, err := server.New(server.Options{Store: store, Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		h := &health{server: s, logger: logger}
		look := func(took time.Duration, asked int64) {
			t.Helper()
			began := time.Now()
			page := httptest.NewRecorder()
			h.handler().ServeHTTP(page, httptest.NewRequest("GET", "/readyz", nil))
			if page.Code != 503 || !strings.Contains(page.Body.String(), "the database does not answer") {
				t.Errorf("%d %s", page.Code, page.Body)
			}
			if d := time.Since(began); d != took || store.asked.Load() != asked {
				t.Errorf("it took %v, and %d questions; want %v and %d", d, store.asked.Load(), took, asked)
			}
		}
		look(askedWithin, 1)
		look(0, 1)
		time.Sleep(askedEvery) // of the bubble
		look(askedWithin, 2)
		if n := strings.Count(logged.String(), "not ready"); n != 1 {
			t.Errorf("said %d times: %s", n, logged.String())
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
