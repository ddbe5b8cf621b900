// Package clients is the test of the server with clients that others have written: go-redis,
// rueidis, ioredis and redis-cli, as they are. It is a module of its own, so that nobody who
// uses Lockstep gets them as dependencies.
//
// Most tests talk to lockstep serve, built from this tree and run as a program, with a
// password, over a SQLite file; those that need a database that fails, or a server whose
// moments can be held, to a server in the test's own process.
package clients
