package dbserver

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PostgreSQL is the newest PostgreSQL that is installed. A setting is what follows -c on
// its command line: "synchronous_commit=off". The encoding of its databases is UTF8, the
// locale C; fsync and synchronous_commit are on. The user is a superuser.
func PostgreSQL() Kind { return postgres{} }

type postgres struct{}

func (postgres) Name() string { return "PostgreSQL" }

func (postgres) program() (string, error) {
	return find("postgres", "postgresql", "/usr/lib/postgresql/*/bin")
}

func (e postgres) create(ctx context.Context, s *Server) error {
	server, err := e.program()
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
	return run(ctx, s, initdb, "-D", e.data(s), "-U", "lockstep", "-A", "scram-sha-256", "--pwfile", password,
		"-E", "UTF8", "--locale=C", "--no-sync")
}

func (e postgres) command(s *Server) ([]string, error) {
	server, err := e.program()
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

func (postgres) access(s *Server) Access {
	return Access{User: "lockstep", Password: s.password, Addr: s.Addr(), Database: "postgres"}
}

func (postgres) url(a Access) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(a.User, a.Password), Host: a.Addr,
		Path: a.Database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (e postgres) createDatabase(ctx context.Context, server, name string) (string, func(context.Context) error, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", nil, err
	}
	quoted := pgx.Identifier{name}.Sanitize()
	if err := e.exec(ctx, server, "CREATE DATABASE "+quoted+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"); err != nil {
		return "", nil, err
	}
	u.Path = "/" + name
	return u.String(), func(ctx context.Context) error {
		return e.exec(ctx, server, "DROP DATABASE IF EXISTS "+quoted+" WITH (FORCE)")
	}, nil
}

func (postgres) exec(ctx context.Context, url, statement string) error {
	conn, err := pgx.Connect(ctx, url)
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
