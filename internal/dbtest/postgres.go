package dbtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

var sharedPostgres = shared{engine: postgres{}}

// Postgres returns the URL of a new, empty database on a PostgreSQL that all
// tests of the process share. The database is dropped when the test ends, and
// connections to it that are still open then are closed. The encoding is UTF8,
// the locale C; fsync and synchronous_commit are on. The user may do everything,
// to other tests' databases too. A database costs a copy of hundreds of files, up
// to half a second on a busy machine; a test that needs several places to write
// had better make tables.
func Postgres(t testing.TB) (url string) {
	t.Helper()
	return sharedPostgres.database(t)
}

// StartPostgres starts a PostgreSQL of the test's own. A setting is what follows
// -c on its command line: "synchronous_commit=off".
func StartPostgres(t testing.TB, settings ...string) *Server {
	t.Helper()
	return own(t, postgres{}, settings)
}

type postgres struct{}

func (postgres) name() string     { return "PostgreSQL" }
func (postgres) variable() string { return "LOCKSTEP_TEST_POSTGRES" }

func (postgres) program(name string) (string, error) {
	return find(name, "/usr/lib/postgresql/*/bin")
}

func (e postgres) create(s *Server) error {
	server, err := e.program("postgres")
	if err != nil {
		return err
	}
	// The one of the same installation.
	initdb := filepath.Join(filepath.Dir(server), "initdb")
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(s.password), 0o600); err != nil {
		return err
	}
	if err := giveAway(password); err != nil {
		return err
	}
	// Made without syncing, which is about what a crash of the machine leaves
	// behind. What the server writes later, it syncs.
	return run(s, initdb, "-D", e.data(s), "-U", "lockstep", "-A", "scram-sha-256", "--pwfile", password,
		"-E", "UTF8", "--locale=C", "--no-sync")
}

func (e postgres) command(s *Server) ([]string, error) {
	server, err := e.program("postgres")
	args := []string{server, "-D", e.data(s)}
	for _, setting := range append([]string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(s.port),
		"unix_socket_directories=",
		"max_connections=100",
		"shared_buffers=64MB",
		"fsync=on",
	}, s.settings...) {
		args = append(args, "-c", setting)
	}
	return args, err
}

// ready reads what the server writes of itself: its process id is the first line
// of the file, its state the eighth.
func (e postgres) ready(_ context.Context, s *Server, pid int) error {
	said, err := os.ReadFile(filepath.Join(e.data(s), "postmaster.pid"))
	if err != nil {
		return err
	}
	lines := strings.Split(string(said), "\n")
	if len(lines) < 8 || lines[0] != strconv.Itoa(pid) || strings.TrimSpace(lines[7]) != "ready" {
		return fmt.Errorf("postmaster.pid says %q", lines)
	}
	return nil
}

func (postgres) data(s *Server) string { return filepath.Join(s.dir, "data") }

func (postgres) url(s *Server, database string) string {
	if s.given != "" {
		u, err := url.Parse(s.given)
		if err != nil {
			return s.given // the driver says what is wrong with it
		}
		if database != "" {
			u.Path = "/" + database
		}
		return u.String()
	}
	if database == "" {
		database = "postgres"
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("lockstep", s.password), Host: s.Addr(),
		Path: database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (e postgres) createDatabase(ctx context.Context, s *Server, name string) error {
	return e.exec(ctx, s, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
}

func (e postgres) dropDatabase(ctx context.Context, s *Server, name string) error {
	return e.exec(ctx, s, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
}

func (e postgres) exec(ctx context.Context, s *Server, statement string) error {
	conn, err := pgx.Connect(ctx, e.url(s, ""))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// A fast shutdown; a smart one (SIGTERM) waits for the clients to go.
func (postgres) orderly() os.Signal { return syscall.SIGINT }

// An immediate shutdown. SIGKILL would leave it to each of the server's processes
// to notice.
func (postgres) abrupt() string { return "QUIT" }
