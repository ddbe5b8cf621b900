package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Every option that cannot be followed is refused, and named.
func TestOptionsThatCannotBeFollowed(t *testing.T) {
	weigher := func(string, int) uint32 { return 1 }
	for _, c := range []struct {
		options options
		names   []string
	}{
		{options{MaxEntries: -1}, []string{"MaxEntries"}},
		{options{MaxBytes: -1}, []string{"MaxBytes"}},
		{options{TTL: -1}, []string{"TTL"}},
		{options{StaleIfError: -1, TTL: 1}, []string{"StaleIfError"}},
		{options{StaleIfError: 1}, []string{"StaleIfError", "TTL"}},
		{options{StaleIfError: 1, NegativeTTL: 1}, []string{"StaleIfError", "TTL"}},
		{options{MaxValueBytes: -1}, []string{"MaxValueBytes"}},
		{options{CommitTimeout: -1}, []string{"CommitTimeout"}},
		{options{QueueLimit: -1}, []string{"QueueLimit"}},
		{options{AuditInterval: -1}, []string{"AuditInterval"}},
		{options{Batch: lockstep.Batch{MaxOps: -1}}, []string{"Batch.MaxOps"}},
		{options{Batch: lockstep.Batch{MaxDelay: -1}}, []string{"Batch.MaxDelay"}},
		{options{Batch: lockstep.Batch{InFlight: -1}}, []string{"Batch.InFlight"}},
		{options{MaxEntries: 1, MaxBytes: 1, Weigher: weigher}, []string{"MaxEntries", "MaxBytes"}},
		{options{MaxBytes: 1}, []string{"MaxBytes", "Weigher"}},
		{options{Weigher: weigher}, []string{"Weigher", "MaxBytes"}},
		{options{MaxEntries: 1, Weigher: weigher}, []string{"Weigher", "MaxBytes"}},
		{options{Batch: lockstep.Batch{MaxDelay: lockstep.DefaultCommitTimeout}}, []string{"Batch.MaxDelay", "CommitTimeout"}},
		{options{CommitTimeout: time.Second, Batch: lockstep.Batch{MaxDelay: 2 * time.Second}}, []string{"Batch.MaxDelay", "CommitTimeout"}},
		{options{MaxEntries: -1, QueueLimit: -1, MaxBytes: 5}, []string{"MaxEntries", "QueueLimit", "Weigher"}},
	} {
		t.Run(strings.Join(c.names, " and "), func(t *testing.T) { refusedOptions(t, c.options, c.names...) })
	}
}

// refusedOptions says that New refuses the options, and that its error has the names.
func refusedOptions(t *testing.T, o options, names ...string) {
	t.Helper()
	cache, err := lockstep.New(memstore.New(memstore.Options[string, int]{}), o)
	if cache != nil || !errors.Is(err, lockstep.ErrInvalid) {
		t.Fatalf("New = %v, %v", cache, err)
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
}

func TestOptionsThatCan(t *testing.T) {
	for name, o := range map[string]options{
		"none":               {},
		"no absent rows":     {NegativeTTL: -1},
		"the greatest":       {MaxEntries: math.MaxInt32, TTL: math.MaxInt64, StaleIfError: math.MaxInt64, CommitTimeout: math.MaxInt64 / 2, QueueLimit: math.MaxInt32},
		"bytes":              {MaxBytes: math.MaxInt64, Weigher: func(string, int) uint32 { return math.MaxUint32 }},
		"the smallest":       {MaxEntries: 1, TTL: 1, StaleIfError: 1, NegativeTTL: 1, QueueLimit: 1, MaxValueBytes: 8, Batch: lockstep.Batch{MaxOps: 1, InFlight: 1}},
		"a delay":            {Batch: lockstep.Batch{MaxDelay: time.Millisecond}},
		"a weight of zero":   {MaxBytes: 100, Weigher: func(string, int) uint32 { return 0 }},
		"a weight too great": {MaxBytes: 100, Weigher: func(string, int) uint32 { return 101 }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, o, func(s *scene) {
				for i := range 10 {
					s.write(fmt.Sprint("k", i), i)
				}
				s.write("m", 1, lockstep.TTL(math.MaxInt64))
				for i := range 10 {
					s.reads(fmt.Sprint("k", i), i)
				}
				s.reads("m", 1)
				s.readsNothing("nobody")
			})
		})
	}
}

func TestNilStores(t *testing.T) {
	var typed *memstore.Store[string, int]
	for name, store := range map[string]store{"nil": nil, "typed nil": typed} {
		if cache, err := lockstep.New(store, options{}); cache != nil || !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, cache, err)
		}
	}
}

// New does no I/O.
func TestNewDoesNotAskTheDatabase(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		if counts := s.store.Counts(); counts != (fault.Counts{}) {
			t.Errorf("New and nothing else: %+v", counts)
		}
	})
}

