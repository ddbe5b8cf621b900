package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
)

// Server serves the Redis protocol on any number of listeners. Its methods may be called
// by any goroutine.
type Server struct {
	options  Options
	keys     *keyspace // nil without a Store
	hub      hub
	tracking *tracking
	events   atomic.Uint32   // classes
	life     context.Context // of commands; it ends when Shutdown gives up
	end      context.CancelFunc

	mu        sync.Mutex
	draining  bool
	stop      chan struct{} // closed when draining begins
	listeners map[net.Listener]struct{}
	conns     map[int64]*conn
	refusing  int   // connections that are being told that there are too many
	lastID    int64 // connections are numbered from 1 on, and none twice

	usersChanges atomic.Uint64 // calls of UsersChanged
	unwelcome    sparse

	born   time.Time
	counts counts
	slow   slowlog
	infos  infos

	// What CONFIG SET changes.
	idle       atomic.Int64 // Options.IdleTimeout
	maxClients atomic.Int64

	// under counts the goroutines of connections. It grows only while draining is false,
	// under mu.
	under sync.WaitGroup
}

// New returns a server. It does no I/O. An error names the option that is wrong. A server
// with a Store has goroutines, which Shutdown ends, also where nothing was served.
func New(options Options) (*Server, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{options: options, stop: make(chan struct{}), listeners: map[net.Listener]struct{}{}, conns: map[int64]*conn{}}
	s.born = time.Now()
	s.counts.init()
	s.slow.init()
	s.infos.init()
	s.idle.Store(int64(options.IdleTimeout))
	s.maxClients.Store(int64(options.MaxClients))
	s.tracking = newTracking(s)
	wanted, _ := parseClasses(options.KeyspaceEvents)
	s.events.Store(uint32(wanted))
	s.life, s.end = context.WithCancel(context.Background())
	if options.Store == nil && len(options.Tables) > 0 {
		s.end()
		return nil, errors.New("server: Options.Tables need a Store beside them")
	}
	if options.Store != nil {
		if s.keys, err = newKeyspace(options, s.tracking); err != nil {
			s.end()
			return nil, err
		}
	}
	return s, nil
}

// maxRefusing bounds those who are told that there are too many clients; more are closed
// without a word.
const maxRefusing = 64

// Serve accepts connections until Shutdown, and then returns nil, or until the listener
// fails. It closes the listener. Connections stay open when it returns; Shutdown waits for
// them. A TLS listener's handshakes are made by the goroutines of the connections.
func (s *Server) Serve(listener net.Listener) error {
	defer listener.Close()
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return nil
	}
	s.listeners[listener] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, listener)
		s.mu.Unlock()
	}()
	for wait := time.Duration(0); ; {
		nc, err := listener.Accept()
		if err == nil {
			wait = 0
			s.accept(nc)
			continue
		}
		select {
		case <-s.stop:
			return nil
		default:
		}
		// No more file descriptors, for one. They come back.
		if temporary, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !ok || !temporary.Temporary() {
			return fmt.Errorf("server: accepting on %s: %w", listener.Addr(), err)
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		s.options.Logger.Warn("server: accepting failed and is tried again", "address", listener.Addr(), "error", err, "in", wait)
		select {
		case <-time.After(wait):
		case <-s.stop:
		}
	}
}

func (s *Server) accept(nc net.Conn) {
	c := newConn(s, nc) // asks for a user, which is not done under a lock
	s.counts.accepted.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		nc.Close()
	case int64(len(s.conns)) < s.maxClients.Load():
		s.lastID++
		c.id = s.lastID
		c.counts = &s.counts.stripes[c.id%stripes]
		s.conns[c.id] = c
		s.under.Go(c.serve)
	case s.refusing == maxRefusing:
		s.counts.rejected.Add(1)
		nc.Close()
	default:
		s.counts.rejected.Add(1)
		s.refusing++
		s.under.Go(func() {
			refuse(nc)
			s.mu.Lock()
			s.refusing--
			s.mu.Unlock()
		})
	}
}

// refuse tells a peer that there are too many, as Redis does.
func refuse(nc net.Conn) {
	defer nc.Close()
	var w resp.Writer
	w.Error("ERR max number of clients reached")
	if nc.SetDeadline(time.Now().Add(lingering)) == nil {
		_, _ = nc.Write(w.Bytes())
	}
}

// leave takes a connection that is being closed off the list of clients. It counts as one
// until it is closed.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.left = true
}

// forget is for a connection that is closed.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.id)
}

// client returns the client of that number, or nil.
func (s *Server) client(id int64) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.conns[id]; c != nil && !c.left {
		return c
	}
	return nil
}

// clients returns the clients, the oldest first: open connections that are not being
// closed.
func (s *Server) clients() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		if !c.left {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *conn) int { return cmp.Compare(a.id, b.id) })
	return all
}

// Shutdown stops the server: nobody is accepted any more, nothing more is read, what has
// been read as a whole request is run and answered, connections are closed, and then the
// cache is, which waits for what it has accepted. It returns when all have been, or, with
// the context's cause, when ctx ends: connections that are left are then closed without
// more ado, commands stop waiting for the database, and their goroutines end. It may be
// called several times.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		close(s.stop)
	}
	for listener := range s.listeners {
		listener.Close()
	}
	s.mu.Unlock()
	for _, c := range s.clients() {
		c.drain()
	}
	done := make(chan struct{})
	go func() {
		s.under.Wait()
		close(done)
	}()
	select {
	case <-done:
		return s.closeKeys(ctx)
	case <-ctx.Done():
		s.mu.Lock()
		for _, c := range s.conns {
			c.hangUp()
		}
		s.mu.Unlock() // what closeKeys waits for may look for a connection
		s.end()
		_ = s.closeKeys(ctx) // it has no time either
		return context.Cause(ctx)
	}
}

func (s *Server) closeKeys(ctx context.Context) error {
	s.end()
	s.tracking.close()
	if s.keys == nil {
		return nil
	}
	// Both, for each has accepted writes.
	err := s.keys.tables.close(ctx)
	if own := s.keys.cache.Close(ctx); own != nil && !errors.Is(own, lockstep.ErrClosed) {
		err = errors.Join(fmt.Errorf("server: closing the cache: %w", own), err)
	}
	return err
}
