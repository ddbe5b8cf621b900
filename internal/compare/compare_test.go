package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// The test's own patterns: what the counters are there to find.
var wrong = []pattern{
	{name: "forgetful", about: "acknowledges every tenth write without making it", open: func(_ context.Context, p place) (subject, error) {
		return &forgetful{alone: alone{p.store}}, nil
	}},
	{name: "late", about: "answers with what it was asked for first, for ever", open: func(_ context.Context, p place) (subject, error) {
		return &late{alone: alone{p.store}}, nil
	}},
	{name: "failing", about: "refuses every write", open: func(_ context.Context, p place) (subject, error) {
		return failing{alone{p.store}}, nil
	}},
}

type forgetful struct {
	alone
	n atomic.Int64
}

func (s *forgetful) Set(ctx context.Context, key int, number int64) error {
	if s.n.Add(1)%10 == 0 {
		return nil
	}
	return s.alone.Set(ctx, key, number)
}

type late struct {
	alone
	seen sync.Map
}

func (s *late) Get(ctx context.Context, key int) (int64, error) {
	if number, ok := s.seen.Load(key); ok {
		return number.(int64), nil
	}
	number, err := s.alone.Get(ctx, key)
	s.seen.Store(key, number)
	return number, err
}

type failing struct{ alone }

func (failing) Set(context.Context, int, int64) error { return errors.New("not today") }

const programOf = "LOCKSTEP_COMPARE_TEST_PROGRAM"

// TestMain is also the program that is measured and killed.
func TestMain(m *testing.M) {
	if os.Getenv(programOf) == "" {
		os.Exit(m.Run())
	}
	patterns = append(patterns, wrong...)
	err := Program(context.Background(), os.Stdin, os.Stdout, func(ctx context.Context, url string) (Database, error) {
		return openFile(ctx, url)
	})
	if err != nil {
		os.Exit(1)
	}
}

// file is a database of the test's.
type file struct{ db *sqlitestore.Database }

func openFile(ctx context.Context, path string) (file, error) {
	db, err := sqlitestore.OpenDatabase(ctx, path, sqlitestore.DatabaseOptions{})
	return file{db}, err
}

func (f file) Table(ctx context.Context, name string) (Store, error) {
	return sqlitestore.OpenIn[int, int64](ctx, f.db, sqlitestore.Options{Table: name})
}
func (f file) Positions(ctx context.Context, name string) (lockstep.Store[string, int64], error) {
	return sqlitestore.OpenIn[string, int64](ctx, f.db, sqlitestore.Options{Table: name})
}
func (f file) Close() error                { return f.db.Close() }
func (f file) Leave(context.Context) error { return f.db.Close() }

type target struct{ path string }

func (t target) Name() string { return "a file" }
func (t target) URL() string  { return t.path }
func (t target) Visit(ctx context.Context, _ string) (Visit, error) {
	return openFile(ctx, t.path)
}

func options(t *testing.T, names ...string) Options {
	return Options{
		Target:   target{filepath.Join(t.TempDir(), "compare.db")},
		Patterns: names, // nil for all
		Workload: Workload{Keys: 100, Entries: 50, TTL: 50 * time.Millisecond, Clients: 4, Writes: 0.5, Skew: 1.1, Measure: 300 * time.Millisecond},
		Seed:     7,
		Journals: t.TempDir(),
		Command: func() *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), programOf+"=1")
			return cmd
		},
	}
}

// withWrong adds the test's own patterns to those that there are.
func withWrong(t *testing.T) {
	before := patterns
	patterns = append(patterns[:len(patterns):len(patterns)], wrong...)
	t.Cleanup(func() { patterns = before })
}

func TestWhatEachPatternKeeps(t *testing.T) {
	withWrong(t)
	var told []float64
	o := options(t)
	o.Progress = func(_ string, done float64) { told = append(told, done) }
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Patterns {
		t.Logf("%s: %d reads, %d writes, %d stale, %d acknowledged, %d lost, hits %.2f", r.Pattern, r.Reads.Count, r.Writes.Count, r.StaleReads, r.Acknowledged, r.Lost, r.HitRate)
		if r.Reads.Count == 0 || r.Reads.P999 < r.Reads.P50 || r.CallsPerSecond <= 0 || len(r.Throughput) == 0 {
			t.Errorf("%s: measured %+v", r.Pattern, r)
		}
		switch r.Pattern {
		case "forgetful":
			if r.Lost == 0 || r.Lost > r.Acknowledged {
				t.Errorf("of %d writes %d were found to be lost by who forgets one in ten", r.Acknowledged, r.Lost)
			}
		case "late":
			if r.StaleReads == 0 {
				t.Error("not one stale read of those that are never anything else")
			}
		case "failing":
			if r.Errors == 0 || r.Error != "not today" || r.Acknowledged != 0 {
				t.Errorf("%d errors (%q), %d acknowledged, by who refuses every write", r.Errors, r.Error, r.Acknowledged)
			}
		case "textbook": // its stale reads need luck: see TestStaleReadsAreCounted
			if r.Lost != 0 || r.HitRate == 0 {
				t.Errorf("textbook: %d lost, hit rate %v", r.Lost, r.HitRate)
			}
		default:
			loses := r.Pattern == "write-behind" // what it has not flushed yet
			if r.StaleReads != 0 || r.Lost != 0 && !loses || r.Lost > lockstep.DefaultBehindWrites || r.Errors != 0 || r.Acknowledged == 0 || r.AfterMeasured == 0 {
				t.Errorf("%s: %+v", r.Pattern, r)
			}
		}
		if cached := r.Pattern != "database alone" && r.Pattern != "forgetful" && r.Pattern != "late" && r.Pattern != "failing"; cached != (r.HitRate > 0) {
			t.Errorf("%s: hit rate %v", r.Pattern, r.HitRate)
		}
	}
	for i, done := range told {
		if done < 0 || done > 1 || i > 0 && done < told[i-1] {
			t.Fatalf("progress: %v", told[:i+1])
		}
	}
	var page bytes.Buffer
	if err := report.WritePage(&page); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	if err := report.WriteText(&lines); err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Patterns {
		for _, written := range []string{page.String(), lines.String()} {
			if !strings.Contains(written, r.Pattern) {
				t.Errorf("%s is not in what was written:\n%s", r.Pattern, written)
			}
		}
	}
	for line := range strings.Lines(lines.String()) {
		if n := len([]rune(line)); n > 90 && !strings.HasPrefix(line, "a file.") {
			t.Errorf("%d characters: %s", n, line)
		}
	}
	for _, from := range []string{"http://", "https://", "<script"} {
		if strings.Contains(page.String(), from) {
			t.Errorf("the page needs something else: %s", from)
		}
	}
	if _, err := json.Marshal(report); err != nil {
		t.Error(err)
	}
}

