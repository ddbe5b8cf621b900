// Package dbserver starts database servers of one's own, and ends them: a PostgreSQL, a
// MariaDB or MySQL, a PgBouncer before one of them, a Redis. It is for programs that break
// a server to see what their database does: it can be killed, stopped, and started again
// with the data it had, and one session's process can be suspended.
//
// Servers are those that are installed. They listen on a free port of the loopback, keep
// their files in a temporary directory, run as nobody where root starts them, and ask for
// a password that is made up for each. Nothing is started as a service, and what is
// started takes no settings of the machine's.
//
// # How servers end
//
// A server is the child of a shell that reads a pipe, and the other end of the
// pipe is the program's alone. When the program ends, whether it returns,
// panics, runs into a test's -timeout or is killed, the kernel closes its end; the shell
// then ends the server and removes its directory. Whoever starts servers could do that
// where the program returns, and would have to think of it in every one. A parent
// death signal is Linux's own, and follows the thread that made the process, not
// the process.
//
// For the same reason no goroutine waits for a server: tests may look for
// goroutines that outlive them (goleak) while the servers that they share run on.
package dbserver
