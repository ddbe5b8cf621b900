package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// slowApply is a store whose part of a joint transaction does something first.
type slowApply struct {
	store
	before func()
}

func (s slowApply) Capabilities() capability {
	can := s.store.Capabilities()
	apply := can.Apply
	can.Apply = func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
		s.before()
		return apply(ctx, txn, set)
	}
	return can
}

// pair opens two caches of one database; before runs before the second's part.
func pair(s *scene, before func()) (a, b *lockstep.Cache[string, int], table *memstore.Store[string, int]) {
	db := memstore.NewDatabase()
	table = memstore.New(memstore.Options[string, int]{Database: db})
	a = cachetest.Open[string, int](s.T, table, options{})
	b = cachetest.Open[string, int](s.T, slowApply{memstore.New(memstore.Options[string, int]{Database: db}), before}, options{})
	return a, b, table
}

func TestRerunsOfJointTransactionsAreNotCounted(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		a, b, table := pair(s, func() {})
		if _, err := a.Set(s.ctx, "k", 1); err != nil {
			t.Fatal(err)
		}
		runs := 0
		err := lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			value, err := a.In(tx).Get(ctx, "k")
			switch runs++; runs {
			case 1: // found by the database
				_, commit := table.Commit(ctx, []changeSet{{Changes: []change{{Key: "k", Value: 10}}}})
				err = errors.Join(err, commit)
			case 2: // found by memory
				_, set := a.Set(s.ctx, "k", 20)
				err = errors.Join(err, set)
			}
			return errors.Join(err, b.In(tx).Set(ctx, "k", value))
		})
		if value, _ := b.Get(s.ctx, "k"); err != nil || runs != 3 || value != 20 {
			t.Errorf("after %d runs %d is written: %v", runs, value, err)
		}
		if n := a.Stats().Reruns + b.Stats().Reruns; n != 2 {
			t.Errorf("%d reruns are counted, of 2", n)
		}
	})
}

func TestAJointTransactionBelievesARowThatEndedBeforeItsCommit(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		slow := true
		a, b, _ := pair(s, func() {
			if slow {
				slow = false
				time.Sleep(5 * time.Second) // the lock of a row, say; less than CommitTimeout
			}
		})
		if _, err := a.Set(s.ctx, "lease", 1, lockstep.Lifetime(time.Second)); err != nil {
			t.Fatal(err)
		}
		runs := 0
		errOver := errors.New("the lease is over")
		err := lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			runs++
			if _, err := a.In(tx).Get(ctx, "lease"); errors.Is(err, lockstep.ErrNotFound) {
				return errOver
			}
			return b.In(tx).Set(ctx, "k", 1)
		})
		if runs != 2 || !errors.Is(err, errOver) {
			t.Errorf("after %d runs: %v", runs, err)
		}
		if ok, _ := b.Exists(s.ctx, "k"); ok {
			t.Error("the row is written under a lease that was over")
		}
	})
}
