package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// watched is a table that others write, and that is watched as the test says.
type watched struct {
	*memstore.Store[string, int]
	events chan lockstep.Event[string]
	lose   chan error
}

func (s watched) Capabilities() lockstep.Capabilities[string, int] {
	caps := s.Store.Capabilities()
	caps.Watch = func(ctx context.Context, f func(lockstep.Event[string])) error {
		for {
			select {
			case e := <-s.events:
				f(e)
			case err := <-s.lose:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return caps
}

// tell has the watch tell something, and waits until memory knows.
func (s watched) tell(e lockstep.Event[string]) {
	s.events <- e
	synctest.Wait()
}

// behind writes the row past the cache, and returns its version.
func (s watched) behind(t *testing.T, key string, value int) lockstep.Version {
	t.Helper()
	outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, int]{{Changes: []lockstep.Change[string, int]{{Key: key, Value: value}}}})
	if err != nil {
		t.Fatal(err)
	}
	return outcomes[0].Rows[0].Version
}

func inWatched(t *testing.T, story func(t *testing.T, s watched, cache *lockstep.Cache[string, int])) {
	synctest.Test(t, func(t *testing.T) {
		s := watched{memstore.New(memstore.Options[string, int]{}), make(chan lockstep.Event[string]), make(chan error)}
		story(t, s, cachetest.Open(t, s, options{}))
	})
}

func reads(t *testing.T, cache *lockstep.Cache[string, int], key string, want int) {
	t.Helper()
	if value, err := cache.Get(t.Context(), key); value != want || err != nil {
		t.Errorf("%s is %d, %v, want %d", key, value, err, want)
	}
}

// Until the watch has begun, and when it is lost, nobody would tell of a change.
func TestNothingIsRememberedWhileNobodyWatches(t *testing.T) {
	inWatched(t, func(t *testing.T, s watched, cache *lockstep.Cache[string, int]) {
		remembers := func(want bool) {
			t.Helper()
			if _, err := cache.Set(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
			reads(t, cache, "k", 1)
			if _, ok := cache.Peek("k"); ok != want {
				t.Errorf("memory has the row: %t, want %t", ok, want)
			}
			if got := cache.Stats().Watching; got != want {
				t.Errorf("Stats.Watching is %t", got)
			}
		}
		remembers(false)
		s.tell(lockstep.Event[string]{})
		remembers(true)
		s.lose <- errors.New("the connection broke")
		synctest.Wait()
		if _, ok := cache.Peek("k"); ok {
			t.Error("a copy has outlived the watch")
		}
		s.behind(t, "k", 2)
		reads(t, cache, "k", 2)
		remembers(false)
		time.Sleep(time.Minute) // until it has been called again
		s.tell(lockstep.Event[string]{})
		remembers(true)
		if n := cache.Stats().WatchLosses; n != 1 {
			t.Errorf("Stats.WatchLosses is %d", n)
		}
	})
}

func TestAnOutsideChangeLeavesMemory(t *testing.T) {
	inWatched(t, func(t *testing.T, s watched, cache *lockstep.Cache[string, int]) {
		s.tell(lockstep.Event[string]{})
		for name, tell := range map[string]func(v lockstep.Version) lockstep.Event[string]{
			"WithVersion": func(v lockstep.Version) lockstep.Event[string] {
				return lockstep.Event[string]{Changed: []lockstep.Changed[string]{{Key: "k", Version: v}}}
			},
			"WithoutVersion": func(lockstep.Version) lockstep.Event[string] {
				return lockstep.Event[string]{Changed: []lockstep.Changed[string]{{Key: "k"}}}
			},
			"All": func(lockstep.Version) lockstep.Event[string] { return lockstep.Event[string]{All: true} },
		} {
			if _, err := cache.Set(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
			reads(t, cache, "k", 1)
			version := s.behind(t, "k", 2)
			reads(t, cache, "k", 1) // nobody has told yet
			s.tell(tell(version))
			if _, ok := cache.Peek("k"); ok {
				t.Errorf("%s: the old copy is still there", name)
			}
			reads(t, cache, "k", 2)
		}
	})
}

// What the cache has written itself does not leave memory when it is told of it.
func TestAChangeOfOurOwnStaysInMemory(t *testing.T) {
	inWatched(t, func(t *testing.T, s watched, cache *lockstep.Cache[string, int]) {
		s.tell(lockstep.Event[string]{})
		version, err := cache.Set(t.Context(), "k", 1)
		if err != nil {
			t.Fatal(err)
		}
		s.tell(lockstep.Event[string]{Changed: []lockstep.Changed[string]{{Key: "k", Version: version}}})
		if value, ok := cache.Peek("k"); value != 1 || !ok {
			t.Errorf("memory has %d, %t", value, ok)
		}
	})
}
