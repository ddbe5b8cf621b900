package bench

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// BenchmarkWatchDelay measures how long a row that another client has changed stays in
// memory: from the moment when its COMMIT is acknowledged until the key has left. The
// changes are a random time apart, long enough for the watcher to have come to rest.
func BenchmarkWatchDelay(b *testing.B) {
	b.Run("postgres/listen", func(b *testing.B) { watchDelay(b, watchedPostgres(b, nil)) })
	// As behind a pooler that swallows notifications: the watcher looks at intervals.
	b.Run("postgres/poll", func(b *testing.B) {
		watchDelay(b, watchedPostgres(b, func(*pgconn.PgConn, *pgconn.Notification) {}))
	})
	b.Run("mariadb/poll", func(b *testing.B) { watchDelay(b, watchedMariaDB(b)) })
}

// BenchmarkWatchedWriter measures what a watched table costs those who write it: another
// client's statements, of one row or of a thousand, in turns on a table that is watched
// and on one that is not.
func BenchmarkWatchedWriter(b *testing.B) {
	for _, rows := range []int{1, 1000} {
		b.Run(fmt.Sprintf("postgres/%d", rows), func(b *testing.B) { watchedWriter(b, watchedPostgres(b, nil), rows) })
		b.Run(fmt.Sprintf("mariadb/%d", rows), func(b *testing.B) { watchedWriter(b, watchedMariaDB(b), rows) })
	}
}

// watched is a table rows (id, n) of a thousand rows that is watched, and a plain one
// like it.
type watched struct {
	cache *lockstep.Cache[int, watchedRow]
	// execute runs a statement of another client's.
	execute func(query string) error
}

type watchedRow struct {
	N int `db:"n"`
}

func watchedCache(b *testing.B, store lockstep.Store[int, watchedRow], execute func(query string) error) watched {
	cache, err := lockstep.New(store, lockstep.Options[int, watchedRow]{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cache.Close(context.Background()) })
	return watched{cache, execute}
}

func watchedPostgres(b *testing.B, swallow pgconn.NotificationHandler) watched {
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
	for _, table := range []string{"rows", "plain"} {
		if _, err := pool.Exec(ctx, `CREATE TABLE `+table+` (id int PRIMARY KEY, n int NOT NULL)`); err != nil {
			b.Fatal(err)
		}
		if _, err := pool.Exec(ctx, `INSERT INTO `+table+` SELECT generate_series(1, 1000), 0`); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.InstallWatch(ctx, "rows", pgstore.WatchOptions{}); err != nil {
		b.Fatal(err)
	}
	store, err := pgstore.NewTableIn[int, watchedRow](ctx, db, "rows", pgstore.TableOptions{})
	if err != nil {
		b.Fatal(err)
	}
	other, err := pgx.Connect(ctx, url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { other.Close(context.Background()) })
	return watchedCache(b, store, func(query string) error {
		_, err := other.Exec(ctx, query)
		return err
	})
}

func watchedMariaDB(b *testing.B) watched {
	ctx := b.Context()
	pool, err := sql.Open("mysql", dbtest.MariaDB(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { pool.Close() })
	db, err := mysqlstore.OpenDatabase(ctx, pool, mysqlstore.DatabaseOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	for _, table := range []string{"`rows`", "plain"} {
		if _, err := pool.ExecContext(ctx, "CREATE TABLE "+table+" (id INT PRIMARY KEY, n INT NOT NULL)"); err != nil {
			b.Fatal(err)
		}
		if _, err := pool.ExecContext(ctx, "INSERT INTO "+table+" SELECT seq, 0 FROM seq_1_to_1000"); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.InstallWatch(ctx, "`rows`", mysqlstore.WatchOptions{}); err != nil {
		b.Fatal(err)
	}
	store, err := mysqlstore.NewTableIn[int, watchedRow](ctx, db, "`rows`", mysqlstore.TableOptions{})
	if err != nil {
		b.Fatal(err)
	}
	other, err := pool.Conn(ctx)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { other.Close() })
	if _, err := other.ExecContext(ctx, "SET sql_mode = 'ANSI_QUOTES'"); err != nil {
		b.Fatal(err)
	}
	return watchedCache(b, store, func(query string) error {
		_, err := other.ExecContext(ctx, query)
		return err
	})
}

func watchDelay(b *testing.B, w watched) {
	ctx := b.Context()
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		for held := false; !held; _, held = w.cache.Peek(1) {
			if _, err := w.cache.Get(ctx, 1); err != nil {
				b.Fatal(err)
			}
		}
		time.Sleep(400*time.Millisecond + rand.N(200*time.Millisecond))
		if err := w.execute(`UPDATE "rows" SET n = n + 1 WHERE id = 1`); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		for held := true; held; _, held = w.cache.Peek(1) {
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

// watchedWriter takes turns between the two tables, and counts the medians.
func watchedWriter(b *testing.B, w watched, rows int) {
	took := map[string][]time.Duration{}
	for b.Loop() {
		for _, table := range []string{"plain", "rows"} {
			start := time.Now()
			if err := w.execute(fmt.Sprintf(`UPDATE "%s" SET n = n + 1 WHERE id <= %d`, table, rows)); err != nil {
				b.Fatal(err)
			}
			took[table] = append(took[table], time.Since(start))
		}
	}
	median := func(table string) float64 {
		slices.Sort(took[table])
		return float64(took[table][len(took[table])/2].Microseconds())
	}
	b.ReportMetric(median("plain"), "plain-µs")
	b.ReportMetric(median("rows"), "watched-µs")
	b.ReportMetric(median("rows")/median("plain"), "ratio")
}
