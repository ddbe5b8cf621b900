// Package cachetest is how every test that has a cache and a store opens them:
// the test then ends by comparing the two, row by row, and fails when memory
// holds anything that the table does not.
package cachetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Open returns a cache over the store. When the test ends, the cache is compared
// with the store and closed. A store that injects faults stops doing so first.
func Open[K comparable, V any](t testing.TB, store lockstep.Store[K, V], options lockstep.Options[K, V]) *lockstep.Cache[K, V] {
	t.Helper()
	cache, err := lockstep.New(store, options)
	if err != nil {
		t.Fatalf("open cache: %v", err)
	}
	t.Cleanup(func() {
		t.Helper()
		if faulty, ok := store.(interface {
			Play(fault.Script)
			Release()
		}); ok {
			faulty.Play(fault.Script{})
			faulty.Release()
		}
		Compare(t, cache)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := cache.Close(ctx); err != nil && !errors.Is(err, lockstep.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return cache
}

const patience = 30 * time.Second

// Compare waits until nothing is queued or in doubt, and then fails the test for
// each copy in memory that is not what the table holds. A closed cache has no
// copies.
func Compare[K comparable, V any](t testing.TB, cache *lockstep.Cache[K, V]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// Polled: the cache has no reason to tell anybody that it has become quiet.
	for pause := time.Millisecond; ; pause *= 2 {
		s := cache.Stats()
		report, err := cache.Audit(ctx)
		switch {
		case errors.Is(err, lockstep.ErrClosed):
			return
		case err != nil:
			t.Errorf("compare: %v", err)
			return
		}
		for _, d := range report.Differences {
			t.Errorf("compare: %v", d)
		}
		if s.InDoubt == 0 && s.QueueLength == 0 && report.InMotion == 0 || len(report.Differences) > 0 {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			t.Errorf("compare: still not quiet: %d in doubt, %d queued, %d in motion", s.InDoubt, s.QueueLength, report.InMotion)
			return
		}
	}
}
