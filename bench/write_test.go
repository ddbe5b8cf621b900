package bench

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/bench/internal/report"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/pgstore"
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
			var letters uint64 // drawing each takes the cores from both rivals
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				value := make([]byte, writeBytes)
				for j := range value {
					if j%8 == 0 {
						letters = random.Uint64()
					}
					value[j] = 'a' + byte(letters>>(j%8*8))&15
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
	reportWrites(b, took, b.Elapsed())
}

// reportWrites tells how long each write took, and how many there were in elapsed.
func reportWrites(b *testing.B, took []time.Duration, elapsed time.Duration) {
	quantile := func(q float64) float64 {
		return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "writes/s")
	b.ReportMetric(quantile(0.50), "p50-ms")
	b.ReportMetric(quantile(0.99), "p99-ms")
}

// inTurn is how many writes a side makes while the other waits, where both take turns.
const inTurn = 50

// benchmarkInTurns measures a lone writer's write, with turns of the rival's in between. What
// a sync takes, and the wake of a processor that has slept meanwhile, stays longer by a sixth for
// seconds on end, or shorter, as it went before: one after the other, one side has had it, and
// the other not, in rounds whose ratios were from 0.71 to 1.11.
func benchmarkInTurns(b *testing.B, write, rival writeFunc) {
	var took []time.Duration
	for len(took) < b.N {
		writeAll(b, 1, inTurn, rival)
		took = append(took, writeAll(b, 1, min(inTurn, b.N-len(took)), write)...)
	}
	slices.Sort(took)
	var sum time.Duration
	for _, d := range took {
		sum += d
	}
	b.ReportMetric(float64(sum.Nanoseconds())/float64(b.N), "ns/op")
	reportWrites(b, took, sum)
}

// database is one that the writes go to.
type database struct {
	name string
	// direct is what a program does that has no cache: every writer sends its own
	// statement, through a pool of the size that suits so many of them best.
	direct func(b *testing.B, writers int) (write writeFunc, pool int)
	// store is over a table of the same rows, durable in the same way.
	store func(b *testing.B) lockstep.Store[string, []byte]
	// settle is how many writes each side makes before all others.
	settle int
}

// A server that has just been filled is in no state that lasts, and not in the same one on
// both sides: InnoDB begins to write pages out while others commit when a part of its log
// is full, which takes fewer writes where each logs more, and PostgreSQL moves each row to another
// page once before it finds room beside it. So each side writes every row twice, through
// as many connections as suit many writers, before anything is measured.
const (
	settling        = 2 * writeRows
	settlingWriters = 128
	settlingPool    = 16
)

func BenchmarkWrite(b *testing.B) {
	for _, db := range []database{
		{"sqlite", openSQLite, openSQLiteStore, 0},
		{"postgres", openPostgres, openPostgresStore, settling},
		{"mariadb", openMariaDB, openMariaDBStore, settling},
	} {
		for _, writers := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("%s/writers=%d", db.name, writers), func(b *testing.B) {
				if writers == 1 {
					benchmarkLone(b, db)
				} else {
					benchmarkMany(b, db, writers)
				}
			})
		}
	}
}

// benchmarkMany has the sides write one after the other.
func benchmarkMany(b *testing.B, db database, writers int) {
	sides := []func(){
		func() {
			direct, pool := db.direct(b, writers)
			b.Run("direct", func(b *testing.B) {
				benchmarkWrites(b, writers, direct)
				b.ReportMetric(float64(pool), "pool")
			})
		},
		func() {
			cached, end := behindCache(b, db, writers)
			defer end()
			b.Run("lockstep", func(b *testing.B) { benchmarkWrites(b, writers, cached) })
		},
	}
	if swapped() {
		slices.Reverse(sides)
	}
	for _, side := range sides {
		side()
		runtime.GC() // of a heap of the other's size, the collector would come more seldom
	}
}

