package pgstore_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// Ten thousand changes by others, in transactions that overlap, while a cache reads
// and writes the same rows, and its watcher's session is ended again and again: when
// the last change has been told, no copy in memory is another than the table's row.
func TestTenThousandOutsideChangesLeaveNoStaleEntry(t *testing.T) {
	const keys, writers, changes = 300, 6, 10_000
	url := dbtest.Postgres(t)
	db := openPool(t, url)
	execute(t, url, `CREATE TABLE people `+people)
	execute(t, url, `INSERT INTO people SELECT i, 'old', 0 FROM generate_series(1, $1) AS i`, keys+1)
	install(t, db, "people", pgstore.WatchOptions{VersionColumn: "version"})
	plain := watchedCache(t, openPeople[person](t, db, "people"))
	cache := watchedCache(t, openPeople[versioned](t, db, "people"))

	var made, lost atomic.Int64
	var writing, reading sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 2 {
		reading.Go(func() {
			for ctx.Err() == nil {
				key := 1 + rand.IntN(keys)
				_, _ = cache.Get(ctx, key)
				_, _ = plain.Get(ctx, key)
			}
		})
	}
	reading.Go(func() {
		for ctx.Err() == nil {
			_, _ = cache.Set(ctx, 1+rand.IntN(keys), versioned{Name: "ours", N: rand.Int64()})
			_, _ = plain.Set(ctx, 1+rand.IntN(keys), person{"ours", rand.Int64()})
		}
	})
	for range writers {
		writing.Go(func() {
			c, err := pgx.Connect(ctx, url)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(context.Background())
			for made.Load() < changes {
				n := 1 + rand.IntN(5)
				if outside(ctx, c, keys, n) == nil { // a deadlock with another writer changes nothing
					before := made.Add(int64(n)) - int64(n)
					if after := before + int64(n); before/2500 != after/2500 && after < changes-1000 {
						lost.Add(1)
						if _, err := c.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lockstep watch' AND datname = current_database()`); err != nil {
							t.Error(err)
						}
					}
				}
			}
		})
	}
	writing.Wait()
	stop()
	reading.Wait()
	for _, c := range []interface{ Stats() lockstep.Stats }{cache, plain} {
		eventually(t, "the cache watches again", func() bool { return c.Stats().Watching })
		if c.Stats().WatchLosses == 0 {
			t.Errorf("the watch was never lost, and was ended %d times", lost.Load())
		}
	}
	// Whoever has told this has told all that was committed before. It is in memory: a
	// load would show it at once.
	warm(t, plain, keys+1, person{"old", 0})
	warm(t, cache, keys+1, versioned{"old", 0, 1})
	execute(t, url, `UPDATE people SET n = -1 WHERE id = $1`, keys+1)
	told(t, plain, keys+1, person{"old", -1})
	told(t, cache, keys+1, versioned{"old", -1, 1})
	// Warm once more, and half of it changed.
	for key := 1; key <= keys+1; key++ {
		_, _ = cache.Get(t.Context(), key)
		_, _ = plain.Get(t.Context(), key)
	}
	execute(t, url, `UPDATE people SET n = -1 WHERE id % 2 = 0`)
	execute(t, url, `UPDATE people SET n = -2 WHERE id = $1`, keys+1)
	told(t, plain, keys+1, person{"old", -2})
	told(t, cache, keys+1, versioned{"old", -2, 1})
	same(t, plain)
	same(t, cache)
}

// outside changes n rows by SQL in one transaction, as another program does.
func outside(ctx context.Context, c *pgx.Conn, keys, n int) error {
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		for range n {
			key := 1 + rand.IntN(keys)
			query := `UPDATE people SET n = n + 1, name = 'theirs' WHERE id = $1`
			switch rand.IntN(10) {
			case 0:
				query = `DELETE FROM people WHERE id = $1`
			case 1, 2:
				query = `INSERT INTO people (id, name, n) VALUES ($1, 'theirs', 0) ON CONFLICT (id) DO UPDATE SET n = 0`
			case 3:
				query = `UPDATE people SET n = 1, version = version + 1 WHERE id = $1`
			}
			if _, err := tx.Exec(ctx, query, key); err != nil {
				return err
			}
		}
		return nil
	})
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

