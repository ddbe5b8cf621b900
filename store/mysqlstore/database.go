package mysqlstore

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/serverid"
)

// DatabaseOptions are the options of OpenDatabase. The zero value is sound.
type DatabaseOptions struct {
	// AllowUnsafeDurability accepts a server whose settings let an acknowledged
	// commit be lost in a crash.
	AllowUnsafeDurability bool
	// MaxSessions is how many connections are taken out of the program's pool at the
	// most for loads, commits and transactions; 0 stands for 16. One or two more are
	// opened for a moment to settle an unknown outcome. A pool with a limit of its
	// own (SetMaxOpenConns) must leave room for these and for the program.
	MaxSessions int
	// WatchInterval is how often each cache over a watched table looks for what others
	// have changed; 0 stands for 100 ms. Looking is two short queries, and once a second
	// another one that costs the server half a millisecond.
	WatchInterval time.Duration
}

const (
	defaultSessions = 16
	maxSessions     = 4096
)

func (o DatabaseOptions) sessions() (int, error) {
	switch {
	case o.MaxSessions < 0 || o.MaxSessions > maxSessions:
		return 0, invalid("DatabaseOptions.MaxSessions is %d, and must be from 0 to %d", o.MaxSessions, maxSessions)
	case o.MaxSessions == 0:
		return defaultSessions, nil
	}
	return o.MaxSessions, nil
}

// Database is a MariaDB or MySQL database. Its methods, and those of the stores over
// it, may be called from many goroutines at once.
type Database struct {
	pool   *sql.DB
	opts   DatabaseOptions
	server server
	name   string // of the database in the server
	// silence and printEvery are watchTimeout and watchPrint, but in tests.
	silence, printEvery time.Duration
	// watched are the stores that watch their tables, and watching their sessions.
	watched  atomic.Int64
	watching sync.WaitGroup

	// which is the server that the latest new session was of. Its listeners are caches.
	which  serverid.Tracker[serverID]
	starts starts
	// inspected: what a server must be like has been said of the first one.
	inspected bool

	clock  serverClock
	clocks sync.Map // table, folded, to *tableClock
	// mapped: a table that exists was opened to be written. What its transactions rely
	// on may be the absence of a row, which only locked gaps keep.
	mapped atomic.Bool
	// tables are the names of the tables that were opened, as in statements: a cache may
	// hold their rows.
	tables sync.Map

	// slots bounds the sessions in use, and idle has those that are not.
	slots chan struct{}
	mu    sync.Mutex
	idle  []*session

	keeper keeper
	// reaping are the sessions that were left with a statement under way.
	reaping sync.WaitGroup

	// ctx ends when the database is closed.
	ctx       context.Context
	cancel    context.CancelFunc
	closeOnce sync.Once
}

// OpenDatabase takes the database that pool's DSN names. It takes a few
// milliseconds. An error that is ErrInvalid says that the driver, the server or the
// privileges will not do, and why; ErrUnavailable that the server could not be
// asked. The pool stays the program's: its other statements are in nobody's way, and
// Close does not close it.
func OpenDatabase(ctx context.Context, pool *sql.DB, opts DatabaseOptions) (*Database, error) {
	n, err := opts.sessions()
	if err != nil {
		return nil, err
	}
	if opts.WatchInterval < 0 {
		return nil, invalid("DatabaseOptions.WatchInterval is %v, and must not be negative", opts.WatchInterval)
	}
	if opts.WatchInterval == 0 {
		opts.WatchInterval = defaultWatchInterval
	}
	if pool == nil {
		return nil, invalid("the *sql.DB is nil")
	}
	if _, ok := pool.Driver().(*mysql.MySQLDriver); !ok {
		return nil, invalid("the *sql.DB has the driver %T; it must be github.com/go-sql-driver/mysql's, unwrapped", pool.Driver())
	}
	if limit := pool.Stats().MaxOpenConnections; limit > 0 {
		if limit < 3 {
			return nil, invalid("the *sql.DB is limited to %d open connections (SetMaxOpenConns), and 3 are needed", limit)
		}
		if opts.MaxSessions > limit-2 {
			return nil, invalid("DatabaseOptions.MaxSessions is %d, and the *sql.DB is limited to %d open connections (SetMaxOpenConns), of which 2 must be left", n, limit)
		}
		n = min(n, limit-2)
	}
	if ctx.Err() != nil {
		return nil, gaveUp(ctx, "opening")
	}
	db := &Database{pool: pool, opts: opts, silence: watchTimeout, printEvery: watchPrint, slots: make(chan struct{}, n)}
	db.ctx, db.cancel = context.WithCancel(context.Background())
	if err := db.inspect(ctx); err != nil {
		db.cancel()
		return nil, openError(err)
	}
	db.inspected = true
	db.keeper.start(db)
	return db, nil
}

// Close waits for the commits and transactions under way, stops the background work
// and closes the sessions. Everything afterwards is ErrClosed. It does not close the
// *sql.DB. Closing again does nothing.
func (db *Database) Close() error {
	db.closeOnce.Do(func() {
		db.mu.Lock() // behind which no watch begins
		db.cancel()
		db.mu.Unlock()
		db.keeper.wait()
		db.watching.Wait()
		for range cap(db.slots) {
			db.slots <- struct{}{} // whoever has one gives it back first
		}
		db.reaping.Wait()
		for _, s := range db.idle {
			s.close()
		}
		db.idle = nil
	})
	return nil
}

