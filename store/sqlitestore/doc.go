// Package sqlitestore keeps a cache's rows in an SQLite file, without cgo.
//
// A [Store], from [Open], is a key-value table that belongs to us: it has
// versions, tombstones, row lifetimes, and columns that a person can read in the
// sqlite3 shell. A [Table], from [NewTable], maps a table that exists. Several of
// them over one [Database] share its transactions.
//
// # What is promised
//
// A commit is durable when it returns: the log is synced (WAL,
// synchronous=FULL), and OpenDatabase reads the settings back and refuses weaker
// ones, unless AllowUnsafeDurability asks for them. It is visible to every Load
// that starts afterwards. Other processes may read and write the file; the cache
// in front of this store learns of their writes only when it loads again.
//
// # What failures mean
//
//	what happens                              what Commit says             the file
//	a key or value that cannot be stored      ErrInvalid, ErrTooLarge      unchanged; that set alone
//	a Table's constraint or trigger refuses   ErrInvalid                   unchanged; that set alone
//	a set
//	a set would change rows that it does not  ErrInvalid                   unchanged; that set alone
//	name and a cache may hold (see Table)
//	an expectation or a check fails           *ConflictError               unchanged; that set alone
//	the file is locked until ctx ends         ErrUnavailable               unchanged
//	the file was moved, removed or replaced   ErrUnavailable               unchanged, until it is opened again
//	the disk is full                          ErrUnavailable               unchanged
//	ctx ends before COMMIT is sent            ErrUnavailable               unchanged
//	ctx ends while COMMIT is under way        ErrUnknownOutcome            Settle waits, then knows
//	a write or a sync fails in COMMIT         ErrUnknownOutcome            Settle fences, then looks
//	the process or the machine dies           nothing                      all of the batch, or nothing
//
// A Store's table can have no triggers, and one that has is refused when it is
// opened. What a trigger that somebody makes later does to a row is not read back,
// and what it refuses takes the whole batch with it.
//
// # Tags
//
//	type User struct {
//		Name    string            `db:"name"`             // a column
//		Email   *string           `db:"email"`            // that may be NULL; so may sql.Null[T]
//		Labels  map[string]string `db:"labels,json"`      // any type, as JSON
//		Seen    time.Time         `db:"seen,unixmilli"`   // an INTEGER; without the option, text in UTC
//		Made    time.Time         `db:"created,readonly"` // read, never written
//		Version int64             `db:"version,version"`  // kept by the store
//	}
//
// A struct in it that has no tag of its own, embedded or not, adds its fields.
// Columns without a field are never written. Everything that does not fit is
// reported at once by NewTable.
//
// A program that knows the columns only when it runs maps a table to rows.Key and rows.Row
// ([github.com/lockstep-cache/lockstep/store/rows]): all of its columns, as text. SQLite lets
// a column hold anything; there it holds what it is declared as, or the row cannot be read:
//
//	declared                                  as text
//	----------------------------------------  ------------------------------------------------
//	INTEGER, and what has INT in it           a whole number
//	REAL, DOUBLE, FLOAT and their like        a number
//	TEXT, CHAR, CLOB and their like           itself
//	BLOB                                      the bytes
//	NUMERIC, DECIMAL, NUMBER                  a number, as SQLite keeps it: 12.5, not 12.50
//	BOOLEAN                                   1 or 0
//	DATETIME, TIMESTAMP                       RFC 3339, of text as this package writes times
//	DATE                                      2026-01-02
//	JSON                                      JSON
//	nothing, or another type                  refused when the table is opened
//
// # How it is built
//
// There is one connection that writes, and whoever holds it holds the write lock
// among this process's commits (pool.go). A transaction is an attempt
// (attempt.go), which knows until when it can still be called off. What a batch
// comes to is decided in Go, between BEGIN IMMEDIATE and COMMIT, when nobody else
// can write (state.go). Copying the log into the file is the keeper's work, off
// the commit path (keeper.go).
//
// A write that finds nothing else queued is committed on its caller's goroutine
// (lockstep.Capabilities.Immediate): if its context ends during the sync, it is told
// what has become of it when the disk has answered.
//
// The package talks to the driver's connections directly and not through
// database/sql (conn.go), and never gives the driver a context that can end.
package sqlitestore
