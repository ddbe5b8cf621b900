package dbtest

import (
	"context"
	"errors"
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

// PgBouncer starts a PgBouncer of the test's own in front of the PostgreSQL of that URL,
// in transaction mode: a client has a session of the server's for a transaction, and
// another one perhaps for the next. A setting is a line of its configuration file:
// "default_pool_size=2". Its URL is that of the same database behind it.
func PgBouncer(t testing.TB, postgresURL string, settings ...string) *Server {
	t.Helper()
	behind, err := url.Parse(postgresURL)
	if err != nil {
		t.Fatal(err)
	}
	return own(t, pgbouncer{behind}, settings)
}

type pgbouncer struct{ behind *url.URL }

func (pgbouncer) name() string     { return "PgBouncer" }
func (pgbouncer) variable() string { return "" } // it is in front of a server of the test

func (e pgbouncer) create(s *Server) error {
	user := e.behind.User.Username()
	password, _ := e.behind.User.Password()
	s.password = password
	users := filepath.Join(s.dir, "users")
	err := os.WriteFile(users, []byte(fmt.Sprintf("%q %q\n", user, password)), 0o600)
	return errors.Join(err, giveAway(users))
}

// command writes the configuration: the port is in it.
func (e pgbouncer) command(s *Server) ([]string, error) {
	program, err := find("pgbouncer", "/usr/sbin", "/usr/local/sbin")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(s.dir, "pgbouncer.ini")
	lines := append([]string{
		"[databases]",
		"* = host=" + e.behind.Hostname() + " port=" + e.behind.Port(),
		"[pgbouncer]",
		"listen_addr=127.0.0.1",
		"listen_port=" + strconv.Itoa(s.port),
		"unix_socket_dir=",
		"auth_type=scram-sha-256",
		"auth_file=" + filepath.Join(s.dir, "users"),
		"pool_mode=transaction",
		"max_client_conn=200",
		"default_pool_size=10",
	}, s.settings...)
	err = os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	return []string{program, config}, errors.Join(err, giveAway(config))
}

// ready asks through it: nobody else on the port has the password.
func (e pgbouncer) ready(ctx context.Context, s *Server, _ int) error {
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func (pgbouncer) data(s *Server) string { return s.dir }

func (e pgbouncer) url(s *Server, _ string) string {
	u := *e.behind
	u.Host = s.Addr()
	return u.String()
}

func (pgbouncer) createDatabase(context.Context, *Server, string) error { return errors.ErrUnsupported }
func (pgbouncer) dropDatabase(context.Context, *Server, string) error   { return errors.ErrUnsupported }

// An immediate shutdown. It has nothing to leave in order.
func (pgbouncer) orderly() os.Signal { return syscall.SIGTERM }
func (pgbouncer) abrupt() string     { return "TERM" }