// closed is ErrClosed after Close.
func (db *Database) closed() error {
	if db.ctx.Err() != nil {
		return lockstep.ErrClosed
	}
	return nil
}

// acquire lends a session, for which it may have to wait.
func (db *Database) acquire(ctx context.Context) (*session, error) { return db.acquireFor(ctx, "") }

// acquireFor lends one that was a writer's last, if there is one.
func (db *Database) acquireFor(ctx context.Context, writer string) (*session, error) {
	if err := db.closed(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, gaveUp(ctx, "waiting for a session")
	}
	select {
	case db.slots <- struct{}{}:
	default:
		select {
		case db.slots <- struct{}{}:
		case <-db.ctx.Done():
			return nil, lockstep.ErrClosed
		case <-ctx.Done():
			return nil, gaveUp(ctx, "waiting for a session")
		}
	}
	for {
		s := db.popIdle(writer)
		if s == nil {
			break
		}
		if db.which.Is(s.server) && s.usable(ctx) {
			return s, nil
		}
		s.close()
	}
	s, err := db.open(ctx)
	if err != nil {
		<-db.slots
		return nil, unasked(err)
	}
	return s, nil
}

func (db *Database) popIdle(writer string) *session {
	db.mu.Lock()
	defer db.mu.Unlock()
	n := len(db.idle)
	if n == 0 {
		return nil
	}
	i := n - 1
	for j := i; j >= 0 && db.watched.Load() > 0; j-- {
		if db.idle[j].writer == writer {
			i = j
			break
		}
	}
	s := db.idle[i]
	db.idle = append(db.idle[:i], db.idle[i+1:]...)
	return s
}

// enterWatch counts a watcher's session. Of a pool that is limited it takes one of
// those that are ours.
func (db *Database) enterWatch(ctx context.Context) (release func(), err error) {
	db.mu.Lock()
	if err := db.closed(); err != nil {
		db.mu.Unlock()
		return nil, err
	}
	db.watching.Add(1)
	db.mu.Unlock()
	if db.pool.Stats().MaxOpenConnections == 0 {
		return db.watching.Done, nil
	}
	select {
	case db.slots <- struct{}{}:
		return func() { <-db.slots; db.watching.Done() }, nil
	case <-db.ctx.Done():
		err = lockstep.ErrClosed
	case <-ctx.Done():
		err = gaveUp(ctx, "waiting for a session")
	}
	db.watching.Done()
	return nil, err
}

// countWatch makes room for the session of one more store that watches its table.
func (db *Database) countWatch() error {
	n := db.watched.Add(1)
	if limit := db.pool.Stats().MaxOpenConnections; limit > 0 && n >= int64(cap(db.slots)) {
		db.watched.Add(-1)
		return invalid("the *sql.DB is limited to %d open connections (SetMaxOpenConns), and each store over a watched table takes one for itself, of which there are %d", limit, n)
	}
	return nil
}

// release takes a session back. One that is broken is closed, and if the server may
// still be at work for it, it is ended there: a session that waits for a row's lock
// does not notice that its client has left, and would keep the locks it has.
func (db *Database) release(s *session) {
	switch {
	case !s.broken && db.ctx.Err() == nil:
		s.idleSince = time.Now()
		db.mu.Lock()
		db.idle = append(db.idle, s)
		db.mu.Unlock()
	default:
		alive := s.broken && s.alive
		s.close()
		if alive {
			db.reap(s.fence)
		}
	}
	<-db.slots
}

// reap ends an abandoned session, as well as it can. Nothing depends on it: settling
// an unknown outcome makes sure by itself.
func (db *Database) reap(f fence) {
	if db.ctx.Err() != nil {
		return
	}
	db.reaping.Go(func() {
		ctx, cancel := context.WithTimeout(db.ctx, 10*time.Second)
		defer cancel()
		db.end(ctx, f)
	})
}

// trim closes the sessions that nobody has used for a while.
func (db *Database) trim(before time.Time) {
	db.mu.Lock()
	n := 0
	for n < len(db.idle) && db.idle[n].idleSince.Before(before) {
		n++
	}
	old := append([]*session(nil), db.idle[:n]...)
	db.idle = append(db.idle[:0], db.idle[n:]...)
	db.mu.Unlock()
	for _, s := range old {
		s.close()
	}
}

// read lends a session to f, for statements that change nothing.
func (db *Database) read(ctx context.Context, f func(s *session) error) error {
	s, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	returned := false
	defer func() {
		s.broken = s.broken || !returned // f has panicked, in code that is not ours
		db.release(s)
	}()
	err = f(s)
	returned = true
	if err != nil && ctx.Err() != nil && !isNamed(err) {
		return gaveUp(ctx, "reading")
	}
	return err
}

// tableClock returns the table's, which all stores over it share: a version that one
// of them has given must be below what another gives next.
func (db *Database) tableClock(table string) *tableClock {
	c, _ := db.clocks.LoadOrStore(db.fold(table), &tableClock{server: &db.clock})
	return c.(*tableClock)
}

// fold makes one of all spellings that the server takes for the same table.
func (db *Database) fold(table string) string {
	if db.server.foldsNames {
		return strings.ToLower(table)
	}
	return table
}

// qualified names a table of the database in a statement.
func (db *Database) qualified(table string) string { return quote(db.name) + "." + quote(table) }

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
