package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
	_ "modernc.org/sqlite"
)

// A write is a durable upsert of 256 bytes to a random one of 100,000 rows,
// all of which exist.
const (
	writeRows  = 100_000
	writeBytes = 256
)

var writeKeys = sync.OnceValue(func() []string { return rowKeys(writeRows) })

// writeFunc makes one write. The value is its to keep.
type writeFunc func(ctx context.Context, key string, value []byte) error

// databaseFile is where a benchmark keeps its database: in BENCH_DIR, or the
// directory for temporary files, which had better be on a real disk.
func databaseFile(b *testing.B) string {
	dir, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "bench.db")
}

// writeAll makes n writes with so many writers at once, and returns how long
// each of them took, in order of duration.
func writeAll(b *testing.B, writers, n int, write writeFunc) []time.Duration {
	var (
		all  sync.WaitGroup
		next atomic.Int64
		keys = writeKeys()
		took = make([]time.Duration, n)
	)
	for range writers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				value := make([]byte, writeBytes)
				for j := range value {
					value[j] = byte('a' + random.IntN(26))
				}
				key := keys[random.IntN(writeRows)]
				start := time.Now()
				if err := write(b.Context(), key, value); err != nil {
					b.Errorf("%s: %v", key, err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	all.Wait()
	slices.Sort(took)
	return took
}

// benchmarkWrites measures write.
func benchmarkWrites(b *testing.B, writers int, write writeFunc) {
	b.ReportAllocs()
	b.ResetTimer()
	took := writeAll(b, writers, b.N, write)
	b.StopTimer()
	quantile := func(q float64) float64 {
		return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	b.ReportMetric(quantile(0.50), "p50-ms")
	b.ReportMetric(quantile(0.99), "p99-ms")
}

func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			direct, pool := openDirect(b, writers)
			b.Run("direct", func(b *testing.B) {
				benchmarkWrites(b, writers, direct)
				b.ReportMetric(float64(pool), "pool")
			})
			cached := openLockstep(b)
			b.Run("lockstep", func(b *testing.B) {
				benchmarkWrites(b, writers, cached)
			})
		})
	}
}

// openLockstep is the same table, durable in the same way, behind a cache.
func openLockstep(b *testing.B) writeFunc {
	ctx := b.Context()
	raw, err := codec.Raw[[]byte]()
	if err != nil {
		b.Fatal(err)
	}
	store, err := sqlitestore.Open[string, []byte](ctx, databaseFile(b), sqlitestore.Options{Codec: raw})
	if err != nil {
		b.Fatal(err)
	}
	cache, err := lockstep.New(store, lockstep.Options[string, []byte]{MaxEntries: 2 * writeRows})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(cache.Close(context.Background()), store.Close()); err != nil {
			b.Error(err)
		}
	})
	for chunk := range slices.Chunk(writeKeys(), 1000) {
		values := make(map[string][]byte, len(chunk))
		for _, key := range chunk {
			values[key] = make([]byte, writeBytes)
		}
		if err := cache.SetMany(ctx, values); err != nil {
			b.Fatal(err)
		}
	}
	return func(ctx context.Context, key string, value []byte) error {
		_, err := cache.Set(ctx, key, value)
		return err
	}
}

// openDirect is what a program does that has no cache: every writer sends its
// own statement, through a pool of the size that suits so many of them best.
func openDirect(b *testing.B, writers int) (write writeFunc, pool int) {
	db, err := sql.Open("sqlite", "file:"+databaseFile(b)+
		"?_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	upsert := fillTable(b, db)
	write = func(ctx context.Context, key string, value []byte) error {
		_, err := upsert.ExecContext(ctx, key, value)
		return err
	}
	pool = bestPool(b, db, writers, write)
	setPool(db, pool)
	return write, pool
}

// fillTable makes the table with all its rows, and returns the statement that
// upserts one.
func fillTable(b *testing.B, db *sql.DB) *sql.Stmt {
	must := func(_ any, err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	must(db.Exec(`CREATE TABLE rows (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID`))
	tx, err := db.Begin()
	must(nil, err)
	insert, err := tx.Prepare(`INSERT INTO rows (key, value) VALUES (?, ?)`)
	must(nil, err)
	for _, key := range writeKeys() {
		must(insert.Exec(key, make([]byte, writeBytes)))
	}
	must(nil, tx.Commit())
	upsert, err := db.Prepare(`INSERT INTO rows (key, value) VALUES (?, ?)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value`)
	must(nil, err)
	b.Cleanup(func() { upsert.Close() })
	return upsert
}

func setPool(db *sql.DB, size int) {
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
}

// bestPool tries pools of 1, 2, 4 … connections, up to one a writer, and
// returns the size with the highest throughput.
func bestPool(b *testing.B, db *sql.DB, writers int, write writeFunc) int {
	const sample = 1000
	var best int
	var least time.Duration
	for size := 1; size <= writers; size *= 2 {
		setPool(db, size)
		start := time.Now()
		writeAll(b, writers, sample, write)
		took := time.Since(start)
		b.Logf("a pool of %d: %.0f writes/s", size, sample/took.Seconds())
		if best == 0 || took < least {
			best, least = size, took
		}
	}
	return best
}
