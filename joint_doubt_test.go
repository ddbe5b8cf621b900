package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Joint transactions whose outcome nobody knows, and who may pass them.

// Until the commit is sent there is nothing to be unknown.
func TestAJointTransactionWhoseCallerLeavesBeforeItsCommitIsUnknown(t *testing.T) {
	for _, at := range []fault.Point{fault.BeforeBegin, fault.AfterBegin, fault.BeforeApply, fault.AfterApply} {
		inDuo(t, options{}, func(d *duo) {
			block := d.sa.Block(at)
			defer block.Pass()
			ctx, cancel := context.WithCancel(d.ctx)
			c := d.startSets(ctx, "k", 1)
			<-block.Reached
			cancel()
			d.notApplied(c.returned(), context.Canceled)
			block.Pass()
			if err := d.sets(d.ctx, "k", 2); err != nil {
				t.Errorf("the next transaction: %v", err)
			}
			d.hold("k", 2)
			if n := d.a.Stats(); n.Unknown != 0 || n.Abandoned != 1 || n.QueueLength != 0 {
				t.Errorf("%d unknown, %d abandoned, %d in the queue", n.Unknown, n.Abandoned, n.QueueLength)
			}
		})
	}
}

// A store that does not come back, and does not look at its context either.
func TestAJointTransactionThatIsOverdueBeforeItsCommitIsSentAfterAll(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		a, b, _ := pair(s, func() { time.Sleep(20 * time.Second) })
		began := time.Now()
		err := lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			return errors.Join(a.In(tx).Set(ctx, "k", 1), b.In(tx).Set(ctx, "k", 1))
		})
		s.notApplied(err, lockstep.ErrUnavailable)
		if took := time.Since(began); took != 11250*time.Millisecond {
			t.Errorf("the caller was answered after %v", took)
		}
		time.Sleep(time.Minute)
		if ok, err := b.Exists(s.ctx, "k"); ok || err != nil {
			t.Errorf("the row is written: %v", err)
		}
	})
}

// The caller has been told that nobody knows. It writes the key again, is told
// that this is committed, and reads the old one.
func TestAWritePassesAJointTransactionInDoubt(t *testing.T) {
	inDuo(t, options{}, func(d *duo) {
		commit := d.sa.Block(fault.BeforeCommit)
		defer commit.Pass()
		ctx, cancel := context.WithCancel(d.ctx)
		c := d.startSets(ctx, "k", 1)
		<-commit.Reached
		cancel()
		w := d.unknown(c.returned(), context.Canceled)
		writes := []*call{
			d.start(func() error { return second(d.a.Set(d.ctx, "k", 7)) }),
			d.start(func() error { return second(d.b.Set(d.ctx, "k", 7)) }),
		}
		for _, write := range writes {
			write.hangs()
		}
		commit.Pass()
		d.settles(w, true)
		for _, write := range writes {
			write.succeeds()
		}
		d.hold("k", 7)
	})
}

func TestAJointTransactionPassesAnotherInDoubt(t *testing.T) {
	inDuo(t, options{}, func(d *duo) {
		d.sa.Play(fault.MustParse("commit 1: lose reply; settle 1..5: fail"))
		w := d.unknown(d.sets(d.ctx, "k", 1))
		next := d.startSets(d.ctx, "k", 2)
		next.hangs()
		if n := d.a.Stats(); n.InDoubt != 1 || n.QueueLength != 1 {
			t.Errorf("%d in doubt, %d in the queue", n.InDoubt, n.QueueLength)
		}
		d.settles(w, true)
		next.succeeds()
		d.hold("k", 2)
		if n := d.a.Stats().InDoubt; n != 0 {
			t.Errorf("%d in doubt", n)
		}
	})
}

// besides opens a cache over the store, and another one over the same database.
func besides(s *scene, over func(*memstore.Store[string, int]) store) (a, b *lockstep.Cache[string, int]) {
	db := memstore.NewDatabase()
	open := func() *memstore.Store[string, int] {
		return memstore.New(memstore.Options[string, int]{Database: db})
	}
	return openOver(s, over(open())), openOver(s, open())
}

