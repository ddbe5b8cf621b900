// Package dbtest gives tests what cannot be imitated: a real PostgreSQL, a real
// MariaDB, a real Redis, and a network that breaks when the test says so.
//
// [Postgres], [MariaDB] and [Redis] make a database on a server that the process's
// tests share. [StartPostgres], [StartMariaDB] and [StartRedis] start a server of the
// test's own, to be killed, or to have other settings. [PgBouncer] starts a pooler, and a [Proxy]
// stands between a client and a server.
//
// Servers are those that are installed (scripts/databases installs them). They
// listen on a free port of the loopback, keep their files in a temporary
// directory, and ask for a password that the process makes up. A server that is
// not there fails the test; it is never skipped.
//
// LOCKSTEP_TEST_POSTGRES and LOCKSTEP_TEST_REDIS, URLs, and LOCKSTEP_TEST_MARIADB, a DSN,
// name servers that run already, in a container for one, for what the tests share: each test makes a
// database there and drops it, and the user has to be one who may do everything. Tests
// that start servers of their own do so as ever; where the programs are missing then,
// they say that they did not run, which is a failure with CI=true.
//
// LOCKSTEP_TEST_MYSQLD, the path of a mysqld, has a MySQL started wherever a MariaDB
// would be, the tests' own servers included. What its build needs beside its files
// (--lc-messages-dir, --plugin-dir) a script around it can add. Tests of what only one
// of the two has ask the server which one it is.
//
// # How servers end
//
// A server is the child of a shell that reads a pipe, and the other end of the
// pipe is the test process's alone. When the process ends, whether it returns,
// panics, runs into -timeout or is killed, the kernel closes its end; the shell
// then ends the server and removes its directory. TestMain could do that for
// processes that return, and would have to be written in every package. A parent
// death signal is Linux's own, and follows the thread that made the process, not
// the process.
//
// For the same reason no goroutine waits for a server: tests may look for
// goroutines that outlive them (goleak) while the shared servers run on.
package dbtest
