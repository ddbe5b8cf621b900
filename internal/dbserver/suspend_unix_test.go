//go:build unix

package dbserver

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// session is a connection to a PostgreSQL, and the process that serves it.
func session(t *testing.T, s *Server) (*pgx.Conn, int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL())
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn.Close(ctx)
	})
	var pid int
	must(t, conn.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
	return conn, pid
}

// closed closes a server whose first process is suspended, which hears nothing.
func closed(t *testing.T, s *Server) {
	t.Helper()
	first, _, err := s.Processes()
	must(t, err)
	must(t, s.Suspend(first))
	must(t, s.Close())
	if err := syscall.Kill(first, 0); err == nil {
		t.Error("its process is there")
	}
}

func TestASuspendedSessionOfPostgreSQL(t *testing.T) {
	t.Parallel()
	s := start(t, PostgreSQL())
	t.Run("AnswersNothing", func(t *testing.T) {
		one, pid := session(t, s)
		other, _ := session(t, s)
		first, children, err := s.Processes()
		must(t, err)
		if first == 0 || !slices.Contains(children, pid) {
			t.Fatalf("the session's process %d is not among %d, %v", pid, first, children)
		}
		must(t, s.Suspend(pid))
		answered := make(chan error, 1)
		go func() {
			_, err := one.Exec(t.Context(), "SELECT 1")
			answered <- err
		}()
		if _, err := other.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("another session: %v", err)
		}
		select {
		case err := <-answered:
			t.Fatalf("a session that is suspended answers: %v", err)
		case <-time.After(50 * time.Millisecond): // a server that is at work takes one
		}
		must(t, s.Resume(pid))
		must(t, <-answered)
		must(t, one.Close(t.Context()))
		for { // a process that ends says so to nobody here
			if _, children, err := s.Processes(); err != nil || !slices.Contains(children, pid) {
				must(t, err)
				break
			}
			time.Sleep(time.Millisecond)
		}
		for _, stranger := range []int{pid, os.Getpid(), 1} {
			if err := s.Suspend(stranger); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("suspending process %d: %v", stranger, err)
			}
		}
	})
	// A PostgreSQL waits for the processes of its sessions, and one that is suspended does
	// not hear that it should end. One that is left would keep the server from its files.
	for name, end := range map[string]func() error{"DoesNotOutliveStop": s.Stop, "DoesNotOutliveKill": s.Kill} {
		t.Run(name, func(t *testing.T) {
			_, pid := session(t, s)
			must(t, s.Suspend(pid))
			began := time.Now()
			if err := end(); err != nil || time.Since(began) > patience/2 {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			must(t, s.Start(t.Context()))
		})
	}
	closed(t, s)
}

// A MariaDB has no process for a session; its only one is suspended with all of them.
func TestAMariaDBThatIsSuspendedAnswersNothing(t *testing.T) {
	t.Parallel()
	s := start(t, MariaDB())
	db, err := sql.Open("mysql", s.URL())
	must(t, err)
	defer db.Close()
	must(t, db.Ping())
	first, children, err := s.Processes()
	must(t, err)
	if len(children) > 0 {
		t.Errorf("children: %v", children)
	}
	must(t, s.Suspend(first))
	answered := make(chan error, 1)
	go func() { answered <- db.Ping() }()
	select {
	case err := <-answered:
		t.Fatalf("a server that is suspended answers: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	must(t, s.Resume(first))
	must(t, <-answered)
	closed(t, s)
}

func TestAServerThatIsDownSaysSo(t *testing.T) {
	t.Parallel()
	s := start(t, Redis())
	if err := s.Start(t.Context()); !errors.Is(err, errRunning) {
		t.Errorf("starting one that runs: %v", err)
	}
	must(t, s.Kill())
	_, _, processes := s.Processes()
	for name, err := range map[string]error{
		"Kill": s.Kill(), "Stop": s.Stop(), "Suspend": s.Suspend(1), "Resume": s.Resume(1), "Processes": processes,
	} {
		if !errors.Is(err, errNotRunning) {
			t.Errorf("%s of one that is down: %v", name, err)
		}
	}
	must(t, s.Start(t.Context()))
}