func TestMaxEntries(t *testing.T) {
	inBubble(t, options{MaxEntries: 10}, func(s *scene) {
		for i := range 100 {
			s.write(fmt.Sprint("k", i), i)
		}
		for i := range 50 {
			s.readsNothing(fmt.Sprint("absent", i)) // they count
		}
		synctest.Wait()
		stats := s.Stats()
		if stats.Entries > 10 || stats.Maximum != 10 || stats.Bytes != 0 {
			t.Errorf("Stats say %d entries of %d, %d bytes", stats.Entries, stats.Maximum, stats.Bytes)
		}
		if stats.Evictions != 150-stats.Entries || stats.Expirations != 0 {
			t.Errorf("Stats say %d evictions, %d expirations", stats.Evictions, stats.Expirations)
		}
		for i := range 100 {
			s.reads(fmt.Sprint("k", i), i)
		}
	})
}

func TestMaxBytes(t *testing.T) {
	o := options{MaxBytes: 100, Weigher: func(_ string, value int) uint32 { return uint32(value) }}
	inBubble(t, o, func(s *scene) {
		for i := range 50 {
			s.write(fmt.Sprint("k", i), 10)
		}
		synctest.Wait()
		if stats := s.Stats(); stats.Bytes > 100 || stats.Bytes < 50 || stats.Maximum != 100 {
			t.Errorf("Stats say %d bytes of %d", stats.Bytes, stats.Maximum)
		}
		s.write("giant", 101)
		synctest.Wait()
		s.forgot("giant")
		s.reads("giant", 101)
	})
}

// A remembered absent row weighs what Weigher says of the zero value, and at
// least 1. Memory is far from full here: in full memory the policy may well
// choose the newcomer to make room.
func TestAbsentRowsHaveAWeight(t *testing.T) {
	o := options{MaxBytes: 1000, Weigher: func(_ string, value int) uint32 { return uint32(value) }}
	inBubble(t, o, func(s *scene) {
		s.write("somebody", 10)
		s.readsNothing("nobody")
		if n := s.loads(func() { s.readsNothing("nobody") }); n != 0 {
			t.Error("an absent row is not remembered")
		}
		synctest.Wait()
		if stats := s.Stats(); stats.Bytes != 11 {
			t.Errorf("Stats say %d bytes, want 10 for the row and 1 for the absent one", stats.Bytes)
		}
	})
}

// A batch is as large as the options say, or as the store advises.
func TestBatchBounds(t *testing.T) {
	for _, c := range []struct {
		name    string
		advice  lockstep.BatchAdvice
		batch   lockstep.Batch
		commits int // of 20 writes, the first of which is held up until all are there
		atOnce  int
	}{
		{"defaults", lockstep.BatchAdvice{}, lockstep.Batch{}, 2, 1},
		{"advice", lockstep.BatchAdvice{MaxOps: 5, InFlight: 1}, lockstep.Batch{}, 5, 1},
		{"options before advice", lockstep.BatchAdvice{MaxOps: 5}, lockstep.Batch{MaxOps: 1}, 20, 1},
		{"several at once", lockstep.BatchAdvice{InFlight: 3}, lockstep.Batch{}, 0, 3},
		{"fewer than advised", lockstep.BatchAdvice{InFlight: 3}, lockstep.Batch{InFlight: 2}, 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			advise := without(func(can *capability) { can.Batch = c.advice })
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, options{Batch: c.batch}, advise)
				s.script("commit 1.." + fmt.Sprint(c.atOnce) + ": hang")
				var calls []*call
				for i := range 20 {
					calls = append(calls, s.startSet(s.ctx, fmt.Sprint("k", i), i))
					synctest.Wait()
				}
				if n := s.store.Counts().Commits; n != c.atOnce {
					t.Errorf("%d commits at once, want %d", n, c.atOnce)
				}
				s.store.Release()
				for _, call := range calls {
					call.succeeds()
				}
				if n := s.store.Counts().Commits; c.commits > 0 && n != c.commits {
					t.Errorf("%d commits, want %d", n, c.commits)
				}
			})
		})
	}
}

// A batch of values of 5 MiB had as many of them as one of small ones. However they
// are written, what they come to is what counts.
func TestABatchOfLargeValuesIsSmaller(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name   string
		advice int // MiB
		want   []int
	}{
		{"by default", 0, []int{1, 4, 3}},
		{"advised", 16, []int{1, 1, 2, 1, 2, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var batches []int
			around := func(inner *fault.Store[string, int]) store {
				return altered{store: inner, can: func(can *capability) {
					prepare := can.Prepare
					can.Batch.MaxBytes = c.advice * mib
					can.Prepare = func(c change) (change, int, error) {
						c, _, err := prepare(c)
						return c, c.Value * mib, err
					}
				}, commit: func(ctx context.Context, sets []changeSet) ([]outcome, error) {
					batches = append(batches, len(sets))
					return inner.Commit(ctx, sets)
				}}
			}
			inBubbleOver(t, options{}, around, func(s *scene) {
				s.script("commit 1: hang")
				var calls []*call
				start := func(f func() error) {
					calls = append(calls, s.start(f))
					synctest.Wait()
				}
				set := func(key string, size int) { start(func() error { return second(s.Set(s.ctx, key, size)) }) }
				set("under way", 5)
				set("a", 5)
				start(func() error { return s.SetMany(s.ctx, map[string]int{"b": 5, "c": 5, "d": 5}) })
				set("e", 1)
				start(func() error {
					return transact(s, func(tx lockstep.InTx[string, int]) error {
						for key, size := range map[string]int{"f": 5, "g": 5} {
							if err := errors.Join(tx.Set(s.ctx, key, 8), tx.Set(s.ctx, key, size)); err != nil {
								return err
							}
						}
						return nil
					})
				})
				start(func() error { return second(s.Update(s.ctx, "h", func(int, bool) (int, error) { return 7, nil })) })
				set("i", 8)
				set("j", 8)
				s.store.Release()
				for _, call := range calls {
					call.succeeds()
				}
			})
			if !slices.Equal(batches, c.want) {
				t.Errorf("batches of %v sets, want %v", batches, c.want)
			}
		})
	}
}

