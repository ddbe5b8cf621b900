package lockstep_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// oddTxns is a table whose transactions begin and end as the test says.
type oddTxns struct {
	*memstore.Store[string, int]
	begin    func(lockstep.Txn, error) (lockstep.Txn, error)
	rollback func()
}

type oddTxn struct {
	lockstep.Txn
	rollback func()
}

func (t oddTxn) Rollback(ctx context.Context) error {
	err := t.Txn.Rollback(ctx)
	if t.rollback != nil {
		t.rollback()
	}
	return err
}

func (s oddTxns) Capabilities() capability {
	can := s.Store.Capabilities()
	begin, apply := can.Begin, can.Apply
	can.Begin = func(ctx context.Context) (lockstep.Txn, error) {
		txn, err := begin(ctx)
		if s.begin != nil {
			return s.begin(txn, err)
		}
		return oddTxn{txn, s.rollback}, err
	}
	can.Apply = func(ctx context.Context, txn lockstep.Txn, set changeSet) (outcome, error) {
		return apply(ctx, txn.(oddTxn).Txn, set)
	}
	return can
}

// A transaction that is begun holds the database's locks. One who has the turn of its
// key, and waits for those, would be waited for in turn.
func TestABegunTransactionWaitsForTheTurnOfWhoWaitsForIt(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		start := time.Now()
		var update *call
		err := lockstep.Transact(s.ctx, func(_ context.Context, tx *lockstep.Tx) error {
			in := s.In(tx)
			if _, err := tx.Txn(); err != nil {
				return err
			}
			if update == nil {
				update = s.start(func() error {
					return second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return old + 1, nil }))
				})
				update.hangs()
			}
			return in.Set(s.ctx, "k", 1)
		})
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited > 100*time.Millisecond {
			t.Errorf("it has held the locks for %v", waited)
		}
		update.succeeds()
		s.reads("k", 2)
	})
}

// One cache is closed, and the rollback ends its goroutine: the other cache closes.
func TestARollbackThatEndsItsGoroutineKeepsACacheOpen(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		db := memstore.NewDatabase()
		open := func() *lockstep.Cache[string, int] {
			return cachetest.Open[string, int](s.T, oddTxns{Store: memstore.New(memstore.Options[string, int]{Database: db}), rollback: runtime.Goexit}, options{Logger: quiet})
		}
		a, b := open(), open()
		s.start(func() error {
			return lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				err := errors.Join(a.In(tx).Set(ctx, "k", 1), b.In(tx).Set(ctx, "k", 1))
				_, begun := tx.Txn()
				return errors.Join(err, begun, b.Close(s.ctx))
			})
		})
		synctest.Wait()
		if n := a.Stats().QueueLength; n != 0 {
			t.Errorf("QueueLength = %d", n)
		}
		ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
		defer cancel()
		if err := a.Close(ctx); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
}

// What came with an error is no transaction, also when the function asks again.
func TestATransactionThatCameWithAnError(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		refused := errors.New("refused")
		c := cachetest.Open[string, int](s.T, oddTxns{Store: memstore.New(memstore.Options[string, int]{}), begin: func(txn lockstep.Txn, err error) (lockstep.Txn, error) {
			txn.Rollback(s.ctx)
			return oddTxn{Txn: txn}, refused
		}}, options{Logger: quiet})
		err := lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			in := c.In(tx)
			for range 2 {
				if _, err := tx.Txn(); !errors.Is(err, refused) {
					t.Errorf("Txn = %v", err)
				}
			}
			return in.Set(ctx, "k", 1)
		})
		if err != nil {
			t.Errorf("Transact = %v", err)
		}
	})
}

// A call that comes after its Watch has returned does not count for the next one.
func TestAWatchThatTellsAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lateWatch{memstore.New(memstore.Options[string, int]{}), make(chan func(lockstep.Event[string]), 1), make(chan func(lockstep.Event[string]), 1), make(chan struct{})}
		c := cachetest.Open[string, int](t, s, options{Logger: quiet})
		late := <-s.first
		tell := <-s.second // so the first has returned
		late(lockstep.Event[string]{})
		forgets := func() {
			t.Helper()
			if _, err := c.Set(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
			if _, ok := c.Peek("k"); ok {
				t.Error("nobody watches, and memory keeps a row")
			}
		}
		forgets()
		tell(lockstep.Event[string]{})
		close(s.lose)
		synctest.Wait()
		forgets()
	})
}

type lateWatch struct {
	*memstore.Store[string, int]
	first, second chan func(lockstep.Event[string])
	lose          chan struct{}
}

func (s lateWatch) Capabilities() capability {
	can := s.Store.Capabilities()
	calls := 0
	can.Watch = func(ctx context.Context, f func(lockstep.Event[string])) error {
		switch calls++; calls {
		case 1:
			s.first <- f
			return nil
		case 2:
			s.second <- f
			select {
			case <-s.lose:
			case <-ctx.Done():
			}
			return nil
		}
		<-ctx.Done()
		return nil
	}
	return can
}
