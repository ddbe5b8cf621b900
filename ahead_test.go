package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// aheadOptions: a copy answers for 64 seconds, and is loaded anew in the last 16. After a
// load that has failed 2 seconds pass.
var aheadOptions = options{TTL: 64 * time.Second, RefreshAhead: 16 * time.Second}

// at sleeps until so long after the scene's beginning, in which nothing else takes time.
func (s *scene) at(since time.Duration) {
	s.Helper()
	if s.began.IsZero() {
		s.began = time.Now()
	}
	time.Sleep(since - time.Since(s.began))
}

// aheadLoads counts what f has loaded when everything that can run has.
func (s *scene) aheadLoads(f func()) int {
	return s.loads(func() {
		f()
		synctest.Wait()
	})
}

func (s *scene) aheads(want, failed uint64) {
	s.Helper()
	synctest.Wait()
	if stats := s.Stats(); stats.RefreshesAhead != want || stats.RefreshAheadErrors != failed {
		s.Errorf("Stats say %d loads ahead, %d of them failed, want %d and %d", stats.RefreshesAhead, stats.RefreshAheadErrors, want, failed)
	}
}

// A copy that is read near the end of its TTL is loaded anew while it answers.
func TestRefreshAhead(t *testing.T) {
	for name, read := range map[string]func(s *scene, want int){
		"Get": func(s *scene, want int) { s.reads("k", want) },
		"GetEntry": func(s *scene, want int) {
			if e, err := s.GetEntry(s.ctx, "k"); e.Value != want || err != nil || e.Stale {
				s.Errorf("GetEntry = %+v, %v, want %d", e, err, want)
			}
		},
		"GetMany": func(s *scene, want int) {
			if values, err := s.GetMany(s.ctx, []string{"k"}); values["k"] != want || err != nil {
				s.Errorf("GetMany = %v, %v, want %d", values, err, want)
			}
		},
		"Exists": func(s *scene, _ int) {
			if ok, err := s.Exists(s.ctx, "k"); !ok || err != nil {
				s.Errorf("Exists = %v, %v", ok, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, aheadOptions, func(s *scene) {
				s.at(0)
				s.behind("k", 1)
				read(s, 1)
				s.behind("k", 2)
				s.at(48*time.Second - 1)
				if n := s.aheadLoads(func() { read(s, 1) }); n != 0 {
					t.Errorf("%d loads before its time", n)
				}
				s.at(49 * time.Second)
				if n := s.aheadLoads(func() { s.Peek("k") }); n != 0 {
					t.Errorf("%d loads because of a Peek", n)
				}
				s.at(50 * time.Second)
				if n := s.aheadLoads(func() { read(s, 1) }); n != 1 {
					t.Errorf("%d loads, want 1", n)
				}
				s.remembers("k", 2)
				s.aheads(1, 0)
				s.behind("k", 3)
				s.at(113 * time.Second) // near the end of the new copy
				read(s, 2)
				synctest.Wait()
				s.remembers("k", 3)
				s.aheads(2, 0)
				if stats := s.Stats(); stats.Misses != 1 || stats.Hits != 3 {
					t.Errorf("%d misses, %d hits", stats.Misses, stats.Hits)
				}
			})
		})
	}
}

// What nobody reads is not loaded, and is missed after its TTL.
func TestRefreshAheadOfWhatNobodyReads(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		if n := s.aheadLoads(func() { time.Sleep(64 * time.Second) }); n != 0 {
			t.Errorf("%d loads", n)
		}
		s.forgot("k")
		if n := s.aheadLoads(func() { s.reads("k", 1) }); n != 1 {
			t.Errorf("%d loads", n)
		}
		s.aheads(0, 0)
	})
}

// However many read it, there is one load, and nobody waits for it.
func TestRefreshAheadIsOneLoad(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		time.Sleep(50 * time.Second)
		load := s.store.Block(fault.BeforeLoad)
		defer load.Pass()
		if n := s.aheadLoads(func() {
			for range 100 {
				s.reads("k", 1)
			}
			<-load.Reached
			for range 100 {
				s.reads("k", 1)
			}
		}); n != 1 {
			t.Errorf("%d loads", n)
		}
		load.Pass()
		s.aheads(1, 0)
	})
}