func TestMaxDelay(t *testing.T) {
	inBubble(t, options{Batch: lockstep.Batch{MaxDelay: time.Second}}, func(s *scene) {
		began := time.Now()
		a := s.startSet(s.ctx, "a", 1)
		time.Sleep(time.Second / 2)
		b := s.startSet(s.ctx, "b", 1)
		a.succeeds()
		b.succeeds()
		if took := time.Since(began); took != time.Second {
			t.Errorf("they took %v", took)
		}
		if n := s.store.Counts().Commits; n != 1 {
			t.Errorf("%d commits", n)
		}
	})
}

// Validate sees every value that is written, and none that is deleted.
func TestValidateIsAskedOnEveryPath(t *testing.T) {
	var seen []string
	o := options{Validate: func(key string, value int) error {
		seen = append(seen, fmt.Sprint(key, "=", value))
		return nil
	}}
	inBubble(t, o, func(s *scene) {
		s.write("a", 1)
		if err := s.SetMany(s.ctx, map[string]int{"b": 2}); err != nil {
			t.Error(err)
		}
		if err := second(s.Update(s.ctx, "c", func(int, bool) (int, error) { return 3, nil })); err != nil {
			t.Error(err)
		}
		if err := transact(s, func(tx lockstep.InTx[string, int]) error { return tx.Set(s.ctx, "d", 4) }); err != nil {
			t.Error(err)
		}
		if err := second(s.Delete(s.ctx, "a")); err != nil {
			t.Error(err)
		}
		if got := strings.Join(seen, " "); got != "a=1 b=2 c=3 d=4" {
			t.Errorf("Validate has seen %s", got)
		}
	})
}

// What a cache says of one that has done nothing.
func TestStatsOfNothing(t *testing.T) {
	cache := cachetest.Open(t, memstore.New(memstore.Options[string, int]{}), options{})
	if stats := cache.Stats(); stats != (lockstep.Stats{Maximum: lockstep.DefaultMaxEntries}) {
		t.Errorf("Stats = %+v", stats)
	}
}

func TestStats(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("commit *: latency 10ms; load *: latency 5ms")
		s.write("a", 1)
		if err := s.SetMany(s.ctx, map[string]int{"b": 1, "c": 1}); err != nil {
			t.Error(err)
		}
		if err := s.DeleteMany(s.ctx, []string{"b", "c"}); err != nil {
			t.Error(err)
		}
		s.reads("a", 1)
		s.readsNothing("x")
		s.script("commit 1: lose reply; commit 2: fail; commit 3: refuse")
		s.settles(s.unknown(second(s.Set(s.ctx, "a", 2))), true)
		s.notApplied(second(s.Set(s.ctx, "a", 3)))
		s.notApplied(second(s.Set(s.ctx, "a", 3)))
		s.notApplied(second(s.Set(s.ctx, "a", 3, lockstep.IfAbsent())))
		synctest.Wait()
		got := s.Stats()
		want := lockstep.Stats{
			Hits: 1, Misses: 1, HitRate: 0.5, Loads: 1,
			Writes: 6, Deletes: 2,
			Committed: 3, Refused: 1, Conflicts: 1, Unavailable: 1, Unknown: 1, Settled: 1,
			Batches: 7, RowsPerBatch: 9.0 / 7,
			Entries: got.Entries, Maximum: lockstep.DefaultMaxEntries,
			LoadLatency: got.LoadLatency, CommitLatency: got.CommitLatency, QueueWait: got.QueueWait, WriteLatency: got.WriteLatency,
		}
		if got != want {
			t.Errorf("Stats are\n%+v, want\n%+v", got, want)
		}
		for name, l := range map[string]struct {
			latency lockstep.Latency
			count   uint64
			max     time.Duration
		}{
			"loads": {got.LoadLatency, 1, 5 * time.Millisecond}, "commits": {got.CommitLatency, 7, 10 * time.Millisecond},
			"waits": {got.QueueWait, 7, 0}, "writes": {got.WriteLatency, 7, 10 * time.Millisecond},
		} {
			if l.latency.Count != l.count || l.latency.Max < l.max || l.latency.Max > l.max*11/10+1 || l.latency.P50 > l.latency.P99 || l.latency.P99 > l.latency.Max {
				t.Errorf("the latency of %s is %+v", name, l.latency)
			}
		}
	})
}
