package lockstep_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

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
