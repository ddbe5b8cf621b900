package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

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
		time.Sleep(time.Nanosecond)
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
		time.Sleep(time.Nanosecond)
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
		time.Sleep(time.Nanosecond)
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
		time.Sleep(time.Nanosecond)
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
