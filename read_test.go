package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// The lines of the package's table of what a read says, and then what stands
// behind them.

func TestHitsDoNotAskTheDatabase(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		s.readsNothing("nobody")
		s.script("load 1..: fail") // it is away
		n := s.loads(func() {
			for range 10 {
				s.reads("k", 1)
				s.readsNothing("nobody")
				if ok, err := s.Exists(s.ctx, "nobody"); ok || err != nil {
					t.Errorf("Exists = %v, %v", ok, err)
				}
				if entry, err := s.GetEntry(s.ctx, "k"); entry.Value != 1 || err != nil {
					t.Errorf("GetEntry = %+v, %v", entry, err)
				}
				if values, err := s.GetMany(s.ctx, []string{"k", "nobody"}); !maps.Equal(values, map[string]int{"k": 1}) || err != nil {
					t.Errorf("GetMany = %v, %v", values, err)
				}
			}
		})
		if n != 0 {
			t.Errorf("%d loads", n)
		}
		stats := s.Stats()
		if stats.Hits != 60 || stats.NegativeHits != 30 || stats.Misses != 2 || stats.HitRate < 0.96 || stats.HitRate > 0.97 {
			t.Errorf("Stats say %d hits, %d negative, %d misses, %v", stats.Hits, stats.NegativeHits, stats.Misses, stats.HitRate)
		}
		// A hit does not look at its context.
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		if value, err := s.Get(ctx, "k"); value != 1 || err != nil {
			t.Errorf("Get = %d, %v", value, err)
		}
	})
}

func TestOneLoadHoweverManyReadersWait(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		load := s.store.Block(fault.AfterLoad)
		defer load.Pass()
		var readers []*call
		n := s.loads(func() {
			for range 20 {
				readers = append(readers, s.start(func() error {
					value, err := s.Get(s.ctx, "k")
					if value != 1 {
						err = errors.Join(err, fmt.Errorf("value %d", value))
					}
					return err
				}))
			}
			readers = append(readers, s.start(func() error { return second(s.GetMany(s.ctx, []string{"k", "k"})) }))
			<-load.Reached
			synctest.Wait()
			load.Pass()
			for _, r := range readers {
				r.succeeds()
			}
		})
		if stats := s.Stats(); n != 1 || stats.Loads != 1 || stats.JoinedLoads != 20 {
			t.Errorf("%d loads; Stats say %d, and %d joined", n, stats.Loads, stats.JoinedLoads)
		}
	})
}

func TestALoadThatFails(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		s.script("load 1: fail")
		load := s.store.Block(fault.BeforeLoad)
		defer load.Pass()
		var readers []*call
		for range 3 {
			readers = append(readers, s.startGet(s.ctx, "k"))
		}
		<-load.Reached
		synctest.Wait()
		load.Pass()
		for _, r := range readers {
			if err := r.wait(); !errors.Is(err, lockstep.ErrUnavailable) {
				t.Errorf("Get: %v", err)
			}
		}
		s.reads("k", 1) // a failure is not remembered
		if stats := s.Stats(); stats.Loads != 2 || stats.LoadErrors != 1 {
			t.Errorf("Stats say %d loads and %d errors", stats.Loads, stats.LoadErrors)
		}
	})
}

func TestStorePanicsInALoad(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		for _, script := range []string{"load 1: panic", "load 1: panic after"} {
			s.script(script)
			if _, err := s.Get(s.ctx, "k"); err == nil || errors.Is(err, lockstep.ErrNotFound) {
				t.Errorf("%s: Get: %v", script, err)
			}
			s.Invalidate("k")
		}
		s.script("load 1: panic")
		if values, err := s.GetMany(s.ctx, []string{"k", "l"}); err == nil || len(values) != 0 {
			t.Errorf("GetMany = %v, %v", values, err)
		}
		s.reads("k", 1)
	})
}

func TestAReaderWhoLeaves(t *testing.T) {
	errGone := errors.New("gone home")
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		load := s.store.Block(fault.BeforeLoad)
		defer load.Pass()
		ctx, leave := context.WithCancelCause(s.ctx)
		first := s.startGet(ctx, "k") // it began the load
		<-load.Reached
		second := s.startGet(s.ctx, "k")
		second.hangs()
		leave(errGone)
		if err := first.returned(); !errors.Is(err, context.Canceled) || !errors.Is(err, errGone) {
			t.Errorf("Get: %v", err)
		}
		second.hangs()
		load.Pass()
		second.succeeds() // the load went on
		s.remembers("k", 1)
		if n := s.store.Counts().Loads; n != 1 {
			t.Errorf("%d loads", n)
		}
	})
}

