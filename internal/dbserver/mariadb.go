package dbserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"
)

// MariaDB is the MariaDB that is installed. A setting is an argument of its command line:
// "--innodb-flush-log-at-trx-commit=2". Its URL is a DSN of github.com/go-sql-driver/mysql
// without options (parseTime is not set). The character set is utf8mb4, and InnoDB syncs
// its log at every commit. The user may do everything.
func MariaDB() Kind { return mariadb{} }

type mariadb struct{}

func (mariadb) Name() string { return "MariaDB" }

// program finds one of the programs; Debian has them in two packages, and an installation
// needs both.
func (mariadb) program(name string) (string, error) {
	return find(name, "mariadb-server-core mariadb-client-core", "/usr/sbin", "/usr/local/sbin")
}

func (e mariadb) create(ctx context.Context, s *Server) error {
	install, err := e.program("mariadb-install-db")
	if err != nil {
		return err
	}
	// Which that one, a shell script, runs; what it says without them is of no help.
	for _, name := range []string{"mariadbd", "my_print_defaults"} {
		if _, err := e.program(name); err != nil {
			return err
		}
	}
	users := filepath.Join(s.dir, "users.sql")
	if err := os.WriteFile(users, []byte(fmt.Sprintf(`
CREATE DATABASE lockstep;
FLUSH PRIVILEGES;
CREATE USER lockstep IDENTIFIED BY '%s';
GRANT ALL PRIVILEGES ON *.* TO lockstep WITH GRANT OPTION;
`, s.password)), 0o600); err != nil {
		return err
	}
	if err := giveAway(users); err != nil {
		return err
	}
	return run(ctx, s, install, "--no-defaults", "--datadir="+e.data(s), "--extra-file="+users,
		"--skip-test-db", "--skip-name-resolve", "--innodb-buffer-pool-size=16M",
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci")
}

func (e mariadb) command(s *Server) ([]string, error) {
	server, err := e.program("mariadbd")
	return append([]string{
		server, "--no-defaults",
		"--datadir=" + e.data(s),
		"--socket=" + e.socket(s),
		"--pid-file=" + filepath.Join(s.dir, "pid"),
		"--bind-address=127.0.0.1",
		"--port=" + strconv.Itoa(s.port),
		"--skip-name-resolve",
		"--innodb-buffer-pool-size=64M",
		"--innodb-flush-log-at-trx-commit=1",
		"--character-set-server=utf8mb4",
		"--collation-server=utf8mb4_general_ci",
	}, s.settings...), err
}

func (mariadb) data(s *Server) string   { return filepath.Join(s.dir, "data") }
func (mariadb) socket(s *Server) string { return filepath.Join(s.dir, "s") }

// ready asks at the socket in the server's directory, which is nobody else's. The
// server opens it together with its port.
func (e mariadb) ready(ctx context.Context, s *Server, _ int) error {
	if _, err := os.Stat(e.socket(s)); err != nil {
		return err
	}
	cfg := e.config(e.access(s))
	cfg.Net, cfg.Addr, cfg.DBName = "unix", e.socket(s), ""
	cfg.Logger = new(mysql.NopLogger) // of a server that is not ready yet it tells the terminal
	return e.with(cfg, func(db *sql.DB) error { return db.PingContext(ctx) })
}

func (mariadb) access(s *Server) Access {
	return Access{User: "lockstep", Password: s.password, Addr: s.Addr(), Database: "lockstep"}
}

func (mariadb) config(a Access) *mysql.Config {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = a.User, a.Password, a.Database
	cfg.Net, cfg.Addr = "tcp", a.Addr
	return cfg
}

func (e mariadb) url(a Access) string { return e.config(a).FormatDSN() }

func (mariadb) with(cfg *mysql.Config, f func(db *sql.DB) error) error {
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	return errors.Join(f(db), db.Close())
}

func (e mariadb) createDatabase(ctx context.Context, server, name string) (string, func(context.Context) error, error) {
	return e.createWith(ctx, server, name, " CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
}

func (e mariadb) createWith(ctx context.Context, server, name, options string) (string, func(context.Context) error, error) {
	cfg, err := mysql.ParseDSN(server)
	if err != nil {
		return "", nil, err
	}
	if err := e.with(cfg, func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "CREATE DATABASE "+quote(name)+options)
		return err
	}); err != nil {
		return "", nil, err
	}
	its := cfg.Clone()
	its.DBName = name
	return its.FormatDSN(), func(ctx context.Context) error { return e.drop(ctx, cfg, name) }, nil
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// drop closes the connections to the database, since one with an open
// transaction would hold its tables.
func (e mariadb) drop(ctx context.Context, server *mysql.Config, name string) error {
	return e.with(server, func(db *sql.DB) error {
		rows, err := db.QueryContext(ctx, "SELECT id FROM information_schema.processlist WHERE db = ?", name)
		if err != nil {
			return err
		}
		var open []int64
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return errors.Join(err, rows.Close())
			}
			open = append(open, id)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		const noSuchThread = 1094 // it has gone by itself
		for _, id := range open {
			_, err := db.ExecContext(ctx, "KILL CONNECTION "+strconv.FormatInt(id, 10))
			if e := (*mysql.MySQLError)(nil); err != nil && !(errors.As(err, &e) && e.Number == noSuchThread) {
				return err
			}
		}
		_, err = db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+quote(name))
		return err
	})
}

func (mariadb) orderly() os.Signal { return syscall.SIGTERM }

// It is one process, and the files are of no use to anybody.
func (mariadb) abrupt() string { return "KILL" }
