package dbtest

import (
	"os"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbserver"
)

// What tests share, each with the variable that may say where one runs already.
var (
	sharedPostgres = shared{kind: dbserver.PostgreSQL(), variable: "LOCKSTEP_TEST_POSTGRES"}
	sharedMariaDB  = shared{kind: mariaDBOrMySQL(), variable: "LOCKSTEP_TEST_MARIADB"}
	sharedRedis    = shared{kind: dbserver.Redis(), variable: "LOCKSTEP_TEST_REDIS"}
)

// mysqlProgram is the environment variable that names a server program of MySQL, to be
// started wherever a MariaDB would be.
const mysqlProgram = "LOCKSTEP_TEST_MYSQLD"

// mariaDBOrMySQL is what [MariaDB] and [StartMariaDB] start.
func mariaDBOrMySQL() dbserver.Kind {
	if program := os.Getenv(mysqlProgram); program != "" {
		return dbserver.MySQL(program)
	}
	return dbserver.MariaDB()
}

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
	return sharedPostgres.own(t, settings)
}

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
	return sharedMariaDB.own(t, settings)
}

// Redis returns the URL of a new, empty database, redis://:PASSWORD@HOST:PORT/NUMBER, on
// a Redis that all tests of the process share. The database is emptied when the test
// ends, and connections that have it selected are closed. What a write has changed is in
// the append-only file, and synced, before its reply is sent. The user may do everything,
// to other tests' databases too.
func Redis(t testing.TB) (url string) {
	t.Helper()
	return sharedRedis.database(t)
}

// StartRedis starts a Redis of the test's own. A setting is a line of its configuration
// file: "appendfsync everysec".
func StartRedis(t testing.TB, settings ...string) *Server {
	t.Helper()
	return sharedRedis.own(t, settings)
}

// PgBouncer starts a PgBouncer of the test's own in front of the PostgreSQL of that URL,
// in transaction mode: a client has a session of the server's for a transaction, and
// another one perhaps for the next. A setting is a line of its configuration file:
// "default_pool_size=2". Its URL is that of the same database behind it.
func PgBouncer(t testing.TB, postgresURL string, settings ...string) *Server {
	t.Helper()
	kind, err := dbserver.PgBouncer(postgresURL)
	if err != nil {
		t.Fatal(err)
	}
	pooler := shared{kind: kind} // which is in front of a server of the test
	return pooler.own(t, settings)
}
