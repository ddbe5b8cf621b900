package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A byHand is a program that reads and writes a database by itself, and a cache beside it.
type byHand struct {
	*scene
	cache *lockstep.Cache[string, int]
	calls atomic.Int64 // of load
}

// inByHand plays a scene whose cache, but for cache, is over the same database, and
// stands for somebody else.
func inByHand(t *testing.T, o options, play func(h *byHand)) {
	t.Helper()
	inBubble(t, options{}, func(s *scene) {
		h := &byHand{scene: s}
		o.Mode = lockstep.CacheAside
		if o.Logger == nil {
			o.Logger = quiet
		}
		var err error
		if h.cache, err = lockstep.New(lockstep.ByHand[string, int](), o); err != nil {
			s.Fatal(err)
		}
		defer h.cache.Close(context.Background())
		play(h)
	})
}

// load is the program's own way to a row.
func (h *byHand) load(key string) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		h.calls.Add(1)
		rows, err := h.store.Load(ctx, []string{key})
		if err == nil && !rows[key].Exists {
			err = lockstep.ErrNotFound
		}
		return rows[key].Value, err
	}
}

// save is the program's own way to write one.
func (h *byHand) save(key string, value int) func(context.Context) error {
	return func(ctx context.Context) error {
		outcomes, err := h.store.Commit(ctx, []changeSet{{Changes: []change{{Key: key, Value: value}}}})
		if err == nil {
			err = outcomes[0].Err
		}
		return err
	}
}

func (h *byHand) get(ctx context.Context, key string) (int, error) {
	return h.cache.GetWith(ctx, key, h.load(key))
}

func (h *byHand) set(ctx context.Context, key string, value int) error {
	return h.cache.WriteWith(ctx, []string{key}, h.save(key, value))
}

// gets says what GetWith returns, and what it costs.
func (h *byHand) gets(key string, want, calls int) {
	h.Helper()
	before := h.calls.Load()
	if value, err := h.get(h.ctx, key); value != want || err != nil {
		h.Errorf("GetWith(%s) = %d, %v, want %d", key, value, err, want)
	}
	if n := int(h.calls.Load() - before); n != calls {
		h.Errorf("GetWith(%s) costs %d calls, want %d", key, n, calls)
	}
}

func (h *byHand) forgot(keys ...string) {
	h.Helper()
	for _, key := range keys {
		if value, ok := h.cache.Peek(key); ok {
			h.Errorf("memory says %s = %d, and should not answer", key, value)
		}
	}
}

func TestCacheAside(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		h.gets("k", 1, 1)
		h.gets("k", 1, 0)
		if value, ok := h.cache.Peek("k"); value != 1 || !ok {
			t.Errorf("Peek = %d, %v", value, ok)
		}
		if err := h.set(h.ctx, "k", 2); err != nil {
			t.Fatal(err)
		}
		h.forgot("k")
		h.gets("k", 2, 1)
		h.behind("k", 3)
		h.gets("k", 2, 0)
		h.cache.Invalidate("k")
		h.gets("k", 3, 1)
		for range 2 { // an absence is remembered
			if _, err := h.get(h.ctx, "nobody"); !errors.Is(err, lockstep.ErrNotFound) {
				t.Errorf("GetWith of nobody: %v", err)
			}
		}
		if err := h.cache.WriteWith(h.ctx, []string{"nobody", "k", "k"}, h.save("nobody", 7)); err != nil {
			t.Fatal(err)
		}
		h.gets("nobody", 7, 1)
		h.gets("k", 3, 1)
		if s := h.cache.Stats(); s.Writes != 4 || s.Committed != 2 || s.Hits != 3 || s.NegativeHits != 1 || s.Misses != 6 || s.Loads != 6 || s.InDoubt != 0 {
			t.Errorf("Stats: %+v", s)
		}
	})
}

func TestCacheAsideTTLs(t *testing.T) {
	inByHand(t, options{TTL: time.Minute, NegativeTTL: -1}, func(h *byHand) {
		h.behind("k", 1)
		h.gets("k", 1, 1)
		h.behind("k", 2)
		time.Sleep(time.Minute - 1)
		h.gets("k", 1, 0)
		time.Sleep(time.Nanosecond)
		h.gets("k", 2, 1)
		for range 2 {
			before := h.calls.Load()
			if _, err := h.get(h.ctx, "nobody"); !errors.Is(err, lockstep.ErrNotFound) || h.calls.Load() == before {
				t.Errorf("an absence that is not remembered: %v", err)
			}
		}
	})
}

