package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// What the simulation and verify have found, each reduced to the few calls that it takes.

// faultyInt is a cache over a memory store with the faults of a script.
func faultyInt(t *testing.T, script string) *lockstep.Cache[int, int64] {
	store := fault.Inject(memstore.New(memstore.Options[int, int64]{}), fault.MustParse(script), 1)
	return cachetest.Open(t, store, lockstep.Options[int, int64]{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// A settlement that had lost its outcomes was taken to say that every set was
// applied, though the database had left out one whose condition did not hold.
func TestSettlementWithoutOutcomesDoesNotSpeakForConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := faultyInt(t, "commit 2: lose reply, forget rows")
		if _, err := cache.Set(t.Context(), 1, 1); err != nil {
			t.Fatal(err)
		}
		_, err := cache.Set(t.Context(), 1, 2, lockstep.IfAbsent())
		var unknown *lockstep.WriteError
		if !errors.As(err, &unknown) || unknown.Outcome != lockstep.Unknown {
			t.Fatalf("Set: %v, want an unknown outcome", err)
		}
		if applied, _, err := unknown.Wait(t.Context()); applied || !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("Wait says applied=%t, %v of a set that was left out", applied, err)
		}
		if value, err := cache.Get(t.Context(), 1); value != 1 || err != nil {
			t.Errorf("the row is %d, %v", value, err)
		}
	})
}

// A load that was asked for before one commit, and read the row after the next,
// told its readers what the next had written, while memory went on to answer with
// what the first had left.
func TestLoadThatSawACommitUnderWayLeavesNoOlderCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fault.Inject(memstore.New(memstore.Options[int, int64]{}), fault.Script{}, 1)
		cache := cachetest.Open(t, store, lockstep.Options[int, int64]{})
		var first, second int64
		load := store.Block(fault.BeforeLoad)
		read := async(func() { first, _ = cache.Get(t.Context(), 1) })
		<-load.Reached
		if _, err := cache.Set(t.Context(), 1, 1); err != nil {
			t.Fatal(err)
		}
		commit := store.Block(fault.AfterCommit)
		write := async(func() { _, _ = cache.Set(t.Context(), 1, 2) })
		<-commit.Reached
		load.Pass()
		<-read
		second, _ = cache.Get(t.Context(), 1)
		if first != 2 || second != 2 {
			t.Errorf("one read saw %d, and the next saw %d", first, second)
		}
		commit.Pass()
		<-write
	})
}

// A transaction that had written one row and read another left the old copy of
// the one in memory while its commit was under way. A write of the other, made
// after it, was acknowledged, and its writer then saw the old copy.
func TestTransactionIsSeenByWhoeverWritesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fault.Inject(memstore.New(memstore.Options[int, int64]{}), fault.Script{}, 1)
		cache := cachetest.Open(t, store, lockstep.Options[int, int64]{Batch: lockstep.Batch{InFlight: 2}})
		for key := range 2 {
			if _, err := cache.Set(t.Context(), key, 1); err != nil {
				t.Fatal(err)
			}
		}
		commit := store.Block(fault.AfterCommit)
		transaction := async(func() {
			if err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
				old, err := cache.In(tx).Get(ctx, 0)
				return errors.Join(err, cache.In(tx).Set(ctx, 1, old+1))
			}); err != nil {
				t.Error(err)
			}
		})
		<-commit.Reached
		if _, err := cache.Set(t.Context(), 0, 3); err != nil {
			t.Fatal(err)
		}
		if value, err := cache.Get(t.Context(), 1); value != 2 || err != nil {
			t.Errorf("after a write that came after the transaction, what it wrote is %d, %v", value, err)
		}
		commit.Pass()
		<-transaction
	})
}