// A load that fails leaves the copy, which answers until its TTL is over, and is made
// again after a pause, by who reads it then.
func TestRefreshAheadThatFails(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		s.at(0)
		s.behind("k", 1)
		s.reads("k", 1)
		s.script("load *: fail")
		s.at(50 * time.Second)
		for _, c := range []struct {
			at   time.Duration
			want int
		}{{50, 1}, {51, 0}, {52, 1}, {53, 0}, {63, 1}} {
			s.at(c.at * time.Second)
			if n := s.aheadLoads(func() { s.reads("k", 1) }); n != c.want {
				t.Errorf("after %d seconds: %d loads, want %d", c.at, n, c.want)
			}
		}
		s.aheads(3, 3)
		s.at(64 * time.Second)
		if _, err := s.Get(s.ctx, "k"); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("after its TTL: %v", err)
		}
		s.script("")
		s.reads("k", 1)
	})
}

// Of thousands that are due at once, only so many keys are asked for at the same time,
// several in each call, and those that find no place are left to their next readers.
func TestRefreshAheadIsBounded(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		const rows = 2000
		var keys []string
		for i := range rows {
			keys = append(keys, fmt.Sprint("k", i))
			s.behind(keys[i], i)
		}
		if n, err := s.Warm(s.ctx, lockstep.WarmOptions{}); n != rows || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(50 * time.Second)
		s.script("load *: latency 1s")
		readAll := func() {
			for i, key := range keys {
				s.reads(key, i)
			}
		}
		n := s.aheadLoads(readAll)
		if n > 4 {
			t.Errorf("%d loads at once", n)
		}
		n += s.aheadLoads(func() { time.Sleep(12 * time.Second) })
		synctest.Wait()
		first := s.Stats().RefreshesAhead
		if first < 64 || first > rows/2 || n > int(first)/16 {
			t.Errorf("%d keys were loaded by %d loads", first, n)
		}
		s.script("")
		readAll()
		synctest.Wait()
		readAll()
		if now := s.Stats().RefreshesAhead; now <= first {
			t.Error("what had found no place was not loaded by its next readers")
		}
	})
}

// The window of a copy with a time of its own is in the second half of it.
func TestRefreshAheadOfOtherTTLs(t *testing.T) {
	o := aheadOptions
	o.NegativeTTL = 20 * time.Second
	inBubble(t, o, func(s *scene) {
		s.write("own", 1, lockstep.TTL(10*time.Second))
		s.readsNothing("nobody")
		s.behind("own", 2)
		s.behind("nobody", 3)
		time.Sleep(5*time.Second - 1)
		if n := s.aheadLoads(func() { s.reads("own", 1); s.readsNothing("nobody") }); n != 0 {
			t.Errorf("%d loads before their time", n)
		}
		time.Sleep(time.Second)
		if n := s.aheadLoads(func() { s.reads("own", 1); s.readsNothing("nobody") }); n != 1 {
			t.Errorf("%d loads for the copy whose time is half over, want 1", n)
		}
		s.remembers("own", 2)
		time.Sleep(6 * time.Second)
		if n := s.aheadLoads(func() { s.readsNothing("nobody") }); n != 1 {
			t.Errorf("%d loads for the absence whose time is half over, want 1", n)
		}
		s.remembers("nobody", 3)
	})
}

// The end of a row is not the end of a copy's TTL: nothing is there to be loaded anew.
func TestRefreshAheadNotOfARowThatEnds(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		s.write("k", 1, lockstep.Lifetime(40*time.Second))
		s.write("l", 1, lockstep.Lifetime(time.Hour))
		time.Sleep(39 * time.Second)
		if n := s.aheadLoads(func() { s.reads("k", 1) }); n != 0 {
			t.Errorf("%d loads", n)
		}
		time.Sleep(11 * time.Second)
		if n := s.aheadLoads(func() { s.reads("l", 1) }); n != 1 {
			t.Errorf("%d loads of the row that goes on, want 1", n)
		}
	})
}