// A batch's write is in doubt, and not fenced.
func TestAJointTransactionPassesAWriteInDoubt(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		var fenced atomic.Bool
		var late *tardy
		a, b := besides(s, func(table *memstore.Store[string, int]) store {
			late = newTardy(table, func(context.Context, error) (settlement, error) {
				if !fenced.Load() {
					return settlement{}, errors.New("the session is not gone yet")
				}
				return settlement{Applied: true}, nil
			})
			return late
		})
		both := func(value int) error {
			return lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return errors.Join(a.In(tx).Set(ctx, "k", value), b.In(tx).Set(ctx, "k", value))
			})
		}
		w := s.unknown(second(a.Set(s.ctx, "k", 1)))
		s.notApplied(both(6), lockstep.ErrUnavailable)
		next := s.start(func() error { return both(7) })
		next.hangs()
		late.arrive(s)
		fenced.Store(true)
		s.settles(w, true)
		next.succeeds()
		if got, err := a.Get(s.ctx, "k"); got != 7 {
			t.Errorf("Get(k) = %d, %v", got, err)
		}
	})
}

// The same, while the caller of the write has left and the store works on it.
func TestAJointTransactionPassesAWriteWhoseCallerHasLeft(t *testing.T) {
	inDuo(t, options{}, func(d *duo) {
		commit := d.sa.Block(fault.BeforeCommit)
		defer commit.Pass()
		ctx, cancel := context.WithCancel(d.ctx)
		left := d.start(func() error { return second(d.a.Set(ctx, "k", 1)) })
		<-commit.Reached
		cancel()
		d.unknown(left.returned())
		next := d.startSets(d.ctx, "k", 2)
		next.hangs()
		commit.Pass()
		next.succeeds()
		d.hold("k", 2)
	})
}

// unsettleable loses the reply of every joint commit, and cannot settle it.
type unsettleable struct{ lockstep.Txn }

func (x unsettleable) Commit(ctx context.Context) error {
	return errors.Join(x.Txn.Commit(ctx), errLost)
}

func (unsettleable) Settle(context.Context) (bool, error) {
	return false, fmt.Errorf("%w: sessions cannot be ended here", lockstep.ErrUnsupported)
}

func withoutTxnSettle(inner store) store {
	return altered{store: inner, can: func(c *capability) {
		begin, apply := c.Begin, c.Apply
		c.Begin = func(ctx context.Context) (lockstep.Txn, error) {
			x, err := begin(ctx)
			return unsettleable{x}, err
		}
		c.Apply = func(ctx context.Context, x lockstep.Txn, set changeSet) (outcome, error) {
			return apply(ctx, x.(unsettleable).Txn, set)
		}
	}}
}

// Each waited for the other's Close, one after the other.
func TestClosingOneOfTwoCachesWaitsForTheOther(t *testing.T) {
	for _, first := range []string{"a", "b"} {
		inBubble(t, options{}, func(s *scene) {
			db := memstore.NewDatabase()
			caches := make(map[string]*lockstep.Cache[string, int])
			for _, name := range []string{"a", "b"} {
				table := withoutTxnSettle(memstore.New(memstore.Options[string, int]{Database: db}))
				caches[name] = cachetest.Open(s.T, table, options{Logger: quiet})
			}
			w := s.unknown(lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return errors.Join(caches["a"].In(tx).Set(ctx, "k", 1), caches["b"].In(tx).Set(ctx, "k", 1))
			}))
			closing := caches[first]
			delete(caches, first)
			parked := s.start(func() error { return second(closing.Set(s.ctx, "k", 2)) })
			parked.hangs()
			if err := s.start(func() error { return closing.Close(s.ctx) }).returned(); err != nil {
				t.Errorf("Close: %v", err)
			}
			s.notApplied(parked.returned(), lockstep.ErrClosed)
			for _, other := range caches {
				// Its keys are still in doubt.
				s.notApplied(second(other.Set(s.ctx, "k", 3)), lockstep.ErrUnavailable)
				if err := s.start(func() error { return other.Close(s.ctx) }).returned(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			if _, _, err := w.Wait(s.ctx); !errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("Wait: %v", err)
			}
		})
	}
}

// A cache whose Close has run out of time tells the transaction's caller,
// whichever of the caches it is.
func TestCloseOfOneOfTwoCachesTellsTheCallerNothing(t *testing.T) {
	for _, at := range []fault.Point{fault.BeforeCommit, fault.BeforeBegin} {
		inDuo(t, options{}, func(d *duo) {
			d.sa.Play(fault.MustParse("commit *: latency 1ms"))
			block := d.sa.Block(at)
			defer block.Pass()
			c := d.startSets(d.ctx, "k", 1)
			<-block.Reached
			ctx, cancel := context.WithTimeout(d.ctx, time.Second)
			defer cancel()
			if err := d.b.Close(ctx); err == nil {
				t.Error("Close had all the time it needed")
			}
			if err := c.returned(); at == fault.BeforeCommit {
				d.unknown(err)
			} else {
				d.notApplied(err, lockstep.ErrClosed)
			}
		})
	}
}
