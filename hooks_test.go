package lockstep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// log notes what hooks are told, by key.
type log struct {
	mu    sync.Mutex
	lines map[string][]string
}

func (l *log) add(key, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines == nil {
		l.lines = make(map[string][]string)
	}
	l.lines[key] = append(l.lines[key], line)
}

// told is what was told about a key since it was last asked.
func (l *log) told(key string) string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines[key]
	delete(l.lines, key)
	return strings.Join(lines, ", ")
}

func (l *log) hooks() lockstep.Hooks[string] {
	write := func(state string) func(lockstep.WriteEvent[string]) {
		return func(e lockstep.WriteEvent[string]) {
			line := state
			if e.Delete {
				line += " delete"
			}
			if e.Version != 0 {
				line += " with version"
			}
			switch {
			case errors.Is(e.Err, lockstep.ErrUnknownOutcome):
				line += ": unknown"
			case errors.Is(e.Err, lockstep.ErrConflict):
				line += ": conflict"
			case errors.Is(e.Err, lockstep.ErrInvalid):
				line += ": invalid"
			case errors.Is(e.Err, context.Canceled):
				line += ": canceled"
			case errors.Is(e.Err, lockstep.ErrUnavailable):
				line += ": unavailable"
			case e.Err != nil:
				line += ": " + e.Err.Error()
			}
			key := e.Key
			if e.All {
				key += "all"
			}
			l.add(key, line)
		}
	}
	return lockstep.Hooks[string]{
		Pending: write("pending"), Committed: write("committed"), Synchronized: write("synchronized"),
		Failed: write("failed"), Conflict: write("conflict"), Unknown: write("unknown"), Settled: write("settled"),
		Hit: func(key string, negative bool) {
			if negative {
				l.add(key, "negative hit")
			} else {
				l.add(key, "hit")
			}
		},
		Miss: func(key string) { l.add(key, "miss") },
		Load: func(e lockstep.LoadEvent[string]) {
			for _, key := range e.Keys {
				line := "load"
				if e.Err != nil {
					line += " failed"
				}
				l.add(key, line)
			}
		},
		Evict:  func(key string) { l.add(key, "evict") },
		Expire: func(key string) { l.add(key, "expire") },
	}
}

