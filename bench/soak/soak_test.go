package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var small = load{keys: 20_000, entries: 1_000, readers: 2, writers: 8}

// Twenty seconds are too short for what a line through them says of leaks, and long enough
// for everything else.
func TestAShortSoak(t *testing.T) {
	if err := small.check(); err != nil {
		t.Fatal(err)
	}
	store, _, end, err := opener(openSQLite).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	}()
	r, err := run(t.Context(), store, small, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.samples); n < 18 || n > 20 {
		t.Errorf("%d samples of 20 seconds", n)
	}
	for _, s := range r.samples {
		if s.heap < 1e5 || s.goroutines < float64(small.readers+small.writers) || s.entries < 900 || s.entries > 2000 || s.calls == 0 {
			t.Errorf("%+v", s)
		}
	}
	for k, n := range r.calls {
		if n == 0 {
			t.Errorf("no call of %s", kind(k))
		}
	}
	if r.audited < 900 {
		t.Errorf("%d copies were compared with their rows", r.audited)
	}
	var text strings.Builder
	verdict := r.report(&text)
	growth, _ := r.growth(quantities[0].of)
	other, _ := r.growth(quantities[1].of)
	if (verdict != nil) != (growth > most || other > most) {
		t.Errorf("growth of %.2f %% and %.2f %%: %v", growth, other, verdict)
	}
	t.Logf("%v\n%s", verdict, &text)
}

func TestASoakEndsWithItsContextAndWithAFailure(t *testing.T) {
	store, dir, end, err := opener(openSQLite).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := run(ctx, store, small, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context's end: %v", err)
	}
	time.AfterFunc(500*time.Millisecond, func() { os.Rename(filepath.Join(dir, "soak.db"), filepath.Join(dir, "moved.db")) })
	if _, err := run(t.Context(), store, small, time.Hour); err == nil || !strings.Contains(err.Error(), "soak.db") {
		t.Errorf("with its file moved away: %v", err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
}

// of is a record of so many seconds, with the heap as a function of time.
func of(n int, heap func(second int) float64) *record {
	r := &record{load: small}
	for i := range n {
		r.add(sample{at: time.Duration(i+1) * time.Second, heap: heap(i + 1), goroutines: 50, entries: 1000, calls: uint64(i)})
	}
	return r
}

func TestWhatGrowsIsToldFromWhatSways(t *testing.T) {
	for name, c := range map[string]struct {
		heap   func(second int) float64
		growth float64
	}{
		"Level":   {func(int) float64 { return 1e7 }, 0},
		"Warming": {func(s int) float64 { return 1e7 * min(1, float64(s)/500) }, 0},
		// A fifth of what a collection finds is chance; 0.5 % and 2 % are added to it.
		"Swaying":       {func(s int) float64 { return 1e7 * (1 + 0.1*float64(s%7-3)/3) }, 0},
		"SwayingLeaky":  {func(s int) float64 { return 1e7 * (1 + 0.1*float64(s%7-3)/3 + 0.02*float64(s-600)/1200) }, 2},
		"LittleAdded":   {func(s int) float64 { return 1e7 * (1 + 0.005*float64(s-600)/1200) }, 0.5},
		"GivingItBack":  {func(s int) float64 { return 1e7 * (1 - 0.02*float64(s-600)/1200) }, -2},
		"OneGreatSpike": {func(s int) float64 { return map[bool]float64{true: 5e7, false: 1e7}[s == 1200] }, 0},
	} {
		r := of(1800, c.heap)
		growth, mean := r.growth(quantities[0].of)
		if d := growth - c.growth; d < -0.1 || d > 0.1 || mean < 0.97e7 || mean > 1.03e7 {
			t.Errorf("%s: growth of %.3f %% and a mean of %.3g; want %.1f %%", name, growth, mean, c.growth)
		}
		var text strings.Builder
		err := r.report(&text)
		if leaks := c.growth > 1; leaks != (err != nil) || leaks && !strings.Contains(err.Error(), "live heap") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := of(1800, func(int) float64 { return 1e7 })
	for i := range r.samples {
		r.samples[i].goroutines = 50 + float64(i)/1000
	}
	if err := r.report(new(strings.Builder)); err == nil || !strings.Contains(err.Error(), "goroutines") {
		t.Errorf("with a goroutine more each 17 minutes: %v", err)
	}
	if err := of(leastSamples-1, func(int) float64 { return 1 }).report(new(strings.Builder)); err == nil {
		t.Error("a line was drawn through a few samples")
	}
}

func TestALoadThatMemoryCanHoldIsRefused(t *testing.T) {
	for _, l := range []load{{keys: 99, entries: 10, readers: 1, writers: 1}, {keys: 100, entries: 10, writers: 1}, {keys: 100, entries: 10, readers: 1}, {keys: 100, readers: 1, writers: 1}} {
		if l.check() == nil {
			t.Errorf("%+v is taken", l)
		}
	}
	if err := fullLoad.check(); err != nil {
		t.Error(err)
	}
}
