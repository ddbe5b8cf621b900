package resilience_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// stage is a cache in a bubble of fake time, whose database does as scripts say. Memory
// has "kept" = 1.
type stage struct {
	*testing.T
	*lockstep.Cache[string, int]
	store    *fault.Store[string, int]
	table    *memstore.Store[string, int]
	events   chan lockstep.Event[string] // what the watch tells; nil without one
	lose     chan error
	replaced func()

	began  time.Time
	before lockstep.Stats
}

// outage is a line of docs/outages.md.
type outage struct {
	policy  *resilience.Policy // of the parts around the store; nil for none
	options lockstep.Options[string, int]
	watched bool
	play    func(s *stage)
	counted map[string]int // by how much these counters differ since begin
}

// watching is a store that can be watched, and replaced.
type watching struct {
	lockstep.Store[string, int]
	s *stage
}

func (w watching) Capabilities() lockstep.Capabilities[string, int] {
	caps := w.Store.Capabilities()
	caps.Replaced = func(f func()) func() { w.s.replaced = f; return func() {} }
	caps.Watch = func(ctx context.Context, f func(lockstep.Event[string])) error {
		for {
			select {
			case e := <-w.s.events:
				f(e)
			case err := <-w.s.lose:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return caps
}

// begin plays a script. What is counted and how long it takes is measured from here.
func (s *stage) begin(script string) {
	s.store.Play(fault.MustParse(script))
	s.before, s.began = s.Stats(), time.Now()
}

// after says how much time has passed since begin.
func (s *stage) after(least, most time.Duration) {
	s.Helper()
	if d := time.Since(s.began); d < least || d > most {
		s.Errorf("after %v, want %v to %v", d, least, most)
	}
}

// get reads a row, of which the caller sees an error or the value.
func (s *stage) get(ctx context.Context, key string, value int, target error) {
	s.Helper()
	if v, err := s.Get(ctx, key); v != value || !errors.Is(err, target) {
		s.Errorf("Get(%s) = %d, %v, want %d, %v", key, v, err, value, target)
	}
}

// set fails with an error that is all of the targets.
func (s *stage) set(ctx context.Context, key string, outcome lockstep.WriteOutcome, targets ...error) *lockstep.WriteError {
	s.Helper()
	_, err := s.Set(ctx, key, 2)
	var w *lockstep.WriteError
	if !errors.As(err, &w) || w.Outcome != outcome {
		s.Fatalf("Set(%s): %v, want %v", key, err, outcome)
	}
	for _, target := range targets {
		if !errors.Is(err, target) {
			s.Errorf("Set(%s): %v is not %v", key, err, target)
		}
	}
	return w
}

// remembers says what memory has of "kept".
func (s *stage) remembers(value int, there bool) {
	s.Helper()
	if v, ok := s.Peek("kept"); v != value || ok != there {
		s.Errorf("memory has %d, %t, want %d, %t", v, ok, value, there)
	}
}

// settles says how an unknown write ends, and that the database is asked then.
func (s *stage) settles(w *lockstep.WriteError, applied bool) {
	s.Helper()
	if got, _, err := w.Wait(s.Context()); got != applied || err != nil {
		s.Errorf("Wait = %t, %v, want %t", got, err, applied)
	}
	s.remembers(0, false)
	s.get(s.Context(), "kept", map[bool]int{true: 2, false: 1}[applied], nil)
}

// beside makes a call on a goroutine of its own, and lets it get as far as it can.
func (s *stage) beside(call func()) {
	go call()
	synctest.Wait()
}

var everything = context.Background() // the context of a caller without a deadline

var outages = map[string]outage{
	"any, and memory has a copy": {
		policy: &resilience.Policy{},
		play: func(s *stage) {
			s.begin("load *: hang; commit *: hang")
			s.get(everything, "kept", 1, nil)
			s.after(0, 0)
		},
		counted: map[string]int{"Hits": 1},
	},
	"a load fails": {
		policy: &resilience.Policy{Breaker: resilience.BreakerPolicy{Failures: 1000}},
		play: func(s *stage) {
			s.begin("load *: fail")
			s.get(everything, "missing", 0, lockstep.ErrUnavailable)
			s.after(1, 3300*time.Millisecond)
			s.remembers(1, true)
			if err := s.Refresh(s.Context(), "kept"); !errors.Is(err, lockstep.ErrUnavailable) {
				s.Error(err)
			}
			s.remembers(1, true)
		},
		counted: map[string]int{"Misses": 1, "Loads": 2, "LoadErrors": 2, "Attempts": 20, "Retries": 18, "RetryFailures": 2},
	},
	"the circuit of reads is open": {
		policy: &resilience.Policy{Breaker: resilience.BreakerPolicy{OpenFor: time.Hour}},
		play: func(s *stage) {
			s.begin("load *: fail")
			s.get(everything, "missing", 0, lockstep.ErrUnavailable)
			s.begin("load *: fail")
			s.get(everything, "missing", 0, lockstep.ErrUnavailable)
			s.after(0, 0)
			s.get(everything, "kept", 1, nil)
		},
		counted: map[string]int{"Misses": 1, "Loads": 1, "LoadErrors": 1, "Attempts": 1, "RetryFailures": 1, "BreakerRefusals": 1},
	},
	"a load fails, and a copy has expired": {
		options: lockstep.Options[string, int]{TTL: time.Minute, StaleIfError: time.Hour},
		play: func(s *stage) {
			time.Sleep(time.Hour)
			s.begin("load *: fail")
			if e, err := s.GetEntry(everything, "kept"); err != nil || e.Value != 1 || !e.Stale {
				s.Errorf("GetEntry = %+v, %v", e, err)
			}
			s.get(everything, "kept", 0, lockstep.ErrUnavailable)
			s.remembers(0, false)
			time.Sleep(time.Minute)
			if e, err := s.GetEntry(everything, "kept"); !errors.Is(err, lockstep.ErrUnavailable) {
				s.Errorf("GetEntry = %+v, %v", e, err)
			}
		},
		counted: map[string]int{"Misses": 3, "Loads": 3, "LoadErrors": 3, "StaleHits": 1},
	},
	"a load hangs, and the reader has a deadline": {
		options: lockstep.Options[string, int]{TTL: time.Minute, StaleIfError: time.Hour},
		play: func(s *stage) {
			time.Sleep(time.Minute)
			s.begin("load *: hang")
			ctx, cancel := context.WithTimeout(everything, time.Second)
			defer cancel()
			s.get(ctx, "missing", 0, context.DeadlineExceeded)
			s.after(time.Second, time.Second)
			ctx, cancel = context.WithTimeout(everything, time.Second)
			defer cancel()
			if e, err := s.GetEntry(ctx, "kept"); err != nil || !e.Stale {
				s.Errorf("GetEntry = %+v, %v", e, err)
			}
			s.after(2*time.Second, 2*time.Second)
		},
		counted: map[string]int{"Misses": 2, "Loads": 2, "LoadErrors": 2},
	},
	"a load hangs, and the reader has none": {
		policy: &resilience.Policy{},
		play: func(s *stage) {
			s.begin("load *: hang")
			s.get(everything, "missing", 0, lockstep.ErrUnavailable)
			s.after(15*time.Second, 16*time.Second)
			s.remembers(1, true)
		},
		counted: map[string]int{
			"Misses": 1, "Loads": 1, "LoadErrors": 1, "Attempts": 6, "Retries": 5, "RetryFailures": 1, "Timeouts": 5,
			"BreakerRefusals": 1, "BreakerChanges": 1, "ReadBreaker": int(lockstep.BreakerOpen - lockstep.BreakerClosed),
		},
	},
	"a load finds no place": {
		policy: &resilience.Policy{Retry: resilience.RetryPolicy{MaxAttempts: 1}, Limit: resilience.LimitPolicy{MaxCalls: 1}},
		play: func(s *stage) {
			s.store.Play(fault.MustParse("load *: hang"))
			s.beside(func() { s.Get(s.Context(), "other") })
			s.before, s.began = s.Stats(), time.Now()
			s.get(everything, "missing", 0, lockstep.ErrUnavailable)
			s.after(resilience.DefaultMaxWait, resilience.DefaultMaxWait)
		},
		counted: map[string]int{"Misses": 1, "Loads": 1, "LoadErrors": 1, "Attempts": 1, "RetryFailures": 1, "LimitWaits": 1, "LimitRefusals": 1},
	},
	"the retry budget is spent": {
		policy: &resilience.Policy{
			Retry:   resilience.RetryPolicy{Budget: resilience.RetryBudget{Reserve: 1}},
			Breaker: resilience.BreakerPolicy{Failures: 1000},
		},
		play: func(s *stage) {
			s.begin("load *: fail")
			s.get(everything, "missing", 0, lockstep.ErrUnavailable)
			s.begin("load *: fail")
			s.get(everything, "missing", 0, lockstep.ErrUnavailable)
			s.after(0, 0)
		},
		counted: map[string]int{"Misses": 1, "Loads": 1, "LoadErrors": 1, "Attempts": 1, "RetryFailures": 1, "RetriesDenied": 1},
	},

	"the queue is full": {
		options: lockstep.Options[string, int]{QueueLimit: 1, Batch: lockstep.Batch{InFlight: 1}},
		play: func(s *stage) {
			s.begin("commit *: hang")
			s.beside(func() { s.Set(s.Context(), "under way", 1) })
			s.beside(func() { s.Set(s.Context(), "queued", 1) })
			s.before, s.began = s.Stats(), time.Now()
			s.set(everything, "kept", lockstep.NotApplied, lockstep.ErrUnavailable)
			s.after(0, 0)
			if n := s.Stats().QueueLength; n != 1 {
				s.Errorf("%d writes are queued", n)
			}
			s.remembers(1, true)
		},
		counted: map[string]int{"Unavailable": 1},
	},
	"a write waits too long in the queue": {
		options: lockstep.Options[string, int]{Batch: lockstep.Batch{InFlight: 1, MaxOps: 1}},
		play: func(s *stage) {
			s.store.Play(fault.MustParse("commit *: hang"))
			s.beside(func() { s.Set(s.Context(), "under way", 1) })
			time.Sleep(5 * time.Second)
			s.beside(func() { s.Set(s.Context(), "next", 1) })
			time.Sleep(time.Second)
			s.before, s.began = s.Stats(), time.Now()
			s.set(everything, "kept", lockstep.NotApplied, lockstep.ErrUnavailable)
			s.after(lockstep.DefaultCommitTimeout, lockstep.DefaultCommitTimeout)
			s.remembers(1, true)
		},
		counted: map[string]int{"Unavailable": 2}, // the one before it, too
	},
	"a commit is not sent, or rolled back": {
		play: func(s *stage) {
			s.begin("commit *: fail")
			s.set(everything, "kept", lockstep.NotApplied, lockstep.ErrUnavailable)
			s.get(everything, "kept", 1, nil)
		},
		counted: map[string]int{"Unavailable": 1},
	},
	"the circuit of writes is open": {
		policy: &resilience.Policy{Breaker: resilience.BreakerPolicy{OpenFor: time.Hour}},
		play: func(s *stage) {
			s.begin("commit *: fail")
			s.set(everything, "kept", lockstep.NotApplied, lockstep.ErrUnavailable)
			s.begin("commit *: fail")
			s.set(everything, "kept", lockstep.NotApplied, lockstep.ErrUnavailable)
			s.after(1, 3300*time.Millisecond)
			s.get(everything, "kept", 1, nil)
		},
		counted: map[string]int{"Unavailable": 1, "Attempts": 10, "Retries": 9, "RetryFailures": 1, "BreakerRefusals": 10},
	},
	"the reply of a commit is lost": {
		policy: &resilience.Policy{},
		play: func(s *stage) {
			s.begin("commit 1: lose reply; settle 1: fail")
			w := s.set(everything, "kept", lockstep.Unknown)
			s.remembers(0, false)
			s.settles(w, true)
		},
		counted: map[string]int{"Unknown": 1, "Settled": 1},
	},
	"a commit hangs, and the caller has a deadline": {
		play: func(s *stage) {
			s.begin("commit 1: hang after")
			ctx, cancel := context.WithTimeout(everything, time.Second)
			defer cancel()
			w := s.set(ctx, "kept", lockstep.Unknown, context.DeadlineExceeded)
			s.after(time.Second, time.Second)
			s.remembers(0, false)
			s.settles(w, true)
		},
		counted: map[string]int{"Unknown": 1, "Settled": 1},
	},
	"a commit hangs": {
		play: func(s *stage) {
			s.begin("commit 1: hang after; commit 2: hang")
			w := s.set(everything, "kept", lockstep.Unknown)
			s.after(lockstep.DefaultCommitTimeout, lockstep.DefaultCommitTimeout)
			s.settles(w, true)
			s.set(everything, "other", lockstep.NotApplied, lockstep.ErrUnavailable)
			s.after(2*lockstep.DefaultCommitTimeout, 2*lockstep.DefaultCommitTimeout+time.Second)
		},
		counted: map[string]int{"Unknown": 1, "Settled": 1},
	},

	"a key is in doubt": {
		options: lockstep.Options[string, int]{TTL: time.Minute, StaleIfError: time.Hour},
		play: func(s *stage) {
			s.store.Play(fault.MustParse("commit 1: lose reply; settle *: fail"))
			s.set(everything, "kept", lockstep.Unknown)
			s.begin("settle *: fail")
			for range 2 {
				s.get(everything, "kept", 2, nil)
				s.remembers(0, false)
			}
			s.begin("settle *: fail; load *: fail")
			s.get(everything, "kept", 0, lockstep.ErrUnavailable)
			if e, err := s.GetEntry(everything, "kept"); !errors.Is(err, lockstep.ErrUnavailable) {
				s.Errorf("GetEntry = %+v, %v", e, err)
			}
			s.set(everything, "kept", lockstep.NotApplied, lockstep.ErrUnavailable)
			s.after(lockstep.DefaultCommitTimeout, lockstep.DefaultCommitTimeout)
			if n := s.Stats().InDoubt; n != 1 {
				s.Errorf("%d in doubt", n)
			}
		},
		counted: map[string]int{"Misses": 2, "Loads": 2},
	},
	"the watch of the table is lost": {
		watched: true,
		options: lockstep.Options[string, int]{TTL: time.Minute, StaleIfError: time.Hour},
		play: func(s *stage) {
			s.begin("")
			s.lose <- errors.New("the connection broke")
			synctest.Wait()
			for range 2 {
				s.get(everything, "kept", 1, nil)
				s.remembers(0, false)
			}
			if s.Stats().Watching {
				s.Error("Watching")
			}
			s.store.Play(fault.MustParse("load *: fail"))
			if e, err := s.GetEntry(everything, "kept"); !errors.Is(err, lockstep.ErrUnavailable) {
				s.Errorf("GetEntry = %+v, %v", e, err)
			}
		},
		counted: map[string]int{"WatchLosses": 1, "Misses": 3, "Loads": 3},
	},
	"the server is another": {
		watched: true,
		options: lockstep.Options[string, int]{TTL: time.Minute, StaleIfError: time.Hour},
		play: func(s *stage) {
			s.begin("load 1: fail")
			s.replaced()
			if e, err := s.GetEntry(everything, "kept"); !errors.Is(err, lockstep.ErrUnavailable) {
				s.Errorf("GetEntry = %+v, %v", e, err)
			}
			s.get(everything, "kept", 1, nil)
			s.remembers(1, true)
		},
		counted: map[string]int{"Replacements": 1, "Misses": 2, "Loads": 2},
	},
	"a copy is not what the table holds": {
		play: func(s *stage) {
			change := lockstep.Change[string, int]{Key: "kept", Value: 3}
			if _, err := s.table.Commit(s.Context(), []lockstep.ChangeSet[string, int]{{Changes: []lockstep.Change[string, int]{change}}}); err != nil {
				s.Fatal(err)
			}
			s.begin("")
			if report, err := s.Audit(s.Context()); err != nil || len(report.Differences) != 1 {
				s.Errorf("Audit = %+v, %v", report, err)
			}
			s.remembers(0, false)
			s.get(everything, "kept", 3, nil)
		},
		counted: map[string]int{"AuditedEntries": 1, "AuditDifferences": 1},
	},
}

// Every line of docs/outages.md is played, and what it says is counted.
func TestOutages(t *testing.T) {
	for name, o := range outages {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &stage{T: t, table: memstore.New(memstore.Options[string, int]{})}
				s.store = fault.Inject(s.table, fault.Script{}, 1)
				var store lockstep.Store[string, int] = s.store
				if o.watched {
					s.events, s.lose = make(chan lockstep.Event[string]), make(chan error)
					store = watching{store, s}
				}
				if o.policy != nil {
					var err error
					if store, err = resilience.Protect(store, *o.policy); err != nil {
						t.Fatal(err)
					}
				}
				o.options.Logger = slog.New(slog.DiscardHandler)
				s.Cache = cachetest.Open(t, store, o.options)
				t.Cleanup(func() {
					s.store.Play(fault.Script{})
					s.store.Release()
					time.Sleep(2 * time.Hour) // an open circuit is half-open
				})
				if o.watched {
					s.events <- lockstep.Event[string]{}
					synctest.Wait()
				}
				if _, err := s.Set(t.Context(), "kept", 1); err != nil {
					t.Fatal(err)
				}
				o.play(s)
				synctest.Wait()
				before, after := reflect.ValueOf(s.before), reflect.ValueOf(s.Stats())
				for field, want := range o.counted {
					if got := number(after.FieldByName(field)) - number(before.FieldByName(field)); got != want {
						t.Errorf("Stats.%s has grown by %d, want %d", field, got, want)
					}
				}
			})
		})
	}
}

