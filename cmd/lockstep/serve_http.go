package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/server"
)

// askedWithin bounds how long /readyz waits for the database.
const askedWithin = 2 * time.Second

// askedEvery is how often it is asked at most, however many look; a test cannot wait so long.
var askedEvery = time.Second

// health is what is asked by HTTP: whether the process lives, whether it should be sent
// work, and what it has done. It tells nothing of keys, values, users and addresses, and
// needs no password.
type health struct {
	server  *server.Server
	logger  *slog.Logger
	leaving atomic.Bool // SIGTERM has come
	holds   func() bool // whether the table is this server's; nil where nobody asks

	mu    sync.Mutex // held while the database is asked, so that those who look share one question
	asked time.Time
	last  error
}

func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "live") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case h.leaving.Load():
			say(w, http.StatusServiceUnavailable, "not ready: the server is ending")
		case h.holds != nil && !h.holds():
			say(w, http.StatusServiceUnavailable, "not ready: the server has lost its claim to the table, and writes nothing until it has it again")
		case h.database() != nil:
			say(w, http.StatusServiceUnavailable, "not ready: the database does not answer; the log says why")
		default:
			say(w, http.StatusOK, "ready")
		}
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var text bytes.Buffer // whole, before anything is sent
		if err := h.server.WriteMetrics(&text); err != nil {
			say(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(text.Bytes())
	})
	return mux
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// database asks whether the database answers, or tells what it said a moment ago.
func (h *health) database() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.asked.IsZero() && time.Since(h.asked) < askedEvery {
		return h.last
	}
	// Not the request's context: the answer is for others, too.
	ctx, cancel := context.WithTimeout(context.Background(), askedWithin)
	defer cancel()
	err := h.server.Ready(ctx)
	if (err == nil) != (h.last == nil) && !h.asked.IsZero() || err != nil && h.asked.IsZero() {
		if err != nil {
			h.logger.Warn("lockstep: not ready", "error", err)
		} else {
			h.logger.Info("lockstep: ready again")
		}
	}
	h.asked, h.last = time.Now(), err
	return err
}

// serve answers on a listener until the function that it returns is called.
func (h *health) serve(listener net.Listener) (stop func()) {
	s := &http.Server{
		Handler: h.handler(), ErrorLog: slog.NewLogLogger(h.logger.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 8 << 10,
	}
	listener = &fewer{listener, make(chan struct{}, mostPages)}
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			h.logger.Error("lockstep: --http does not answer any more", "error", err)
		}
	})
	return func() {
		s.Close() // whoever is being answered may ask again
		running.Wait()
	}
}

// mostPages bounds connections by HTTP, which would else take the file descriptors of
// Redis clients. More of them wait.
const mostPages = 64

type fewer struct {
	net.Listener
	places chan struct{}
}

func (f *fewer) Accept() (net.Conn, error) {
	f.places <- struct{}{}
	conn, err := f.Listener.Accept()
	if err != nil {
		<-f.places
		return nil, err
	}
	return &placed{Conn: conn, leave: sync.OnceFunc(func() { <-f.places })}, nil
}

type placed struct {
	net.Conn
	leave func()
}

func (p *placed) Close() error {
	defer p.leave()
	return p.Conn.Close()
}
