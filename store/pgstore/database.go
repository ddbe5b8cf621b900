package pgstore

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/serverid"
)

// DatabaseOptions are the options of OpenDatabase. The zero value is sound.
type DatabaseOptions struct {
	// AllowUnsafeDurability accepts a server whose fsync, full_page_writes or
	// synchronous_commit is off: a crash may then undo the latest commits,
	// acknowledged ones included.
	AllowUnsafeDurability bool
	// WatchInterval is how often each cache over a watched table looks for what others
	// have changed, at the latest: as a rule it is woken by NOTIFY, and looks at once. 0
	// stands for 100 ms. Looking costs the server about as much as reading a row.
	WatchInterval time.Duration
	// Pooled is for connections by way of a pooler that hands out the server's sessions
	// transaction by transaction, as PgBouncer's pool_mode transaction does, and for
	// roles that may not call pg_terminate_backend. A pooler is found out at open, and
	// refused where this is not set.
	//
	// Statements are then not prepared, for which the pool has to be set, too
	// (default_query_exec_mode=exec): a load takes two to three times as long.
	// Commits are fenced by rows of a table lockstep_lanes, which the first store makes in
	// the first schema of the search path: a commit updates one row more, in the same round
	// trip.
	// A watched table is refused with ErrUnsupported.
	Pooled bool
}

const defaultWatchInterval = 100 * time.Millisecond

// Database is a PostgreSQL database as its stores share it: their transactions are
// one transaction. It owns no connection, and takes one from the caller's pool for
// each call and for each transaction. Its methods may be called from many
// goroutines at once.
type Database struct {
	source source
	opts   DatabaseOptions
	name   string
	schema string // the first of the search path, "" if there is none
	opened bool
	// room is roomOf the pool's connections.
	room int

	// seen is the latest that the server's clock, and versions made of it, have been
	// heard to say, in µs.
	seen  atomic.Int64
	clock serverClock
	// floors has, for each of our own tables, a *floor.
	floors  sync.Map
	silence time.Duration // watchTimeout, but in tests
	// server is the one that the latest new session was of. Its listeners are caches,
	// its watchers those of tables.
	server     serverid.Tracker[serverID]
	succession succession
	// lanes fence commits whose sessions cannot be ended; nil where they can.
	lanes *lanes
	// mapped has a watched for each mapped table, by its oid.
	mapped sync.Map

	mu      sync.Mutex
	closed  bool
	under   int // sessions that are out
	idle    chan struct{}
	closing chan struct{}

	keeper keeper
}

// OpenDatabase looks at the server behind pool. It returns an error that is
// ErrInvalid, and names the setting, when the server is a replica or would lose
// acknowledged commits in a crash; ErrUnsupported for a server that is too old, or
// whose sessions cannot be ended, as behind a pooler, without DatabaseOptions.Pooled; ErrUnavailable, naming the address, when it cannot be
// reached. The pool stays the caller's: Close leaves it open.
//
// A pool that is shared with other code must give its sessions back as they were:
// the settings above are looked at when a session is first used, and not again.
func OpenDatabase(ctx context.Context, pool *pgxpool.Pool, opts DatabaseOptions) (*Database, error) {
	if pool == nil {
		return nil, invalid("the pool is nil")
	}
	return openDatabase(ctx, poolSource{pool}, opts)
}

// OpenDatabaseSQL is OpenDatabase over a *sql.DB whose driver is
// github.com/jackc/pgx/v5/stdlib; any other is refused with ErrUnsupported. The
// store takes pgx's own connections out of it, one for each call.
func OpenDatabaseSQL(ctx context.Context, db *sql.DB, opts DatabaseOptions) (*Database, error) {
	if db == nil {
		return nil, invalid("the *sql.DB is nil")
	}
	return openDatabase(ctx, sqlSource{db}, opts)
}

func openDatabase(ctx context.Context, src source, opts DatabaseOptions) (*Database, error) {
	if opts.WatchInterval < 0 {
		return nil, invalid("DatabaseOptions.WatchInterval is %v, and must not be negative", opts.WatchInterval)
	}
	if opts.WatchInterval == 0 {
		opts.WatchInterval = defaultWatchInterval
	}
	db := &Database{source: src, opts: opts, silence: watchTimeout, idle: make(chan struct{}), closing: make(chan struct{})}
	s, err := db.session(ctx)
	if err != nil {
		return nil, openError(err)
	}
	var schema *string
	err = s.run(ctx, command{sql: "SELECT current_schema()::text, current_database()::text", row: func(scan func(...any) error) error { return scan(&schema, &db.name) }})
	if err != nil {
		db.drop(s)
		return nil, openError(err)
	}
	if schema != nil {
		db.schema = *schema
	}
	if opts.Pooled {
		err = db.openPooled()
	} else {
		err = mayTerminate(ctx, s)
	}
	if err != nil {
		db.drop(s)
		return nil, openError(err)
	}
	db.room = roomOf(s.id.texts)
	db.release(s)
	db.opened = true
	db.keeper.start(db)
	return db, nil
}

// enter counts a session that is out.
func (db *Database) enter() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return lockstep.ErrClosed
	}
	db.under++
	return nil
}

func (db *Database) leave() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.under--; db.closed && db.under == 0 {
		close(db.idle)
	}
}

// Close waits for the calls and transactions under way, and stops the background
// work. Everything afterwards is ErrClosed. The caller's pool stays open. Closing
// again does nothing.
func (db *Database) Close() error {
	db.mu.Lock()
	first := !db.closed
	if first {
		db.closed = true
		close(db.closing)
		if db.under == 0 {
			close(db.idle)
		}
	}
	db.mu.Unlock()
	<-db.idle
	db.keeper.wait()
	return nil
}

// heard notes what the server's clock says, and the version of a row. A version that
// is far ahead of the clock is the row's own affair: noted here it would push every
// other row there.
func (db *Database) heard(clock, version int64) {
	if clock > 0 {
		db.clock.heard(clock)
	}
	db.noted(clock, version)
}

func (db *Database) noted(clock, version int64) {
	raise(&db.seen, max(clock, min(version, clock+ahead.Microseconds())))
}

// ahead is how far versions may be ahead of the clock and be noted.
const ahead = time.Second

func raise(a *atomic.Int64, to int64) {
	for {
		old := a.Load()
		if old >= to || a.CompareAndSwap(old, to) {
			return
		}
	}
}