func TestALoadEndsWithItsLastReader(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		s.script("load 1: hang") // until its context ends
		ctx, leave := context.WithCancel(s.ctx)
		one, two := s.startGet(ctx, "k"), s.startGet(ctx, "k")
		one.hangs()
		two.hangs()
		leave()
		for _, r := range []*call{one, two} {
			if err := r.returned(); !errors.Is(err, context.Canceled) {
				t.Errorf("Get: %v", err)
			}
		}
		s.reads("k", 1) // with a load of its own
		if stats := s.Stats(); stats.Loads != 2 || stats.LoadErrors != 1 {
			t.Errorf("Stats say %d loads and %d errors", stats.Loads, stats.LoadErrors)
		}
	})
}

// Readers leave a store that does not listen, and one who comes later waits for
// it to come back.
func TestALoadThatIgnoresItsContext(t *testing.T) {
	var release chan struct{}
	deaf := func(inner *fault.Store[string, int]) store {
		release = make(chan struct{})
		first := true
		return altered{store: inner, load: func(ctx context.Context, keys []string) (map[string]row, error) {
			if first {
				first = false
				<-release
			}
			return inner.Load(context.WithoutCancel(ctx), keys)
		}}
	}
	inBubbleOver(t, options{}, deaf, func(s *scene) {
		s.behind("k", 1)
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		if _, err := s.Get(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get: %v", err)
		}
		late := s.startGet(s.ctx, "k")
		late.hangs()
		s.readsNothing("nobody") // other keys are not concerned
		close(release)
		late.succeeds()
		s.remembers("k", 1)
	})
}

// The context of a load has its caller's values, for traces.
func TestALoadHasItsReadersValues(t *testing.T) {
	type trace struct{}
	seen := make(chan any, 1)
	inBubbleOver(t, options{}, func(inner *fault.Store[string, int]) store {
		return altered{store: inner, load: func(ctx context.Context, keys []string) (map[string]row, error) {
			select {
			case seen <- ctx.Value(trace{}):
			default:
			}
			return inner.Load(ctx, keys)
		}}
	}, func(s *scene) {
		for _, read := range []func(ctx context.Context){
			func(ctx context.Context) { _, _ = s.Get(ctx, "a") },
			func(ctx context.Context) { _, _ = s.GetMany(ctx, []string{"b", "c"}) },
		} {
			read(context.WithValue(s.ctx, trace{}, "here"))
			if got := <-seen; got != "here" {
				t.Errorf("the load's context has %v", got)
			}
		}
	})
}

func TestAbsentRowsThatAreNotRemembered(t *testing.T) {
	inBubble(t, options{NegativeTTL: -1}, func(s *scene) {
		n := s.loads(func() {
			for range 3 {
				s.readsNothing("nobody")
			}
		})
		if n != 3 {
			t.Errorf("%d loads of an absent row", n)
		}
		s.write("k", 1)
		if _, err := s.Delete(s.ctx, "k"); err != nil {
			t.Error(err)
		}
		if n := s.loads(func() { s.readsNothing("k") }); n != 1 {
			t.Errorf("%d loads of a deleted row", n)
		}
		if n := s.Stats().Entries; n != 0 {
			t.Errorf("memory has %d entries", n)
		}
	})
}

// Reads of many keys.

func TestGetMany(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for i, key := range []string{"a", "b", "c", "d"} {
			s.behind(key, i)
		}
		s.reads("a", 0)
		n := s.loads(func() {
			values, err := s.GetMany(s.ctx, []string{"a", "b", "nobody", "c", "b", "a"})
			if !maps.Equal(values, map[string]int{"a": 0, "b": 1, "c": 2}) || err != nil {
				t.Errorf("GetMany = %v, %v", values, err)
			}
		})
		if n != 1 {
			t.Errorf("%d loads", n)
		}
		if n := s.loads(func() { s.reads("b", 1); s.reads("c", 2); s.readsNothing("nobody") }); n != 0 {
			t.Errorf("%d loads of what was loaded", n)
		}
		if values, err := s.GetMany(s.ctx, nil); len(values) != 0 || err != nil {
			t.Errorf("GetMany of nothing = %v, %v", values, err)
		}
	})
}

