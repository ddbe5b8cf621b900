package lockstep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// interruptible notes on which goroutines it commits. While it hangs, its commits end
// with their contexts, by end.
type interruptible struct {
	*memstore.Store[string, int]
	hangs atomic.Bool
	began chan struct{}
	end   func(ctx context.Context) error
	mu    sync.Mutex
	on    []string
}

func newInterruptible() *interruptible {
	return &interruptible{Store: memstore.New(memstore.Options[string, int]{}), began: make(chan struct{}, 1)}
}

func (s *interruptible) Capabilities() lockstep.Capabilities[string, int] {
	caps := s.Store.Capabilities()
	caps.Interruptible = true
	caps.Settle = func(context.Context, error) (lockstep.Settlement[int], error) {
		return lockstep.Settlement[int]{}, nil
	}
	return caps
}

func (s *interruptible) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, int]) ([]lockstep.Outcome[int], error) {
	s.mu.Lock()
	s.on = append(s.on, goroutine())
	s.mu.Unlock()
	if s.hangs.Load() {
		s.began <- struct{}{}
		<-ctx.Done()
		return nil, s.end(ctx)
	}
	return s.Store.Commit(ctx, sets)
}

// A caller who has time commits a lone write himself; one in a hurry leaves it to the
// queue, which is not interrupted when he goes.
func TestALoneWriteThatCanBeInterruptedIsItsWritersOwn(t *testing.T) {
	store := newInterruptible()
	cache := cachetest.Open(t, store, options{})
	long, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	short, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
	defer cancel()
	for i, ctx := range []context.Context{t.Context(), long, context.Background(), short} {
		if _, err := cache.Set(ctx, "k", i); err != nil && ctx != short {
			t.Fatal(err)
		}
		if here := store.on[i] == goroutine(); here != (ctx != short) {
			t.Errorf("call %d: on its writer's goroutine: %t", i, here)
		}
	}
}

// The caller's own goroutine is in the store, and comes out when its context ends:
// with what the store has said of the commit.
func TestAWriterWhoInterruptsHisCommitIsAnsweredTheTruth(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     error
		outcome lockstep.WriteOutcome
	}{
		{"NotSent", lockstep.ErrUnavailable, lockstep.NotApplied},
		{"Sent", lockstep.ErrUnknownOutcome, lockstep.Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newInterruptible()
			cache := cachetest.Open(t, store, options{})
			if _, err := cache.Set(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
			store.end = func(ctx context.Context) error { return fmt.Errorf("%w: %w", c.err, context.Cause(ctx)) }
			store.hangs.Store(true)
			ctx, leave := context.WithCancel(t.Context())
			go func() {
				<-store.began
				leave()
			}()
			_, err := cache.Set(ctx, "k", 2)
			var failed *lockstep.WriteError
			if !errors.As(err, &failed) || failed.Outcome != c.outcome || !errors.Is(err, context.Canceled) {
				t.Fatalf("Set = %v", err)
			}
			if c.outcome == lockstep.Unknown {
				if applied, _, err := failed.Wait(t.Context()); applied || err != nil {
					t.Errorf("Wait = %t, %v", applied, err)
				}
			}
			store.hangs.Store(false)
			if _, err := cache.Set(t.Context(), "k", 3); err != nil {
				t.Errorf("the next write: %v", err)
			}
			if value, err := cache.Get(t.Context(), "k"); value != 3 || err != nil {
				t.Errorf("Get = %d, %v", value, err)
			}
		})
	}
}

// Closing the cache interrupts the commit of a caller who would have waited.
func TestCloseInterruptsACommitOnItsWritersGoroutine(t *testing.T) {
	store := newInterruptible()
	store.end = func(ctx context.Context) error {
		return fmt.Errorf("%w: %w", lockstep.ErrUnavailable, context.Cause(ctx))
	}
	store.hangs.Store(true)
	cache := cachetest.Open(t, store, options{})
	done := make(chan error)
	go func() {
		_, err := cache.Set(context.Background(), "k", 1)
		done <- err
	}()
	<-store.began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cache.Close(ctx)
	if err := <-done; err == nil {
		t.Error("the write of a closed cache")
	}
}
