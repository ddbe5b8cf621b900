package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// outsiders collects what Hooks.Outside is told.
type outsiders struct {
	mu   sync.Mutex
	seen []string
}

func (o *outsiders) hook(e lockstep.OutsideEvent[string]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, fmt.Sprint(e.Keys, e.All, e.Blind))
}

func (o *outsiders) want(t *testing.T, seen ...string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.seen, seen) {
		t.Errorf("it was told %q, want %q", o.seen, seen)
	}
	o.seen = nil
}

// What others change is told at once, and that nobody sees what they change.
func TestOutsideIsToldOfWhatTheWatchTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outsiders
		s := watched{memstore.New(memstore.Options[string, int]{}), make(chan lockstep.Event[string]), make(chan error)}
		cache := cachetest.Open(t, s, options{Hooks: lockstep.Hooks[string]{Outside: o.hook}})
		o.want(t, "[] true true")
		s.tell(lockstep.Event[string]{})
		o.want(t, "[] true false")
		if _, err := cache.Set(t.Context(), "k", 1); err != nil {
			t.Fatal(err)
		}
		o.want(t) // the cache's own
		version := s.behind(t, "k", 2)
		s.tell(lockstep.Event[string]{Changed: []lockstep.Changed[string]{{Key: "k", Version: version}, {Key: "l"}}})
		o.want(t, "[k l] false false")
		reads(t, cache, "k", 2)
		s.tell(lockstep.Event[string]{Changed: []lockstep.Changed[string]{{Key: "k", Version: version}}})
		o.want(t, "[k] false false") // somebody else may have been told of an older one
		s.tell(lockstep.Event[string]{All: true})
		o.want(t, "[] true false")
		s.lose <- errors.New("lost")
		synctest.Wait()
		o.want(t, "[] true true")
		s.tell(lockstep.Event[string]{})
		o.want(t, "[] true false")
	})
}

// watchedReplaceable is both: a server that is started again ends the watch, too.
type watchedReplaceable struct {
	watched
	replaced *replaceable
}

func (s watchedReplaceable) Capabilities() lockstep.Capabilities[string, int] {
	caps := s.watched.Capabilities()
	caps.Replaced = s.replaced.Capabilities().Replaced
	return caps
}

// A server that is replaced while nobody watches does not end that: who is told would take it
// that changes are seen again.
func TestOutsideStaysBlindWhenTheServerIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outsiders
		store := memstore.New(memstore.Options[string, int]{})
		s := watchedReplaceable{watched{store, make(chan lockstep.Event[string]), make(chan error)}, &replaceable{Store: store, listeners: map[int]func(){}}}
		cachetest.Open(t, s, options{Hooks: lockstep.Hooks[string]{Outside: o.hook}})
		o.want(t, "[] true true")
		s.replaced.replace()
		o.want(t)
		s.tell(lockstep.Event[string]{})
		o.want(t, "[] true false")
		s.replaced.replace()
		o.want(t, "[] true false")
		s.lose <- errors.New("lost")
		synctest.Wait()
		o.want(t, "[] true true")
		s.replaced.replace()
		o.want(t)
		s.tell(lockstep.Event[string]{})
		o.want(t, "[] true false")
	})
}

// A condition that does not hold says that somebody else has written.
func TestOutsideIsToldOfConflicts(t *testing.T) {
	var o outsiders
	store := memstore.New(memstore.Options[string, int]{})
	cache := cachetest.Open(t, store, options{Hooks: lockstep.Hooks[string]{Outside: o.hook}})
	ctx := t.Context()
	version, err := cache.Set(ctx, "k", 1)
	if err != nil {
		t.Fatal(err)
	}
	watched{Store: store}.behind(t, "k", 2)
	if _, err := cache.Set(ctx, "k", 3, lockstep.IfVersion(version)); !errors.Is(err, lockstep.ErrConflict) {
		t.Fatal(err)
	}
	o.want(t, "[k] false false")
	reads(t, cache, "k", 2)
	watched{Store: store}.behind(t, "k", 4)
	err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		n, err := cache.In(tx).Get(ctx, "k")
		if err != nil {
			return err
		}
		return cache.In(tx).Set(ctx, "l", n)
	})
	if err != nil {
		t.Fatal(err)
	}
	o.want(t, "[k] false false")
	reads(t, cache, "l", 4)
}

// So does an audit that finds a copy which is not what the table holds.
func TestOutsideIsToldOfDifferences(t *testing.T) {
	var o outsiders
	store := memstore.New(memstore.Options[string, int]{})
	cache := cachetest.Open(t, store, options{Hooks: lockstep.Hooks[string]{Outside: o.hook}})
	if _, err := cache.Set(t.Context(), "k", 1); err != nil {
		t.Fatal(err)
	}
	watched{Store: store}.behind(t, "k", 2)
	if _, err := cache.Audit(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.want(t, "[k] false false")
}

// Ended is told of a row's end, and of no copy's.
func TestEndedIsToldOfRowsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outsiders
		cache := cachetest.Open(t, memstore.New(memstore.Options[string, int]{}), options{TTL: 10 * time.Second, Hooks: lockstep.Hooks[string]{
			Ended: func(key string) { o.hook(lockstep.OutsideEvent[string]{Keys: []string{key}}) },
		}})
		ctx := t.Context()
		if _, err := cache.Set(ctx, "ends", 1, lockstep.Lifetime(5*time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.Set(ctx, "ends later", 1, lockstep.Lifetime(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.Set(ctx, "stays", 1); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.Get(ctx, "nothing"); !errors.Is(err, lockstep.ErrNotFound) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		o.want(t, "[ends] false false")
	})
}
