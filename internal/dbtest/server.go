package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// errEnded is the error of a server that ended before it was ready.
var errEnded = errors.New("the server ended by itself")

// patience bounds every wait for a server: to be ready, to end, to answer. It is
// generous because the machine may be running every other package's tests.
const patience = time.Minute

// engine is what the kinds of servers differ in.
type engine interface {
	// name is what people call it.
	name() string
	// variable is the environment variable that may say where one runs already, as
	// clients are told it.
	variable() string
	// data is the data directory.
	data(s *Server) string
	// create makes the data directory of a server that has not run yet.
	create(s *Server) error
	// command is what runs the server, in the foreground.
	command(s *Server) ([]string, error)
	// ready returns nil when this server, and not another on the same port, accepts
	// connections. pid is that of its first process.
	ready(ctx context.Context, s *Server, pid int) error
	// url is where clients find one of its databases. "" is the one that the server
	// has from the beginning.
	url(s *Server, database string) string
	// createDatabase makes an empty database; dropDatabase removes it, and closes
	// the connections to it.
	createDatabase(ctx context.Context, s *Server, name string) error
	dropDatabase(ctx context.Context, s *Server, name string) error
	// orderly is the signal that asks for an orderly stop which does not wait for
	// clients, abrupt the one for a stop that need not leave the files in order but
	// leaves no process behind.
	orderly() os.Signal
	abrupt() string
}

// Server is a database server that belongs to one test. It ends with the test.
// Its methods may be called by any goroutine, one after the other; those that
// fail, fail the test.
type Server struct {
	engine   engine
	t        testing.TB // nil for a shared one
	given    string     // where the environment says that it runs; its process is not ours
	dir      string
	password string
	settings []string

	mu      sync.Mutex
	port    int
	process *process // nil while it is down
}

// newServer makes a server's directory and starts it.
func newServer(e engine, settings []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "lockstep-")
	if err != nil {
		return nil, err
	}
	s := &Server{engine: e, dir: dir, password: rand.Text(), settings: settings}
	if err := s.setUp(); err != nil {
		return nil, fmt.Errorf("dbtest: %s: %w", e.name(), errors.Join(err, os.RemoveAll(dir)))
	}
	return s, nil
}

func (s *Server) setUp() error {
	if err := giveAway(s.dir); err != nil {
		return err
	}
	if err := s.engine.create(s); err != nil {
		return err
	}
	return s.launch(true)
}

// own starts a server that ends with the test.
func own(t testing.TB, e engine, settings []string) *Server {
	t.Helper()
	s, err := newServer(e, settings)
	if errors.Is(err, exec.ErrNotFound) && os.Getenv(e.variable()) != "" && os.Getenv("CI") != "true" {
		t.Skipf("NOT RUN: it needs a %s of its own, and %s is somebody's: %v", e.name(), e.variable(), err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.t = t
	t.Cleanup(func() {
		if err := s.remove(); err != nil {
			t.Errorf("dbtest: removing the test's %s: %v", e.name(), err)
		}
	})
	return s
}

// URL is where clients find the database that the server has from the beginning:
// a URL for PostgreSQL and Redis, a DSN for MariaDB. The user may do everything.
func (s *Server) URL() string { return s.engine.url(s, "") }

// Addr is the server's address, host:port. It stays the same when the server is
// started again.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Kill ends all processes of the server with SIGKILL, as a crash of it would, and
// returns when they are gone. What it had written to files, synced or not, is
// still there for Start: this is the end of a program, not of a machine. (What it
// had not written is gone. With synchronous_commit=off that includes commits.)
func (s *Server) Kill() {
	s.t.Helper()
	s.end("killing", (*process).kill)
}

// Stop ends the server in an orderly way, which closes its connections, and
// returns when it is gone.
func (s *Server) Stop() {
	s.t.Helper()
	s.end("stopping", func(p *process) error { return p.signal(s.engine.orderly()) })
}

func (s *Server) end(what string, end func(*process) error) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		s.t.Errorf("dbtest: %s a %s that is not running", what, s.engine.name())
		return
	}
	err := end(s.process)
	if err == nil {
		err = s.process.wait()
	}
	if err != nil {
		s.t.Errorf("dbtest: %s %s: %v", what, s.engine.name(), err)
		return
	}
	s.process = nil
}

// Start starts the server again, with the data it had and on the same port, and
// returns when it accepts connections.
func (s *Server) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.t.Errorf("dbtest: starting a %s that is running", s.engine.name())
		return
	}
	if err := s.launch(false); err != nil {
		s.t.Fatalf("dbtest: starting %s again: %v", s.engine.name(), err)
	}
}