// Woken by NOTIFY alone, and by the interval alone where notifications are swallowed.
func TestAWatcherIsWokenAndLooksByItself(t *testing.T) {
	url := dbtest.Postgres(t)
	execute(t, url, `CREATE TABLE people `+people)
	execute(t, url, `INSERT INTO people VALUES (1, 'old', 0)`)
	install(t, openPool(t, url), "people", pgstore.WatchOptions{})
	n := int64(0)
	for name, c := range map[string]struct {
		interval time.Duration
		swallow  bool
	}{"Notify": {time.Hour, false}, "Interval": {10 * time.Millisecond, true}} {
		t.Run(name, func(t *testing.T) {
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			if c.swallow {
				config.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
			}
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			db := mustOpen(t)(pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{WatchInterval: c.interval}))
			cache := watchedCache(t, openPeople[person](t, db, "people"))
			for range 5 {
				warm(t, cache, 1, person{"old", n})
				n++
				execute(t, url, `UPDATE people SET n = $1`, n)
				told(t, cache, 1, person{"old", n})
			}
		})
	}
	_, err := pgstore.OpenDatabase(t.Context(), newPool(t, url), pgstore.DatabaseOptions{WatchInterval: -1})
	refused(t, err, lockstep.ErrInvalid, "WatchInterval")
	// Over a *sql.DB that has one connection.
	t.Run("SQL", func(t *testing.T) {
		one := newSQL(t, url)
		one.SetMaxOpenConns(1)
		cache := watchedCache(t, openPeople[person](t, overSQL(one)(t), "people"))
		warm(t, cache, 1, person{"old", n})
		execute(t, url, `UPDATE people SET n = $1`, n+1)
		told(t, cache, 1, person{"old", n + 1})
	})
}

// A crash of the server empties the log, and memory. The watch goes on afterwards.
func TestAWatchAfterACrash(t *testing.T) {
	server := dbtest.StartPostgres(t)
	url := server.URL()
	execute(t, url, `CREATE TABLE people `+people)
	execute(t, url, `INSERT INTO people VALUES (1, 'old', 0)`)
	db := openPool(t, url)
	install(t, db, "people", pgstore.WatchOptions{})
	cache := watchedCache(t, openPeople[person](t, db, "people"))
	warm(t, cache, 1, person{"old", 0})
	execute(t, url, `UPDATE people SET n = 1`)
	told(t, cache, 1, person{"old", 1})
	warm(t, cache, 1, person{"old", 1})
	server.Kill()
	gone(t, cache, 1)
	server.Start()
	execute(t, url, `UPDATE people SET n = 2`)
	eventually(t, "the cache watches again", func() bool { return cache.Stats().Watching })
	told(t, cache, 1, person{"old", 2})
	warm(t, cache, 1, person{"old", 2})
	execute(t, url, `UPDATE people SET n = 3`)
	told(t, cache, 1, person{"old", 3})
}

// Where transactions may be prepared, those that change the table can be.
func TestTwoPhaseCommitsGoOn(t *testing.T) {
	server := dbtest.StartPostgres(t, "max_prepared_transactions=5")
	db := openPool(t, server.URL())
	execute(t, server.URL(), `CREATE TABLE people `+people)
	execute(t, server.URL(), `INSERT INTO people VALUES (1, 'old', 0)`)
	install(t, db, "people", pgstore.WatchOptions{})
	cache := watchedCache(t, openPeople[person](t, db, "people"))
	warm(t, cache, 1, person{"old", 0})
	psql(t, server.URL(), `BEGIN; UPDATE people SET n = 1; PREPARE TRANSACTION 'first'`)
	warm(t, cache, 1, person{"old", 0})
	psql(t, server.URL(), `COMMIT PREPARED 'first'`)
	told(t, cache, 1, person{"old", 1})
}