// TestStaleReadsAreCounted has a textbook's reader load a row before a write of it, and put
// it into memory afterwards: the read that follows is stale, and counted.
func TestStaleReadsAreCounted(t *testing.T) {
	db, err := openFile(t.Context(), filepath.Join(t.TempDir(), "stale.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	table, err := db.Table(t.Context(), "numbers")
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(t.Context(), table, 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pattern string
		stale   uint64
	}{{"textbook", 1}, {"write-through", 0}, {"cache-aside", 0}} {
		paused := &pausing{Store: table, loaded: make(chan struct{}), written: make(chan struct{})}
		p, err := find(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.open(t.Context(), place{store: paused, entries: 10, ttl: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		l := &load{subject: s, acknowledged: make([]atomic.Int64, 1)}
		l.phase.Store(measuring)
		next := paused.number(t) + 1
		var reader sync.WaitGroup
		reader.Go(func() { l.read(t.Context(), 0) })
		<-paused.loaded
		l.write(t.Context(), 0, next)
		close(paused.written)
		reader.Wait()
		l.read(t.Context(), 0)
		if got := l.stale.Load(); got != c.stale || l.errors.Load() != 0 {
			t.Errorf("%s: %d stale reads, want %d; %d errors", c.pattern, got, c.stale, l.errors.Load())
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// pausing holds its first load up, once it knows the row, until the row was written.
type pausing struct {
	Store
	once            sync.Once
	loaded, written chan struct{}
}

func (p *pausing) number(t *testing.T) int64 {
	number, err := alone{p.Store}.Get(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func (p *pausing) Load(ctx context.Context, keys []int) (rows map[int]lockstep.Row[int64], err error) {
	rows, err = p.Store.Load(ctx, keys)
	p.once.Do(func() {
		close(p.loaded)
		<-p.written
	})
	return rows, err
}

func TestAProgramThatCannotBegin(t *testing.T) {
	o := options(t, "write-through")
	o.Command = func() *exec.Cmd { return exec.Command(filepath.Join(t.TempDir(), "nothing")) }
	if _, err := Run(t.Context(), o); err == nil {
		t.Error("no error of a program that is not there")
	}
	o = options(t, "write-through")
	o.Target = elsewhere{o.Target, filepath.Join(t.TempDir(), "no", "such", "directory")}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "write-through") {
		t.Errorf("a program that cannot open its database: %v", err)
	}
}

type elsewhere struct {
	Target
	url string
}

func (e elsewhere) URL() string { return e.url }

func TestARunThatIsBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := options(t, "database alone")
	o.Workload.Measure = time.Hour
	o.Progress = func(string, float64) { cancel() }
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestALineThatWasCutOffWasNotTold(t *testing.T) {
	whole := `{"Acknowledged":{"Key":1,"Number":2}}` + "\n"
	for cut := range whole {
		n := 0
		if err := hear(strings.NewReader(whole+whole[:cut]), func(record) { n++ }); err != nil || n != 1 {
			t.Errorf("cut off after %d bytes: %d told, %v", cut, n, err)
		}
	}
	if err := hear(strings.NewReader("nonsense\n"), func(record) {}); err == nil {
		t.Error("nonsense is no record")
	}
}

func TestWorkloadsThatMakeNoSense(t *testing.T) {
	good := options(t).Workload
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Workload){
		"keys":     func(w *Workload) { w.Keys = 0 },
		"clients":  func(w *Workload) { w.Clients = w.Keys + 1 },
		"entries":  func(w *Workload) { w.Entries = 0 },
		"ttl":      func(w *Workload) { w.TTL = 0 },
		"writes":   func(w *Workload) { w.Writes = 1.01 },
		"skew":     func(w *Workload) { w.Skew = 1 },
		"duration": func(w *Workload) { w.Measure = 0 },
	} {
		w := good
		change(&w)
		if err := w.Check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, names := range [][]string{{"nothing"}, {"textbook", "textbook"}} {
		if _, err := Run(t.Context(), options(t, names...)); err == nil || !strings.Contains(err.Error(), names[0]) {
			t.Errorf("%q: %v", names, err)
		}
	}
}
