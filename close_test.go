package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Close waited for the batches that were under way, and cut off transactions of
// several caches.
func TestCloseWaitsForATransactionOfTwoCaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		database := memstore.NewDatabase()
		a := fault.Inject(memstore.New(memstore.Options[string, int]{Database: database}), fault.Script{}, 1)
		b := fault.Inject(memstore.New(memstore.Options[string, int]{Database: database}), fault.Script{}, 1)
		accounts := cachetest.Open(t, a, options{})
		orders := cachetest.Open(t, b, options{})

		commit := a.Block(fault.BeforeCommit)
		defer commit.Pass()
		transaction := make(chan error, 1)
		go func() {
			transaction <- lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return errors.Join(accounts.In(tx).Set(ctx, "ann", 1), orders.In(tx).Set(ctx, "1", 1))
			})
		}()
		<-commit.Reached
		closed := make(chan error, 2)
		go func() { closed <- accounts.Close(ctx) }()
		go func() { closed <- orders.Close(ctx) }()
		synctest.Wait()
		select {
		case err := <-closed:
			t.Errorf("Close returned %v during a commit", err)
		default:
		}
		commit.Pass()
		if err := <-transaction; err != nil {
			t.Errorf("Transact: %v", err)
		}
		for range 2 {
			if err := <-closed; err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		rows, err := a.Load(ctx, []string{"ann"})
		if rows["ann"].Value != 1 || err != nil {
			t.Errorf("the table holds %+v, %v", rows["ann"], err)
		}
	})
}

// Two calls of Close at once both went through, and the second one panicked.
func TestCloseFromManyGoroutines(t *testing.T) {
	for range 100 {
		cache := cachetest.Open(t, memstore.New(memstore.Options[string, int]{}), options{})
		const callers = 4
		start, results := make(chan struct{}), make(chan error, callers)
		for range callers {
			go func() {
				<-start
				results <- cache.Close(context.Background())
			}()
		}
		close(start)
		closed := 0
		for range callers {
			switch err := <-results; {
			case err == nil:
				closed++
			case !errors.Is(err, lockstep.ErrClosed):
				t.Errorf("Close: %v", err)
			}
		}
		if closed != 1 {
			t.Fatalf("%d calls of Close closed the cache", closed)
		}
	}
}

func TestCloseWaitsForWhatWasAccepted(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		under := s.startSet(s.ctx, "k", 2)
		<-commit.Reached
		queued := s.startSet(s.ctx, "k", 3)
		other := s.startSet(s.ctx, "l", 4)
		queued.hangs()
		closed := s.start(func() error { return s.Close(s.ctx) })
		closed.hangs()
		_, err := s.Set(s.ctx, "m", 5)
		s.notApplied(err, lockstep.ErrClosed)
		commit.Pass()
		under.succeeds()
		queued.succeeds()
		other.succeeds()
		closed.succeeds()
		s.stored("k", 3)
		s.stored("l", 4)
		s.notStored("m")
		s.forgot("k", "l")
	})
}

func TestCloseWaitsForSettlements(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("commit 1: lose reply; settle 1..3: fail")
		_, err := s.Set(s.ctx, "k", 1)
		w := s.unknown(err)
		if err := s.Close(s.ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		s.settles(w, true)
	})
}

func TestCloseWaitsForHooks(t *testing.T) {
	var finish chan struct{}
	told := 0
	inBubbleWith(t, func() options {
		finish = make(chan struct{})
		return options{Hooks: lockstep.Hooks[string]{Committed: func(lockstep.WriteEvent[string]) { <-finish; told++ }}}
	}, func(s *scene) {
		s.write("k", 1)
		s.write("l", 1)
		closed := s.start(func() error { return s.Close(s.ctx) })
		closed.hangs()
		close(finish)
		closed.succeeds()
		if told != 2 {
			t.Errorf("%d events were told, want 2", told)
		}
	})
}

// Close does not wait for reads: nothing is lost by cutting them off.
func TestCloseEndsReads(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		load := s.store.Block(fault.BeforeLoad)
		defer load.Pass()
		reader := s.startGet(s.ctx, "k")
		<-load.Reached
		many := s.start(func() error { return second(s.GetMany(s.ctx, []string{"k", "l"})) })
		many.hangs()
		if err := s.Close(s.ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := reader.wait(); !errors.Is(err, lockstep.ErrClosed) {
			t.Errorf("Get: %v", err)
		}
		if err := many.wait(); !errors.Is(err, lockstep.ErrClosed) {
			t.Errorf("GetMany: %v", err)
		}
		s.forgot("k")
	})
}

