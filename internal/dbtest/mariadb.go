package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"
)

var sharedMariaDB = shared{engine: mariaDBOrMySQL()}

// MariaDB returns the DSN, for github.com/go-sql-driver/mysql, of a new, empty
// database on a MariaDB that all tests of the process share. The database is
// dropped when the test ends, and connections to it that are still open then are
// closed. The character set is utf8mb4, and InnoDB syncs its log at every commit.
// The DSN sets no options (parseTime is not set). The user may do everything, to
// other tests' databases too. Where LOCKSTEP_TEST_MYSQLD is set, it is a MySQL, with
// the collation that MySQL has by default.
func MariaDB(t testing.TB) (dsn string) {
	t.Helper()
	return sharedMariaDB.database(t)
}

// StartMariaDB starts a MariaDB of the test's own. A setting is an argument of
// its command line: "--innodb-flush-log-at-trx-commit=2". Where LOCKSTEP_TEST_MYSQLD is
// set, it is a MySQL.
func StartMariaDB(t testing.TB, settings ...string) *Server {
	t.Helper()
	return own(t, mariaDBOrMySQL(), settings)
}

type mariadb struct{}

func (mariadb) name() string     { return "MariaDB" }
func (mariadb) variable() string { return "LOCKSTEP_TEST_MARIADB" }

func (mariadb) program(name string) (string, error) {
	return find(name, "/usr/sbin", "/usr/local/sbin")
}

func (e mariadb) create(s *Server) error {
	install, err := e.program("mariadb-install-db")
	if err != nil {
		return err
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
	return run(s, install, "--no-defaults", "--datadir="+e.data(s), "--extra-file="+users,
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
	cfg := e.config(s, "")
	cfg.Net, cfg.Addr = "unix", e.socket(s)
	return e.with(cfg, func(db *sql.DB) error { return db.PingContext(ctx) })
}

func (mariadb) config(s *Server, database string) *mysql.Config {
	if s.given != "" {
		cfg, err := mysql.ParseDSN(s.given)
		if err != nil {
			return &mysql.Config{Net: "LOCKSTEP_TEST_MARIADB is no DSN: " + err.Error()}
		}
		if database != "" {
			cfg.DBName = database
		}
		return cfg
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = "lockstep", s.password, database
	cfg.Net, cfg.Addr = "tcp", s.Addr()
	return cfg
}

func (e mariadb) url(s *Server, database string) string {
	if database == "" && s.given == "" {
		database = "lockstep"
	}
	return e.config(s, database).FormatDSN()
}

func (mariadb) with(cfg *mysql.Config, f func(db *sql.DB) error) error {
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	return errors.Join(f(db), db.Close())
}

func (e mariadb) createDatabase(ctx context.Context, s *Server, name string) error {
	return e.with(e.config(s, ""), func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "CREATE DATABASE "+name+" CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
		return err
	})
}

// dropDatabase closes the connections to the database, since one with an open
// transaction would hold its tables.
func (e mariadb) dropDatabase(ctx context.Context, s *Server, name string) error {
	return e.with(e.config(s, ""), func(db *sql.DB) error {
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
		_, err = db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+name)
		return err
	})
}

func (mariadb) orderly() os.Signal { return syscall.SIGTERM }

// It is one process, and the files are of no use to anybody.
func (mariadb) abrupt() string { return "KILL" }
