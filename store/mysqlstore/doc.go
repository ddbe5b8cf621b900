// Package mysqlstore keeps a cache's rows in MariaDB (10.6 and later) or MySQL (8.0
// and later), through github.com/go-sql-driver/mysql.
//
// A [Store], from [Open], is a key-value table that belongs to us: it has versions,
// tombstones, row lifetimes, and columns that a person can read in the mariadb
// shell. Several of them over one [Database] share its transactions, and several
// processes may share a table. A [Table], from [NewTable], maps a table that exists; it
// may take part in the same transactions.
//
// # What is promised
//
// A commit is durable when it returns: OpenDatabase reads the server's settings and
// refuses weaker ones by name, unless AllowUnsafeDurability asks for them. It is
// visible to every Load that starts afterwards. A server that is read-only is
// refused, which is what replicas are; one that is both writable and behind another
// looks like any other, and must not be used. Galera is refused, too, and so is group
// replication in which every member takes writes: there a node may be behind.
//
// # What failures mean
//
//	what happens                              what Commit says             the database
//	a key or value that cannot be stored      ErrInvalid, ErrTooLarge      unchanged; that set alone
//	the server refuses a row                  ErrInvalid                   unchanged; that set alone
//	an expectation or a check fails           *ConflictError               unchanged; that set alone
//	a row is locked, and the batch has        ErrUnavailable, Blocked      unchanged; that set alone
//	other sets
//	a row is locked until ctx ends            ErrUnavailable               unchanged
//	a deadlock                                nothing: it is run again
//	the server cannot be reached, or is full  ErrUnavailable               unchanged
//	ctx ends before COMMIT is sent            ErrUnavailable               unchanged
//	ctx ends, or the connection is lost,      ErrUnknownOutcome            Settle ends the session, then
//	while COMMIT, or the one statement of a                                looks
//	batch in autocommit mode, is under way
//	the server or the machine dies            either of the two before     all of the batch, or nothing
//
// [Tx] gives the program's own statements a part in a transaction of caches, and [Join]
// caches one in a transaction of the program's.
//
// # The connections
//
// A Database takes connections out of the program's *sql.DB and keeps them: up to
// MaxSessions, as many as are in use at once; those that nobody uses for a minute are
// closed. They have their own settings (READ COMMITTED, strict mode, UTC, utf8mb4), whatever
// the DSN says, and are never put back, so that neither these nor what the program
// does to its connections is in the other's way. None of the DSN's parameters
// changes what the stores do: clientFoundRows, columnsWithAlias, interpolateParams,
// loc, multiStatements, parseTime, rejectReadOnly and the system variables do not
// matter. A readTimeout ends a commit that waits longer for a row.
//
// A connection must stay with one session of one server. Settling an unknown outcome
// kills the session that was asked to commit, and OpenDatabase makes sure that this
// works, by doing it: the driver then logs "unexpected EOF", unless its Config has another
// Logger. Behind a proxy that changes servers, a failover must not leave
// the old one taking writes.
//
// # Changes made by others
//
// [Database.InstallWatch] puts triggers on a table, of ours or one that exists, which
// write down which rows are changed, whoever changes them. Stores that open the table
// afterwards watch it, each in a session of its own: a row that somebody else has changed
// leaves memory as soon as the watcher has looked, DatabaseOptions.WatchInterval later at
// the latest. No change is left out, whatever the order in which transactions are
// committed, and however long they are. When the watcher's session is lost, memory is
// emptied, and keeps nothing until there is another one.
//
// What a store commits is not told to that store, so that its cache keeps what it has
// written: two caches over a watched table have a store each. The caller's own
// statements are told, in a transaction that it shares with a cache, too. TRUNCATE,
// and DDL that removes rows, is not told: invalidate the caches after it. ALTER TABLE
// ends the watch, which begins again. A table whose key's columns are renamed
// cannot be written until its watch is installed again.
//
// # How it is built
//
// A session (session.go) is a connection of ours; it talks to the driver directly,
// and prepares each statement once. A transaction is an attempt (attempt.go), which
// knows whether what it has sent can have been committed; fence.go makes an end of
// one. Commit has three ways (commit.go). What a batch comes to is decided in Go, by
// store/internal/kv, while its rows are locked (together.go, locking.go), except for
// the batches that one statement can do (lone.go, blind.go). More in
// docs/design/mysql.md.
//
// Files that begin with table are about tables that exist, and have the same parts:
// tabledecide.go, tablecommit.go; tableinspect.go and tablefit.go are what [NewTable]
// looks at. change… is what a watch installs, watch… what reads it. caller… is the
// program's SQL in our transactions, inspect.go what is asked of a server, server.go for
// another server.
package mysqlstore
