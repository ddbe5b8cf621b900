package mysqlstore

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// keeper is a database's background work: it sweeps the tables, closes sessions that
// nobody uses, and looks whether the server is still the one it was.
type keeper struct {
	db      *Database
	running sync.WaitGroup

	mu     sync.Mutex
	sweeps map[string]sweep // by table
}

// sweep ends what is over in one table: a chunk of it, and tells whether there is
// more to do.
type sweep func(ctx context.Context) (more bool, err error)

const (
	// sweepEvery is how long a row that is over may go on taking space.
	sweepEvery = time.Minute
	// idleAfter is how long a session may be unused, which is less than any server,
	// proxy or firewall takes to close it.
	idleAfter = time.Minute
)

func (k *keeper) start(db *Database) {
	k.db = db
	k.sweeps = map[string]sweep{}
	k.running.Go(func() {
		k.every(sweepEvery, func() {
			k.db.trim(time.Now().Add(-idleAfter))
			k.sweepAll()
		})
	})
	k.running.Go(func() { k.every(noticeEvery, func() { db.notice(db.ctx) }) })
}

func (k *keeper) wait() { k.running.Wait() }

func (k *keeper) add(table string, s sweep) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweeps[table] = s
}

func (k *keeper) every(interval time.Duration, work func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			work()
		case <-k.db.ctx.Done():
			return
		}
	}
}

func (k *keeper) sweepAll() {
	k.mu.Lock()
	sweeps := slices.Collect(maps.Values(k.sweeps))
	k.mu.Unlock()
	for _, s := range sweeps {
		for more := true; more; {
			ctx, cancel := context.WithTimeout(k.db.ctx, sweepTimeout)
			var err error
			more, err = s(ctx)
			cancel()
			if err != nil {
				break // a locked row or a server that is away: there is another minute
			}
		}
	}
}
