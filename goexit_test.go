package lockstep_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// What is left behind by code that ends the goroutine it runs on, as t.FailNow
// does. The code is a store's or the program's; the goroutine may be ours.

// exiting is a store whose next calls end their goroutine.
type exiting struct {
	store
	load, commit, committed, settle atomic.Bool
}

func exits(flag *atomic.Bool) {
	if flag.Swap(false) {
		runtime.Goexit()
	}
}

func (e *exiting) Load(ctx context.Context, keys []string) (map[string]row, error) {
	exits(&e.load)
	return e.store.Load(ctx, keys)
}

// inExitingBubble plays a scene over such a store.
func inExitingBubble(t *testing.T, o options, play func(s *scene, e *exiting)) {
	t.Helper()
	e := &exiting{}
	around := func(inner *fault.Store[string, int]) store {
		e.store = inner
		return e
	}
	inBubbleOver(t, o, around, func(s *scene) { play(s, e) })
}

func TestALoadThatEndsItsGoroutineLeavesItsKeyWaiting(t *testing.T) {
	var heard atomic.Value
	hooks := lockstep.Hooks[string]{Load: func(e lockstep.LoadEvent[string]) {
		if e.Err != nil {
			heard.Store(e.Err)
		}
	}}
	inExitingBubble(t, options{Hooks: hooks}, func(s *scene, e *exiting) {
		s.behind("k", 1)
		e.load.Store(true)
		load := s.store.Block(fault.BeforeLoad)
		load.Pass()
		many := s.start(func() error { return second(s.GetMany(s.ctx, []string{"k", "l"})) })
		if err := many.returned(); err == nil || !strings.Contains(err.Error(), "Goexit") {
			t.Errorf("GetMany: %v", err)
		}
		if err, _ := heard.Load().(error); err == nil || s.Stats().LoadErrors != 1 {
			t.Errorf("the hook heard of %v, and %d loads have failed", err, s.Stats().LoadErrors)
		}
		s.startGet(s.ctx, "k").succeeds()
		s.remembers("k", 1)
	})
}

// Those who wait for the load after it get that one.
func TestALoadThatEndsItsGoroutineTakesTheNextOneWithIt(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		started, release := make(chan struct{}), make(chan struct{})
		first := true
		c := cachetest.Open(s.T, lockstep.FromFunc(func(context.Context, string) (int, error) {
			if first {
				first = false
				close(started)
				<-release
				runtime.Goexit()
			}
			return 7, nil
		}), options{Logger: quiet})
		one := s.start(func() error { return second(c.Get(s.ctx, "k")) })
		<-started
		c.Invalidate("k")
		two := s.start(func() error { return second(c.Get(s.ctx, "k")) })
		two.hangs()
		close(release)
		if err := one.returned(); err == nil {
			t.Error("a load that ended its goroutine has a value")
		}
		if err := two.returned(); err != nil {
			t.Errorf("Get: %v", err)
		}
	})
}

func TestACloneThatEndsItsGoroutineLeavesTheKeyOfALoadWaiting(t *testing.T) {
	var next atomic.Bool
	clone := func(v int) int { exits(&next); return v }
	inBubble(t, options{Clone: clone}, func(s *scene) {
		s.behind("k", 1)
		next.Store(true)
		if err := s.startGet(s.ctx, "k").returned(); err == nil {
			t.Error("the read has a value")
		}
		s.startGet(s.ctx, "k").succeeds()
	})
}

// The reader's own goroutine is ended by a hook, after others have begun to wait
// for its load.
func TestAMissHookThatEndsItsReaderLeavesTheKeyWaiting(t *testing.T) {
	var next atomic.Bool
	for _, many := range []bool{false, true} {
		inBubble(t, options{Hooks: lockstep.Hooks[string]{Miss: func(string) { exits(&next) }}}, func(s *scene) {
			s.behind("k", 1)
			next.Store(true)
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				if many {
					_, _ = s.GetMany(s.ctx, []string{"k"})
				} else {
					_, _ = s.Get(s.ctx, "k")
				}
			}()
			<-gone
			if err := s.startGet(s.ctx, "k").returned(); err != nil {
				t.Errorf("Get: %v", err)
			}
		})
	}
}

func (e *exiting) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	exits(&e.commit)
	outcomes, err := e.store.Commit(ctx, sets)
	exits(&e.committed)
	return outcomes, err
}

func (e *exiting) Capabilities() capability {
	can := e.store.Capabilities()
	settle := can.Settle
	can.Settle = func(ctx context.Context, err error) (settlement, error) {
		exits(&e.settle)
		return settle(ctx, err)
	}
	return can
}