// The stale fill, which is what goes wrong by hand: a reader loads the row, a writer
// changes it and drops the key, and then the reader fills the cache with what he has read.
func TestCacheAsideWithoutTheStaleFill(t *testing.T) {
	for name, write := range map[string]func(h *byHand){
		"WriteWith":           func(h *byHand) { _ = h.set(h.ctx, "k", 2) },
		"WriteWith of two":    func(h *byHand) { _ = h.cache.WriteWith(h.ctx, []string{"l", "k"}, h.save("k", 2)) },
		"a write that failed": func(h *byHand) { h.script("commit 1: lose reply"); _ = h.set(h.ctx, "k", 2) },
		"Invalidate":          func(h *byHand) { h.behind("k", 2); h.cache.Invalidate("k") },
	} {
		t.Run(name, func(t *testing.T) {
			inByHand(t, options{}, func(h *byHand) {
				h.behind("k", 1)
				load := h.store.Block(fault.AfterLoad)
				defer load.Pass()
				reader := h.start(func() error { return second(h.get(h.ctx, "k")) })
				<-load.Reached // with the old row
				write(h)
				later := h.start(func() error {
					value, err := h.get(h.ctx, "k")
					if value != 2 {
						err = fmt.Errorf("whoever reads after the write sees %d, %v", value, err)
					}
					return err
				})
				later.hangs()
				load.Pass()
				reader.succeeds()
				later.succeeds()
				h.gets("k", 2, 0)
			})
		})
	}
}

// While a write runs its keys are in nobody's memory; who reads gets what his load finds.
func TestCacheAsideDuringAWrite(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		h.gets("k", 1, 1)
		commit := h.store.Block(fault.AfterCommit)
		defer commit.Pass()
		writer := h.start(func() error { return h.set(h.ctx, "k", 2) })
		<-commit.Reached
		h.forgot("k")
		h.gets("k", 2, 1)
		h.forgot("k")
		commit.Pass()
		writer.succeeds()
		h.gets("k", 2, 1)
		h.gets("k", 2, 0)
	})
}

// However many readers, there is one call, and they share its error.
func TestCacheAsideReadersShareACall(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		load := h.store.Block(fault.BeforeLoad)
		var readers []*call
		for range 10 {
			readers = append(readers, h.start(func() error { return second(h.get(h.ctx, "k")) }))
		}
		<-load.Reached
		synctest.Wait()
		load.Pass()
		for _, r := range readers {
			r.succeeds()
		}
		if n := h.calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
		h.cache.Invalidate("k")
		h.script("load 1: fail")
		load = h.store.Block(fault.BeforeLoad)
		readers = nil
		for range 10 {
			readers = append(readers, h.start(func() error { return second(h.get(h.ctx, "k")) }))
		}
		synctest.Wait()
		load.Pass()
		for _, r := range readers {
			if err := r.wait(); !errors.Is(err, lockstep.ErrUnavailable) {
				t.Errorf("a reader is told %v", err)
			}
		}
		h.gets("k", 1, 1)
	})
}

// A reader who leaves leaves the call to the others; when nobody waits it is ended.
func TestCacheAsideReadersWhoLeave(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		load := h.store.Block(fault.BeforeLoad)
		ctx, leave := context.WithCancel(h.ctx)
		first := h.start(func() error { return second(h.get(ctx, "k")) })
		<-load.Reached
		other := h.start(func() error { return second(h.get(h.ctx, "k")) })
		other.hangs()
		leave()
		if err := first.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("who left is told %v", err)
		}
		other.hangs()
		load.Pass()
		other.succeeds()
		h.gets("k", 1, 0)

		ctx, leave = context.WithCancel(h.ctx)
		ended := make(chan error, 1)
		alone := h.start(func() error {
			return second(h.cache.GetWith(ctx, "l", func(ctx context.Context) (int, error) {
				<-ctx.Done()
				ended <- ctx.Err()
				return 0, ctx.Err()
			}))
		})
		alone.hangs()
		leave()
		if err := alone.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("who left is told %v", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the call's context ends with %v", err)
		}
	})
}

