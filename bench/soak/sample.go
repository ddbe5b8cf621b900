package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// sample is what is seen at one moment.
type sample struct {
	at         time.Duration
	heap       float64 // bytes that the last collection found in use
	resident   float64 // bytes of the process in memory; 0 where nobody tells
	goroutines float64
	entries    float64
	calls      uint64 // so far
}

func (s sample) String() string {
	return fmt.Sprintf("%v: heap %.1f MB, resident %.0f MB, %.0f goroutines, %.0f entries, %d calls",
		s.at.Round(time.Second), s.heap/1e6, s.resident/1e6, s.goroutines, s.entries, s.calls)
}

func sampleOf(cache *lockstep.Cache[string, []byte], w *workers, at time.Duration) sample {
	told := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(told)
	s := sample{
		at: at, heap: float64(told[0].Value.Uint64()), goroutines: float64(told[1].Value.Uint64()),
		resident: resident(), entries: float64(cache.Stats().Entries),
	}
	for _, n := range w.calls() {
		s.calls += n
	}
	return s
}

// resident is what of the process is in memory, the database's cache in it for SQLite.
func resident() float64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}

// record is what was seen of a run.
type record struct {
	load    load
	samples []sample
	audited int // copies that were compared with their rows at the end
	stats   lockstep.Stats
	calls   [kinds]uint64
}

func (r *record) add(s sample) { r.samples = append(r.samples, s) }

const (
	// leastSamples is how many a line may be drawn through.
	leastSamples = 15
	// most is how much may have been added over the last two thirds, in percent.
	most = 1.0
)

// growth is how much a quantity has grown over the last two thirds of the run along its
// least-squares line, in percent of its mean there.
func (r *record) growth(of func(sample) float64) (percent, mean float64) {
	late := r.samples[len(r.samples)/3:]
	var t float64
	for _, s := range late {
		t += s.at.Seconds() / float64(len(late))
		mean += of(s) / float64(len(late))
	}
	var up, across float64
	for _, s := range late {
		d := s.at.Seconds() - t
		up += d * (of(s) - mean)
		across += d * d
	}
	if mean == 0 || across == 0 {
		return 0, mean
	}
	return up / across * (late[len(late)-1].at - late[0].at).Seconds() / mean * 100, mean
}

// quantities are what may grow, the first two of them not.
var quantities = []struct {
	name  string
	bound bool
	unit  float64
	of    func(sample) float64
}{
	{"live heap, MB", true, 1e6, func(s sample) float64 { return s.heap }},
	{"goroutines", true, 1, func(s sample) float64 { return s.goroutines }},
	{"resident, MB", false, 1e6, func(s sample) float64 { return s.resident }},
	{"entries", false, 1, func(s sample) float64 { return s.entries }},
}

// rows is how many lines of a report stand for the run, each for a part of it.
const rows = 30

// report prints what was seen. What has grown that must not is an error.
func (r *record) report(w io.Writer) error {
	if len(r.samples) < leastSamples {
		return fmt.Errorf("%d samples: a line needs %d", len(r.samples), leastSamples)
	}
	fmt.Fprintf(w, "%d keys by Zipf's law (%v), %d entries in memory, %d readers, %d writers\n\n",
		r.load.keys, skew, r.load.entries, r.load.readers, r.load.writers)

	var errs []error
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "of the last two thirds\tmean\tgrowth\tat most\n")
	for _, q := range quantities {
		growth, mean := r.growth(q.of)
		bound := "-"
		if q.bound {
			bound = fmt.Sprintf("%.0f %%", most)
			if growth > most {
				errs = append(errs, fmt.Errorf("%s: grown by %.2f %% of the mean, and may by %.0f %%", q.name, growth, most))
			}
		}
		fmt.Fprintf(table, "%s\t%.1f\t%+.2f %%\t%s\n", q.name, mean/q.unit, growth, bound)
	}
	fmt.Fprintln(table)
	fmt.Fprintf(table, "call\thow often\n")
	for k, n := range r.calls {
		fmt.Fprintf(table, "%s\t%d\n", kind(k), n)
	}
	fmt.Fprintln(table)
	fmt.Fprintf(table, "until\tlive heap, MB\tresident, MB\tgoroutines\tentries\tcalls/s\n")
	before := sample{}
	for row := range min(rows, len(r.samples)) {
		part := r.samples[row*len(r.samples)/min(rows, len(r.samples)) : (row+1)*len(r.samples)/min(rows, len(r.samples))]
		mean := func(of func(sample) float64) (m float64) {
			for _, s := range part {
				m += of(s) / float64(len(part))
			}
			return m
		}
		last := part[len(part)-1]
		fmt.Fprintf(table, "%v\t%.2f\t%.1f\t%.1f\t%.0f\t%.0f\n", last.at.Round(time.Second),
			mean(quantities[0].of)/1e6, mean(quantities[2].of)/1e6, mean(quantities[1].of), mean(quantities[3].of),
			float64(last.calls-before.calls)/(last.at-before.at).Seconds())
		before = last
	}
	table.Flush()
	s := r.stats
	fmt.Fprintf(w, "\nhit rate %.3f, %d loads, %d batches of %.1f rows, %d evictions, %d expirations, %d reruns\n",
		s.HitRate, s.Loads, s.Batches, s.RowsPerBatch, s.Evictions, s.Expirations, s.Reruns)
	fmt.Fprintf(w, "%d copies in memory were compared with their rows at the end: no difference\n", r.audited)
	return errors.Join(errs...)
}
