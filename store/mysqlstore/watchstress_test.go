package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// Ten thousand changes by others, in transactions that overlap, of which some are long
// and some are rolled back, while a cache reads and writes the same rows, its
// connections are cut, the server crashes and the watch is removed and installed anew:
// when the last change has been told, no copy in memory is another than the table's
// row.
func TestTenThousandOutsideChangesLeaveNoStaleEntry(t *testing.T) {
	const keys, writers, changes = 3000, 6, 10_000
	server := dbtest.StartMariaDB(t, "--innodb-flush-log-at-trx-commit=2") // which a crash of the server alone does not lose by

	direct := connect(t, server.URL())
	direct.SetMaxIdleConns(writers + 2)
	proxy := dbtest.NewProxy(t, server.Addr())
	cfg, err := mysql.ParseDSN(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Addr = proxy.Addr()
	open := func(pool *sql.DB) *mysqlstore.Database {
		db, err := mysqlstore.OpenDatabase(t.Context(), pool, mysqlstore.DatabaseOptions{WatchInterval: 5 * time.Millisecond, AllowUnsafeDurability: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
	db := open(connect(t, cfg.FormatDSN()))
	execute(t, direct, "CREATE TABLE people "+people)
	execute(t, direct, "INSERT INTO people SELECT seq, 'old', 0, 1 FROM "+mysqlstore.Numbers(1, 3001))
	install(t, db, "people", mysqlstore.WatchOptions{VersionColumn: "version"})
	plain := watchedCache(t, openPeople[person](t, db, "people"))
	cache := watchedCache(t, openPeople[versioned](t, db, "people"))

	var made atomic.Int64
	var working sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 2 {
		working.Go(func() {
			for ctx.Err() == nil {
				key := 1 + rand.IntN(keys)
				_, _ = cache.Get(ctx, key)
				_, _ = plain.Get(ctx, key)
			}
		})
	}
	working.Go(func() {
		for ctx.Err() == nil {
			_, _ = cache.Set(ctx, 1+rand.IntN(keys), versioned{Name: "ours", N: rand.Int64()})
			_, _ = plain.Set(ctx, 1+rand.IntN(keys), person{"ours", rand.Int64()})
		}
	})
	// Each event comes when so many changes more have been made.
	events := []func(){
		proxy.CutAll,
		func() { server.Kill(); server.Start() },
		func() {
			other := open(direct)
			if err := other.RemoveWatch(t.Context(), "people"); err != nil {
				t.Error(err)
			}
			install(t, other, "people", mysqlstore.WatchOptions{VersionColumn: "version"})
		},
		proxy.CutAll,
	}
	reached := make(chan struct{}, len(events))
	step := int64(changes / (len(events) + 1))
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for made.Load() < changes {
				n := 1 + rand.Int64N(5)
				if n == 5 && rand.IntN(20) == 0 {
					n = 100 // a long one
				}
				if outside(ctx, direct, keys, int(n)) != nil { // a deadlock with another writer changes nothing
					continue
				}
				if after := made.Add(n); (after-n)/step != after/step {
					select {
					case reached <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	for _, event := range events {
		<-reached
		for _, c := range []interface{ Stats() lockstep.Stats }{cache, plain} { // which has something to lose
			eventually(t, "the cache watches", func() bool { return c.Stats().Watching })
		}
		event()
	}
	writing.Wait()
	stop()
	working.Wait()
	for _, c := range []interface{ Stats() lockstep.Stats }{cache, plain} {
		eventually(t, "the cache watches again", func() bool { return c.Stats().Watching })
		if n := c.Stats().WatchLosses; n < 3 {
			t.Errorf("the watch was lost %d times", n)
		}
	}
	// Whoever has told this has told all that was committed before. It is in memory: a
	// load would show it at once.
	warm(t, plain, keys+1, person{"old", 0})
	warm(t, cache, keys+1, versioned{"old", 0, 1})
	execute(t, direct, "UPDATE people SET n = -1 WHERE id = ?", keys+1)
	told(t, plain, keys+1, person{"old", -1})
	told(t, cache, keys+1, versioned{"old", -1, 1})
	// Warm once more, and half of it changed.
	for key := 1; key <= keys+1; key++ {
		_, _ = cache.Get(t.Context(), key)
		_, _ = plain.Get(t.Context(), key)
	}
	execute(t, direct, "UPDATE people SET n = -1 WHERE id % 2 = 0")
	execute(t, direct, "UPDATE people SET n = -2 WHERE id = ?", keys+1)
	told(t, plain, keys+1, person{"old", -2})
	told(t, cache, keys+1, versioned{"old", -2, 1})
	same(t, plain)
	same(t, cache)
}

var errUndone = errors.New("the other program has changed its mind")

// outside changes n rows by SQL in one transaction, as another program does, and takes
// it back now and then.
func outside(ctx context.Context, pool *sql.DB, keys, n int) error {
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for range n {
		key := 1 + rand.IntN(keys)
		query := "UPDATE people SET n = n + 1, name = 'theirs' WHERE id = ?"
		switch rand.IntN(10) {
		case 0:
			query = "DELETE FROM people WHERE id = ?"
		case 1, 2:
			query = "INSERT INTO people (id, name, n) VALUES (?, 'theirs', 0) ON DUPLICATE KEY UPDATE n = 0"
		case 3:
			query = "UPDATE people SET n = 1, version = version + 1 WHERE id = ?"
		}
		if _, err := tx.ExecContext(ctx, query, key); err != nil {
			return err
		}
	}
	if rand.IntN(10) == 0 {
		return errUndone
	}
	return tx.Commit()
}

func same[V any](t *testing.T, cache *lockstep.Cache[int, V]) {
	t.Helper()
	report, err := cache.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range report.Differences {
		t.Error(d)
	}
	if report.Entries < 100 {
		t.Errorf("memory had %d entries, which shows little", report.Entries)
	}
}