// A function that goes by the context of the call around it, and not by its own, fails
// when its reader leaves; those who shared it are not failed by that.
func TestCacheAsideFunctionThatEndsWithItsReader(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		called := make(chan struct{})
		ctx, leave := context.WithCancel(h.ctx)
		first := h.start(func() error {
			return second(h.cache.GetWith(ctx, "k", func(context.Context) (int, error) {
				close(called)
				<-ctx.Done()
				return 0, ctx.Err()
			}))
		})
		<-called
		var others []*call
		for range 3 {
			others = append(others, h.start(func() error { return second(h.get(h.ctx, "k")) }))
		}
		others[0].hangs()
		leave()
		if err := first.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("who left is told %v", err)
		}
		for _, o := range others {
			o.succeeds()
		}
		if n := h.calls.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
		// A function that ends so by itself is not called for ever.
		n := 0
		given := func(context.Context) (int, error) { n++; return 0, context.Canceled }
		if _, err := h.cache.GetWith(h.ctx, "l", given); !errors.Is(err, context.Canceled) || n != 1 {
			t.Errorf("GetWith: %v after %d calls", err, n)
		}
	})
}

// The next load of a key, which waits for one that a write has met, is by the function
// and the context of a reader who waits for it.
func TestCacheAsideNextLoadIsItsReadersOwn(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		type name struct{}
		h.behind("k", 1)
		load := h.store.Block(fault.AfterLoad)
		first := h.start(func() error {
			return second(h.get(context.WithValue(h.ctx, name{}, "first"), "k"))
		})
		<-load.Reached
		if err := h.set(h.ctx, "k", 2); err != nil {
			t.Fatal(err)
		}
		var seen any
		next := h.start(func() error {
			value, err := h.cache.GetWith(context.WithValue(h.ctx, name{}, "second"), "k", func(ctx context.Context) (int, error) {
				seen = ctx.Value(name{})
				return 22, nil
			})
			if value != 22 {
				err = fmt.Errorf("GetWith = %d, %v", value, err)
			}
			return err
		})
		next.hangs()
		load.Pass()
		first.succeeds()
		next.succeeds()
		if seen != "second" {
			t.Errorf("the load has the context of %v", seen)
		}
	})
}

// However a function ends, nobody is left waiting, and no key stays held.
func TestCacheAsideFunctionsThatDoNotReturn(t *testing.T) {
	for name, end := range map[string]func(){
		"panic":  func() { panic("bad luck") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			inByHand(t, options{}, func(h *byHand) {
				h.behind("k", 1)
				if _, err := h.cache.GetWith(h.ctx, "k", func(context.Context) (int, error) { end(); return 0, nil }); err == nil {
					t.Error("GetWith succeeds")
				}
				h.gets("k", 1, 1)
				panicked := make(chan any, 1)
				go func() {
					defer func() { panicked <- recover() }()
					_ = h.cache.WriteWith(h.ctx, []string{"k"}, func(ctx context.Context) error {
						_ = h.save("k", 2)(ctx)
						end()
						return nil
					})
				}()
				if p := <-panicked; (p != nil) != (name == "panic") {
					t.Errorf("the caller of WriteWith recovers %v", p)
				}
				h.gets("k", 2, 1)
				h.gets("k", 2, 0)
				if s := h.cache.Stats(); s.Unknown != 1 || s.LoadErrors != 1 {
					t.Errorf("Stats say %d unknown, %d loads failed", s.Unknown, s.LoadErrors)
				}
				_ = h.cache.WriteWith(h.ctx, []string{"k"}, func(ctx context.Context) error { // inside a write, on its caller's goroutine
					done := make(chan struct{})
					go func() {
						defer close(done)
						defer func() { _ = recover() }()
						_, _ = h.cache.GetWith(ctx, "l", func(context.Context) (int, error) { end(); return 0, nil })
					}()
					<-done
					return nil
				})
				h.behind("l", 1)
				h.gets("l", 1, 1)
			})
		})
	}
}

