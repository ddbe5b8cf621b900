package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
)

const (
	// watchTimeout is how long the server may take to go on answering a watcher. A
	// connection that has gone dead without a word leaves a memory that is out of date
	// for no longer than that.
	watchTimeout = 10 * time.Second
	// probeTimeout is how long a watcher's own NOTIFY may take to come back.
	probeTimeout = time.Second
	// watchGap is the least time between two looks, whoever wakes the watcher.
	watchGap = 5 * time.Millisecond
	// watchChunk is how many changes the cache is told at once.
	watchChunk = 512
)

// watcher is one call of Capabilities.Watch: a session of its own, which reads the
// change log of one table.
type watcher[K comparable] struct {
	db   *Database
	log  *changeLog
	oid  uint32
	keys watchedKeys[K]
	f    func(lockstep.Event[K])
	conn *pgx.Conn

	listens bool
	channel string
	// skip is the writer whose changes are not told: the store itself; nobody if empty.
	skip  string
	query string // lookSQL
	// seen is the snapshot of the last look.
	seen string
	// print is what the table's triggers were like when the watch began.
	print string
}

// watchedKeys read the keys of the change log.
type watchedKeys[K comparable] struct {
	// columns are the SQL of the key's columns, of the log c, and types their types.
	columns, types []string
	// cells returns where a row's columns are scanned to, and what makes a key of them:
	// !ok for one that no key of K is.
	cells func() (into []any, key func() (k K, ok bool))
}

// watchTable implements Capabilities.Watch.
func watchTable[K comparable](ctx context.Context, db *Database, l *changeLog, oid uint32, writer string, keys watchedKeys[K], f func(lockstep.Event[K])) error {
	session, err := db.session(ctx)
	if err != nil {
		return watchError(l, err)
	}
	defer db.leave()
	w := &watcher[K]{db: db, log: l, oid: oid, keys: keys, f: f, channel: fmt.Sprint("lockstep_", oid), skip: writer}
	id := session.id
	if w.conn, err = session.lease.own(ctx); err != nil {
		return watchError(l, err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		w.conn.Close(closing)
	}()
	if _, ok := w.conn.PgConn().CustomData()[identityKey]; !ok {
		if id, err = db.look(ctx, w.conn); err != nil {
			return watchError(l, err)
		}
	}
	ctx, end := w.alive(ctx, id)
	defer end()
	err = w.run(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return watchError(l, err)
}

func watchError(l *changeLog, err error) error {
	if named(err) || errors.Is(err, context.Canceled) {
		return err
	}
	return unavailable("watching table %s.%s: %w", l.schema, l.table, err)
}

// alive is ctx until the database is closed, or has turned out to be another.
func (w *watcher[K]) alive(ctx context.Context, id *identity) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	same, changed := w.db.server.Watch(id.server)
	if !same {
		cancel(errOtherServer)
	}
	var waits sync.WaitGroup
	waits.Go(func() {
		select {
		case <-w.db.closing:
			cancel(lockstep.ErrClosed)
		case <-changed:
			cancel(errOtherServer)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		waits.Wait()
	}
}

var errOtherServer = errors.New("a session has met another server than the watcher's, or the server has been started again")

func (w *watcher[K]) run(ctx context.Context) error {
	if err := w.begin(ctx); err != nil {
		return err
	}
	w.f(lockstep.Event[K]{})
	pace := w.db.opts.WatchInterval
	for {
		if err := w.wait(ctx, pace); err != nil {
			return err
		}
		found, err := w.look(ctx)
		if err != nil {
			return err
		}
		// Where one has changed something, others may have who did not wake us.
		pace = min(2*pace, w.db.opts.WatchInterval)
		if found {
			pace = min(watchGap, w.db.opts.WatchInterval)
		}
	}
}

// begin looks whether the watch is whole, listens, and takes the first snapshot: what
// is committed from then on will be told. The triggers were there before, and whoever
// had begun to write before they were made had ended when they were: making them
// waits for that.
func (w *watcher[K]) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.db.silence, errSilent)
	defer cancel()
	// A plan that was made while the log was empty must not read all of it later. Where a
	// sequential scan cannot be avoided its price is such that the server would compile
	// the query, every time, for a second.
	w.query = w.lookSQL()
	if _, err := w.conn.Exec(ctx, `SET enable_seqscan = off; SET jit = off; SET application_name = 'lockstep watch'; SET statement_timeout = 0`, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	if err := w.listen(ctx); err != nil {
		return err
	}
	err := w.conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text, "+w.printSQL()).Scan(&w.seen, &w.print)
	if err != nil {
		return err
	}
	found, err := w.log.find(ctx, w.conn, w.oid)
	if err != nil {
		return err
	}
	if err := found.check(w.log); err != nil {
		return err
	}
	if len(found.others) > 0 {
		// A trigger may have changed another row than the one that the store has named.
		w.skip = ""
	}
	return nil
}

// listen asks to be woken, and tries whether that works: poolers and handlers of the
// program's own swallow notifications. Without them the watcher looks at intervals.
func (w *watcher[K]) listen(ctx context.Context) error {
	if _, err := w.conn.Exec(ctx, "LISTEN "+w.channel, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	probe := "probe " + strconv.FormatUint(rand.Uint64(), 36)
	if _, err := w.conn.Exec(ctx, fmt.Sprintf("SELECT pg_notify('%s', '%s')", w.channel, probe), pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	for {
		n, err := w.conn.WaitForNotification(ctx)
		switch {
		case w.conn.IsClosed():
			return err
		case err != nil || n == nil:
			return nil
		case n.Payload == probe:
			w.listens = true
			return nil
		}
	}
}

// wait returns when it is time to look again.
func (w *watcher[K]) wait(ctx context.Context, pace time.Duration) error {
	if !w.listens || pace <= watchGap {
		return pause(ctx, pace)
	}
	woken, cancel := context.WithTimeout(ctx, pace)
	defer cancel()
	start := time.Now()
	if _, err := w.conn.WaitForNotification(woken); err != nil {
		if ctx.Err() == nil && woken.Err() != nil && !w.conn.IsClosed() {
			return nil
		}
		return err
	}
	return pause(ctx, watchGap-time.Since(start))
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
