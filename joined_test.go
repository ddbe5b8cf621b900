package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A store may read other caches in its Load, also when the load was begun by a
// transaction; and a reader who shares that load has no transaction.
func TestALoadIsNotInTheTransactionOfWhoBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tenants := cachetest.Open(t, lockstep.FromFunc(func(context.Context, string) (int, error) { return 1, nil }), options{})
		table := memstore.New(memstore.Options[string, int]{})
		entered, pass := make(chan struct{}, 10), make(chan struct{})
		c := cachetest.Open[string, int](t, altered{store: table, load: func(ctx context.Context, keys []string) (map[string]row, error) {
			entered <- struct{}{}
			<-pass
			if _, err := tenants.Get(ctx, "tenant"); err != nil {
				return nil, err
			}
			return table.Load(ctx, keys)
		}}, options{})
		tx := make(chan error, 1)
		go func() {
			tx <- lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
				_, err := c.In(tx).Get(ctx, "k")
				return err
			})
		}()
		<-entered
		plain := make(chan error, 1)
		go func() { plain <- second(c.Get(context.Background(), "k")) }()
		synctest.Wait()
		close(pass)
		if err := <-tx; !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("In(tx).Get: %v", err)
		}
		if err := <-plain; !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("a Get without any transaction: %v", err)
		}
	})
}

func TestALoadThatIsJoinedIsNotOlderThanTTL(t *testing.T) {
	inBubble(t, options{TTL: time.Second}, func(s *scene) {
		s.behind("k", 1)
		b := s.store.Block(fault.AfterLoad)
		defer b.Pass()
		slow := s.startGet(s.ctx, "k")
		<-b.Reached
		s.behind("k", 2)
		time.Sleep(time.Hour)
		var got int
		late := s.start(func() (err error) { got, err = s.Get(s.ctx, "k"); return err })
		synctest.Wait()
		b.Pass()
		slow.succeeds()
		late.succeeds()
		if got != 2 {
			t.Errorf("the change is an hour old, TTL is a second, and Get says %d", got)
		}
	})
}
