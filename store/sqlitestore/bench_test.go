package sqlitestore

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/codec"
)

const benchRows = 100_000

// raw opens a table of 100,000 rows with 256 bytes each.
func benchStore(b *testing.B) *Store[string, string] {
	b.Helper()
	raw, err := codec.Raw[string]()
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open[string, string](b.Context(), filepath.Join(b.TempDir(), "bench.db"), Options{Codec: raw})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	for i := 0; i < benchRows; i += 1000 {
		if _, err := s.Commit(b.Context(), benchSets(1000, func(j int) int { return i + j })); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func benchKey(i int) string { return fmt.Sprintf("key:%012d", i) }

var benchValue = strings.Repeat("x", 256)

func benchSets(n int, pick func(int) int) []lockstep.ChangeSet[string, string] {
	sets := make([]lockstep.ChangeSet[string, string], n)
	for i := range sets {
		sets[i].Changes = []lockstep.Change[string, string]{{Key: benchKey(pick(i)), Value: benchValue}}
	}
	return sets
}

// A batch as group commit sends it: independent upserts of random keys.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 16, 128, 512} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			s := benchStore(b)
			for b.Loop() {
				if _, err := s.Commit(b.Context(), benchSets(n, func(int) int { return rand.IntN(benchRows) })); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n)/1000, "µs/row")
		})
	}
}

// A lone write beside the same upsert through database/sql, in turns, so that
// both see the same disk. Times-direct is what the promise costs.
func BenchmarkLoneWrite(b *testing.B) {
	s, other := benchStore(b), benchStore(b)
	db, err := sql.Open("sqlite", dsn(other.db.path, "rw")+"&_pragma=synchronous(2)&_pragma=wal_autocheckpoint(0)&_pragma=cache_size(-65536)")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	st, err := db.Prepare(`INSERT INTO lockstep (key, value, version) VALUES (?, ?, 1)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1`)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	var direct, ours time.Duration
	for b.Loop() {
		key := benchKey(rand.IntN(benchRows))
		start := time.Now()
		if _, err := st.ExecContext(b.Context(), key, []byte(benchValue)); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		c := lockstep.Change[string, string]{Key: key, Value: benchValue}
		if _, err := s.Commit(ctx, []lockstep.ChangeSet[string, string]{{Changes: []lockstep.Change[string, string]{c}}}); err != nil {
			b.Fatal(err)
		}
		direct += middle.Sub(start)
		ours += time.Since(middle)
	}
	b.ReportMetric(float64(direct.Microseconds())/float64(b.N), "µs-direct")
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "µs-ours")
	b.ReportMetric(float64(ours)/float64(direct), "times-direct")
}

// A batch beside the least that SQLite could do for it: the same rows as bare
// upserts in one transaction, in turns.
func BenchmarkBatchBesideUpserts(b *testing.B) {
	const n = 128
	s, other := benchStore(b), benchStore(b)
	upsert := `INSERT INTO lockstep (key, value, version) VALUES (?, ?, 1)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1`
	var bare, ours time.Duration
	for b.Loop() {
		sets := benchSets(n, func(int) int { return rand.IntN(benchRows) })
		start := time.Now()
		_, err := other.db.write(background, func(ctx context.Context, a *attempt) error {
			if err := a.begin(ctx); err != nil {
				return err
			}
			for _, set := range sets {
				if _, err := a.conn.exec(upsert, set.Changes[0].Key, []byte(benchValue)); err != nil {
					return err
				}
			}
			return a.commit()
		})
		if err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if _, err := s.Commit(b.Context(), sets); err != nil {
			b.Fatal(err)
		}
		bare += middle.Sub(start)
		ours += time.Since(middle)
	}
	b.ReportMetric(float64(bare.Microseconds())/float64(b.N*n), "µs/row-bare")
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N*n), "µs/row-ours")
	b.ReportMetric(float64(ours)/float64(bare), "times-bare")
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			s := benchStore(b)
			keys := make([]string, n)
			for b.Loop() {
				for i := range keys {
					keys[i] = benchKey(rand.IntN(benchRows))
				}
				if _, err := s.Load(b.Context(), keys); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkScan(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		rows := 0
		for cursor := any(nil); ; {
			page, err := s.scan(b.Context(), cursor, 1000)
			if err != nil {
				b.Fatal(err)
			}
			rows += len(page.Keys)
			if cursor = page.Next; cursor == nil {
				break
			}
		}
		if rows != benchRows {
			b.Fatal(rows)
		}
	}
}
