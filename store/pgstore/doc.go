// Package pgstore keeps a cache's rows in PostgreSQL, version 13 or newer, by pgx.
//
// A [Store], from [Open], is a key-value table that belongs to us: it has versions,
// tombstones, row lifetimes, and columns that a person can read in psql. Several of
// them over one [Database] share its transactions. The connections are the caller's:
// a *pgxpool.Pool, or a *sql.DB over pgx ([OpenDatabaseSQL]), out of which pgx's own
// connections are taken.
//
// # What is promised
//
// A commit is durable when it returns, and visible to every Load that starts
// afterwards. OpenDatabase refuses a server on which that does not hold: a replica,
// and one with fsync, full_page_writes or synchronous_commit off, unless
// AllowUnsafeDurability asks for it. Other processes may read and write the table,
// through this package or by SQL that keeps version growing; the cache in front of
// this store learns of their writes when it loads again, or by a watch.
//
// With a synchronous standby the server reports success for a commit whose wait for
// the standby was cancelled (pg_cancel_backend, or a statement_timeout); such a
// commit is durable on one machine only, and nothing tells a client.
//
// # What failures mean
//
//	what happens                              what Commit says             the table
//	a key or value that cannot be stored      ErrInvalid, ErrTooLarge      unchanged; that set alone
//	the server refuses a row (classes 22,     ErrInvalid                   unchanged; that set alone
//	23, 44 and 54, a trigger's exception)
//	an expectation or a check fails           *ConflictError               unchanged; that set alone
//	a row is locked by somebody else, beside  ErrUnavailable, Blocked      unchanged; that set alone
//	other sets
//	a row is locked by somebody else, alone   waits; ErrUnavailable        unchanged
//	a deadlock, a serialization failure       nothing: it is made again    as asked
//	no connection, or one that was lost       ErrUnavailable               unchanged
//	before the statement that commits
//	ctx ends, the connection or the session   ErrUnknownOutcome            Settle fences, then looks
//	is lost after that statement was sent
//	the server cannot write (read-only, a     ErrUnavailable               unchanged
//	full disk, a missing privilege)
//
// [Tx], and [SQLTx] for database/sql, give the program's own statements a part in a
// transaction of caches.
//
// The fate that each SQLSTATE and each error of the driver stands for is in
// errors.go.
//
// # What is not there
//
// Triggers, rules, row security and foreign keys with actions on a table of ours are
// refused, too; but for the triggers of a watch.
//
// # Changes made by others
//
// [Database.InstallWatch] puts triggers on a table, of ours or one that exists, that
// write down which rows are changed, whoever changes them: by hand, by other programs,
// by cascades, TRUNCATE and logical replication. Stores that open the table afterwards
// watch it, each in a session of its own: a row that somebody else has changed leaves
// memory as soon as the watcher has looked, which a NOTIFY has it do at once as a rule,
// and DatabaseOptions.WatchInterval at the latest. No change is left out, whatever the
// order in which transactions are committed. When the watcher's session is lost,
// memory is emptied, and keeps nothing until there is another one.
//
// What a store commits is not told to that store, so that its cache keeps what it has
// written: two caches over a watched table have a store each. The caller's own
// statements are told, in a transaction that it shares with a cache, too. A table that
// is partitioned cannot be watched; DROP TABLE, and a change of the primary key's
// columns, end the watch, which has to be installed again. ALTER TABLE of a column, and
// of an enum's labels, loses it for a moment: memory is emptied, and it begins anew.
//
// # Behind a pooler
//
// By way of PgBouncer and its like, whose pool_mode is transaction, a program's
// statements come to a session of the server's that may be another one for each
// transaction. OpenDatabase finds that out, and refuses it with an error that names
// DatabaseOptions.Pooled. With it, and with connections that prepare nothing
// (default_query_exec_mode=exec in the pool's URL), the same is promised as without a
// pooler, and settling, which cannot end a session there, goes by rows of a table
// lockstep_lanes: see lane.go. A table cannot be watched by way of a pooler.
//
// # Another server
//
// A Database notices that the server behind its pool is another than before, after a
// failover, a restore or a restart: with the next connection that is opened, and within
// about a second where nothing else opens one. Memory is emptied before anything that
// the new one says is reported, and connections to the old one are closed when they are
// next taken out of the pool. A server that has become a standby is refused
// (ErrUnavailable) until it is promoted. What cannot be noticed is an old server that
// goes on beside the new one as long as no new connection reaches the new one: let the
// pool's connections end now and then (MaxConnLifetime).
//
// # How it is built
//
// A commit takes one session (session.go), whose server was looked at when it was
// first used (inspect.go). Changes that expect nothing are one statement and one
// round trip (blind.go); all else is one transaction of two round trips, decided in
// Go between them (together.go). An attempt (attempt.go) is what is settled: it knows
// the session, and how to tell what became of its rows. docs/design/postgres.md says
// why.
//
// Files that begin with table are about tables that exist, and have the same parts:
// tabledecide.go, tablecommit.go; tableinspect.go and tablefit.go are what [NewTable]
// looks at. change… is what a watch installs, watch… what reads it. caller… is the
// program's SQL in our transactions, join.go our statements in the program's. lane.go and
// pooled.go are for poolers, server.go for another server.
package pgstore
