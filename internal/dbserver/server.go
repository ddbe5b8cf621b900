package dbserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	// errEnded is the error of a server that ended before it was ready.
	errEnded = errors.New("the server ended by itself")

	errRunning    = errors.New("it is running")
	errNotRunning = errors.New("it is not running")
)

// patience bounds every wait for a server: to be ready, to end. It is
// generous because the machine may be running every package's tests.
const patience = time.Minute

// Server is a database server that belongs to who started it. Its methods may be called
// by any goroutine; one waits for the other. It ends with the program at the latest, and
// its files with it.
type Server struct {
	kind     Kind
	dir      string
	password string
	settings []string

	mu        sync.Mutex
	port      int // settled when the server has started once
	process   *process
	suspended map[int]struct{}
}

// Start starts a server, in a new directory and on a free port, and returns when it
// accepts connections: a second or two. Settings are written as each kind says. A program
// that is missing is [exec.ErrNotFound], and the error says which packages have it; a
// server that does not start has the end of its log in the error. When ctx ends, the
// server is given up.
func Start(ctx context.Context, k Kind, settings ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "lockstep-")
	if err != nil {
		return nil, fmt.Errorf("dbserver: %s: %w", k.Name(), err)
	}
	s := &Server{kind: k, dir: dir, password: rand.Text(), settings: settings}
	if err := s.setUp(ctx); err != nil {
		return nil, fmt.Errorf("dbserver: %s: %w", k.Name(), errors.Join(err, os.RemoveAll(dir)))
	}
	return s, nil
}

func (s *Server) setUp(ctx context.Context) error {
	if err := giveAway(s.dir); err != nil {
		return err
	}
	if err := s.kind.create(ctx, s); err != nil {
		return err
	}
	return s.launch(ctx, true)
}

// URL is what drivers take for the database that the server has from the beginning:
// a URL for PostgreSQL and Redis, a DSN for MariaDB. The user may do everything.
func (s *Server) URL() string { return s.kind.url(s.Access()) }

// Access is what [Server.URL] is made of.
func (s *Server) Access() Access { return s.kind.access(s) }

// Addr is the server's address, host:port. It stays the same when the server is
// started again.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Kill ends all processes of the server with SIGKILL, as a crash of it would, and
// returns when they are gone. What it had written to files, synced or not, is
// still there for Start: this is the end of a program, not of a machine. (What it
// had not written is gone. With synchronous_commit=off that includes commits.)
func (s *Server) Kill() error { return s.end("killing", (*process).kill) }

// Stop ends the server in an orderly way, which closes its connections, and
// returns when it is gone. What is suspended goes on first: a PostgreSQL waits for its
// sessions' processes.
func (s *Server) Stop() error {
	return s.end("stopping", func(p *process) error {
		for pid := range s.suspended {
			if err := p.resume(pid); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
		}
		return p.signal(s.kind.orderly())
	})
}

func (s *Server) end(what string, end func(*process) error) error {
	return s.do(what, func() error {
		if s.process == nil {
			return errNotRunning
		}
		if err := end(s.process); err != nil {
			return err
		}
		if err := s.process.wait(); err != nil {
			return err
		}
		s.process, s.suspended = nil, nil
		return nil
	})
}

// Start starts the server again, with the data it had and on the same port, and
// returns when it accepts connections. When ctx ends, the server is given up, and its data
// with it.
func (s *Server) Start(ctx context.Context) error {
	return s.do("starting", func() error {
		if s.process != nil {
			return errRunning
		}
		return s.launch(ctx, false)
	})
}

// Close ends the server, if it runs, and removes its files.
func (s *Server) Close() error {
	return s.do("removing", func() error {
		var err error
		if s.process != nil {
			err = s.process.release()
			s.process, s.suspended = nil, nil
		}
		return errors.Join(err, os.RemoveAll(s.dir))
	})
}

// Processes are the server's first process, and the children of it that there are now.
// Those of a PostgreSQL are its sessions', by the number that pg_backend_pid() tells, and
// some of its own; a MariaDB has none.
func (s *Server) Processes() (first int, children []int, err error) {
	err = s.do("looking at", func() error {
		if s.process == nil {
			return errNotRunning
		}
		first = s.process.pid
		children, err = childrenOf(first)
		return err
	})
	return first, children, err
}

// Suspend has the kernel run a process of the server no more (SIGSTOP), until Resume: of
// a PostgreSQL one session's, which keeps its locks and does not answer; of a MariaDB the
// whole server, which is its only process. One that has ended is [os.ErrProcessDone].
// What is suspended does not keep the server from being killed, stopped or closed, which
// for a PostgreSQL that is closed takes five seconds more.
func (s *Server) Suspend(pid int) error {
	return s.do("suspending a process of", func() error {
		if s.process == nil {
			return errNotRunning
		}
		if err := s.process.suspend(pid); err != nil {
			return err
		}
		if s.suspended == nil {
			s.suspended = map[int]struct{}{}
		}
		s.suspended[pid] = struct{}{}
		return nil
	})
}

// Resume lets a process that was suspended go on (SIGCONT). One that has ended is
// [os.ErrProcessDone].
func (s *Server) Resume(pid int) error {
	return s.do("resuming a process of", func() error {
		if s.process == nil {
			return errNotRunning
		}
		delete(s.suspended, pid)
		return s.process.resume(pid)
	})
}

// do is what every method is: alone, and with errors that say whose they are.
func (s *Server) do(what string, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := f(); err != nil {
		return fmt.Errorf("dbserver: %s %s: %w", what, s.kind.Name(), err)
	}
	return nil
}

// launch starts the server's process. Between the choice of a port and its use
// somebody else may take it, and a killed server's memory may be in use for a
// moment more; then it tries again, with another port if it may.
func (s *Server) launch(ctx context.Context, anyPort bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if anyPort {
			port, err := freePort()
			if err != nil {
				return err
			}
			s.port = port
		}
		command, err := s.kind.command(s)
		if err != nil {
			return err
		}
		p, err := startProcess(s.dir, s.logFile(), s.kind.abrupt(), command)
		if err != nil {
			return err
		}
		if err = s.await(ctx, p); err == nil {
			s.process = p
			return nil
		}
		log, _ := os.ReadFile(s.logFile())
		if !errors.Is(err, errEnded) || !strings.Contains(string(log), "in use") || ctx.Err() != nil {
			return fmt.Errorf("%w; the end of its log:\n%s", err, log[max(0, len(log)-4000):])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// await returns when the server accepts connections, or with an error when it is
// gone.
func (s *Server) await(ctx context.Context, p *process) error {
	for {
		err := s.kind.ready(ctx, s, p.pid)
		if err == nil {
			return nil
		}
		if p.endedWithin(10 * time.Millisecond) {
			return errors.Join(errEnded, p.wait())
		}
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("not ready in time: %w", err), context.Cause(ctx), p.release())
		}
	}
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// freePort is a port that nobody had a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