func TestCloseThatRunsOutOfTime(t *testing.T) {
	inBubble(t, options{CommitTimeout: time.Hour}, func(s *scene) {
		s.write("known", 1)
		s.script("commit 1: lose reply; settle 1..: fail")
		_, err := s.Set(s.ctx, "doubtful", 1)
		inDoubt := s.unknown(err)
		commit := s.store.Block(fault.AfterCommit)
		defer commit.Pass()
		under := s.startSet(s.ctx, "under", 1)
		<-commit.Reached
		queued := []*call{s.startSet(s.ctx, "queued", 1), s.startSet(s.ctx, "doubtful", 2)}
		queued[0].hangs()
		ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
		defer cancel()
		began := time.Now()
		err = s.Close(ctx)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("Close took %v", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 queued writes dropped, 2 under way or in doubt") {
			t.Errorf("Close: %v", err)
		}
		for _, c := range queued {
			s.notApplied(c.returned(), lockstep.ErrClosed)
		}
		abandoned := s.unknown(under.returned())
		for _, w := range []*lockstep.WriteError{inDoubt, abandoned} {
			if applied, _, err := w.Wait(s.ctx); applied || !errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("Wait = %v, %v", applied, err)
			}
		}
		s.notStored("queued")
		s.stored("under", 1)
		s.stored("doubtful", 1)
		s.forgot("known", "under", "doubtful")
		time.Sleep(time.Hour)
		s.notStored("queued")
	})
}

// A commit that comes back after Close tells how it ended.
func TestACommitThatOutlivesClose(t *testing.T) {
	var release chan struct{}
	deaf := func(inner *fault.Store[string, int]) store {
		release = make(chan struct{})
		return altered{store: inner, commit: func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			<-release
			return inner.Commit(context.WithoutCancel(ctx), sets)
		}}
	}
	inBubbleOver(t, options{}, deaf, func(s *scene) {
		under := s.startSet(s.ctx, "k", 1)
		under.hangs()
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		w := s.unknown(under.returned())
		close(release)
		if s.settles(w, true) == 0 {
			t.Error("the version is not told")
		}
		s.stored("k", 1)
		s.forgot("k")
	})
}

func TestCloseAnswersThoughALoadDoesNotReturn(t *testing.T) {
	var release chan struct{}
	deaf := func(inner *fault.Store[string, int]) store {
		release = make(chan struct{})
		return altered{store: inner, load: func(context.Context, []string) (map[string]row, error) {
			<-release
			return nil, nil
		}}
	}
	inBubbleOver(t, options{}, deaf, func(s *scene) {
		reader := s.startGet(s.ctx, "k")
		reader.hangs()
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 calls of the store") {
			t.Errorf("Close: %v", err)
		}
		close(release)
		if err := reader.wait(); !errors.Is(err, lockstep.ErrClosed) && !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("Get: %v", err)
		}
		s.forgot("k")
	})
}