// benchmarkLone has them take turns.
func benchmarkLone(b *testing.B, db database) {
	direct, _ := db.direct(b, 1)
	cached, end := behindCache(b, db, 1)
	defer end()
	sides := []func(){
		func() { b.Run("direct", func(b *testing.B) { benchmarkInTurns(b, direct, cached) }) },
		func() { b.Run("lockstep", func(b *testing.B) { benchmarkInTurns(b, cached, direct) }) },
	}
	if swapped() {
		slices.Reverse(sides)
	}
	for _, side := range sides {
		side()
	}
}

// swapped tells whether the second side goes first, as it does in every other round:
// who goes second does so beside what the first one's server has left for its
// background, which is pages to be written.
func swapped() bool {
	round, _ := strconv.Atoi(os.Getenv(report.RoundVariable))
	return round%2 == 1
}

// behindCache fills the table by way of a cache, and writes to it, until its end. It has
// made as many writes as the other side has.
func behindCache(b *testing.B, db database, writers int) (write writeFunc, end func()) {
	store := db.store(b)
	cache, err := lockstep.New(store, lockstep.Options[string, []byte]{MaxEntries: 2 * writeRows})
	if err != nil {
		b.Fatal(err)
	}
	for chunk := range slices.Chunk(writeKeys(), 1000) {
		values := make(map[string][]byte, len(chunk))
		for _, key := range chunk {
			values[key] = make([]byte, writeBytes)
		}
		if err := cache.SetMany(b.Context(), values); err != nil {
			b.Fatal(err)
		}
	}
	write = func(ctx context.Context, key string, value []byte) error {
		_, err := cache.Set(ctx, key, value)
		return err
	}
	writeAll(b, settlingWriters, db.settle, write)
	for range poolSizes(writers) { // in search of its pool
		writeAll(b, writers, poolSample+poolSample/10, write)
	}
	return write, func() {
		if err := cache.Close(context.Background()); err != nil {
			b.Error(err)
		}
	}
}

// rawValues is the codec of both sides.
func rawValues(b *testing.B) codec.Codec[[]byte] {
	raw, err := codec.Raw[[]byte]()
	if err != nil {
		b.Fatal(err)
	}
	return raw
}