func number(v reflect.Value) int {
	if v.CanInt() {
		return int(v.Int())
	}
	return int(v.Uint())
}

// The document has the lines that are tests, and no others, and names what they count.
func TestTheTableOfOutagesIsTheTests(t *testing.T) {
	text, err := os.ReadFile("../docs/outages.md")
	if err != nil {
		t.Fatal(err)
	}
	ticked := regexp.MustCompile("`([^`]*)`")
	lines := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		if len(cells) != 4 || strings.HasPrefix(cells[0], "-") || strings.Contains(cells[0], "which failure") {
			continue
		}
		var fields []string
		for _, match := range ticked.FindAllStringSubmatch(cells[3], -1) {
			fields = append(fields, match[1])
		}
		lines[strings.TrimSpace(cells[0])] = fields
	}
	for name, o := range outages {
		fields, there := lines[name]
		if !there {
			t.Errorf("the document does not have %q", name)
			continue
		}
		want := slices.Sorted(maps.Keys(o.counted))
		if slices.Sort(fields); !slices.Equal(fields, want) {
			t.Errorf("%q: the document counts %v, and the test %v", name, fields, want)
		}
	}
	for name := range lines {
		if _, there := outages[name]; !there {
			t.Errorf("no test is named %q", name)
		}
	}
}
