package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// mysqlProgram is the environment variable that names a server program of MySQL, to be
// started wherever a MariaDB would be.
const mysqlProgram = "LOCKSTEP_TEST_MYSQLD"

// mariaDBOrMySQL is what [MariaDB] and [StartMariaDB] start.
func mariaDBOrMySQL() engine {
	if program := os.Getenv(mysqlProgram); program != "" {
		return mysqld{program: program}
	}
	return mariadb{}
}

// mysqld is a MySQL. It differs from a MariaDB in how it begins; what it is left to
// choose by itself stays as it is there: the binary log, the default collation, and how
// passwords are asked for.
type mysqld struct {
	mariadb
	program string
}

func (mysqld) name() string { return "MySQL" }

func (e mysqld) find() (string, error) {
	program, err := find(e.program)
	if err != nil {
		return "", fmt.Errorf("%s: %w", mysqlProgram, err)
	}
	return program, nil
}

func (e mysqld) create(s *Server) error {
	server, err := e.find()
	if err != nil {
		return err
	}
	users := filepath.Join(s.dir, "users.sql")
	if err := os.WriteFile(users, []byte(fmt.Sprintf(`CREATE DATABASE lockstep;
CREATE USER lockstep IDENTIFIED BY '%s';
GRANT ALL PRIVILEGES ON *.* TO lockstep WITH GRANT OPTION;
`, s.password)), 0o600); err != nil {
		return err
	}
	if err := giveAway(users); err != nil {
		return err
	}
	return run(s, server, "--no-defaults", "--initialize-insecure", "--datadir="+e.data(s), "--init-file="+users,
		"--innodb-buffer-pool-size=64M", "--innodb-redo-log-capacity=32M")
}

func (e mysqld) command(s *Server) ([]string, error) {
	server, err := e.find()
	return append([]string{
		server, "--no-defaults",
		"--datadir=" + e.data(s),
		"--socket=" + e.socket(s),
		"--pid-file=" + filepath.Join(s.dir, "pid"),
		"--bind-address=127.0.0.1",
		"--port=" + strconv.Itoa(s.port),
		"--mysqlx=OFF",        // it would have a port of its own, which is not a free one
		"--secure-file-priv=", // the directory that the program was built for may not be there
		"--skip-name-resolve",
		"--max-allowed-packet=16M", // MariaDB's, which tests of limits reach
		"--innodb-buffer-pool-size=64M",
		"--innodb-redo-log-capacity=32M",
	}, s.settings...), err
}

func (e mysqld) createDatabase(ctx context.Context, s *Server, name string) error {
	return e.with(e.config(s, ""), func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "CREATE DATABASE "+name)
		return err
	})
}
