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

// Another process has paid 100 into the account, an hour ago.
func TestTransactSaysInsufficientFundsOfABalanceThatIsNotThere(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		errFunds := errors.New("insufficient funds")
		withdraw := func(tx lockstep.InTx[string, int]) error {
			balance, err := tx.Get(s.ctx, "balance")
			if err == nil && balance < 50 {
				err = errFunds
			}
			return err
		}
		s.write("balance", 1)
		s.notApplied(transact(s, withdraw), errFunds)
		s.behind("balance", 100)
		time.Sleep(time.Hour)
		if err := transact(s, withdraw); err != nil {
			t.Errorf("Transact: %v", err)
		}
		s.remembers("balance", 100)
		s.behind("balance", 200)
		var seen int
		read := func(tx lockstep.InTx[string, int]) (err error) {
			seen, err = tx.Get(s.ctx, "balance")
			return err
		}
		if err := transact(s, read); err != nil || seen != 200 {
			t.Errorf("Transact read %d, %v", seen, err)
		}
		s.Invalidate("balance")
		if n := s.loads(func() { _ = transact(s, read) }); n != 1 {
			t.Errorf("a row that was loaded for the transaction is loaded %d times", n)
		}
		s.script("load *: fail")
		s.notApplied(transact(s, withdraw), lockstep.ErrUnavailable)
	})
}

// A load that began before the transaction may have read the row before somebody
// else has changed it.
func TestATransactionReportsWhatALoadBeforeItHasRead(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		load := s.store.Block(fault.AfterLoad)
		defer load.Pass()
		reader := s.startGet(s.ctx, "k")
		<-load.Reached
		s.behind("k", 2)
		var seen int
		tx := s.start(func() error {
			return transact(s, func(tx lockstep.InTx[string, int]) (err error) {
				seen, err = tx.Get(s.ctx, "k")
				return err
			})
		})
		tx.hangs()
		load.Pass()
		reader.succeeds()
		tx.succeeds()
		if seen != 2 {
			t.Errorf("the transaction reports %d, which was over before it began", seen)
		}
	})
}
