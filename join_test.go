package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Transactions that the program began, and that caches have joined.

// programTx is such a transaction, as a driver gives it to a program: whoever ends it
// second is told that it is done.
type programTx struct {
	inner lockstep.Txn

	mu   sync.Mutex
	done bool
}

var errDone = errors.New("the transaction has already been committed or rolled back")

func (p *programTx) end(f func(context.Context) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return errDone
	}
	p.done = true
	return f(context.Background())
}

func (p *programTx) Commit() error   { return p.end(p.inner.Commit) }
func (p *programTx) Rollback() error { return p.end(p.inner.Rollback) }

// joinedTxn is what a store's Join makes of it.
type joinedTxn struct{ p *programTx }

func (t joinedTxn) Commit(context.Context) error   { return unknownIfDone(t.p.Commit()) }
func (t joinedTxn) Rollback(context.Context) error { return unknownIfDone(t.p.Rollback()) }
func (t joinedTxn) Settle(ctx context.Context) (bool, error) {
	t.p.Rollback()
	return t.p.inner.Settle(ctx)
}

func unknownIfDone(err error) error {
	if errors.Is(err, errDone) {
		return fmt.Errorf("%w: %w", lockstep.ErrUnknownOutcome, err)
	}
	return err
}

// joinable is a store that takes such transactions.
func joinable(inner store) altered {
	return altered{store: inner, can: func(c *capability) {
		apply, read := c.Apply, c.Read
		c.Apply = func(ctx context.Context, t lockstep.Txn, set changeSet) (outcome, error) {
			return apply(ctx, t.(joinedTxn).p.inner, set)
		}
		c.Read = func(ctx context.Context, t lockstep.Txn, keys []string) (map[string]row, error) {
			return read(ctx, t.(joinedTxn).p.inner, keys)
		}
	}}
}

// inJoin plays a scene with two caches that can join a transaction.
func inJoin(t *testing.T, o options, play func(d *duo)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := &duo{scene: newScene(t, o, nil)}
		db := memstore.NewDatabase()
		o.Logger = quiet
		open := func() (*lockstep.Cache[string, int], *fault.Store[string, int]) {
			s := fault.Inject(memstore.New(memstore.Options[string, int]{Database: db}), fault.Script{}, 1)
			return cachetest.Open(t, store(joinable(s)), o), s
		}
		d.a, d.sa = open()
		d.b, d.sb = open()
		for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
			if _, err := c.Set(d.ctx, "k", 1); err != nil {
				t.Fatal(err)
			}
		}
		play(d)
	})
}

func (d *duo) beginJoined(options ...lockstep.JoinOption) (*programTx, *lockstep.Joined) {
	d.Helper()
	can := d.sa.Capabilities()
	txn, err := can.Begin(d.ctx)
	if err != nil {
		d.Fatal(err)
	}
	p := &programTx{inner: txn}
	j, err := lockstep.Join(can.Database, joinedTxn{p}, options...)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { p.Rollback() })
	return p, j
}

// in is a cache in a joined transaction.
func in(d *duo, c *lockstep.Cache[string, int], j *lockstep.Joined) lockstep.InJoined[string, int] {
	d.Helper()
	u, err := c.InJoined(j)
	if err != nil {
		d.Fatal(err)
	}
	return u
}

// joined begins a transaction in which both caches have written.
func (d *duo) joined(key string, value int, options ...lockstep.JoinOption) (*programTx, *lockstep.Joined) {
	d.Helper()
	p, j := d.beginJoined(options...)
	for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
		if _, err := in(d, c, j).Set(d.ctx, key, value); err != nil {
			d.Fatalf("Set in the transaction: %v", err)
		}
	}
	return p, j
}

// asks says that no cache answers for the key from memory, nor keeps what it reads, and
// what it reads.
func (d *duo) asks(key string, want int) {
	d.Helper()
	for range 2 {
		d.hold(key, want)
		for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
			if got, ok := c.Peek(key); ok {
				d.Errorf("memory says %s = %d, and should not answer", key, got)
			}
		}
	}
}

// settledTo says that memory works again for the key.
func (d *duo) settledTo(key string, want int) {
	d.Helper()
	d.hold(key, want)
	for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
		if got, ok := c.Peek(key); got != want || !ok {
			d.Errorf("memory says %s = %d, %v, want %d", key, got, ok, want)
		}
		if n := c.Stats(); n.InDoubt != 0 || n.QueueLength != 0 {
			d.Errorf("%d in doubt, %d in the queue", n.InDoubt, n.QueueLength)
		}
	}
}