func TestRefreshAheadOfARowThatWasDeleted(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		if _, err := s.table.Commit(s.ctx, []changeSet{{Changes: []change{{Key: "k", Delete: true}}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		s.reads("k", 1)
		synctest.Wait()
		if n := s.aheadLoads(func() { s.readsNothing("k") }); n != 0 {
			t.Errorf("the absence costs %d loads", n)
		}
	})
}

// Whatever happens to a key while it is loaded ahead is not undone by that load.
func TestRefreshAheadMeetsOthers(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(s *scene)
		want      int  // the value of k that the next read sees
		forgotten bool // memory has no copy
	}{
		"Set":                {meanwhile: func(s *scene) { s.write("k", 9) }, want: 9},
		"SetMany":            {meanwhile: func(s *scene) { _ = s.SetMany(s.ctx, map[string]int{"k": 9, "l": 9}) }, want: 9},
		"a Set that fails":   {meanwhile: func(s *scene) { s.script("commit 1: fail"); _, _ = s.Set(s.ctx, "k", 9) }, want: 1, forgotten: true},
		"Invalidate":         {meanwhile: func(s *scene) { s.behind("k", 9); s.Invalidate("k") }, want: 9, forgotten: true},
		"InvalidateAll":      {meanwhile: func(s *scene) { s.behind("k", 9); s.InvalidateAll() }, want: 9, forgotten: true},
		"DeleteAll and Set":  {meanwhile: func(s *scene) { _ = s.DeleteAll(s.ctx); s.write("k", 9) }, want: 9},
		"Scan":               {meanwhile: func(s *scene) { s.behind("k", 9); scanAll(s) }, want: 9, forgotten: true},
		"a lost reply":       {meanwhile: func(s *scene) { s.script("commit 1: lose reply"); _, _ = s.Set(s.ctx, "k", 9) }, want: 9, forgotten: true},
		"the end of its TTL": {meanwhile: func(s *scene) { time.Sleep(time.Minute) }, want: 1, forgotten: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, aheadOptions, func(s *scene) {
				s.behind("k", 1)
				s.reads("k", 1)
				time.Sleep(50 * time.Second)
				load := s.store.Block(fault.AfterLoad, "k")
				defer load.Pass()
				s.reads("k", 1)
				<-load.Reached // with the row as it was
				c.meanwhile(s)
				load.Pass()
				synctest.Wait()
				if c.forgotten {
					s.forgot("k")
				}
				s.reads("k", c.want)
			})
		})
	}
}

func scanAll(s *scene) {
	for _, err := range s.Scan(s.ctx) {
		if err != nil {
			s.Error(err)
		}
	}
}

// A load that was asked for ahead, and may not fill memory, has shown a reader who joined
// it a newer row than the copy; that does not answer the next one, not even in an outage.
func TestRefreshAheadLeavesNoOlderCopyThanItHasShown(t *testing.T) {
	o := aheadOptions
	o.StaleIfError = time.Hour
	inBubble(t, o, func(s *scene) {
		s.at(0)
		s.behind("k", 1)
		s.reads("k", 1)
		s.at(63 * time.Second)
		load := s.store.Block(fault.BeforeLoad, "k")
		defer load.Pass()
		s.reads("k", 1)
		<-load.Reached
		s.behind("k", 2)
		s.script("commit 1: fail")
		reader := s.start(func() error { return s.Refresh(s.ctx, "k") })
		s.notApplied(second(s.Set(s.ctx, "k", 3)), lockstep.ErrUnavailable) // so that the load is tainted
		load.Pass()
		reader.succeeds()
		s.script(outage)
		s.at(100 * time.Second)
		if e, err := s.GetEntry(s.ctx, "k"); err == nil && e.Value == 1 {
			t.Errorf("GetEntry = %+v", e)
		}
	})
}

// A load that hangs is left at the end of the copy's time: whoever reads then begins one
// of his own, and so does not wait for ever with all that come after him.
func TestRefreshAheadThatHangs(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		s.at(0)
		s.behind("k", 1)
		s.reads("k", 1)
		s.script("load 1: hang")
		s.at(50 * time.Second)
		s.reads("k", 1)
		s.at(64 * time.Second)
		s.aheads(1, 1)
		if n := s.aheadLoads(func() { s.reads("k", 1) }); n != 1 {
			t.Errorf("%d loads", n)
		}
	})
}

// A write under way brings a newer copy anyway: its key is not loaded ahead, but by who
// reads it when the write has come to nothing.
func TestRefreshAheadNotOfABusyKey(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		time.Sleep(50 * time.Second)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		s.script("commit 1: fail")
		writer := s.startSet(s.ctx, "k", 2)
		<-commit.Reached
		if n := s.aheadLoads(func() { s.reads("k", 1) }); n != 0 {
			t.Errorf("%d loads beside a commit", n)
		}
		commit.Pass()
		s.notApplied(writer.wait(), lockstep.ErrUnavailable)
		if n := s.aheadLoads(func() { s.reads("k", 1) }); n != 1 {
			t.Errorf("%d loads after it", n)
		}
		s.aheads(1, 0)
	})
}