// When some keys cannot be read, the others are returned with the error.
func TestGetManyThatFailsInPart(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for i, key := range []string{"hit", "joined", "own"} {
			s.behind(key, i)
		}
		s.reads("hit", 0)
		s.script("load 2: fail")
		load := s.store.Block(fault.AfterLoad, "joined")
		defer load.Pass()
		other := s.startGet(s.ctx, "joined")
		<-load.Reached
		many := s.start(func() error {
			values, err := s.GetMany(s.ctx, []string{"hit", "joined", "own", "own2"})
			if !maps.Equal(values, map[string]int{"hit": 0, "joined": 1}) {
				t.Errorf("GetMany = %v", values)
			}
			return err
		})
		many.hangs() // its own load has failed; the one it shares is under way
		load.Pass()
		other.succeeds()
		err := many.wait()
		if !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("GetMany: %v", err)
		}
		// Once for the load, not once for each key.
		if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) != 1 {
			t.Errorf("GetMany's error has %d parts: %v", len(joined.Unwrap()), err)
		}
	})
}

func TestReadersShareTheLoadsOfGetMany(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for i, key := range []string{"a", "b"} {
			s.behind(key, i)
		}
		load := s.store.Block(fault.AfterLoad)
		defer load.Pass()
		ctx, leave := context.WithCancel(s.ctx)
		many := s.start(func() error { return second(s.GetMany(ctx, []string{"a", "b", "c"})) })
		<-load.Reached
		single := s.startGet(s.ctx, "b")
		single.hangs()
		leave()
		if err := many.returned(); !errors.Is(err, context.Canceled) {
			t.Errorf("GetMany: %v", err)
		}
		single.hangs() // the load goes on for it
		load.Pass()
		single.succeeds()
		if n := s.store.Counts().Loads; n != 1 {
			t.Errorf("%d loads", n)
		}
		s.forgot("a") // nobody waited for it
		s.remembers("b", 1)
	})
}

// One of the keys is being written: its load is tainted, and the next one waits.
func TestGetManyOfABusyKey(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("a", 1)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		writer := s.startSet(s.ctx, "k", 2)
		<-commit.Reached
		values, err := s.GetMany(s.ctx, []string{"a", "k"})
		if !maps.Equal(values, map[string]int{"a": 1}) || err != nil {
			t.Errorf("GetMany = %v, %v", values, err)
		}
		s.remembers("a", 1)
		commit.Pass()
		writer.succeeds()
		s.remembers("k", 2)
	})
}

// Two GetMany whose loads overlap wait for each other's, and not in a circle.
func TestGetManyInEveryOrder(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		keys := []string{"a", "b", "c", "d"}
		for i, key := range keys {
			s.behind(key, i)
		}
		s.script("load *: latency 1ms..5ms")
		var calls []*call
		for range 5 {
			for i := range keys {
				order := slices.Concat(keys[i:], keys[:i])
				calls = append(calls, s.start(func() error {
					for range 20 {
						values, err := s.GetMany(s.ctx, order[:3])
						if len(values) != 3 || err != nil {
							return fmt.Errorf("GetMany = %v, %w", values, err)
						}
						s.Invalidate(order[1])
						if i == 0 {
							s.InvalidateAll()
						}
					}
					return nil
				}))
			}
		}
		for _, c := range calls {
			c.succeeds()
		}
	})
}

// Entries.

func TestGetEntry(t *testing.T) {
	inBubble(t, options{TTL: time.Hour}, func(s *scene) {
		version := s.write("k", 1)
		wrote := time.Now()
		time.Sleep(10*time.Minute + 500*time.Millisecond)
		entry, err := s.GetEntry(s.ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		if entry.Key != "k" || entry.Value != 1 || entry.Version != version || !entry.ExpiresAt.IsZero() {
			t.Errorf("the entry is %+v", entry)
		}
		if !entry.CreatedAt.Equal(wrote) {
			t.Errorf("created at %v, and written at %v", entry.CreatedAt, wrote)
		}
		if age := time.Since(entry.AccessedAt); age < 0 || age > time.Second {
			t.Errorf("accessed %v ago", age)
		}
		if want := 50*time.Minute - 500*time.Millisecond; entry.TTL != want {
			t.Errorf("memory may answer for %v, want %v", entry.TTL, want)
		}
		if _, err := s.GetEntry(s.ctx, "nobody"); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("GetEntry of nothing: %v", err)
		}
	})
}

