package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Transactions of one cache.

// Nothing has been sent, and nothing need be.
func TestATransactionWhoseContextEndedInItsFunctionIsCommitted(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("commit *: latency 1ms")
		ctx, cancel := context.WithCancel(s.ctx)
		err := lockstep.Transact(ctx, func(_ context.Context, tx *lockstep.Tx) error {
			cancel()
			return s.In(tx).Set(s.ctx, "k", 1)
		})
		s.notApplied(err, context.Canceled)
		time.Sleep(time.Minute)
		s.notStored("k")
	})
}

// The database goes on with what it was asked, and has nothing to tell.
func TestAReaderWhoLeavesATransactionIsToldOfTheDatabase(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("a", 1)
		s.write("b", 1)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		ctx, cancel := context.WithCancel(s.ctx)
		reader := s.start(func() error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return errors.Join(second(s.In(tx).Get(ctx, "a")), second(s.In(tx).Get(ctx, "b")))
			})
		})
		<-commit.Reached
		cancel()
		err := reader.returned()
		s.notApplied(err, context.Canceled)
		if errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("its own leaving is %v", err)
		}
	})
}

func TestAConflictOfATransactionIsNoConflictError(t *testing.T) {
	for _, known := range []bool{false, true} {
		inBubble(t, options{}, func(s *scene) {
			n := 0
			err := transact(s, func(tx lockstep.InTx[string, int]) error {
				v, _ := tx.Get(s.ctx, "k")
				if n++; known {
					s.write("k", n)
				} else {
					s.behind("k", n)
				}
				return tx.Set(s.ctx, "k", v+1)
			})
			s.notApplied(err, lockstep.ErrConflict)
			var c *lockstep.ConflictError
			if !errors.As(err, &c) || c.Key != "k" || !c.Exists || c.Version != s.row("k").Version {
				t.Errorf("the error carries %+v: %v", c, err)
			}
		})
	}
}

func TestATransactionThatFailedIsCountedAsCommitted(t *testing.T) {
	inDuo(t, options{}, func(d *duo) {
		errFunds := errors.New("insufficient funds")
		err := transact(d.scene, func(tx lockstep.InTx[string, int]) error {
			_, _ = tx.Get(d.ctx, "a")
			_, _ = tx.Get(d.ctx, "b")
			return errFunds
		})
		d.notApplied(err, errFunds)
		err = lockstep.Transact(d.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			_, _ = d.a.In(tx).Get(ctx, "a")
			_, _ = d.b.In(tx).Get(ctx, "b")
			return errFunds
		})
		d.notApplied(err, errFunds)
		for _, c := range []*lockstep.Cache[string, int]{d.Cache, d.a, d.b} {
			if n := c.Stats(); n.Transactions != 0 || n.Committed != 0 {
				t.Errorf("Transactions = %d, Committed = %d", n.Transactions, n.Committed)
			}
		}
	})
}

func TestATransactionThatWasSettledIsNotCounted(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("commit 1: lose reply")
		w := s.unknown(transact(s, func(tx lockstep.InTx[string, int]) error { return tx.Set(s.ctx, "a", 1) }))
		s.settles(w, true)
		if n := s.Stats().Transactions; n != 1 {
			t.Errorf("Transactions = %d after one that was committed", n)
		}
	})
}

// Validating is observing, and observing counts as acknowledging.
func TestACommitUnderWayUndoesWhatATransactionHasValidated(t *testing.T) {
	inBubble(t, options{Batch: lockstep.Batch{InFlight: 2}}, func(s *scene) {
		s.behind("j", 1)
		reply := s.store.Block(fault.AfterCommit, "k")
		defer reply.Pass()
		write := s.startSet(s.ctx, "k", 8)
		<-reply.Reached
		s.behind("k", 9)
		var seen int
		if err := transact(s, func(tx lockstep.InTx[string, int]) (err error) {
			seen, err = tx.Get(s.ctx, "k")
			return errors.Join(err, second(tx.Get(s.ctx, "j")))
		}); err != nil || seen != 9 {
			t.Fatalf("Transact saw %d, %v", seen, err)
		}
		reply.Pass()
		write.succeeds()
		s.reads("k", 9)
	})
}
