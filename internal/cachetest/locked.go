package cachetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// LockedRows tests that lone writes of rows which somebody else holds keep nobody
// else from writing. Lock locks the rows of the keys "a" and "b" and inserts one of the
// key "made", in a transaction of the database's, which unlock rolls back.
func LockedRows[V any](t *testing.T, store lockstep.Store[string, V], value V, lock func() (unlock func())) {
	cache := Open(t, store, lockstep.Options[string, V]{CommitTimeout: patience})
	set := func(key string) error {
		_, err := cache.Set(t.Context(), key, value)
		return err
	}
	for _, key := range []string{"a", "b", "free"} {
		if err := set(key); err != nil {
			t.Fatal(err)
		}
	}
	unlock := lock()
	ended := make(chan error, 3)
	for i, key := range []string{"a", "b", "made"} {
		go func() {
			err := set(key)
			if err != nil {
				err = fmt.Errorf("key %s: %w", key, err)
			}
			ended <- err
		}()
		until(t, fmt.Sprintf("the write of %s makes way", key), func() bool { return cache.Stats().Blocked == uint64(i)+1 })
	}
	if err := set("free"); err != nil {
		t.Errorf("key free: %v", err)
	}
	if len(ended) != 0 {
		t.Errorf("a write of a locked row has ended: %v", <-ended)
	}
	unlock()
	for range 3 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// until waits for what nobody tells.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience/2)
	defer cancel()
	for !so() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		}
	}
}
