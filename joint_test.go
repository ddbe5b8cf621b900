package lockstep_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Transactions of two caches.

// A duo is two caches over one database, each behind faults of its own.
type duo struct {
	*scene
	a, b   *lockstep.Cache[string, int]
	sa, sb *fault.Store[string, int]
}

// inDuo plays a scene with such caches.
func inDuo(t *testing.T, o options, play func(d *duo)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := &duo{scene: newScene(t, o, nil)}
		db := memstore.NewDatabase()
		open := func() (*lockstep.Cache[string, int], *fault.Store[string, int]) {
			s := fault.Inject(memstore.New(memstore.Options[string, int]{Database: db}), fault.Script{}, 1)
			o.Logger = quiet
			return cachetest.Open(t, store(s), o), s
		}
		d.a, d.sa = open()
		d.b, d.sb = open()
		play(d)
	})
}

// sets writes a row in each of the two caches, in one transaction.
func (d *duo) sets(ctx context.Context, key string, value int) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		return errors.Join(d.a.In(tx).Set(ctx, key, value), d.b.In(tx).Set(ctx, key, value))
	})
}

// startSets does so beside the test.
func (d *duo) startSets(ctx context.Context, key string, value int) *call {
	return d.start(func() error { return d.sets(ctx, key, value) })
}

// hold says what both caches hold, as their readers see it.
func (d *duo) hold(key string, want int) {
	d.Helper()
	for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
		if got, err := c.Get(context.Background(), key); got != want || err != nil {
			d.Errorf("Get(%s) = %d, %v, want %d", key, got, err, want)
		}
	}
}

func (d *duo) holdNothing(key string) {
	d.Helper()
	for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
		if got, err := c.Get(context.Background(), key); !errors.Is(err, lockstep.ErrNotFound) {
			d.Errorf("Get(%s) = %d, %v, want ErrNotFound", key, got, err)
		}
	}
}

func TestAJointTransactionWhoseContextEndedInItsFunctionIsCommitted(t *testing.T) {
	inDuo(t, options{}, func(d *duo) {
		d.sa.Play(fault.MustParse("begin *: latency 1ms"))
		ctx, cancel := context.WithCancel(d.ctx)
		err := lockstep.Transact(ctx, func(_ context.Context, tx *lockstep.Tx) error {
			cancel()
			return errors.Join(d.a.In(tx).Set(d.ctx, "k", 1), d.b.In(tx).Set(d.ctx, "k", 1))
		})
		d.notApplied(err, context.Canceled)
		time.Sleep(time.Minute)
		d.holdNothing("k")
	})
}

func TestJointTransactionsHaveNoQueueLimit(t *testing.T) {
	inDuo(t, options{QueueLimit: 2}, func(d *duo) {
		begin := d.sa.Block(fault.BeforeBegin)
		defer begin.Pass()
		first := d.startSets(d.ctx, "a", 1)
		<-begin.Reached
		second := d.sa.Block(fault.BeforeBegin)
		defer second.Pass()
		next := d.startSets(d.ctx, "b", 1)
		<-second.Reached
		for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
			if n := c.Stats().QueueLength; n != 2 {
				t.Errorf("QueueLength = %d", n)
			}
		}
		err := d.sets(d.ctx, "c", 1)
		d.notApplied(err, lockstep.ErrUnavailable)
		if !strings.Contains(err.Error(), "QueueLimit") {
			t.Errorf("the error does not name the limit: %v", err)
		}
		begin.Pass()
		second.Pass()
		first.succeeds()
		next.succeeds()
		if err := d.sets(d.ctx, "c", 1); err != nil {
			t.Errorf("with room in the queue: %v", err)
		}
		d.hold("c", 1)
	})
}

func TestJointCommitsAreNotMeasured(t *testing.T) {
	inDuo(t, options{}, func(d *duo) {
		d.sa.Play(fault.MustParse("commit 1: latency 1s"))
		if err := d.sets(d.ctx, "k", 1); err != nil {
			t.Fatal(err)
		}
		n := d.a.Stats()
		for name, l := range map[string]lockstep.Latency{"commits": n.CommitLatency, "writes": n.WriteLatency} {
			if l.Count != 1 || l.Max < time.Second {
				t.Errorf("latency of %s: %+v", name, l)
			}
		}
	})
}

func TestACommitUnderWayUndoesWhatAJointTransactionHasValidated(t *testing.T) {
	inDuo(t, options{}, func(d *duo) {
		reply := d.sa.Block(fault.AfterCommit, "k")
		defer reply.Pass()
		write := d.start(func() error { return second(d.a.Set(d.ctx, "k", 8)) })
		<-reply.Reached
		other := openOver(d.scene, d.sa) // somebody else, at the same table
		if _, err := other.Set(d.ctx, "k", 9); err != nil {
			t.Fatal(err)
		}
		var seen int
		if err := lockstep.Transact(d.ctx, func(ctx context.Context, tx *lockstep.Tx) (err error) {
			seen, err = d.a.In(tx).Get(ctx, "k")
			return errors.Join(err, d.b.In(tx).Set(ctx, "j", seen))
		}); err != nil || seen != 9 {
			t.Fatalf("Transact saw %d, %v", seen, err)
		}
		reply.Pass()
		write.succeeds()
		if got, err := d.a.Get(d.ctx, "k"); got != 9 {
			t.Errorf("Get(k) = %d, %v", got, err)
		}
	})
}
