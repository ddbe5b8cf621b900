package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
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

// A load ends with the cause of its last reader, and not with that of who began it.
func TestALoadIsToldWhyItsReadersHaveLeft(t *testing.T) {
	for name, keys := range map[string][]string{"OneKey": {"k"}, "SeveralKeys": {"k", "l"}} {
		t.Run(name, func(t *testing.T) {
			var began chan struct{}
			var causes chan error
			around := func(inner *fault.Store[string, int]) store {
				return altered{store: inner, load: func(ctx context.Context, asked []string) (map[string]row, error) {
					if len(asked) != len(keys) || began == nil {
						return inner.Load(ctx, asked)
					}
					close(began)
					began = nil
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return nil, ctx.Err()
				}}
			}
			synctest.Test(t, func(t *testing.T) {
				began, causes = make(chan struct{}), make(chan error, 1)
				s := newScene(t, options{}, around)
				started := began
				first, leave := context.WithCancelCause(s.ctx)
				one := s.start(func() error { return second(s.GetMany(first, keys)) })
				<-started
				last, cancel := context.WithTimeout(s.ctx, time.Second)
				defer cancel()
				two := s.start(func() error { return second(s.GetMany(last, keys)) })
				two.hangs()
				leave(errors.New("the user has gone"))
				if err := one.wait(); !errors.Is(err, context.Canceled) {
					t.Errorf("the first reader got %v", err)
				}
				if err := two.wait(); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the last reader got %v", err)
				}
				if cause := <-causes; !errors.Is(cause, context.DeadlineExceeded) {
					t.Errorf("the load was told %v", cause)
				}
			})
		})
	}
}