// With nothing to wait for, Close succeeds however little time it has.
func TestCloseWithoutTime(t *testing.T) {
	for range 20 {
		inBubble(t, options{}, func(s *scene) {
			s.write("k", 1)
			synctest.Wait()
			ctx, cancel := context.WithCancel(s.ctx)
			cancel()
			if err := s.Close(ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestCloseDoesNotCloseTheStore(t *testing.T) {
	table := memstore.New(memstore.Options[string, int]{})
	for want := range 3 {
		cache := cachetest.Open(t, table, options{})
		value, err := cache.Update(t.Context(), "k", func(old int, _ bool) (int, error) { return old + 1, nil })
		if value != want+1 || err != nil {
			t.Errorf("Update = %d, %v", value, err)
		}
		if err := cache.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func TestUseAfterClose(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		if err := s.Close(s.ctx); err != nil {
			t.Fatal(err)
		}
		ctx := s.ctx
		for name, err := range map[string]error{
			"Get":        second(s.Get(ctx, "k")),
			"GetEntry":   second(s.GetEntry(ctx, "k")),
			"GetMany":    second(s.GetMany(ctx, []string{"k"})),
			"Exists":     second(s.Exists(ctx, "k")),
			"Refresh":    s.Refresh(ctx, "k"),
			"Warm":       second(s.Warm(ctx, lockstep.WarmOptions{})),
			"Audit":      second(s.Audit(ctx)),
			"Set":        second(s.Set(ctx, "k", 2)),
			"SetMany":    s.SetMany(ctx, map[string]int{"k": 2}),
			"SetMany{}":  s.SetMany(ctx, nil),
			"Delete":     second(s.Delete(ctx, "k")),
			"DeleteMany": s.DeleteMany(ctx, []string{"k"}),
			"DeleteAll":  s.DeleteAll(ctx),
			"Update":     second(s.Update(ctx, "k", func(int, bool) (int, error) { return 2, nil })),
			"In.Get": lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return second(s.In(tx).Get(ctx, "k"))
			}),
			"In.Set": lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return s.In(tx).Set(ctx, "k", 2)
			}),
			"In.Delete": lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return s.In(tx).Delete(ctx, "k")
			}),
			"Close": s.Close(ctx),
		} {
			if !errors.Is(err, lockstep.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
			if w, ok := err.(*lockstep.WriteError); ok && w.Outcome != lockstep.NotApplied {
				t.Errorf("%s: %v", name, w.Outcome)
			}
		}
		scanned := 0
		for _, err := range s.Scan(ctx) {
			scanned++
			if !errors.Is(err, lockstep.ErrClosed) {
				t.Errorf("Scan: %v", err)
			}
		}
		if scanned != 1 {
			t.Errorf("Scan yields %d times", scanned)
		}
		s.Invalidate("k")
		s.InvalidateAll()
		s.forgot("k")
		if s.Stats().Committed != 1 {
			t.Error("the statistics are gone")
		}
		s.stored("k", 1)
	})
}

// A transaction whose function runs while the cache is closed does not commit.
func TestCloseDuringATransactionsFunction(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		proceed := make(chan struct{})
		transaction := s.start(func() error {
			return lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				a := s.In(tx)
				if err := a.Set(ctx, "k", 1); err != nil {
					return err
				}
				<-proceed
				return a.Set(ctx, "l", 1)
			})
		})
		transaction.hangs()
		if err := s.Close(s.ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		close(proceed)
		s.notApplied(transaction.wait(), lockstep.ErrClosed)
		s.notStored("k", "l")
	})
}

// Callers all over the cache while it is closed: each is answered, and what is
// said to be written is there.
func TestCloseUnderLoad(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			inBubble(t, options{}, func(s *scene) {
				s.store.Play(fault.MustParse("commit *: latency 1ms..3ms; load *: latency 1ms..3ms"))
				random := rand.New(rand.NewPCG(seed, 0))
				limit := time.Duration(random.IntN(10)) * time.Millisecond
				var callers []*call
				for i := range 20 {
					random := rand.New(rand.NewPCG(seed, uint64(i)+1))
					callers = append(callers, s.start(func() error {
						for n := 1; ; n++ {
							key := fmt.Sprint("k", i)
							var err error
							switch random.IntN(4) {
							case 0:
								_, err = s.Get(s.ctx, fmt.Sprint("k", random.IntN(20)))
							case 1:
								err = s.SetMany(s.ctx, map[string]int{key: n, key + "+": n})
							default:
								_, err = s.Set(s.ctx, key, n)
							}
							stored := s.row(key).Value
							switch {
							case errors.Is(err, lockstep.ErrUnknownOutcome):
								return nil
							case errors.Is(err, lockstep.ErrClosed):
								if stored >= n {
									return fmt.Errorf("%s is %d, and writing it was said to have failed", key, stored)
								}
								return nil
							case err != nil && !errors.Is(err, lockstep.ErrNotFound):
								return err
							}
						}
					}))
				}
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				ctx, cancel := context.WithTimeout(s.ctx, limit)
				defer cancel()
				began := time.Now()
				err := s.Close(ctx)
				if took := time.Since(began); took > limit {
					t.Errorf("Close took %v of %v", took, limit)
				}
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Close: %v", err)
				}
				for _, c := range callers {
					if err := c.wait(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}
