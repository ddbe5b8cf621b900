package resilience_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// Somebody holds the write lock of a database file: commits are cut off and then refused,
// reads go on, and a commit that is made when the lock is let go gets through.
func TestALockedDatabaseFile(t *testing.T) {
	db, err := sqlitestore.OpenDatabase(t.Context(), filepath.Join(t.TempDir(), "app.db"), sqlitestore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	inner, err := sqlitestore.OpenIn[string, int](t.Context(), db, sqlitestore.Options{Table: "numbers"})
	if err != nil {
		t.Fatal(err)
	}
	protected := func(attempts int) lockstep.Store[string, int] {
		store, err := resilience.Protect(lockstep.Store[string, int](inner), resilience.Policy{
			Retry:   resilience.RetryPolicy{MaxAttempts: attempts, BaseDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond},
			Breaker: resilience.BreakerPolicy{Failures: 2, OpenFor: 5 * time.Millisecond},
			Timeout: resilience.TimeoutPolicy{Write: 20 * time.Millisecond},
		})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	set := func() []lockstep.ChangeSet[string, int] {
		change, _, err := inner.Capabilities().Prepare(lockstep.Change[string, int]{Key: "k", Value: 1})
		if err != nil {
			t.Fatal(err)
		}
		return []lockstep.ChangeSet[string, int]{{Changes: []lockstep.Change[string, int]{change}}}
	}

	store, stubborn := protected(3), protected(1000)
	holder, err := store.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Commit(t.Context(), set())
	if !errors.Is(err, lockstep.ErrUnavailable) || errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("commit: %v", err)
	}
	var stats lockstep.Stats
	store.Capabilities().Report(&stats)
	if stats.Timeouts < 2 || stats.Attempts != 4 || stats.BreakerChanges == 0 || stats.ReadBreaker != lockstep.BreakerClosed {
		t.Errorf("%d time-outs, %d attempts, %d changes of the breaker, reads %v",
			stats.Timeouts, stats.Attempts, stats.BreakerChanges, stats.ReadBreaker)
	}
	if rows, err := store.Load(t.Context(), []string{"k"}); err != nil || rows["k"].Exists {
		t.Errorf("load: %v, %v", rows, err)
	}

	committed := make(chan error)
	go func() {
		outcomes, err := stubborn.Commit(t.Context(), set())
		if err == nil {
			err = outcomes[0].Err
		}
		committed <- err
	}()
	if err := holder.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-committed; err != nil {
		t.Errorf("after the lock was let go: %v", err)
	}
	if rows, err := store.Load(t.Context(), []string{"k"}); err != nil || rows["k"].Value != 1 {
		t.Errorf("load: %v, %v", rows, err)
	}
}