// What a function returns is its caller's, as it is, and the key has left memory.
func TestCacheAsideWriteThatFails(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		h.gets("k", 1, 1)
		own := errors.New("the program's own")
		if err := h.cache.WriteWith(h.ctx, []string{"k"}, func(context.Context) error { return own }); err != own {
			t.Errorf("WriteWith returns %v", err)
		}
		h.forgot("k")
		h.gets("k", 1, 1)
		var w *lockstep.WriteError
		ctx, cancel := context.WithCancel(h.ctx)
		cancel()
		if err := h.set(ctx, "k", 2); !errors.As(err, &w) || w.Outcome != lockstep.NotApplied || !errors.Is(err, context.Canceled) {
			t.Errorf("a write whose caller has left before: %v", err)
		}
		h.gets("k", 1, 0)
	})
}

func TestCacheAsideHooks(t *testing.T) {
	var told []string
	tell := func(what string) func(lockstep.WriteEvent[string]) {
		return func(e lockstep.WriteEvent[string]) { told = append(told, fmt.Sprint(what, " ", e.Key, " ", e.Err)) }
	}
	o := options{Hooks: lockstep.Hooks[string]{
		Pending: tell("pending"), Committed: tell("committed"), Synchronized: tell("synchronized"),
		Failed: tell("failed"), Unknown: tell("unknown"), Settled: tell("settled"),
		Hit:  func(key string, negative bool) { told = append(told, fmt.Sprint("hit ", key, " ", negative)) },
		Miss: func(key string) { told = append(told, "miss "+key) },
		Load: func(e lockstep.LoadEvent[string]) { told = append(told, fmt.Sprint("load ", e.Keys, " ", e.Err)) },
	}}
	inByHand(t, o, func(h *byHand) {
		_ = h.set(h.ctx, "k", 1)
		synctest.Wait()
		h.gets("k", 1, 1)
		synctest.Wait()
		h.gets("k", 1, 0)
		_ = h.cache.WriteWith(h.ctx, []string{"k"}, func(context.Context) error { return errors.New("no") })
		synctest.Wait()
		want := "pending k <nil>|committed k <nil>|synchronized k <nil>|miss k|load [k] <nil>|hit k false|pending k <nil>|unknown k lockstep: outcome unknown: no"
		if got := strings.Join(told, "|"); got != want {
			t.Errorf("told\n%s, want\n%s", got, want)
		}
	})
}

// Close waits for a write by hand, and refuses what comes after it.
func TestCacheAsideClose(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		commit := h.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		writer := h.start(func() error { return h.set(h.ctx, "k", 1) })
		<-commit.Reached
		load := h.store.Block(fault.BeforeLoad)
		defer load.Pass()
		reader := h.start(func() error { return second(h.get(h.ctx, "l")) })
		<-load.Reached
		closing := h.start(func() error { return h.cache.Close(h.ctx) })
		closing.hangs()
		if _, err := h.get(h.ctx, "k"); !errors.Is(err, lockstep.ErrClosed) {
			t.Errorf("GetWith: %v", err)
		}
		if err := h.set(h.ctx, "k", 2); !errors.Is(err, lockstep.ErrClosed) {
			t.Errorf("WriteWith: %v", err)
		}
		commit.Pass()
		writer.succeeds()
		closing.succeeds()
		if err := reader.wait(); !errors.Is(err, lockstep.ErrClosed) {
			t.Errorf("who has read: %v", err)
		}
	})
	inByHand(t, options{}, func(h *byHand) { // and gives up when it is told to
		commit := h.store.Block(fault.BeforeCommit)
		writer := h.start(func() error { return h.set(h.ctx, "k", 1) })
		<-commit.Reached
		ctx, cancel := context.WithTimeout(h.ctx, time.Second)
		defer cancel()
		if err := h.cache.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 under way") {
			t.Errorf("Close: %v", err)
		}
		commit.Pass()
		writer.succeeds()
	})
}

