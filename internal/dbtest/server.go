package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbserver"
)

// patience bounds what is asked of a shared server. It is
// generous because the machine may be running every other package's tests.
const patience = time.Minute

// Server is a database server that belongs to one test. It ends with the test.
// Its methods may be called by any goroutine, one after the other; those that
// fail, fail the test.
type Server struct {
	t      testing.TB
	server *dbserver.Server
}

// own starts a server that ends with the test.
func (sh *shared) own(t testing.TB, settings []string) *Server {
	t.Helper()
	server, err := dbserver.Start(context.Background(), sh.kind, settings...)
	if errors.Is(err, exec.ErrNotFound) && os.Getenv(sh.variable) != "" && os.Getenv("CI") != "true" {
		t.Skipf("NOT RUN: it needs a %s of its own, and %s is somebody's: %v", sh.kind.Name(), sh.variable, err)
	}
	if err != nil {
		t.Fatal(installed(err))
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Server{t, server}
}

// installed is an error of a server that was to be started, with what is to be done where
// it is that there is none.
func installed(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w (scripts/databases installs what tests need)", err)
	}
	return err
}

// URL is where clients find the database that the server has from the beginning:
// a URL for PostgreSQL and Redis, a DSN for MariaDB. The user may do everything.
func (s *Server) URL() string { return s.server.URL() }

// Addr is the server's address, host:port. It stays the same when the server is
// started again.
func (s *Server) Addr() string { return s.server.Addr() }

// Kill ends all processes of the server with SIGKILL, as a crash of it would, and
// returns when they are gone. What it had written to files, synced or not, is
// still there for Start: this is the end of a program, not of a machine. (What it
// had not written is gone. With synchronous_commit=off that includes commits.)
func (s *Server) Kill() {
	s.t.Helper()
	s.check(s.server.Kill())
}

// Stop ends the server in an orderly way, which closes its connections, and
// returns when it is gone.
func (s *Server) Stop() {
	s.t.Helper()
	s.check(s.server.Stop())
}

// Start starts the server again, with the data it had and on the same port, and
// returns when it accepts connections.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.server.Start(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// Backup copies the data of a server that is down. The function that it returns puts the
// copy in the place of what there is then, and leaves the server down, too.
func (s *Server) Backup() (restore func()) {
	s.t.Helper()
	again, err := s.server.Backup()
	if err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if err := again(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Follow makes a server that is down a copy of another one that is down, with its users
// and their passwords.
func (s *Server) Follow(other *Server) {
	s.t.Helper()
	if err := s.server.Follow(other.server); err != nil {
		s.t.Fatal(err)
	}
}

// Demote makes a PostgreSQL that is down a standby, of nobody, from when it is started
// again.
func (s *Server) Demote() {
	s.t.Helper()
	if err := s.server.Demote(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

// shared is the server that all tests of the process share.
type shared struct {
	kind     dbserver.Kind
	variable string // the environment variable that may name one that runs already

	mu    sync.Mutex
	url   string           // "" until it is asked for
	given bool             // by the variable
	held  *dbserver.Server // otherwise; the collector would close the pipe of one that nobody has
	err   error            // why there is none
	made  int              // databases
}

// database makes a database, which is dropped when the test ends.
func (sh *shared) database(t testing.TB) string {
	t.Helper()
	server, name, err := sh.next()
	if err != nil {
		t.Fatal(err)
	}
	patiently := func(what string, f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f(ctx); err != nil {
			return fmt.Errorf("dbtest: %s: %s database %s: %w", sh.kind.Name(), what, name, err)
		}
		return nil
	}
	var url string
	var drop func(context.Context) error
	if err := patiently("creating", func(ctx context.Context) (err error) {
		url, drop, err = dbserver.CreateDatabase(ctx, sh.kind, server, name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := patiently("dropping", drop); err != nil {
			t.Error(err)
		}
	})
	return url
}

// next returns the server and the name of a database that it does not have. A
// server that did not start is not tried again: every test fails, at once.
func (sh *shared) next() (server, name string, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.url == "" && sh.err == nil {
		if at := os.Getenv(sh.variable); at != "" {
			sh.url, sh.given = at, true
		} else if sh.held, err = dbserver.Start(context.Background(), sh.kind); err == nil {
			sh.url = sh.held.URL()
		} else {
			sh.err = installed(err)
		}
	}
	sh.made++
	name = fmt.Sprintf("test_%d", sh.made)
	if sh.given { // to other processes, too
		name = fmt.Sprintf("lockstep_test_%d_%d", os.Getpid(), sh.made)
	}
	return sh.url, name, sh.err
}
