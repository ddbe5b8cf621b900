package resilience_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func limited(t *testing.T, inner lockstep.Store[string, int], policy resilience.LimitPolicy) *lockstep.Cache[string, int] {
	t.Helper()
	store, err := resilience.Limit(inner, policy)
	if err != nil {
		t.Fatal(err)
	}
	return cachetest.Open(t, store, lockstep.Options[string, int]{})
}

// With one place, a transaction that kept it would wait for its own reads.
func TestATransactionKeepsNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memstore.NewDatabase()
		open := func() *lockstep.Cache[string, int] {
			return limited(t, memstore.New(memstore.Options[string, int]{Database: db}), resilience.LimitPolicy{MaxCalls: 1})
		}
		a, b := open(), open()
		start := time.Now()
		err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
			if err := a.In(tx).Set(ctx, "k", 1); err != nil {
				return err
			}
			if _, err := tx.Txn(); err != nil { // begun: from here on the database is locked
				return err
			}
			if _, err := a.In(tx).Get(ctx, "other"); !errors.Is(err, lockstep.ErrNotFound) {
				return err
			}
			return b.In(tx).Set(ctx, "k", 2)
		})
		if err != nil {
			t.Fatal(err)
		}
		for c, want := range map[*lockstep.Cache[string, int]]int{a: 1, b: 2} {
			if got, err := c.Get(t.Context(), "k"); got != want || err != nil {
				t.Errorf("got %d, %v, want %d", got, err, want)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("waited for %v", took)
		}
	})
}

func TestSettlingNeedsNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.MustParse("commit 1: lose reply; settle 1: fail; load 1: hang"), 1)
		c := limited(t, inner, resilience.LimitPolicy{MaxCalls: 1})
		_, err := c.Set(t.Context(), "k", 1)
		var w *lockstep.WriteError
		if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
			t.Fatal(err)
		}
		read := make(chan error)
		go func() { _, err := c.Get(t.Context(), "other"); read <- err }()
		synctest.Wait() // it has the place
		if applied, _, err := w.Wait(t.Context()); !applied || err != nil {
			t.Errorf("applied %v, %v", applied, err)
		}
		inner.Release()
		if err := <-read; !errors.Is(err, lockstep.ErrNotFound) {
			t.Error(err)
		}
	})
}