func TestPeekLeavesNoTrace(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		n := s.loads(func() { s.forgot("k") })
		s.readsNothing("nobody")
		s.forgot("nobody")
		s.reads("k", 1)
		before := s.Stats()
		s.remembers("k", 1)
		if after := s.Stats(); n != 0 || after.Hits != before.Hits || after.Misses != before.Misses {
			t.Error("Peek is counted, or asks the database")
		}
	})
}

// Lifetimes.

func TestTTL(t *testing.T) {
	inBubble(t, options{TTL: time.Minute}, func(s *scene) {
		s.write("k", 1)
		s.behind("k", 2)
		time.Sleep(time.Minute - 1)
		s.reads("k", 1)
		time.Sleep(1)
		s.forgot("k")
		s.reads("k", 2)
		s.readsNothing("nobody")
		s.behind("nobody", 3)
		time.Sleep(time.Minute)
		s.reads("nobody", 3)
	})
}

// A copy is as old as its load, not as its arrival.
func TestTTLBeginsWithTheLoad(t *testing.T) {
	inBubble(t, options{TTL: time.Minute}, func(s *scene) {
		s.behind("k", 1)
		s.script("load 1: hang after; commit 1: hang after")
		reader := s.startGet(s.ctx, "k")
		reader.hangs()
		time.Sleep(40 * time.Second)
		s.store.Release()
		reader.succeeds()
		time.Sleep(20*time.Second - 1)
		s.remembers("k", 1)
		time.Sleep(1)
		s.forgot("k")
	})
}

func TestTTLOfOneWrite(t *testing.T) {
	inBubble(t, options{TTL: time.Hour}, func(s *scene) {
		s.write("short", 1, lockstep.TTL(time.Minute))
		s.write("long", 1, lockstep.TTL(3*time.Hour))
		time.Sleep(time.Minute)
		s.forgot("short")
		s.reads("short", 1) // from here on it is a copy like any other
		time.Sleep(30 * time.Minute)
		s.remembers("short", 1)
		time.Sleep(2 * time.Hour)
		s.remembers("long", 1)
		s.forgot("short")
	})
}

func TestNegativeTTL(t *testing.T) {
	inBubble(t, options{NegativeTTL: time.Second}, func(s *scene) {
		s.readsNothing("k")
		s.behind("k", 1)
		time.Sleep(time.Second - 1)
		s.readsNothing("k")
		time.Sleep(1)
		s.reads("k", 1)
		time.Sleep(time.Hour) // rows are remembered for as long as they are there
		s.remembers("k", 1)
	})
}

func TestLifetime(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1, lockstep.Lifetime(time.Minute))
		entry, err := s.GetEntry(s.ctx, "k")
		if err != nil || !entry.ExpiresAt.Equal(time.Now().Add(time.Minute)) || entry.TTL != time.Minute {
			t.Errorf("GetEntry = %+v, %v", entry, err)
		}
		time.Sleep(time.Minute - 1)
		s.reads("k", 1)
		s.Invalidate("k")
		s.reads("k", 1)
		time.Sleep(1)
		s.notStored("k")
		s.forgot("k")
		s.readsNothing("k")
		if ok, err := s.Exists(s.ctx, "k"); ok || err != nil {
			t.Errorf("Exists = %v, %v", ok, err)
		}
		s.write("k", 2, lockstep.IfAbsent())
		// Without a lifetime a write makes a row that stays.
		s.write("m", 1, lockstep.Lifetime(time.Minute))
		s.write("m", 2)
		time.Sleep(time.Hour)
		s.stored("m", 2)
		s.remembers("m", 2)
	})
}

func TestTheShorterOfLifetimeAndTTLCounts(t *testing.T) {
	inBubble(t, options{TTL: time.Minute}, func(s *scene) {
		s.write("k", 1, lockstep.Lifetime(time.Second))
		s.write("l", 1, lockstep.Lifetime(time.Hour))
		time.Sleep(time.Second)
		s.forgot("k")
		s.readsNothing("k")
		time.Sleep(59 * time.Second)
		s.forgot("l")
		s.reads("l", 1)
	})
}

// The row's end is counted from the start of the load: the copy is gone no later
// than the row.
func TestALifetimeDoesNotGrowOnItsWay(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1, lockstep.Lifetime(time.Minute))
		s.Invalidate("k")
		s.script("load 1: hang after")
		reader := s.startGet(s.ctx, "k")
		reader.hangs()
		time.Sleep(59 * time.Second)
		s.store.Release()
		reader.succeeds()
		s.remembers("k", 1)
		time.Sleep(time.Second)
		s.forgot("k")
		s.readsNothing("k")
	})
}