func TestAJoinedTransactionCommits(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.beginJoined()
		a, b := in(d, d.a, j), in(d, d.b, j)
		if got, err := a.Get(d.ctx, "k"); got != 1 || err != nil {
			t.Errorf("Get = %d, %v", got, err)
		}
		version, err := a.Set(d.ctx, "k", 2)
		if err != nil {
			t.Fatal(err)
		}
		if existed, err := b.Delete(d.ctx, "k"); !existed || err != nil {
			t.Errorf("Delete = %v, %v", existed, err)
		}
		if _, err := b.Set(d.ctx, "k", 2, lockstep.IfAbsent()); err != nil {
			t.Errorf("Set after Delete: %v", err)
		}
		if got, err := a.Get(d.ctx, "k"); got != 2 || err != nil {
			t.Errorf("the transaction reads %d, %v", got, err)
		}
		if e, err := a.GetEntry(d.ctx, "k"); e.Value != 2 || e.Version != version || err != nil {
			t.Errorf("the transaction reads %+v, %v", e, err)
		}
		if got, err := a.GetMany(d.ctx, []string{"k", "none"}); len(got) != 1 || got["k"] != 2 || err != nil {
			t.Errorf("the transaction reads %v, %v", got, err)
		}
		d.asks("k", 1)
		if err := j.Commit(d.ctx); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*lockstep.Cache[string, int]{d.a, d.b} {
			if got, ok := c.Peek("k"); ok {
				t.Errorf("memory says %d", got)
			}
		}
		d.settledTo("k", 2)
		if n := d.a.Stats(); n.Transactions != 1 || n.Writes != 2 || n.Committed != 2 {
			t.Errorf("%d transactions, %d writes, %d committed", n.Transactions, n.Writes, n.Committed)
		}
	})
}

func TestAJoinedTransactionRollsBack(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.joined("k", 2)
		d.asks("k", 1)
		ctx, cancel := context.WithCancel(d.ctx)
		cancel() // as a deferred call's often is
		if err := j.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		d.settledTo("k", 1)
		if n := d.a.Stats(); n.Abandoned != 1 || n.Unknown != 0 {
			t.Errorf("%d abandoned, %d unknown", n.Abandoned, n.Unknown)
		}
	})
}

func TestAJoinedTransactionWhoseConditionFailsIsRolledBack(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.joined("k", 2)
		_, err := in(d, d.a, j).Set(d.ctx, "other", 2, lockstep.IfVersion(7))
		d.notApplied(err, lockstep.ErrConflict)
		_, err = in(d, d.a, j).Set(d.ctx, "other", 2)
		d.notApplied(err, lockstep.ErrInvalid)
		d.asks("k", 1)
		d.notApplied(j.Commit(d.ctx), lockstep.ErrConflict)
		d.settledTo("k", 1)
	})
}

// What is refused before the database is asked leaves the transaction as it was.
func TestARefusedValueDoesNotEndAJoinedTransaction(t *testing.T) {
	refuse := func(_ string, v int) error {
		if v < 0 {
			return errors.New("negative")
		}
		return nil
	}
	inJoin(t, options{Validate: refuse}, func(d *duo) {
		_, j := d.joined("k", 2)
		u := in(d, d.a, j)
		d.notApplied(second(u.Set(d.ctx, "k", -1)), lockstep.ErrInvalid)
		d.notApplied(second(u.Set(d.ctx, "k", 3, lockstep.TTL(time.Second))), lockstep.ErrInvalid)
		d.notApplied(second(u.Delete(d.ctx, "k", lockstep.IfAbsent())), lockstep.ErrInvalid)
		if err := j.Commit(d.ctx); err != nil {
			t.Error(err)
		}
		d.settledTo("k", 2)
	})
}

// A batch has committed, and is told so after the transaction has committed as well.
func TestWhatABatchPublishesBesideAJoinedTransactionIsNotKept(t *testing.T) {
	for _, last := range []string{"batch", "transaction"} {
		inJoin(t, options{}, func(d *duo) {
			commit := d.sa.Block(fault.AfterCommit, "k")
			defer commit.Pass()
			write := d.start(func() error { return second(d.a.Set(d.ctx, "k", 5)) })
			<-commit.Reached
			_, j := d.joined("k", 6)
			if last == "transaction" {
				commit.Pass()
				write.succeeds()
				d.asks2("k", 5, 1)
			}
			if err := j.Commit(d.ctx); err != nil {
				t.Fatal(err)
			}
			commit.Pass()
			write.succeeds()
			d.settledTo("k", 6)
		})
	}
}

