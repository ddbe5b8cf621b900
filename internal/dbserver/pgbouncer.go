package dbserver

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

	"github.com/jackc/pgx/v5"
)

// PgBouncer is the PgBouncer that is installed, in front of the PostgreSQL of that URL,
// in transaction mode: a client has a session of the server's for a transaction, and
// another one perhaps for the next. A setting is a line of its configuration file:
// "default_pool_size=2". Its URL is that of the same database behind it.
func PgBouncer(postgresURL string) (Kind, error) {
	behind, err := url.Parse(postgresURL)
	if err != nil {
		return nil, err
	}
	return pgbouncer{behind}, nil
}

type pgbouncer struct{ behind *url.URL }

func (pgbouncer) Name() string { return "PgBouncer" }

func (e pgbouncer) create(_ context.Context, s *Server) error {
	user := e.behind.User.Username()
	password, _ := e.behind.User.Password()
	s.password = password
	users := filepath.Join(s.dir, "users")
	err := os.WriteFile(users, []byte(fmt.Sprintf("%q %q\n", user, password)), 0o600)
	return errors.Join(err, giveAway(users))
}

// command writes the configuration: the port is in it.
func (e pgbouncer) command(s *Server) ([]string, error) {
	program, err := find("pgbouncer", "pgbouncer", "/usr/sbin", "/usr/local/sbin")
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

func (e pgbouncer) access(s *Server) Access {
	return Access{
		User: e.behind.User.Username(), Password: s.password,
		Addr: s.Addr(), Database: strings.TrimPrefix(e.behind.Path, "/"),
	}
}

func (e pgbouncer) url(a Access) string {
	u := *e.behind
	u.Host = a.Addr
	return u.String()
}

func (pgbouncer) createDatabase(context.Context, string, string) (string, func(context.Context) error, error) {
	return "", nil, errors.ErrUnsupported // it is the server behind it that has databases
}

// An immediate shutdown. It has nothing to leave in order.
func (pgbouncer) orderly() os.Signal { return syscall.SIGTERM }
func (pgbouncer) abrupt() string     { return "TERM" }
