package pgstore

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// keeper is a database's background work: it sweeps the tables that have rows to
// end, for which it takes a session from the pool once a minute, and looks whether the
// server is still there, once a second while there are caches.
type keeper struct {
	running sync.WaitGroup

	mu     sync.Mutex
	sweeps map[string]sweep // by table
}

// sweep ends some of what is over in one table, and tells whether there is more.
type sweep func(ctx context.Context) (more bool, err error)

const (
	// sweepEvery is how long a row that is over may go on taking space.
	sweepEvery = time.Minute
	// sweepTimeout bounds a sweep of one table's rows.
	sweepTimeout = 10 * time.Second
	// sweepRows bounds a sweep's transaction, and with it how long a commit waits for
	// one.
	sweepRows = 256
	// keepTombstones is how long the version of a deleted row is kept. It has to
	// outlast every commit that could still be in doubt.
	keepTombstones = 24 * time.Hour
)

func (k *keeper) start(db *Database) {
	k.sweeps = map[string]sweep{}
	k.running.Go(func() { k.every(db, sweepEvery, k.sweepAll) })
	k.running.Go(func() { k.every(db, noticeEvery, db.notice) })
}

func (k *keeper) wait() { k.running.Wait() }

func (k *keeper) add(table string, s sweep) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweeps[table] = s
}

// every does the work again and again, until the database is closed.
func (k *keeper) every(db *Database, interval time.Duration, work func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-db.closing:
			cancel()
		case <-stop:
		}
	}()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			work(ctx)
		case <-db.closing:
			return
		}
	}
}

// sweepAll sweeps every table, some rows at a time. Its errors are not reported:
// nothing is lost by them, and the next minute tries again.
func (k *keeper) sweepAll(ctx context.Context) {
	k.mu.Lock()
	sweeps := slices.Collect(maps.Values(k.sweeps))
	k.mu.Unlock()
	for _, s := range sweeps {
		for more := true; more && ctx.Err() == nil; {
			once, cancel := context.WithTimeout(ctx, sweepTimeout)
			var err error
			more, err = s(once)
			cancel()
			if err != nil {
				break
			}
		}
	}
}

// sweep turns rows whose lifetime is over into tombstones, and removes tombstones
// that are a day old. The first keeps the version, because for every reader the row
// was absent already; the second raises the table's floor, in the same statement.
// What somebody has locked is left for the next time: a sweep waits for nobody.
func (s *Store[K, V]) sweep(ctx context.Context) (more bool, err error) {
	session, err := s.db.session(ctx)
	if err != nil {
		return false, err
	}
	var ended, purged, highest int64
	err = session.run(ctx, command{sql: s.sql.end, args: []any{int64(sweepRows)}, row: func(scan func(...any) error) error { return scan(&ended) }})
	if err == nil {
		err = session.run(ctx, command{sql: s.sql.purge, args: []any{keepTombstones.Microseconds(), int64(sweepRows), s.table.name},
			row: func(scan func(...any) error) error { return scan(&purged, &highest) }})
	}
	if err != nil {
		s.db.drop(session)
		return false, err
	}
	s.db.release(session)
	raise(&s.floor.Int64, highest)
	return ended >= sweepRows || purged >= sweepRows, nil
}