// asks2 is asks where the two caches' tables differ.
func (d *duo) asks2(key string, a, b int) {
	d.Helper()
	for c, want := range map[*lockstep.Cache[string, int]]int{d.a: a, d.b: b} {
		if got, err := c.Get(d.ctx, key); got != want || err != nil {
			d.Errorf("Get = %d, %v, want %d", got, err, want)
		}
		if got, ok := c.Peek(key); ok {
			d.Errorf("memory says %d", got)
		}
	}
}

// A reader has the old row in its hands when the transaction commits.
func TestALoadFromBeforeAJoinedTransactionIsNotKept(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		d.a.Invalidate("k")
		load := d.sa.Block(fault.AfterLoad, "k")
		defer load.Pass()
		read := d.start(func() error { return second(d.a.Get(d.ctx, "k")) })
		<-load.Reached
		_, j := d.joined("k", 2)
		if err := j.Commit(d.ctx); err != nil {
			t.Fatal(err)
		}
		load.Pass()
		read.succeeds()
		d.settledTo("k", 2)
	})
}

// The key is out of memory before the statement is sent: the program may learn of it by
// its own SQL in the transaction, and tell others.
func TestAKeyIsHeldBeforeItsStatementIsSent(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.beginJoined()
		u := in(d, d.a, j)
		apply := d.sa.Block(fault.BeforeApply, "k")
		defer apply.Pass()
		write := d.start(func() error { return second(u.Set(d.ctx, "k", 2)) })
		<-apply.Reached
		if got, ok := d.a.Peek("k"); ok {
			t.Errorf("memory says %d", got)
		}
		apply.Pass()
		write.succeeds()
		if err := j.Commit(d.ctx); err != nil {
			t.Error(err)
		}
	})
}

// Observing counts as acknowledging.
func TestWhatAJoinedTransactionReadsIsNotDeniedByMemory(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		behind(d, "k", 9)
		_, j := d.beginJoined()
		if got, err := in(d, d.a, j).Get(d.ctx, "k"); got != 9 || err != nil {
			t.Fatalf("Get = %d, %v", got, err)
		}
		if got, err := d.a.Get(d.ctx, "k"); got != 9 || err != nil {
			t.Errorf("after the transaction has read 9, Get = %d, %v", got, err)
		}
		if err := j.Rollback(d.ctx); err != nil {
			t.Error(err)
		}
	})
}

// behind changes a row of the first cache behind its back.
func behind(d *duo, key string, value int) {
	d.Helper()
	if _, err := d.sa.Commit(d.ctx, []changeSet{{Changes: []change{{Key: key, Value: value}}}}); err != nil {
		d.Fatal(err)
	}
}

func TestAfterItsEndAJoinedTransactionRefuses(t *testing.T) {
	for _, end := range []func(*lockstep.Joined, context.Context) error{(*lockstep.Joined).Commit, (*lockstep.Joined).Rollback} {
		inJoin(t, options{}, func(d *duo) {
			_, j := d.joined("k", 1)
			u := in(d, d.a, j)
			if err := end(j, d.ctx); err != nil {
				t.Fatal(err)
			}
			d.notApplied(second(u.Set(d.ctx, "k", 3)), lockstep.ErrInvalid)
			for what, err := range map[string]error{
				"Get":      second(u.Get(d.ctx, "k")),
				"Commit":   j.Commit(d.ctx),
				"Rollback": j.Rollback(d.ctx),
				"InJoined": second(d.a.InJoined(j)),
			} {
				if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "is over") {
					t.Errorf("%s: %v", what, err)
				}
			}
			d.settledTo("k", 1)
		})
	}
}

func TestWhatCannotBeJoined(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.beginJoined()
		if _, err := d.Cache.InJoined(j); !errors.Is(err, lockstep.ErrUnsupported) {
			t.Errorf("a cache of another database: %v", err)
		}
		plain := openOver(d.scene, altered{store: joinable(d.sa), can: func(c *capability) { c.Read, c.Database = nil, d.sa.Capabilities().Database }})
		if _, err := plain.InJoined(j); !errors.Is(err, lockstep.ErrUnsupported) {
			t.Errorf("a store that cannot read in a transaction: %v", err)
		}
		if err := j.Rollback(d.ctx); err != nil {
			t.Error(err)
		}
		for _, bad := range [][]lockstep.JoinOption{{{}}, {lockstep.JoinTimeout(0)}, {lockstep.JoinTimeout(1), lockstep.JoinTimeout(1)}} {
			if _, err := lockstep.Join(d.sa.Capabilities().Database, joinedTxn{}, bad...); !errors.Is(err, lockstep.ErrInvalid) {
				t.Errorf("options %v: %v", bad, err)
			}
		}
	})
}