// A store may answer with a row whose time is just over. It is an absent row,
// and remembered as one is, or not.
func TestARowThatIsOverWhenItArrives(t *testing.T) {
	over := func(inner *fault.Store[string, int]) store {
		return altered{store: inner, load: func(ctx context.Context, keys []string) (map[string]row, error) {
			return map[string]row{keys[0]: {Value: 1, Version: 7, Exists: true, ExpiresAt: time.Now()}}, nil
		}}
	}
	for _, c := range []struct {
		name  string
		ttl   time.Duration
		loads int
	}{{"remembered", time.Hour, 1}, {"not remembered", -1, 2}} {
		t.Run(c.name, func(t *testing.T) {
			inBubbleOver(t, options{TTL: 2 * time.Hour, NegativeTTL: c.ttl}, over, func(s *scene) {
				loads := 0
				s.readsNothing("k")
				before := s.Stats().Loads
				s.readsNothing("k")
				loads = 1 + int(s.Stats().Loads-before)
				if loads != c.loads {
					t.Errorf("%d loads, want %d", loads, c.loads)
				}
				time.Sleep(90 * time.Minute)
				before = s.Stats().Loads
				s.readsNothing("k")
				if s.Stats().Loads == before {
					t.Error("it is remembered as long as a row")
				}
				s.Invalidate("k")
			})
		})
	}
}

// Refresh and Invalidate.

func TestRefresh(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.behind("k", 2)
		s.reads("k", 1)
		if err := s.Refresh(s.ctx, "k"); err != nil {
			t.Error(err)
		}
		s.remembers("k", 2)
		s.behind("k", 3)
		s.script("load 1: fail")
		if err := s.Refresh(s.ctx, "k"); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("Refresh: %v", err)
		}
		s.remembers("k", 2) // better than nothing
		s.Invalidate("k")
		if err := s.Refresh(s.ctx, "nobody"); err != nil {
			t.Errorf("Refresh of nothing: %v", err)
		}
	})
}

// A refresh begins a load of its own: the one under way may have read the row
// before whatever made somebody ask for a refresh.
func TestRefreshDuringALoad(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		load := s.store.Block(fault.AfterLoad)
		defer load.Pass()
		reader := s.startGet(s.ctx, "k")
		<-load.Reached
		s.behind("k", 2)
		refresh := s.start(func() error { return s.Refresh(s.ctx, "k") })
		refresh.hangs()
		load.Pass()
		reader.succeeds()
		refresh.succeeds()
		s.remembers("k", 2)
	})
}

// The publication of a write that came before somebody else's does not undo what
// a refresh has shown of that one.
func TestRefreshDuringACommit(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		commit := s.store.Block(fault.AfterCommit)
		defer commit.Pass()
		writer := s.startSet(s.ctx, "k", 2)
		<-commit.Reached
		s.behind("k", 3)
		if err := s.Refresh(s.ctx, "k"); err != nil {
			t.Error(err)
		}
		s.forgot("k")
		commit.Pass()
		writer.succeeds()
		s.reads("k", 3)
	})
}

func TestInvalidate(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.write("l", 1)
		s.behind("k", 2)
		s.behind("l", 2)
		s.Invalidate("k")
		s.forgot("k")
		s.remembers("l", 1)
		s.reads("k", 2)
		s.behind("k", 3)
		s.InvalidateAll()
		s.forgot("k", "l")
		s.reads("k", 3)
		s.reads("l", 2)
	})
}

// An invalidation during a commit defeats its publication: what made somebody
// invalidate may have come after it.
func TestInvalidateDuringACommit(t *testing.T) {
	for name, invalidate := range map[string]func(s *scene){
		"Invalidate":    func(s *scene) { s.Invalidate("k") },
		"InvalidateAll": func(s *scene) { s.InvalidateAll() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(s *scene) {
				s.write("k", 1)
				commit := s.store.Block(fault.AfterCommit)
				defer commit.Pass()
				writer := s.startSet(s.ctx, "k", 2)
				<-commit.Reached
				s.behind("k", 3)
				invalidate(s)
				commit.Pass()
				writer.succeeds()
				s.reads("k", 3)
			})
		})
	}
}

// Locks.