// A reader who asked after the end of a row's lifetime shared a load that had
// begun before, and was given the row.
func TestSharedLoadDoesNotOutliveTheRow(t *testing.T) {
	for name, read := range map[string]func(context.Context, *lockstep.Cache[int, int64]) (found bool, err error){
		"Exists": func(ctx context.Context, c *lockstep.Cache[int, int64]) (bool, error) { return c.Exists(ctx, 1) },
		"GetMany": func(ctx context.Context, c *lockstep.Cache[int, int64]) (bool, error) {
			values, err := c.GetMany(ctx, []int{1, 2})
			return len(values) > 0, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := fault.Inject(memstore.New(memstore.Options[int, int64]{}), fault.Script{}, 1)
				cache := cachetest.Open(t, store, lockstep.Options[int, int64]{})
				if _, err := cache.Set(t.Context(), 1, 1, lockstep.Lifetime(time.Second)); err != nil {
					t.Fatal(err)
				}
				cache.Invalidate(1)
				load := store.Block(fault.AfterLoad, 1)
				first := async(func() { _, _ = cache.Get(t.Context(), 1) })
				<-load.Reached // with the row
				time.Sleep(2 * time.Second)
				second := async(func() {
					if found, err := read(t.Context(), cache); found || err != nil {
						t.Errorf("a second after the row's end it is there: %t, %v", found, err)
					}
				})
				synctest.Wait()
				load.Pass()
				<-first
				<-second
			})
		})
	}
}

// A reader was shown what another program had written after a commit that was not yet
// published. Then that was published, and the next reader was told less.
func TestWhatAReaderWasShownIsTheLeastForTheNext(t *testing.T) {
	for _, publishedFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("published before the load lands=%t", publishedFirst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := memstore.New(memstore.Options[int, int64]{})
				store := fault.Inject(table, fault.Script{}, 1)
				cache := cachetest.Open(t, store, lockstep.Options[int, int64]{})
				commit := store.Block(fault.AfterCommit)
				write := async(func() { _ = cache.SetMany(t.Context(), map[int]int64{1: 1, 2: 1}) })
				<-commit.Reached
				another := lockstep.ChangeSet[int, int64]{Changes: []lockstep.Change[int, int64]{{Key: 1, Value: 2}}}
				if _, err := table.Commit(t.Context(), []lockstep.ChangeSet[int, int64]{another}); err != nil {
					t.Fatal(err)
				}
				load := store.Block(fault.AfterLoad, 1)
				var first int64
				read := async(func() { first, _ = cache.Get(t.Context(), 1) })
				<-load.Reached // with what the other program has written
				if publishedFirst {
					commit.Pass()
					<-write
					load.Pass()
					<-read
				} else {
					load.Pass()
					<-read
					commit.Pass()
					<-write
				}
				if second, err := cache.Get(t.Context(), 1); first != 2 || second != 2 || err != nil {
					t.Errorf("one read saw %d, and the next saw %d, %v", first, second, err)
				}
			})
		})
	}
}

// A reader was shown what another program had written after an insertion that was not yet
// published, by a load that could not fill memory. Then the insertion was published, and the
// next reader was told less.
func TestAnInsertionIsNotLessThanWhatAReaderWasShown(t *testing.T) {
	inBubble(t, options{Batch: lockstep.Batch{InFlight: 2}}, func(s *scene) {
		s.script("commit 2: fail")
		insertion := s.store.Block(fault.AfterCommit)
		insert := s.startInsert(s.ctx, 1)
		<-insertion.Reached
		const key = "new1"
		s.behind(key, 2)
		commit := s.store.Block(fault.BeforeCommit, key)
		set := s.startSet(s.ctx, key, 3)
		<-commit.Reached
		load := s.store.Block(fault.AfterLoad, key)
		var first int
		read := s.start(func() (err error) { first, err = s.Get(s.ctx, key); return err })
		<-load.Reached
		commit.Pass()
		s.notApplied(set.wait(), lockstep.ErrUnavailable)
		load.Pass()
		read.succeeds()
		insertion.Pass()
		insert.succeeds()
		if second, err := s.Get(s.ctx, key); first != 2 || second != 2 || err != nil {
			t.Errorf("one read saw %d, and the next saw %d, %v", first, second, err)
		}
	})
}

// async runs f on a goroutine of its own, and returns a channel that is closed
// when it has returned.
func async(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}
