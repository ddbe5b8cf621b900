package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// One lock is held while the database works, so writes to different keys wait for
// each other, and reads for all of them.
func TestFault03OneLockDuringIO(t *testing.T) {
	during := func(tr *trial[int], call func() *pending[int]) error {
		if err := first(tr.behind("a", 1), tr.behind("b", 1), tr.get("a", 1), tr.get("b", 1)); err != nil {
			return err
		}
		commit := tr.store.Block(fault.BeforeCommit, "a")
		defer commit.Pass()
		writer := tr.startSet(tr.ctx, "a", 2)
		<-commit.Reached
		if other := call(); !tr.answers(other) {
			return errors.New("it waits for the commit of another key")
		} else if other.err != nil {
			return other.err
		}
		commit.Pass()
		<-writer.done
		return first(writer.err, tr.get("a", 2))
	}
	for _, c := range []struct {
		name string
		call func(tr *trial[int]) *pending[int]
	}{
		{"write of another key", func(tr *trial[int]) *pending[int] { return tr.startSet(tr.ctx, "b", 2) }},
		{"hit on another key", func(tr *trial[int]) *pending[int] { return tr.startGet("b") }},
		{"load of another key", func(tr *trial[int]) *pending[int] {
			return tr.start(func() (int, error) { return 0, ignore(lockstep.ErrNotFound)(tr.Get(tr.ctx, "c")) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			finds(t, setup[int]{inFlight: 2, outside: textbookOnly}, func(tr *trial[int]) error {
				return during(tr, func() *pending[int] { return c.call(tr) })
			})
		})
	}
}

// ignore takes one error for none.
func ignore(target error) func(int, error) error {
	return func(_ int, err error) error {
		if errors.Is(err, target) {
			return nil
		}
		return err
	}
}

// The version is compared in memory only: after an eviction every version
// matches.
func TestFault05VersionComparedInMemory(t *testing.T) {
	finds(t, setup[int]{}, func(tr *trial[int]) error {
		old, err := tr.set("k", 1)
		if _, again := tr.set("k", 2); first(err, again) != nil {
			return first(err, again)
		}
		tr.Invalidate("k") // as if it were evicted
		if _, err := tr.SetIfVersion(tr.ctx, "k", 3, old); !errors.Is(err, lockstep.ErrConflict) {
			return fmt.Errorf("a write that expects version %d over a newer row: %w", old, or(err, errNotRefused))
		}
		tr.Invalidate("k")
		if _, err := tr.SetIfAbsent(tr.ctx, "k", 3); !errors.Is(err, lockstep.ErrConflict) {
			return fmt.Errorf("a write that expects no row over one: %w", or(err, errNotRefused))
		}
		return tr.get("k", 2)
	})
}

func or(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// The version starts again at 1 after a reload or a retry, and after delete and
// re-create (ABA).
func TestFault06VersionStartsAgain(t *testing.T) {
	grows := func(between func(tr *trial[int]) error) func(tr *trial[int]) error {
		return func(tr *trial[int]) error {
			before, err := tr.set("k", 1, 2, 3)
			if err := first(err, between(tr)); err != nil {
				return err
			}
			after, err := tr.set("k", 4)
			if err == nil && after <= before {
				err = fmt.Errorf("version %d, and then %d", before, after)
			}
			return err
		}
	}
	t.Run("reload", func(t *testing.T) {
		finds(t, setup[int]{}, grows(func(tr *trial[int]) error {
			tr.Invalidate("k")
			return tr.get("k", 3)
		}))
	})
	t.Run("retry", func(t *testing.T) {
		finds(t, setup[int]{retrying: true}, grows(func(tr *trial[int]) error {
			tr.script("commit 1: fail")
			return nil
		}))
	})
	t.Run("delete and re-create", func(t *testing.T) {
		finds(t, setup[int]{}, grows(func(tr *trial[int]) error {
			_, err := tr.Delete(tr.ctx, "k")
			return err
		}))
	})
}

// A failed write may have been committed (the reply was lost): memory keeps the
// old value and serves it.
func TestFault08LostReply(t *testing.T) {
	t.Run("of a write", func(t *testing.T) {
		finds(t, setup[int]{}, func(tr *trial[int]) error {
			if _, err := tr.set("k", 1); err != nil {
				return err
			}
			tr.script("commit 1: lose reply")
			if _, err := tr.Set(tr.ctx, "k", 2); !errors.Is(err, lockstep.ErrUnknownOutcome) {
				return fmt.Errorf("a write whose reply was lost: %v", err)
			}
			return tr.get("k", 2)
		})
	})
	t.Run("of a deletion", func(t *testing.T) {
		finds(t, setup[int]{}, func(tr *trial[int]) error {
			if _, err := tr.set("k", 1); err != nil {
				return err
			}
			tr.script("commit 1: lose reply")
			if _, err := tr.Delete(tr.ctx, "k"); !errors.Is(err, lockstep.ErrUnknownOutcome) {
				return fmt.Errorf("a deletion whose reply was lost: %v", err)
			}
			if value, err := tr.Get(tr.ctx, "k"); !errors.Is(err, lockstep.ErrNotFound) {
				return fmt.Errorf("the deleted row is read: %d, %v", value, err)
			}
			return nil
		})
	})
}

// A partial failure in a batch leaves memory with what the database does not
// have.
func TestFault12PartialBatch(t *testing.T) {
	finds(t, setup[int]{}, func(tr *trial[int]) error {
		if _, err := tr.set("b", 1); err != nil {
			return err
		}
		tr.script("commit 1..: refuse")
		err := tr.SetMany(tr.ctx, map[string]int{"a": 2, "b": 2, "c": 2})
		if !errors.Is(err, lockstep.ErrInvalid) {
			return fmt.Errorf("a refused batch: %w", or(err, errNotRefused))
		}
		return first(tr.agrees("a", "b", "c"), tr.get("b", 1))
	})
}

// A transaction of two keys becomes visible one key at a time.
func TestFault13HalfATransaction(t *testing.T) {
	finds(t, setup[int]{}, func(tr *trial[int]) error {
		if err := first(tr.behind("ann", 100), tr.behind("bob", 0), tr.get("ann", 100)); err != nil {
			return err
		}
		// Lockstep stops with the transaction committed, and unknown to the cache.
		// The textbook stops before it reads the second row, to be able to roll back.
		committed := tr.store.Block(fault.AfterCommit, "bob")
		defer committed.Pass()
		between := tr.store.Block(fault.BeforeLoad, "bob")
		defer between.Pass()
		transfer := tr.start(func() (int, error) {
			return 0, tr.Transact(tr.ctx, func(ctx context.Context, tx transaction[int]) error {
				return first(tx.Set(ctx, "ann", 50), tx.Set(ctx, "bob", 50))
			})
		})
		select {
		case <-committed.Reached:
		case <-between.Reached:
			committed.Pass() // there a lock would be held
		}
		ann, err := tr.Get(tr.ctx, "ann")
		bob := tr.startGet("bob")
		tr.quiet()
		between.Pass()
		<-bob.done
		committed.Pass()
		<-transfer.done
		if err := first(err, bob.err, transfer.err); err != nil {
			return err
		}
		if ann+bob.value != 100 {
			return fmt.Errorf("a reader saw %d and %d", ann, bob.value)
		}
		return first(tr.get("ann", 50), tr.get("bob", 50))
	})
}

// Two writers with the same expected version both pass: check, then act.
func TestFault15CheckThenAct(t *testing.T) {
	finds(t, setup[int]{inFlight: 2}, func(tr *trial[int]) error {
		version, err := tr.set("k", 1)
		if err != nil {
			return err
		}
		one, two := tr.store.Block(fault.BeforeCommit, "k"), tr.store.Block(fault.BeforeCommit, "k")
		defer one.Pass()
		defer two.Pass()
		var writers []*pending[int]
		for i := range 2 {
			writers = append(writers, tr.start(func() (int, error) {
				_, err := tr.SetIfVersion(tr.ctx, "k", 10+i, version)
				return 10 + i, err
			}))
		}
		<-one.Reached
		tr.quiet()
		one.Pass()
		two.Pass()
		passed, value := 0, 0
		for _, w := range writers {
			<-w.done
			switch {
			case w.err == nil:
				passed, value = passed+1, w.value
			case !errors.Is(w.err, lockstep.ErrConflict):
				return w.err
			}
		}
		if passed != 1 {
			return fmt.Errorf("%d writers passed with one version", passed)
		}
		return tr.get("k", value)
	})
}