// Everything but the two calls is refused, and says what to call instead.
func TestCacheAsideRefusesEverythingElse(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		h.behind("k", 1)
		h.gets("k", 1, 1) // in memory; it is refused all the same
		s, c, ctx := h.scene, h.cache, h.ctx
		const mode = lockstep.CacheAside
		advised := func(call, instead string, err error) {
			t.Helper()
			s.refusedCall(call, mode, err)
			if err != nil && !strings.Contains(err.Error(), instead) {
				t.Errorf("%s: the error does not say %s: %v", call, instead, err)
			}
		}
		advised("Get", "GetWith", second(c.Get(ctx, "k")))
		advised("GetEntry", "GetWith", second(c.GetEntry(ctx, "k")))
		advised("GetMany", "GetWith", second(c.GetMany(ctx, []string{"k"})))
		advised("Exists", "GetWith", second(c.Exists(ctx, "k")))
		advised("Set", "WriteWith", second(c.Set(ctx, "k", 1)))
		advised("SetMany", "WriteWith", c.SetMany(ctx, map[string]int{"k": 1}))
		advised("Delete", "WriteWith", second(c.Delete(ctx, "k")))
		advised("DeleteMany", "WriteWith", c.DeleteMany(ctx, []string{"k"}))
		advised("DeleteAll", "WriteWith", c.DeleteAll(ctx))
		advised("Update", "WriteWith", second(c.Update(ctx, "k", func(int, bool) (int, error) { return 0, nil })))
		_, _, err := c.Insert(ctx, 1)
		advised("Insert", "WriteWith", err)
		advised("Refresh", "no store", c.Refresh(ctx, "k"))
		advised("Warm", "no store", second(c.Warm(ctx, lockstep.WarmOptions{})))
		advised("Audit", "no store", second(c.Audit(ctx)))
		advised("ScanPage", "no store", second(c.ScanPage(ctx, nil, 1)))
		for _, err := range c.Scan(ctx) {
			advised("Scan", "no store", err)
		}
		advised("Transact", "no store", lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			return errors.Join(second(c.In(tx).Get(ctx, "k")), c.In(tx).Set(ctx, "k", 1))
		}))
		advised("InJoined", "no store", second(c.InJoined(nil)))

		for _, other := range []lockstep.Mode{lockstep.WriteThrough, lockstep.WriteAround, lockstep.ReadOnly} {
			cache, err := lockstep.New(store(h.store), options{Mode: other})
			if err != nil {
				t.Fatal(err)
			}
			s.refusedCall("GetWith", other, second(cache.GetWith(ctx, "k", h.load("k"))))
			s.refusedCall("WriteWith", other, cache.WriteWith(ctx, []string{"k"}, h.save("k", 1)))
			cache.Close(ctx)
		}
	})
}

func TestCacheAsideBadInput(t *testing.T) {
	inByHand(t, options{}, func(h *byHand) {
		if _, err := h.cache.GetWith(h.ctx, "k", nil); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("GetWith without a function: %v", err)
		}
		if err := h.cache.WriteWith(h.ctx, []string{"k"}, nil); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("WriteWith without a function: %v", err)
		}
		called := false
		if err := h.cache.WriteWith(h.ctx, nil, func(context.Context) error { called = true; return nil }); err != nil || !called {
			t.Errorf("WriteWith of no keys: %v, called: %v", err, called)
		}
	})
	for _, c := range []struct {
		store   store
		options options
		names   []string
	}{
		{lockstep.ByHand[string, int](), options{}, []string{"CacheAside", "WriteThrough", "ByHand"}},
		{lockstep.FromFunc(func(context.Context, string) (int, error) { return 0, nil }), options{Mode: lockstep.CacheAside}, []string{"CacheAside", "ByHand", "func"}},
		{lockstep.ByHand[string, int](), options{Mode: lockstep.CacheAside, AuditInterval: 1, TTL: 4, StaleIfError: 1, RefreshAhead: 1, QueueLimit: 1}, []string{"AuditInterval", "StaleIfError", "RefreshAhead", "QueueLimit"}},
	} {
		cache, err := lockstep.New(c.store, c.options)
		if cache != nil || !errors.Is(err, lockstep.ErrInvalid) {
			t.Fatalf("New = %v, %v", cache, err)
		}
		for _, name := range c.names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not name %s: %v", name, err)
			}
		}
	}
}
