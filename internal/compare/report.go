package compare

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/internal/text"
)

// Report is what a comparison has found.
type Report struct {
	Database string    `json:"database"`
	Began    time.Time `json:"began"`
	Seed     uint64    `json:"seed"`
	Workload Workload  `json:"workload"`
	// Go, System and Cores are the machine's.
	Go       string   `json:"go"`
	System   string   `json:"system"`
	Cores    int      `json:"cores"`
	Patterns []Result `json:"patterns"`
}

// Result is what a pattern has come to.
type Result struct {
	Pattern string  `json:"pattern"`
	About   string  `json:"about"`
	Seconds float64 `json:"seconds"`
	// CallsPerSecond are reads and writes together.
	CallsPerSecond float64 `json:"calls_per_second"`
	Reads          Latency `json:"reads"`
	Writes         Latency `json:"writes"`
	// HitRate is the part of the reads that memory has answered; 0 where there is no memory.
	HitRate float64 `json:"hit_rate"`
	// StaleReads are those that were older than a write which had been acknowledged before
	// they began.
	StaleReads uint64 `json:"stale_reads"`
	// Acknowledged is the number of writes, in the whole of the program's life, that were
	// answered for, AfterMeasured of which between the measurement and the crash. Lost are
	// those that were not in the database afterwards.
	Acknowledged  uint64 `json:"acknowledged_writes"`
	AfterMeasured uint64 `json:"acknowledged_before_the_crash"`
	Lost          uint64 `json:"lost_writes"`
	// Errors is the number of calls that failed, and Error what the first of them said.
	Errors uint64 `json:"errors"`
	Error  string `json:"error,omitempty"`
	// Throughput has the calls a second of each interval of the program's life.
	Throughput []Point `json:"throughput"`

	last tick
}

// Point is a moment of a curve.
type Point struct {
	Seconds        float64 `json:"seconds"`
	CallsPerSecond float64 `json:"calls_per_second"`
}

func newReport(o Options) *Report {
	return &Report{
		Database: o.Target.Name(), Began: time.Now().UTC().Truncate(time.Second), Seed: o.Seed, Workload: o.Workload,
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.GOMAXPROCS(0), Patterns: []Result{},
	}
}

func (r *Result) tick(t tick) {
	if passed := (t.At - r.last.At).Seconds(); passed > 0 {
		r.Throughput = append(r.Throughput, Point{t.At.Seconds(), float64(t.Operations-r.last.Operations) / passed})
	}
	r.last = t
}

func (r *Result) measured(m measured) {
	r.Seconds = m.Took.Seconds()
	r.Reads, r.Writes = m.Reads, m.Writes
	r.CallsPerSecond = float64(m.Reads.Count+m.Writes.Count) / r.Seconds
	if all := m.Hits + m.Misses; all > 0 {
		r.HitRate = float64(m.Hits) / float64(all)
	}
	r.StaleReads, r.Errors, r.Error = m.Stale, m.Errors, m.Error
}

// WriteText writes the report for a terminal of 80 columns.
func (r *Report) WriteText(out io.Writer) error {
	var b strings.Builder
	w := r.Workload
	fmt.Fprintf(&b, "%s. %d clients, %s %% writes, %s keys by Zipf's law (%v), %s of them in memory, for %v; %v measured for each.\n\n",
		r.Database, w.Clients, number(100*w.Writes), text.Count(w.Keys), w.Skew, text.Count(min(w.Entries, w.Keys)), w.TTL, w.Measure)
	rows := [][]string{{"", "calls", "", "reads", "", "", "writes", "", ""}, {"pattern", "a second", "hits", "p50", "p99", "p99.9", "p50", "p99", "p99.9"}}
	for _, p := range r.Patterns {
		rows = append(rows, append([]string{p.Pattern, text.Count(int64(p.CallsPerSecond)), part(p.HitRate)},
			append(quantiles(p.Reads), quantiles(p.Writes)...)...))
	}
	for _, line := range text.GridApart("  ", "lrrrrrrrr", rows) {
		fmt.Fprintln(&b, line)
	}
	b.WriteString("\n")
	rows = [][]string{{"pattern", "stale reads", "acknowledged writes", "lost in the crash"}}
	for _, p := range r.Patterns {
		rows = append(rows, []string{p.Pattern, text.Count(p.StaleReads), text.Count(p.Acknowledged), text.Count(p.Lost)})
	}
	for _, line := range text.Grid("lrrr", rows) {
		fmt.Fprintln(&b, line)
	}
	for _, p := range r.Patterns {
		if p.Errors > 0 {
			fmt.Fprintf(&b, "\n%s: %s failed; the first: %s\n", p.Pattern, text.Plural(p.Errors, "call"), p.Error)
		}
	}
	b.WriteString(`
A stale read is one that was older than a write which had been acknowledged before the
read began. A crash is a SIGKILL of the program; lost are the writes that it had
acknowledged, and that the database does not have.
`)
	_, err := io.WriteString(out, b.String())
	return err
}

func part(p float64) string {
	if p == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*p, 'f', 1, 64) + "%"
}

func number(f float64) string { return strconv.FormatFloat(math.Round(f*1000)/1000, 'f', -1, 64) }

func quantiles(l Latency) []string {
	if l.Count == 0 {
		return []string{"-", "-", "-"}
	}
	return []string{short(l.P50), short(l.P99), short(l.P999)}
}

// short is a duration in as few characters as three digits need.
func short(d time.Duration) string { return strings.ReplaceAll(text.Span(d), " ", "") }