func TestACommitThatEndsItsGoroutineStopsTheQueue(t *testing.T) {
	for _, before := range []bool{true, false} {
		inExitingBubble(t, options{}, func(s *scene, e *exiting) {
			s.write("k", 1)
			e.commit.Store(before)
			e.committed.Store(!before)
			e.settle.Store(true)
			w := s.unknown(s.startSet(s.ctx, "k", 2).returned())
			s.startSet(s.ctx, "other", 3).succeeds()
			if _, _, err := w.Wait(s.ctx); !errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("Wait: %v", err)
			}
			s.reads("k", s.row("k").Value)
			s.write("k", 4)
		})
	}
}

func TestACloneThatEndsItsGoroutineLeavesACommittedKeyBusy(t *testing.T) {
	var calls atomic.Int64
	clone := func(v int) int {
		if calls.Add(1) == 1 {
			runtime.Goexit()
		}
		return v
	}
	inBubble(t, options{Clone: clone}, func(s *scene) {
		s.startSet(s.ctx, "k", 1).succeeds()
		s.startSet(s.ctx, "k", 2).succeeds()
		s.reads("k", 2)
	})
}

func TestAHookThatEndsItsGoroutineSilencesTheOthers(t *testing.T) {
	var next atomic.Bool
	var heard atomic.Int64
	hooks := lockstep.Hooks[string]{
		Pending:      func(lockstep.WriteEvent[string]) { exits(&next) },
		Synchronized: func(lockstep.WriteEvent[string]) { heard.Add(1) },
	}
	inBubble(t, options{Hooks: hooks}, func(s *scene) {
		next.Store(true)
		s.write("k", 1)
		s.write("k", 2)
		synctest.Wait()
		if heard.Load() != 2 {
			t.Errorf("the hooks heard of %d writes of 2", heard.Load())
		}
	})
}

// exitingTxns is a store whose joint transactions end their goroutine.
type exitingTxns struct {
	store
	apply, commit *atomic.Bool
}

type exitingTxn struct {
	lockstep.Txn
	commit *atomic.Bool
}

func (x exitingTxn) Commit(ctx context.Context) error {
	exits(x.commit)
	return x.Txn.Commit(ctx)
}

func (e exitingTxns) Capabilities() capability {
	can := e.store.Capabilities()
	begin, apply := can.Begin, can.Apply
	can.Begin = func(ctx context.Context) (lockstep.Txn, error) {
		txn, err := begin(ctx)
		return exitingTxn{txn, e.commit}, err
	}
	can.Apply = func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
		exits(e.apply)
		return apply(ctx, txn.(exitingTxn).Txn, set)
	}
	return can
}

// The database's write lock is among what it must not keep.
func TestAJointTransactionThatEndsItsGoroutineKeepsItsKeysBusy(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		db := memstore.NewDatabase()
		var apply, commit atomic.Bool
		open := func() *lockstep.Cache[string, int] {
			return cachetest.Open[string, int](s.T, exitingTxns{memstore.New(memstore.Options[string, int]{Database: db}), &apply, &commit}, options{Logger: quiet})
		}
		a, b := open(), open()
		both := func(value int) *call {
			return s.start(func() error {
				return lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
					return errors.Join(a.In(tx).Set(ctx, "k", value), b.In(tx).Set(ctx, "k", value))
				})
			})
		}
		apply.Store(true)
		s.notApplied(both(1).returned(), lockstep.ErrUnavailable)
		commit.Store(true)
		s.settles(s.unknown(both(2).returned()), false)
		both(3).succeeds()
		if value, err := b.Get(s.ctx, "k"); value != 3 || err != nil {
			t.Errorf("Get = %d, %v", value, err)
		}
	})
}

// exitingRollback is a transaction whose Rollback ends its goroutine, once it has rolled
// back.
type exitingRollback struct{ lockstep.Txn }

func (t exitingRollback) Rollback(ctx context.Context) error {
	_ = t.Txn.Rollback(ctx)
	runtime.Goexit()
	return nil
}

func TestARollbackThatEndsItsGoroutineDoesNotEndItsCallers(t *testing.T) {
	around := func(inner *fault.Store[string, int]) store {
		return altered{store: inner, can: func(c *capability) {
			begin := c.Begin
			c.Begin = func(ctx context.Context) (lockstep.Txn, error) {
				txn, err := begin(ctx)
				return exitingRollback{txn}, err
			}
		}}
	}
	inBubbleOver(t, options{}, around, func(s *scene) {
		refused := errors.New("insufficient funds")
		call := s.start(func() error {
			return lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				if err := s.In(tx).Set(ctx, "k", 1); err != nil {
					return err
				}
				if _, err := tx.Txn(); err != nil {
					return err
				}
				return refused
			})
		})
		s.notApplied(call.wait(), refused, lockstep.ErrUnavailable)
		s.notStored("k")
	})
}