func TestWriteStates(t *testing.T) {
	const written = "pending, committed with version, synchronized with version"
	for _, c := range []struct {
		name   string
		script string
		do     func(s *scene)
		told   map[string]string
	}{
		{"Set", "", func(s *scene) { s.write("k", 1) }, map[string]string{"k": written}},
		{"SetMany", "", func(s *scene) { _ = s.SetMany(s.ctx, map[string]int{"k": 1, "l": 1}) },
			map[string]string{"k": written, "l": written}},
		{"Delete", "", func(s *scene) { s.write("k", 1); _, _ = s.Delete(s.ctx, "k") },
			map[string]string{"k": written + ", pending delete, committed delete with version, synchronized delete with version"}},
		{"DeleteAll", "", func(s *scene) { _ = s.DeleteAll(s.ctx) },
			map[string]string{"all": "pending delete, committed delete, synchronized delete"}},
		{"Update", "", func(s *scene) { _, _ = s.Update(s.ctx, "k", func(int, bool) (int, error) { return 1, nil }) },
			map[string]string{"k": "miss, load, " + written}},
		{"Transact", "", func(s *scene) {
			_ = transact(s, func(tx lockstep.InTx[string, int]) error {
				return errors.Join(tx.Set(s.ctx, "k", 1), tx.Set(s.ctx, "l", 1))
			})
		}, map[string]string{"k": written, "l": written}},
		{"refused before it is queued", "", func(s *scene) { _, _ = s.Set(s.ctx, "k", 1, lockstep.Lifetime(0)) },
			map[string]string{"k": ""}},
		{"refused", "commit 1: refuse", func(s *scene) { _, _ = s.Set(s.ctx, "k", 1) },
			map[string]string{"k": "pending, failed: invalid"}},
		{"unavailable", "commit 1: fail", func(s *scene) { _, _ = s.Set(s.ctx, "k", 1) },
			map[string]string{"k": "pending, failed: unavailable"}},
		{"conflict", "", func(s *scene) { _, _ = s.Set(s.ctx, "k", 1, lockstep.IfVersion(7)) },
			map[string]string{"k": "pending, failed: conflict, conflict: conflict"}},
		{"lost reply", "commit 1: lose reply", func(s *scene) { _, _ = s.Set(s.ctx, "k", 1) },
			map[string]string{"k": "pending, unknown: unknown, settled with version"}},
		{"lost request", "commit 1: lose request", func(s *scene) { _, _ = s.Set(s.ctx, "k", 1) },
			map[string]string{"k": "pending, unknown: unknown, settled: unavailable"}},
		{"lost for ever", "commit 1: lose reply, forget outcome", func(s *scene) { _, _ = s.Set(s.ctx, "k", 1) },
			map[string]string{"k": "pending, unknown: unknown, settled: unknown"}},
		{"the caller leaves, and it is committed", "commit 1: latency 10ms", func(s *scene) {
			ctx, cancel := context.WithCancel(s.ctx)
			time.AfterFunc(5*time.Millisecond, cancel)
			_, _ = s.Set(ctx, "k", 1)
			time.Sleep(time.Second)
		}, map[string]string{"k": "pending, unknown: unknown, settled with version"}},
		{"the caller leaves, and it fails", "commit 1: latency 10ms; commit 1: refuse", func(s *scene) {
			ctx, cancel := context.WithCancel(s.ctx)
			block := s.store.Block(fault.BeforeCommit)
			writer := s.startSet(ctx, "k", 1)
			<-block.Reached
			cancel()
			_ = writer.wait()
			block.Pass()
		}, map[string]string{"k": "pending, unknown: unknown, settled: invalid"}},
		{"the caller leaves the queue", "commit 1: latency 10ms", func(s *scene) {
			other := s.startSet(s.ctx, "l", 1)
			ctx, cancel := context.WithCancel(s.ctx)
			synctest.Wait()
			time.AfterFunc(time.Millisecond, cancel)
			_, _ = s.Set(ctx, "k", 1)
			other.succeeds()
		}, map[string]string{"k": "pending, failed: canceled", "l": written}},
		{"a read-only transaction", "", func(s *scene) {
			s.behind("k", 1)
			s.behind("l", 1)
			_ = transact(s, func(tx lockstep.InTx[string, int]) error {
				return errors.Join(second(tx.Get(s.ctx, "k")), second(tx.Get(s.ctx, "l")))
			})
		}, map[string]string{"k": "miss, load", "l": "miss, load"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &log{}
			inBubble(t, options{Hooks: l.hooks()}, func(s *scene) {
				s.script(c.script)
				c.do(s)
				for _, key := range slices.Sorted(maps.Keys(c.told)) {
					if got := l.told(key); got != c.told[key] {
						t.Errorf("hooks were told about %s:\n%s, want\n%s", key, got, c.told[key])
					}
				}
			})
		})
	}
}

func TestReadEvents(t *testing.T) {
	l := &log{}
	inBubble(t, options{Hooks: l.hooks(), MaxEntries: 2, TTL: time.Minute}, func(s *scene) {
		expect := func(key, want string) {
			t.Helper()
			if got := l.told(key); got != want {
				t.Errorf("hooks were told about %s: %s, want %s", key, got, want)
			}
		}
		s.behind("k", 1)
		s.reads("k", 1)
		expect("k", "miss, load")
		s.reads("k", 1)
		expect("k", "hit")
		s.readsNothing("x")
		expect("x", "miss, load")
		s.readsNothing("x")
		expect("x", "negative hit")
		_, _ = s.GetMany(s.ctx, []string{"k", "x"})
		expect("k", "hit")
		expect("x", "negative hit")
		s.script("load 1: fail")
		_, _ = s.Get(s.ctx, "broken")
		expect("broken", "miss, load failed")
		_ = s.Refresh(s.ctx, "k")
		expect("k", "load")
		time.Sleep(time.Minute + 4*time.Second)
		expect("k", "expire")
		expect("x", "expire")
		for i := range 50 {
			s.readsNothing(fmt.Sprint("many", i))
		}
		synctest.Wait()
		evicted := 0
		for i := range 50 {
			if strings.HasSuffix(l.told(fmt.Sprint("many", i)), "evict") {
				evicted++
			}
		}
		if evicted != 48 {
			t.Errorf("hooks were told of %d evictions of 48", evicted)
		}
	})
}

