package bench

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// BenchmarkWatchDelay measures how long a row that another client has changed stays in
// memory: from the moment when its COMMIT is acknowledged until the key has left. The
// changes are a random time apart, long enough for the watcher to have come to rest.
func BenchmarkWatchDelay(b *testing.B) {
	b.Run("listen", func(b *testing.B) { benchmarkWatchDelay(b, nil) })
	// As behind a pooler that swallows notifications: the watcher looks at intervals.
	b.Run("poll", func(b *testing.B) { benchmarkWatchDelay(b, func(*pgconn.PgConn, *pgconn.Notification) {}) })
}

func benchmarkWatchDelay(b *testing.B, swallow pgconn.NotificationHandler) {
	ctx := b.Context()
	url := dbtest.Postgres(b)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	config.ConnConfig.OnNotification = swallow
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	db, err := pgstore.OpenDatabase(ctx, pool, pgstore.DatabaseOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	if _, err := pool.Exec(ctx, `CREATE TABLE rows (id int PRIMARY KEY, n int NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	if _, err := pool.Exec(ctx, `INSERT INTO rows VALUES (1, 0)`); err != nil {
		b.Fatal(err)
	}
	if err := db.InstallWatch(ctx, "rows", pgstore.WatchOptions{}); err != nil {
		b.Fatal(err)
	}
	type row struct {
		N int `db:"n"`
	}
	store, err := pgstore.NewTableIn[int, row](ctx, db, "rows", pgstore.TableOptions{})
	if err != nil {
		b.Fatal(err)
	}
	cache, err := lockstep.New(store, lockstep.Options[int, row]{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cache.Close(context.Background()) })
	other, err := pgx.Connect(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { other.Close(context.Background()) })

	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		for held := false; !held; _, held = cache.Peek(1) {
			if _, err := cache.Get(ctx, 1); err != nil {
				b.Fatal(err)
			}
		}
		time.Sleep(400*time.Millisecond + rand.N(200*time.Millisecond))
		if _, err := other.Exec(ctx, `UPDATE rows SET n = n + 1 WHERE id = 1`); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		for held := true; held; _, held = cache.Peek(1) {
			time.Sleep(20 * time.Microsecond)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	quantile := func(q float64) float64 {
		return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(quantile(0.50), "p50-ms")
	b.ReportMetric(quantile(0.99), "p99-ms")
	b.ReportMetric(quantile(1), "max-ms")
}
