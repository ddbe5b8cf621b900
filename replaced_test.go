package lockstep_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// replaceable is a table whose server is replaced when the test says so. Its calls stop
// where the test wants them to.
type replaceable struct {
	*memstore.Store[string, int]
	listeners map[int]func()
	hold      chan chan struct{} // a call that takes one waits until it is closed
}

func (s *replaceable) Capabilities() lockstep.Capabilities[string, int] {
	caps := s.Store.Capabilities()
	caps.Replaced = func(f func()) func() {
		n := len(s.listeners)
		s.listeners[n] = f
		return func() { delete(s.listeners, n) }
	}
	return caps
}

func (s *replaceable) replace() {
	for _, f := range s.listeners {
		f()
	}
}

func (s *replaceable) pause() {
	select {
	case until := <-s.hold:
		<-until
	default:
	}
}

func (s *replaceable) Load(ctx context.Context, keys []string) (map[string]lockstep.Row[int], error) {
	rows, err := s.Store.Load(ctx, keys)
	s.pause()
	return rows, err
}

func (s *replaceable) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, int]) ([]lockstep.Outcome[int], error) {
	out, err := s.Store.Commit(ctx, sets)
	s.pause()
	return out, err
}

func inReplaceable(t *testing.T, story func(t *testing.T, s *replaceable, cache *lockstep.Cache[string, int])) {
	synctest.Test(t, func(t *testing.T) {
		s := &replaceable{memstore.New(memstore.Options[string, int]{}), map[int]func(){}, make(chan chan struct{}, 1)}
		story(t, s, cachetest.Open(t, s, options{}))
	})
}

func forgot(t *testing.T, cache *lockstep.Cache[string, int], what string) {
	t.Helper()
	if v, ok := cache.Peek("k"); ok {
		t.Errorf("%s: memory holds %d", what, v)
	}
}

func TestAnotherServerEmptiesMemory(t *testing.T) {
	inReplaceable(t, func(t *testing.T, s *replaceable, cache *lockstep.Cache[string, int]) {
		if _, err := cache.Set(t.Context(), "k", 1); err != nil {
			t.Fatal(err)
		}
		reads(t, cache, "k", 1)
		if _, ok := cache.Peek("k"); !ok {
			t.Fatal("memory does not hold the row to begin with")
		}
		s.replace()
		forgot(t, cache, "replaced")
		if n := cache.Stats().Replacements; n != 1 {
			t.Errorf("Stats.Replacements is %d", n)
		}
		reads(t, cache, "k", 1)
		if err := cache.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(s.listeners) > 0 {
			t.Error("a closed cache is still told")
		}
	})
}

// What was under way when the server was replaced may have been answered by the old one.
func TestNothingUnderWayOutlivesTheServer(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, cache *lockstep.Cache[string, int]) error{
		"Get": func(ctx context.Context, cache *lockstep.Cache[string, int]) error {
			_, err := cache.Get(ctx, "k")
			return err
		},
		"GetMany": func(ctx context.Context, cache *lockstep.Cache[string, int]) error {
			_, err := cache.GetMany(ctx, []string{"k", "l"})
			return err
		},
		"Refresh": func(ctx context.Context, cache *lockstep.Cache[string, int]) error { return cache.Refresh(ctx, "k") },
		"Set": func(ctx context.Context, cache *lockstep.Cache[string, int]) error {
			_, err := cache.Set(ctx, "k", 2)
			return err
		},
		"SetMany": func(ctx context.Context, cache *lockstep.Cache[string, int]) error {
			return cache.SetMany(ctx, map[string]int{"k": 2, "l": 2})
		},
		"Transact": func(ctx context.Context, cache *lockstep.Cache[string, int]) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error { return cache.In(tx).Set(ctx, "k", 2) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inReplaceable(t, func(t *testing.T, s *replaceable, cache *lockstep.Cache[string, int]) {
				if _, err := cache.Set(t.Context(), "k", 1); err != nil {
					t.Fatal(err)
				}
				cache.InvalidateAll()
				until := make(chan struct{})
				s.hold <- until
				done := make(chan error, 1)
				go func() { done <- call(t.Context(), cache) }()
				synctest.Wait()
				if len(s.hold) > 0 {
					t.Fatal("the call has not come to the store")
				}
				s.replace()
				close(until)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				forgot(t, cache, name)
			})
		})
	}
}
