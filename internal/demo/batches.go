package demo

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
)

// BatchFigures are those of the fourth scene.
type BatchFigures struct {
	Writers int `json:"writers"`
	Rows    int `json:"rows"`
	// Direct has a figure for each size of the pool.
	Direct []*WriteFigure `json:"direct"`
	Cache  *WriteFigure   `json:"cache"`
	// LoneDirect and LoneCache are one writer's.
	LoneDirect *WriteFigure `json:"lone_direct"`
	LoneCache  *WriteFigure `json:"lone_cache"`

	Batches      uint64  `json:"batches"`
	RowsPerBatch float64 `json:"rows_per_batch"`
	// Throughput and P99 are the cache's, as multiples of the best pool's.
	Throughput float64 `json:"throughput_ratio"`
	P99        float64 `json:"p99_ratio"`
}

// WriteFigure is what some writers came to in one way of writing.
type WriteFigure struct {
	Connections int     `json:"connections,omitempty"`
	PerSecond   float64 `json:"writes_per_second"`
	Latency
	// Failed writes found the database locked. Through the cache there are none.
	Failed int `json:"failed"`

	took  time.Duration
	spans []time.Duration
}

// writeRow is a way of writing.
type writeRow func(ctx context.Context, key string, p Product) error

func batches(ctx context.Context, s *stage) (any, error) {
	f := &BatchFigures{
		Writers: min(128, s.some(640, 16)), Rows: s.some(5000, 100),
		Cache: &WriteFigure{}, LoneDirect: &WriteFigure{Connections: 1}, LoneCache: &WriteFigure{},
	}
	for _, n := range []int{1, 2, 4, 8} {
		f.Direct = append(f.Direct, &WriteFigure{Connections: n})
	}
	stock, err := openTable(ctx, s, recipe[Product]{name: "stock", open: s.options.Database.Products})
	if err != nil {
		return nil, err
	}
	if err := stock.fill(ctx, f.Rows, productKey, productRow); err != nil {
		return nil, err
	}
	// Direct writes go to a table of their own, which is the same in all else.
	direct := s.options.Database.Prefix + "direct"
	if _, err := s.options.Database.Products(ctx, direct); err != nil {
		return nil, err
	}
	if _, err := s.plain.ExecContext(ctx, s.options.Database.SQL.Copy(direct, stock.sql)); err != nil {
		return nil, err
	}

	upsert := "a prepared upsert"
	if s.options.Database.Unprepared {
		upsert = "an upsert that is not prepared, because of the pooler"
	}
	s.say("%d clients at once write random products. First directly: database/sql, %s, a commit for each write. Then through the cache, which commits together whatever has queued up while the last commit was under way. Nobody waits for a timer, and everybody gets an answer of their own.", f.Writers, upsert)
	last := &lastWrites{rows: make(map[string]plainRow[Product])}
	before := stock.cache.Stats().Committed
	if err := f.race(ctx, s, stock, direct, last); err != nil {
		return nil, err
	}
	f.show(s)

	rows, err := readRows[Product](ctx, s, stock.sql)
	if err != nil {
		return nil, err
	}
	wrong := 0
	for key, row := range last.rows {
		if rows[key] != row {
			wrong++
		}
	}
	writes := f.Cache.Count + f.LoneCache.Count
	s.expect(stock.cache.Stats().Committed-before == uint64(writes), "all %s writes through the cache were committed", text.Count(writes))
	s.expect(wrong == 0, "each of the %s rows is what its last writer was told", text.Count(len(last.rows)))
	s.expect(f.Batches < uint64(f.Cache.Count), "with fewer commits than writes")
	return f, nil
}

// race measures in rounds, so that a machine that is slow for a moment is not slow
// for one way of writing alone.
func (f *BatchFigures) race(ctx context.Context, s *stage, stock *table[Product], direct string, last *lastWrites) error {
	through := func(ctx context.Context, key string, p Product) error {
		version, err := stock.cache.Set(ctx, key, p)
		if err == nil {
			last.note(key, version, p)
		}
		return err
	}
	var rows uint64
	for range 2 {
		for _, w := range f.Direct {
			if err := f.directly(ctx, s, w, f.Writers, 400*time.Millisecond, direct); err != nil {
				return err
			}
		}
		before := stock.cache.Stats()
		if err := f.measure(ctx, s, f.Cache, f.Writers, 800*time.Millisecond, through); err != nil {
			return err
		}
		after := stock.cache.Stats()
		f.Batches += after.Batches - before.Batches
		rows += after.Writes - before.Writes

		if err := f.directly(ctx, s, f.LoneDirect, 1, 300*time.Millisecond, direct); err != nil {
			return err
		}
		if err := f.measure(ctx, s, f.LoneCache, 1, 300*time.Millisecond, through); err != nil {
			return err
		}
	}
	f.RowsPerBatch = ratio(float64(rows), float64(f.Batches))
	return nil
}