// Backup copies the data of a server that is down. The function that it returns puts the
// copy in the place of what there is then, and leaves the server down, too.
func (s *Server) Backup() (restore func()) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	backup := filepath.Join(s.dir, "backup")
	s.replace(backup, s.engine.data(s))
	return func() {
		s.t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.replace(s.engine.data(s), backup)
	}
}

// Follow makes a server that is down a copy of another one that is down, with its users
// and their passwords.
func (s *Server) Follow(other *Server) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(s.engine.data(s), other.engine.data(other))
	s.password = other.password
}

// replace makes a directory a copy of another one.
func (s *Server) replace(to, from string) {
	s.t.Helper()
	if s.process != nil {
		s.t.Fatalf("dbtest: copying the data of a %s that is running", s.engine.name())
	}
	err := os.RemoveAll(to)
	if err == nil {
		err = os.CopyFS(to, os.DirFS(from))
	}
	if err == nil {
		err = filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() { // PostgreSQL wants it to be nobody else's
				err = os.Chmod(path, 0o700)
			}
			return errors.Join(err, giveAway(path))
		})
	}
	if err != nil {
		s.t.Fatalf("dbtest: copying the data of a %s: %v", s.engine.name(), err)
	}
}

// Demote makes a PostgreSQL that is down a standby, of nobody, from when it is started
// again.
func (s *Server) Demote() {
	s.t.Helper()
	file := filepath.Join(s.engine.data(s), "standby.signal")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), giveAway(file)); err != nil {
		s.t.Fatalf("dbtest: %v", err)
	}
}

// launch starts the server's process. Between the choice of a port and its use
// somebody else may take it, and a killed server's memory may be in use for a
// moment more; then it tries again, with another port if it may.
func (s *Server) launch(anyPort bool) error {
	deadline := time.Now().Add(patience)
	for {
		if anyPort {
			port, err := freePort()
			if err != nil {
				return err
			}
			s.port = port
		}
		command, err := s.engine.command(s)
		if err != nil {
			return err
		}
		p, err := startProcess(s.dir, s.logFile(), s.engine.abrupt(), command)
		if err != nil {
			return err
		}
		if err = s.await(p, deadline); err == nil {
			s.process = p
			return nil
		}
		log, _ := os.ReadFile(s.logFile())
		if !errors.Is(err, errEnded) || !strings.Contains(string(log), "in use") || time.Now().After(deadline) {
			return fmt.Errorf("%w; the end of its log:\n%s", err, log[max(0, len(log)-4000):])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// await returns when the server accepts connections, or with an error when it is
// gone.
func (s *Server) await(p *process, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	for {
		err := s.engine.ready(ctx, s, p.pid)
		if err == nil {
			return nil
		}
		if p.endedWithin(10 * time.Millisecond) {
			return errors.Join(errEnded, p.wait())
		}
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("not ready in time: %w", err), p.release())
		}
	}
}

// remove ends the server and its files.
func (s *Server) remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.process != nil {
		err = s.process.release()
		s.process = nil
	}
	return errors.Join(err, os.RemoveAll(s.dir))
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

// shared is the server that all tests of the process share.
type shared struct {
	engine engine

	mu     sync.Mutex
	server *Server
	err    error // why there is none
	made   int   // databases
}

// database makes a database, which is dropped when the test ends.
func (sh *shared) database(t testing.TB) string {
	t.Helper()
	s, name, err := sh.next()
	if err != nil {
		t.Fatal(err)
	}
	do := func(what string, f func(context.Context, *Server, string) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f(ctx, s, name); err != nil {
			return fmt.Errorf("dbtest: %s: %s database %s: %w", sh.engine.name(), what, name, err)
		}
		return nil
	}
	if err := do("creating", sh.engine.createDatabase); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := do("dropping", sh.engine.dropDatabase); err != nil {
			t.Error(err)
		}
	})
	return sh.engine.url(s, name)
}

// next returns the server and the name of a database that it does not have. A
// server that did not start is not tried again: every test fails, at once.
func (sh *shared) next() (*Server, string, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.server == nil && sh.err == nil {
		if at := os.Getenv(sh.engine.variable()); at != "" {
			sh.server = &Server{engine: sh.engine, given: at}
		} else {
			sh.server, sh.err = newServer(sh.engine, nil)
		}
	}
	sh.made++
	name := fmt.Sprintf("test_%d", sh.made)
	if sh.server != nil && sh.server.given != "" { // by other processes, too
		name = fmt.Sprintf("lockstep_test_%d_%d", os.Getpid(), sh.made)
	}
	return sh.server, name, sh.err
}
