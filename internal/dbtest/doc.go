// Package dbtest gives tests what cannot be imitated: a real PostgreSQL, a real
// MariaDB, a real Redis, and a network that breaks when the test says so. It is what
// package dbserver and package netfault have, bound to a test: what they cannot do fails
// it, and what they started ends with it.
//
// [Postgres], [MariaDB] and [Redis] make a database on a server that the process's
// tests share. [StartPostgres], [StartMariaDB] and [StartRedis] start a server of the
// test's own, to be killed, or to have other settings. [PgBouncer] starts a pooler, and a [Proxy]
// stands between a client and a server.
//
// Servers are those that are installed (scripts/databases installs them). A server that is
// not there fails the test; it is never skipped.
//
// LOCKSTEP_TEST_POSTGRES and LOCKSTEP_TEST_REDIS, URLs, and LOCKSTEP_TEST_MARIADB, a DSN,
// name servers that run already, in a container for one, for what the tests share: each test makes a
// database there and drops it, and the user has to be one who may do everything. Tests
// that start servers of their own do so as ever; where the programs are missing then,
// they say that they did not run, which is a failure with CI=true.
//
// LOCKSTEP_TEST_MYSQLD, the path of a mysqld, has a MySQL started wherever a MariaDB
// would be, the tests' own servers included. Tests of what only one
// of the two has ask the server which one it is.
package dbtest