// directly measures writes that know nothing of a cache.
func (f *BatchFigures) directly(ctx context.Context, s *stage, w *WriteFigure, writers int, d time.Duration, table string) error {
	db, err := s.options.Database.Plain(w.Connections)
	if err != nil {
		return err
	}
	defer db.Close()
	query := s.options.Database.SQL.Upsert(table)
	exec := func(ctx context.Context, args ...any) (sql.Result, error) { return db.ExecContext(ctx, query, args...) }
	if !s.options.Database.Unprepared {
		upsert, err := db.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		defer upsert.Close()
		exec = upsert.ExecContext
	}
	// For a context that can end, the driver starts a goroutine with each
	// statement. That is not what is to be compared.
	endless := context.WithoutCancel(ctx)
	return f.measure(ctx, s, w, writers, d, func(_ context.Context, key string, p Product) error {
		value, err := json.Marshal(p)
		if err != nil {
			return err
		}
		_, err = exec(endless, key, string(value), time.Now().UnixMicro())
		return err
	})
}

// measure lets writers write for a while, and adds what they came to. A write that
// has begun is waited for.
func (f *BatchFigures) measure(ctx context.Context, s *stage, w *WriteFigure, writers int, d time.Duration, write writeRow) error {
	what := text.Plural(writers, "writer") + " through the cache"
	if w.Connections > 0 {
		what = fmt.Sprintf("%s on %s", text.Plural(writers, "writer"), text.Plural(w.Connections, "connection"))
	}
	defer s.progress(what)()
	spans := make([][]time.Duration, writers)
	failed := make([]int, writers)
	began := time.Now()
	end := began.Add(s.lasting(d))
	err := clients(writers, func(i int) error {
		random := rand.New(rand.NewPCG(uint64(i), uint64(w.Count)))
		for more := true; more; more = time.Now().Before(end) && ctx.Err() == nil {
			row := random.IntN(f.Rows)
			key, p := productKey(row), productRow(row)
			p.Stock = random.Int64N(1_000_000)
			d, err := took(func() error { return write(ctx, key, p) })
			switch {
			case err == nil:
				spans[i] = append(spans[i], d)
			case ctx.Err() != nil || w.Connections == 0:
				return err
			default:
				// The database was locked for longer than the driver waits.
				failed[i]++
			}
		}
		return nil
	})
	w.took += time.Since(began)
	for i := range spans {
		w.spans = append(w.spans, spans[i]...)
		w.Failed += failed[i]
	}
	w.Latency = latencyOf(w.spans)
	w.PerSecond = float64(w.Count) / w.took.Seconds()
	return err
}

func (f *BatchFigures) show(s *stage) {
	best := f.Direct[0]
	rows := [][]string{{"", "writes/s", "half within", "99 % within"}}
	row := func(name string, w *WriteFigure) {
		rows = append(rows, []string{name, text.Count(int(w.PerSecond)), text.Span(w.P50), text.Span(w.P99)})
		if w.Failed > 0 {
			rows[len(rows)-1][0] += fmt.Sprintf(" (%s locked out)", text.Count(w.Failed))
		}
	}
	for _, w := range f.Direct {
		row("directly, "+text.Plural(w.Connections, "connection"), w)
		if w.PerSecond > best.PerSecond {
			best = w
		}
	}
	row("through the cache", f.Cache)
	row("one client, directly", f.LoneDirect)
	row("one client, through the cache", f.LoneCache)
	s.show("lrrr", rows...)
	f.Throughput = ratio(f.Cache.PerSecond, best.PerSecond)
	f.P99 = ratio(f.Cache.P99, best.P99)
	lone := ""
	if f.LoneCache.PerSecond < f.LoneDirect.PerSecond {
		lone = " A lone writer gains nothing, and pays for the queue."
	}
	s.say("The cache needed %s commits, of %.1f rows on average. It wrote %.1f times as much as the best pool of connections, and answered 99 %% of its writes within %s, where the pool with the most writes needed %s.%s",
		text.Count(f.Batches), f.RowsPerBatch, f.Throughput, text.Span(f.Cache.P99), text.Span(best.P99), lone)
}

// lastWrites knows which write of each row was the last: the one with the highest
// version.
type lastWrites struct {
	mu   sync.Mutex
	rows map[string]plainRow[Product]
}

func (l *lastWrites) note(key string, version lockstep.Version, p Product) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rows[key].version < version {
		l.rows[key] = plainRow[Product]{value: p, version: version, exists: true}
	}
}