// In the function of Transact the context is that of another transaction.
func TestAJoinedTransactionIsNotUsedInsideAnother(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.beginJoined()
		u := in(d, d.a, j)
		err := lockstep.Transact(d.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			if err := second(u.Get(ctx, "k")); !errors.Is(err, lockstep.ErrInTransaction) {
				t.Errorf("Get: %v", err)
			}
			return second(u.Set(ctx, "k", 2))
		})
		d.notApplied(err, lockstep.ErrInTransaction)
		if err := j.Rollback(d.ctx); err != nil {
			t.Error(err)
		}
	})
}

// A store that panics, or ends the goroutine, leaves the transaction fit to be rolled
// back, and the key free afterwards.
func TestAStoreThatPanicsInAJoinedTransaction(t *testing.T) {
	for what, fails := range map[string]func(){"panics": func() { panic("apply") }, "ends the goroutine": runtime.Goexit} {
		t.Run(what, func(t *testing.T) {
			inJoin(t, options{}, func(d *duo) {
				over := joinable(d.sa)
				can := over.can
				over.can = func(c *capability) {
					can(c)
					c.Apply = func(context.Context, lockstep.Txn, changeSet) (outcome, error) { fails(); return outcome{}, nil }
				}
				c := openOver(d.scene, over)
				_, j := d.beginJoined()
				u := in(d, c, j)
				done := make(chan struct{})
				go func() {
					defer close(done)
					u.Set(d.ctx, "k", 2)
				}()
				<-done
				d.notApplied(j.Commit(d.ctx), lockstep.ErrUnavailable)
				if got, err := c.Get(d.ctx, "k"); got != 1 || err != nil {
					t.Errorf("Get = %d, %v", got, err)
				}
				if got, ok := c.Peek("k"); got != 1 || !ok {
					t.Errorf("memory says %d, %v", got, ok)
				}
			})
		})
	}
}

func TestJoinedWritesAreReportedToHooks(t *testing.T) {
	for end, want := range map[string]string{"Commit": "pending committed synchronized", "Rollback": "pending failed"} {
		var mu sync.Mutex
		var told []string
		tell := func(state string) func(lockstep.WriteEvent[string]) {
			return func(e lockstep.WriteEvent[string]) {
				mu.Lock()
				defer mu.Unlock()
				if e.Key == "new" {
					told = append(told, state)
				}
			}
		}
		o := options{Hooks: lockstep.Hooks[string]{
			Pending: tell("pending"), Committed: tell("committed"), Synchronized: tell("synchronized"),
			Failed: tell("failed"), Unknown: tell("unknown"), Settled: tell("settled"),
		}}
		inJoin(t, o, func(d *duo) {
			_, j := d.beginJoined()
			u := in(d, d.a, j)
			for value := range 2 {
				if _, err := u.Set(d.ctx, "new", value); err != nil {
					t.Error(err)
				}
			}
			f := j.Commit
			if end == "Rollback" {
				f = j.Rollback
			}
			if err := f(d.ctx); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(told, " "); got != want {
				t.Errorf("%s: the hooks were told %q, want %q", end, got, want)
			}
		})
	}
}

// Nothing is at stake then, and nobody settles.
func TestAJoinedTransactionWithoutCaches(t *testing.T) {
	inJoin(t, options{}, func(d *duo) {
		_, j := d.beginJoined()
		if err := j.Commit(d.ctx); err != nil {
			t.Errorf("Commit: %v", err)
		}
		_, j = d.beginJoined()
		if err := j.Rollback(d.ctx); err != nil {
			t.Errorf("Rollback: %v", err)
		}
		p, j := d.beginJoined()
		p.Commit()
		d.unknown(j.Commit(d.ctx), errDone)
		_, j = d.beginJoined(lockstep.JoinTimeout(time.Second))
		time.Sleep(2 * time.Second)
		d.notApplied(j.Commit(d.ctx), lockstep.ErrUnavailable)
		_, j = d.beginJoined() // the database is free
		if err := j.Rollback(d.ctx); err != nil {
			t.Error(err)
		}
	})
}
