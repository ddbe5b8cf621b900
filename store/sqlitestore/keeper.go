package sqlitestore

import (
	"context"
	"database/sql/driver"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
)

// keeper is a database's background work, on one goroutine and one connection:
// it copies the log into the file, and sweeps the tables that have rows to end.
//
// # Checkpoints
//
// With SQLite's own automatic checkpoint, every thousandth page makes some
// commit wait for the copying and for two syncs. Here commits only count the
// pages that they log, and wake the keeper when these add up to CheckpointBytes.
//
// A passive checkpoint does not hinder anybody, and for that reason never bounds
// the log: the log starts again at its beginning only if a writer finds all of
// it copied and nobody reading from it, and under constant load there is always
// one more commit behind the frames that were copied. So the keeper copies
// passively, which is nearly all of the work, and then takes the write lock for
// the rest: a few frames, one sync, and a short wait for readers that began
// before. Readers that begin after it read the file itself and are in nobody's
// way. The next commit starts the log again.
//
// SQLite syncs the file only when a checkpoint has copied all of the log, which
// under load only the one with the write lock does: every page that the passive one
// has written would be synced while commits wait (33 ms in the benchmark, several
// times a second). So the file is synced between the two.
//
// The accepted risk: a reader that stays longer than restartPatience, in another
// process or in a program's own SQL, keeps the log growing until it ends; the
// keeper tries again each time CheckpointBytes more have been written.
type keeper struct {
	db    *Database
	conn  *conn
	frame int64 // bytes of the log that a page takes
	file  writeback

	logged atomic.Int64 // bytes since the last checkpoint
	wake   chan struct{}
	done   chan struct{}

	mu     sync.Mutex
	sweeps map[string]sweep // by table
}

// sweep ends what is over in one table. It returns quickly, and whether there is
// more to do.
type sweep func(c *conn) (more bool, err error)

const (
	// restartPatience bounds how long commits wait for readers of the old log.
	restartPatience = 50 * time.Millisecond
	// sweepEvery is how long a row that is over may go on taking space.
	sweepEvery = time.Minute
)

func (k *keeper) start(db *Database) error {
	c, err := db.connect("busy_timeout=0", "fullfsync=1", "checkpoint_fullfsync=1", "wal_autocheckpoint=0")
	if err != nil {
		return err
	}
	size, err := c.integer("PRAGMA page_size")
	if err != nil {
		c.close()
		return err
	}
	k.db, k.conn, k.frame = db, c, size+24
	k.file = writeback{path: db.path}
	k.wake = make(chan struct{}, 1)
	k.done = make(chan struct{})
	k.sweeps = map[string]sweep{}
	go k.run()
	return nil
}

func (k *keeper) wait() { <-k.done }

func (k *keeper) add(table string, s sweep) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweeps[table] = s
}

// wrote counts the pages that the writing connection has logged since it was
// last asked.
func (k *keeper) wrote(c *conn) {
	pages, _, err := c.raw.(sqlite.DBStatus).Status(sqlite.DBStatusCacheWrite, true)
	if err != nil || pages == 0 {
		return
	}
	if k.logged.Add(int64(pages)*k.frame) >= k.db.opts.checkpointBytes() {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

func (k *keeper) run() {
	defer close(k.done)
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-k.wake:
			k.checkpoint()
		case <-ticker.C:
			k.sweepAll()
		case <-k.db.closing:
			return
		}
	}
}

// sweepAll sweeps every table, a chunk at a time, so that neither a commit nor a
// checkpoint waits for the whole.
func (k *keeper) sweepAll() {
	k.mu.Lock()
	sweeps := slices.Collect(maps.Values(k.sweeps))
	k.mu.Unlock()
	for _, s := range sweeps {
		for more := true; more; {
			select {
			case <-k.wake:
				k.checkpoint()
			case <-k.db.closing:
				return
			default:
			}
			var err error
			if more, err = s(k.conn); err != nil {
				break // a locked or a full database: there is another minute
			}
		}
	}
}

// checkpoint empties the log, or copies as much of it as can be. Its errors are
// not reported: nothing is lost by them, and the next one tries again.
func (k *keeper) checkpoint() {
	k.logged.Store(0)
	if err := k.pragma("PRAGMA wal_checkpoint(PASSIVE)"); err != nil {
		return
	}
	k.file.flush()
	w, err := k.db.acquire(background)
	if err != nil {
		return
	}
	defer k.db.release(w, true)
	if err := k.pragma("PRAGMA wal_checkpoint(PASSIVE)"); err != nil {
		return
	}
	k.logged.Store(0)
	ctx, cancel := context.WithTimeout(background, restartPatience)
	defer cancel()
	retryBusy(ctx, k.db.closing, func() error { return k.pragma("PRAGMA wal_checkpoint(RESTART)") })
}

// pragma runs a checkpoint; one that was held up says so in its row.
func (k *keeper) pragma(query string) error {
	busy := false
	err := k.conn.query(query, nil, func(row []driver.Value) error {
		busy = row[0] == int64(1)
		return nil
	})
	if err == nil && busy {
		return errHeldUp
	}
	return err
}

// errHeldUp is a checkpoint's way to say SQLITE_BUSY.
var errHeldUp = errors.New("the checkpoint was held up")