// The states of each key's writes come in the order in which they happened,
// whoever writes.
func TestEventsOfAKeyAreInOrder(t *testing.T) {
	type event struct {
		state   string
		version lockstep.Version
	}
	var events []event
	add := func(state string) func(lockstep.WriteEvent[string]) {
		// One goroutine runs them, so there is no lock.
		return func(e lockstep.WriteEvent[string]) { events = append(events, event{state, e.Version}) }
	}
	o := options{Hooks: lockstep.Hooks[string]{Committed: add("committed"), Synchronized: add("synchronized")}}
	inBubble(t, o, func(s *scene) {
		s.script("commit *: latency 1ms..3ms")
		const writers, writes = 10, 20
		var calls []*call
		for range writers {
			calls = append(calls, s.start(func() error {
				for i := range writes {
					if _, err := s.Set(s.ctx, "k", i); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		for _, c := range calls {
			c.succeeds()
		}
		synctest.Wait()
		if len(events) != 2*writers*writes {
			t.Fatalf("%d events", len(events))
		}
		last := lockstep.Version(0)
		for i := 0; i < len(events); i += 2 {
			committed, synchronized := events[i], events[i+1]
			if committed.state != "committed" || synchronized.state != "synchronized" || committed.version != synchronized.version || committed.version <= last {
				t.Fatalf("after version %d: %+v, %+v", last, committed, synchronized)
			}
			last = committed.version
		}
	})
}

// When a write is said to be synchronized, no reader sees anything older.
func TestSynchronizedMeansSynchronized(t *testing.T) {
	var cache *lockstep.Cache[string, int]
	old := 0
	o := options{Hooks: lockstep.Hooks[string]{Synchronized: func(e lockstep.WriteEvent[string]) {
		if entry, err := cache.GetEntry(context.Background(), e.Key); err != nil || entry.Version < e.Version {
			old++
		}
	}}}
	inBubble(t, o, func(s *scene) {
		cache = s.Cache
		for i := range 100 {
			s.write("k", i)
		}
		synctest.Wait()
		if old > 0 {
			t.Errorf("%d times a reader saw something older", old)
		}
	})
}

// Hooks may call the cache, the ones that run on the reader's goroutine too.
func TestHooksMayCallTheCache(t *testing.T) {
	var s *scene
	done := make(map[string]int)
	var mu sync.Mutex
	once := func(name string, f func()) {
		mu.Lock()
		done[name]++
		first := done[name] == 1
		mu.Unlock()
		if first {
			f()
		}
	}
	use := func(name string) func() {
		return func() {
			key := "from " + name
			if _, err := s.Set(s.ctx, key, 1); err != nil {
				t.Errorf("%s: %v", key, err)
			}
			s.reads(key, 1)
			s.readsNothing("nothing " + key)
			if _, err := s.Update(s.ctx, key, func(old int, _ bool) (int, error) { return old + 1, nil }); err != nil {
				t.Errorf("%s: %v", key, err)
			}
			s.Invalidate(key)
		}
	}
	write := func(name string) func(lockstep.WriteEvent[string]) {
		return func(lockstep.WriteEvent[string]) { once(name, use(name)) }
	}
	o := options{MaxEntries: 4, TTL: time.Second, Hooks: lockstep.Hooks[string]{
		Pending: write("pending"), Committed: write("committed"), Synchronized: write("synchronized"), Failed: write("failed"),
		Conflict: write("conflict"), Unknown: write("unknown"), Settled: write("settled"),
		Hit:    func(string, bool) { once("hit", use("hit")) },
		Miss:   func(string) { once("miss", use("miss")) },
		Load:   func(lockstep.LoadEvent[string]) { once("load", use("load")) },
		Evict:  func(string) { once("evict", use("evict")) },
		Expire: func(string) { once("expire", use("expire")) },
	}}
	synctest.Test(t, func(t *testing.T) {
		s = newScene(t, o, nil)
		s.write("k", 1)
		s.reads("k", 1)
		_, _ = s.Set(s.ctx, "k", 1, lockstep.IfAbsent())
		synctest.Wait() // the hooks have written what they write
		s.script("commit 1: lose reply")
		s.settles(s.unknown(second(s.Set(s.ctx, "doubtful", 2))), true)
		for i := range 20 {
			s.readsNothing(fmt.Sprint("other", i))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(done) != 12 {
			t.Errorf("%d of 12 hooks were called: %v", len(done), slices.Sorted(maps.Keys(done)))
		}
	})
}

func TestAPanicInAHookIsLogged(t *testing.T) {
	for _, c := range []struct {
		name  string
		hooks lockstep.Hooks[string]
	}{
		{"Pending", lockstep.Hooks[string]{Pending: func(lockstep.WriteEvent[string]) { panic("oops") }}},
		{"Committed", lockstep.Hooks[string]{Committed: func(lockstep.WriteEvent[string]) { panic("oops") }}},
		{"Hit", lockstep.Hooks[string]{Hit: func(string, bool) { panic("oops") }}},
		{"Miss", lockstep.Hooks[string]{Miss: func(string) { panic("oops") }}},
		{"Load", lockstep.Hooks[string]{Load: func(lockstep.LoadEvent[string]) { panic("oops") }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			inBubble(t, options{Hooks: c.hooks, Logger: slog.New(slog.NewTextHandler(&out, nil))}, func(s *scene) {
				s.write("k", 1)
				s.reads("k", 1)
				s.readsNothing("nobody")
				synctest.Wait()
				if !strings.Contains(out.String(), "oops") {
					t.Errorf("the log says %q", out.String())
				}
			})
		})
	}
}

// A slow hook delays those behind it, never a write, and when too much waits it
// is dropped and counted.
func TestSlowHooks(t *testing.T) {
	begun, release, told := make(chan struct{}), make(chan struct{}), 0
	begin := sync.OnceFunc(func() { close(begun) })
	away := altered{store: memstore.New(memstore.Options[string, int]{}), commit: func(context.Context, []changeSet) ([]outcome, error) {
		return nil, lockstep.ErrUnavailable
	}}
	cache := cachetest.Open(t, away, options{Hooks: lockstep.Hooks[string]{
		Pending: func(lockstep.WriteEvent[string]) { begin(); <-release; told++ },
	}})
	if _, err := cache.Set(t.Context(), "first", 1); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Fatal(err)
	}
	<-begun                             // with the first event alone, so that all others have to wait
	const writes, room = 70_000, 65_536 // without the first
	values := make(map[string]int)
	for i := range 1000 {
		values[fmt.Sprint(i)] = i
	}
	for range writes / len(values) {
		if err := cache.SetMany(t.Context(), values); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	dropped := cache.Stats().HooksDropped
	if dropped == 0 || dropped > writes-room {
		t.Errorf("%d events were dropped of %d", dropped, writes)
	}
	close(release)
	if err := cache.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told+int(dropped) != writes+1 {
		t.Errorf("%d events were told and %d dropped, of %d", told, dropped, writes)
	}
}

func TestCloseThatDoesNotWaitForHooks(t *testing.T) {
	var release chan struct{}
	inBubbleWith(t, func() options {
		release = make(chan struct{})
		return options{Hooks: lockstep.Hooks[string]{Committed: func(lockstep.WriteEvent[string]) { <-release }}}
	}, func(s *scene) {
		s.write("k", 1)
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "hooks") {
			t.Errorf("Close: %v", err)
		}
		close(release)
	})
}