// A store that panics in such a load, or ends its goroutine, has failed: others go on.
func TestRefreshAheadThatDoesNotReturn(t *testing.T) {
	inExitingBubble(t, aheadOptions, func(s *scene, e *exiting) {
		s.at(0)
		s.behind("k", 1)
		s.behind("l", 1)
		s.reads("k", 1)
		s.reads("l", 1)
		for i := range 5 { // more than there are places
			s.at(time.Duration(49+2*i) * time.Second)
			e.load.Store(true)
			s.reads("k", 1)
			s.aheads(uint64(i)+1, uint64(i)+1)
		}
		s.script("load 1: panic")
		s.reads("l", 1)
		s.aheads(6, 6)
		s.at(60 * time.Second)
		if n := s.aheadLoads(func() { s.reads("k", 1) }); n != 1 {
			t.Errorf("%d loads", n)
		}
		s.aheads(7, 6)
	})
}

// Close does not wait for a load ahead that hangs, nor does one begin afterwards.
func TestRefreshAheadAndClose(t *testing.T) {
	inBubble(t, aheadOptions, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		time.Sleep(50 * time.Second)
		s.script("load *: hang")
		s.reads("k", 1)
		synctest.Wait()
		began := time.Now()
		if err := s.Close(s.ctx); err != nil || time.Since(began) != 0 {
			t.Errorf("Close: %v, after %v", err, time.Since(began))
		}
		if _, err := s.Get(s.ctx, "k"); !errors.Is(err, lockstep.ErrClosed) {
			t.Errorf("Get: %v", err)
		}
	})
}

// A watch that is lost while a copy is loaded ahead defeats that load.
func TestRefreshAheadAndALostWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := watched{memstore.New(memstore.Options[string, int]{}), make(chan lockstep.Event[string]), make(chan error)}
		faulty := fault.Inject[string, int](s, fault.Script{}, 1)
		o := aheadOptions
		o.Logger = quiet
		cache := cachetest.Open(t, faulty, o)
		s.tell(lockstep.Event[string]{})
		s.behind(t, "k", 1)
		read := func() {
			t.Helper()
			if _, err := cache.Get(t.Context(), "k"); err != nil {
				t.Error(err)
			}
		}
		read()
		time.Sleep(50 * time.Second)
		load := faulty.Block(fault.AfterLoad)
		defer load.Pass()
		read()
		<-load.Reached
		s.lose <- errors.New("the connection is gone")
		synctest.Wait()
		s.behind(t, "k", 2) // nobody tells
		load.Pass()
		synctest.Wait()
		if value, ok := cache.Peek("k"); ok {
			t.Errorf("memory has %d while nobody watches the table", value)
		}
	})
}

// The load has the values of the context of who has made it due, and not his deadline.
func TestRefreshAheadHasTheReadersValues(t *testing.T) {
	type key struct{}
	seen := make(chan any, 2)
	around := func(inner *fault.Store[string, int]) store {
		return altered{store: inner, load: func(ctx context.Context, keys []string) (map[string]row, error) {
			seen <- ctx.Value(key{})
			return inner.Load(ctx, keys)
		}}
	}
	inBubbleOver(t, aheadOptions, around, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		<-seen
		time.Sleep(50 * time.Second)
		ctx, cancel := context.WithCancel(context.WithValue(s.ctx, key{}, "the reader's"))
		_, err := s.Get(ctx, "k")
		cancel()
		if got := <-seen; got != "the reader's" || err != nil {
			t.Errorf("the load has %v, %v", got, err)
		}
		s.aheads(1, 0)
	})
}

func TestOptionsOfRefreshAhead(t *testing.T) {
	for _, c := range []struct {
		options options
		names   []string
	}{
		{options{RefreshAhead: -1, TTL: time.Second}, []string{"RefreshAhead"}},
		{options{RefreshAhead: 1}, []string{"RefreshAhead", "TTL"}},
		{options{RefreshAhead: 1, NegativeTTL: time.Second}, []string{"RefreshAhead", "TTL"}},
		{options{RefreshAhead: 501 * time.Millisecond, TTL: time.Second}, []string{"RefreshAhead (501ms)", "TTL (1s)"}},
	} {
		refusedOptions(t, c.options, c.names...)
	}
	inBubble(t, options{RefreshAhead: 1, TTL: 2}, func(s *scene) { // the smallest
		s.behind("k", 1)
		for range 5 {
			s.reads("k", 1)
			time.Sleep(time.Nanosecond)
		}
	})
}
