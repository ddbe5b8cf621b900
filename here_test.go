package lockstep_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// immediate notes on which goroutines it commits, and would have to wait where it
// is told to.
type immediate struct {
	*memstore.Store[string, int]
	wouldWait bool
	mu        sync.Mutex
	on        []string
}

func (s *immediate) Capabilities() lockstep.Capabilities[string, int] {
	caps := s.Store.Capabilities()
	caps.Immediate = true
	return caps
}

func (s *immediate) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, int]) ([]lockstep.Outcome[int], error) {
	s.mu.Lock()
	s.on = append(s.on, goroutine())
	s.mu.Unlock()
	if s.wouldWait && lockstep.Hasty(ctx) {
		return nil, lockstep.ErrWouldWait
	}
	return s.Store.Commit(ctx, sets)
}

func goroutine() string {
	stack := make([]byte, 64)
	name, _, _ := bytes.Cut(stack[:runtime.Stack(stack, false)], []byte(" ["))
	return string(name)
}

func TestALoneWriteIsCommittedOnItsWritersGoroutine(t *testing.T) {
	for name, wouldWait := range map[string]bool{"AtOnce": false, "UnlessItWouldWait": true} {
		t.Run(name, func(t *testing.T) {
			store := &immediate{Store: memstore.New(memstore.Options[string, int]{}), wouldWait: wouldWait}
			cache := cachetest.Open(t, store, options{})
			if _, err := cache.Set(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
			if value, ok := cache.Peek("k"); value != 1 || !ok {
				t.Errorf("memory has %d, %t", value, ok)
			}
			want := []bool{true}
			if wouldWait {
				want = []bool{true, false}
			}
			if len(store.on) != len(want) {
				t.Fatalf("%d commits", len(store.on))
			}
			for i, here := range want {
				if (store.on[i] == goroutine()) != here {
					t.Errorf("commit %d was on %s, and the writer on %s", i, store.on[i], goroutine())
				}
			}
			if stats := cache.Stats(); stats.Batches != 1 || stats.Committed != 1 || stats.QueueWait.Count != 1 {
				t.Errorf("%d batches, %d committed, %d waited", stats.Batches, stats.Committed, stats.QueueWait.Count)
			}
		})
	}
}

// Where somebody holds the write lock of the file, a lone writer can leave: it does
// not wait for it on its own goroutine.
func TestALoneWriterLeavesALockedFile(t *testing.T) {
	store, err := sqlitestore.Open[string, int](t.Context(), filepath.Join(t.TempDir(), "test.db"), sqlitestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	cache := cachetest.Open(t, store, options{})
	txn, err := store.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := cache.Set(ctx, "k", 1)
		left <- err
	}()
	leave()
	var unknown *lockstep.WriteError
	if err := <-left; !errors.As(err, &unknown) {
		t.Fatalf("Set = %v", err)
	}
	if err := txn.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if unknown.Outcome != lockstep.Unknown {
		return // it left before the commit began
	}
	if applied, _, err := unknown.Wait(t.Context()); !applied || err != nil {
		t.Errorf("Wait = %t, %v", applied, err)
	}
}
