package dbserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// MySQL is a MySQL whose server program, mysqld, is at that path. It differs from a
// MariaDB in how it begins; what it is left to choose by itself stays as it is there: the
// binary log, the default collation, and how passwords are asked for. What its build
// needs beside its files (--lc-messages-dir, --plugin-dir) a script around it can add.
func MySQL(program string) Kind { return mysqld{path: program} }

type mysqld struct {
	mariadb
	path string
}

func (mysqld) Name() string { return "MySQL" }

func (e mysqld) program() (string, error) { return find(e.path, "") }

func (e mysqld) create(ctx context.Context, s *Server) error {
	server, err := e.program()
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
	return run(ctx, s, server, "--no-defaults", "--initialize-insecure", "--datadir="+e.data(s), "--init-file="+users,
		"--innodb-buffer-pool-size=64M", "--innodb-redo-log-capacity=32M")
}

func (e mysqld) command(s *Server) ([]string, error) {
	server, err := e.program()
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

func (e mysqld) createDatabase(ctx context.Context, server, name string) (string, func(context.Context) error, error) {
	return e.createWith(ctx, server, name, "")
}