// Hits go on while a commit hangs: on the key that is written, and on others.
func TestHitsGoOnWhileACommitHangs(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.write("l", 2)
		s.behind("m", 3)
		s.script("commit 1: hang")
		writer := s.startSet(s.ctx, "k", 9)
		writer.hangs()
		var hits sync.WaitGroup
		began := time.Now()
		for range 8 {
			hits.Go(func() {
				for range 1000 {
					s.reads("k", 1)
					s.reads("l", 2)
				}
			})
		}
		s.reads("m", 3) // and so do misses
		s.Invalidate("l")
		s.reads("l", 2)
		hits.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("they waited %v", took)
		}
		writer.hangs()
		s.store.Release()
		writer.succeeds()
		s.remembers("k", 9)
	})
}

// A hit takes no lock: not even that of the very key, held while a new copy is
// put into memory.
func TestAHitTakesNoLock(t *testing.T) {
	reached, pass := make(chan struct{}), make(chan struct{})
	o := options{MaxBytes: 1000, Weigher: func(key string, value int) uint32 {
		if value == 2 { // in the middle of putting the copy in its place
			close(reached)
			<-pass
		}
		return 1
	}}
	cache := cachetest.Open(t, memstore.New(memstore.Options[string, int]{}), o)
	ctx := t.Context()
	if _, err := cache.Set(ctx, "k", 1); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := cache.Set(ctx, "k", 2)
		written <- err
	}()
	<-reached
	for range 100 {
		if value, err := cache.Get(ctx, "k"); value != 1 && value != 2 || err != nil {
			t.Errorf("Get = %d, %v", value, err)
		}
	}
	close(pass)
	if err := <-written; err != nil {
		t.Error(err)
	}
	if value, err := cache.Get(ctx, "k"); value != 2 || err != nil {
		t.Errorf("Get = %d, %v", value, err)
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	cache := cachetest.Open(t, memstore.New(memstore.Options[string, int]{}), options{TTL: time.Hour})
	ctx := t.Context()
	if _, err := cache.Set(ctx, "k", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Exists(ctx, "nobody"); err != nil {
		t.Fatal(err)
	}
	for name, hit := range map[string]func(){
		"Get":                  func() { _, _ = cache.Get(ctx, "k") },
		"Get of an absent row": func() { _, _ = cache.Get(ctx, "nobody") },
		"Exists":               func() { _, _ = cache.Exists(ctx, "k") },
		"Peek":                 func() { cache.Peek("k") },
	} {
		if n := testing.AllocsPerRun(1000, hit); n >= 1 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// Values are shared by all readers, or everybody's own with Clone.
func TestCloneMakesCopiesOnTheWayInAndOut(t *testing.T) {
	cache := cachetest.Open(t, memstore.New(memstore.Options[string, []int]{}),
		lockstep.Options[string, []int]{Clone: slices.Clone[[]int]})
	ctx := t.Context()
	if _, err := cache.Set(ctx, "k", []int{1, 2}); err != nil {
		t.Fatal(err)
	}
	scribble := func(value []int, err error) {
		t.Helper()
		if err != nil || !slices.Equal(value, []int{1, 2}) {
			t.Fatalf("a reader gets %v, %v", value, err)
		}
		value[0] = 99
	}
	for range 2 { // once from memory, and once after a load
		scribble(cache.Get(ctx, "k"))
		entry, err := cache.GetEntry(ctx, "k")
		scribble(entry.Value, err)
		many, err := cache.GetMany(ctx, []string{"k"})
		scribble(many["k"], err)
		value, _ := cache.Peek("k")
		scribble(value, nil)
		for entry, err := range cache.Scan(ctx) {
			scribble(entry.Value, err)
		}
		scribble(cache.Get(ctx, "k"))
		cache.Invalidate("k")
	}
}

// A panic in the program's Clone is an error for the readers of that load, and
// undoes no commit.
func TestAPanicInClone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := memstore.New(memstore.Options[string, int]{})
		cache := cachetest.Open(t, table, options{Logger: quiet, Clone: func(value int) int {
			if value == 13 {
				panic("bad luck")
			}
			return value
		}})
		ctx := t.Context()
		if _, err := cache.Set(ctx, "k", 1); err != nil {
			t.Fatal(err)
		}
		rows, err := table.Commit(ctx, []changeSet{{Changes: []change{{Key: "k", Value: 13}}}})
		if err != nil || rows[0].Err != nil {
			t.Fatal(err)
		}
		cache.Invalidate("k")
		if _, err := cache.Get(ctx, "k"); err == nil {
			t.Error("Get succeeds")
		}
		if _, err := cache.Set(ctx, "k", 2); err != nil {
			t.Errorf("Set: %v", err)
		}
	})
}