func TestWatchesThatAreRefused(t *testing.T) {
	url := dbtest.Postgres(t)
	db := openPool(t, url)
	for _, query := range []string{
		`CREATE TABLE nokey (id int)`, `CREATE TABLE times (at timestamptz PRIMARY KEY)`,
		`CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE part PARTITION OF parted DEFAULT`,
		`CREATE VIEW seen AS SELECT 1 AS id`, `CREATE TABLE fine (id int PRIMARY KEY, v int)`,
	} {
		execute(t, url, query)
	}
	for _, c := range []struct {
		table, version string
		want           error
		word           string
	}{
		{"nokey", "", lockstep.ErrInvalid, "primary key"},
		{"times", "", lockstep.ErrInvalid, "timestamptz"},
		{"parted", "", lockstep.ErrUnsupported, "partitioned"},
		{"part", "", lockstep.ErrUnsupported, "partitioned"},
		{"seen", "", lockstep.ErrInvalid, "view"},
		{"nowhere", "", lockstep.ErrInvalid, "no such table"},
		{"fine", "v", lockstep.ErrInvalid, "bigint"},
		{"fine", "none", lockstep.ErrInvalid, "none"},
	} {
		refused(t, db.InstallWatch(t.Context(), c.table, pgstore.WatchOptions{VersionColumn: c.version}), c.want, c.table, c.word)
	}
	refused(t, db.RemoveWatch(t.Context(), "fine"), lockstep.ErrInvalid, "fine", "not watched")
	_, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "lockstep_changes"})
	refused(t, err, lockstep.ErrInvalid, "reserved")
}

// Whoever may write the table need have no privilege on the log; whoever watches it
// is told what is lacking, and WatchOptions.Role gives it.
func TestPrivilegesOfAWatchedTable(t *testing.T) {
	url := dbtest.Postgres(t)
	db := openPool(t, url)
	execute(t, url, `CREATE TABLE people `+people)
	execute(t, url, `INSERT INTO people VALUES (1, 'old', 0)`)
	execute(t, url, `CREATE ROLE pgstore_watcher LOGIN PASSWORD 'watcher'`)
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), url)
		if err == nil {
			_, err = c.Exec(context.Background(), `DROP OWNED BY pgstore_watcher; DROP ROLE pgstore_watcher`)
			c.Close(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	execute(t, url, `GRANT SELECT, INSERT, UPDATE, DELETE ON people TO pgstore_watcher`)
	install(t, db, "people", pgstore.WatchOptions{})
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.User, config.ConnConfig.Password = "pgstore_watcher", "watcher"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	theirs := overPool(pool)(t)
	_, err = pgstore.NewTableIn[int, person](t.Context(), theirs, "people", pgstore.TableOptions{})
	refused(t, err, lockstep.ErrInvalid, "people", "lacks", "SELECT on", "lockstep_changes", "lockstep_horizon")
	psql(t, url, `SET ROLE pgstore_watcher; UPDATE people SET n = 1`)
	install(t, db, "people", pgstore.WatchOptions{Role: "pgstore_watcher"})
	cache := watchedCache(t, openPeople[person](t, theirs, "people"))
	warm(t, cache, 1, person{"old", 1})
	psql(t, url, `SET ROLE pgstore_watcher; UPDATE people SET n = 2`)
	told(t, cache, 1, person{"old", 2})
	_, err = pool.Exec(t.Context(), `CREATE TABLE pg_temp.t (id int); CREATE TRIGGER x AFTER INSERT ON pg_temp.t EXECUTE FUNCTION lockstep_watch_people()`,
		pgx.QueryExecModeSimpleProtocol)
	if err == nil || !strings.Contains(err.Error(), "permission denied for function") {
		t.Errorf("the trigger's function is put on another table by anybody: %v", err)
	}
}