func openSQLiteStore(b *testing.B) lockstep.Store[string, []byte] {
	store, err := sqlitestore.Open[string, []byte](b.Context(), databaseFile(b), sqlitestore.Options{Codec: rawValues(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	return store
}

func openSQLite(b *testing.B, writers int) (write writeFunc, pool int) {
	db, err := sql.Open("sqlite", "file:"+databaseFile(b)+
		"?_pragma=busy_timeout(60000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		b.Fatal(err)
	}
	return openSQL(b, db, writers, 0, `CREATE TABLE rows (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID`,
		`INSERT INTO rows (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`)
}

// mariaDB and postgres start a server each, with memory for all rows, unless the
// environment names one, as for the tests. Those that the tests share have less, and
// pages would be written out to make room in the middle of a run.
func mariaDB(b *testing.B) (dsn string) {
	if os.Getenv("LOCKSTEP_TEST_MARIADB") != "" {
		return dbtest.MariaDB(b)
	}
	return dbtest.StartMariaDB(b, "--innodb-buffer-pool-size=512M").URL()
}

func postgres(b *testing.B) (url string) {
	if os.Getenv("LOCKSTEP_TEST_POSTGRES") != "" {
		return dbtest.Postgres(b)
	}
	return dbtest.StartPostgres(b, "shared_buffers=512MB").URL()
}

func openMariaDB(b *testing.B, writers int) (write writeFunc, pool int) {
	db, err := sql.Open("mysql", mariaDB(b))
	if err != nil {
		b.Fatal(err)
	}
	return openSQL(b, db, writers, settling, "CREATE TABLE `rows` (`key` VARBINARY(64) PRIMARY KEY, value LONGBLOB NOT NULL) ENGINE=InnoDB",
		"INSERT INTO `rows` (`key`, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)")
}

func openMariaDBStore(b *testing.B) lockstep.Store[string, []byte] {
	config, err := mysql.ParseDSN(mariaDB(b))
	if err != nil {
		b.Fatal(err)
	}
	connector, err := mysqlstore.NewConnector(config)
	if err != nil {
		b.Fatal(err)
	}
	db := sql.OpenDB(connector)
	b.Cleanup(func() { db.Close() })
	setPool(db, 8)
	store, err := mysqlstore.Open[string, []byte](b.Context(), db, mysqlstore.Options{Codec: rawValues(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	return store
}

func openPostgres(b *testing.B, writers int) (write writeFunc, pool int) {
	url := postgres(b)
	open := func(size int) *pgxpool.Pool {
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			b.Fatal(err)
		}
		config.MaxConns = int32(size)
		db, err := pgxpool.NewWithConfig(b.Context(), config)
		if err != nil {
			b.Fatal(err)
		}
		return db
	}
	const upsert = `INSERT INTO rows (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`
	into := func(db *pgxpool.Pool) writeFunc {
		return func(ctx context.Context, key string, value []byte) error {
			_, err := db.Exec(ctx, upsert, key, value)
			return err
		}
	}
	db := open(1)
	if _, err := db.Exec(b.Context(), `CREATE TABLE rows (key text COLLATE "C" PRIMARY KEY, value bytea NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	if _, err := db.Exec(b.Context(), `INSERT INTO rows SELECT unnest($1::text[]), $2::bytea`, writeKeys(), make([]byte, writeBytes)); err != nil {
		b.Fatal(err)
	}
	db.Close()
	db = open(settlingPool)
	writeAll(b, settlingWriters, settling, into(db))
	db.Close()
	pool = bestPool(b, writers, func(size int) (writeFunc, func()) {
		db := open(size)
		return into(db), db.Close
	})
	db = open(pool)
	b.Cleanup(db.Close)
	return into(db), pool
}

func openPostgresStore(b *testing.B) lockstep.Store[string, []byte] {
	pool, err := pgxpool.New(b.Context(), postgres(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	store, err := pgstore.Open[string, []byte](b.Context(), pool, pgstore.Options{Codec: rawValues(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	return store
}

// openSQL makes the table with all its rows in a database/sql, and upserts one.
func openSQL(b *testing.B, db *sql.DB, writers, settle int, table, upsert string) (write writeFunc, pool int) {
	b.Cleanup(func() { db.Close() })
	must := func(_ any, err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	must(db.Exec(table))
	tx, err := db.Begin()
	must(nil, err)
	insert, err := tx.Prepare(upsert)
	must(nil, err)
	for _, key := range writeKeys() {
		must(insert.Exec(key, make([]byte, writeBytes)))
	}
	must(nil, tx.Commit())
	prepared, err := db.Prepare(upsert)
	must(nil, err)
	b.Cleanup(func() { prepared.Close() })
	write = func(ctx context.Context, key string, value []byte) error {
		_, err := prepared.ExecContext(ctx, key, value)
		return err
	}
	setPool(db, settlingPool)
	writeAll(b, settlingWriters, settle, write)
	pool = bestPool(b, writers, func(size int) (writeFunc, func()) {
		setPool(db, size)
		return write, func() {}
	})
	setPool(db, pool)
	return write, pool
}

func setPool(db *sql.DB, size int) {
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
}

// maxPool is the largest pool that is tried: the servers take a hundred connections.
const maxPool = 64

// poolSizes are those that are tried: 1, 2, 4 … connections, up to one a writer.
func poolSizes(writers int) (sizes []int) {
	for size := 1; size <= min(writers, maxPool); size *= 2 {
		sizes = append(sizes, size)
	}
	return sizes
}

// poolSample is how many writes try a pool; with fewer its size is chance, and the
// rival the slower for it.
const poolSample = 5000

// bestPool returns the size of pool with the highest throughput.
func bestPool(b *testing.B, writers int, open func(size int) (write writeFunc, end func())) int {
	var best int
	var least time.Duration
	for _, size := range poolSizes(writers) {
		write, end := open(size)
		writeAll(b, writers, poolSample/10, write) // which opens the connections
		start := time.Now()
		writeAll(b, writers, poolSample, write)
		took := time.Since(start)
		end()
		b.Logf("a pool of %d: %.0f writes/s", size, poolSample/took.Seconds())
		if best == 0 || took < least {
			best, least = size, took
		}
	}
	return best
}
