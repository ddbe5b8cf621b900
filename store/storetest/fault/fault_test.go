package fault_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

type faulty = fault.Store[string, int]

func inject(script string, seed uint64) (*faulty, *memstore.Store[string, int]) {
	inner := memstore.New(memstore.Options[string, int]{})
	return fault.Inject(inner, fault.MustParse(script), seed), inner
}

func put(key string, value int) []lockstep.ChangeSet[string, int] {
	return []lockstep.ChangeSet[string, int]{{Changes: []lockstep.Change[string, int]{{Key: key, Value: value}}}}
}

// held is what the store inside has.
func held(t *testing.T, inner lockstep.Store[string, int], key string) int {
	t.Helper()
	rows, err := inner.Load(t.Context(), []string{key})
	if err != nil {
		t.Fatal(err)
	}
	return rows[key].Value
}

func TestFates(t *testing.T) {
	for _, c := range []struct {
		script         string
		want           error
		applied, knows bool
		rows           bool
	}{
		{"commit 1: fail", lockstep.ErrUnavailable, false, false, false},
		{"commit 1: refuse", lockstep.ErrInvalid, false, false, false},
		{"commit 1: lose request", lockstep.ErrUnknownOutcome, false, true, false},
		{"commit 1: lose reply", lockstep.ErrUnknownOutcome, true, true, true},
		{"commit 1: lose reply, forget rows", lockstep.ErrUnknownOutcome, true, true, false},
		{"commit 1: lose reply, forget outcome", lockstep.ErrUnknownOutcome, true, false, false},
	} {
		t.Run(c.script, func(t *testing.T) {
			store, inner := inject(c.script, 1)
			_, err := store.Commit(t.Context(), put("k", 1))
			if !errors.Is(err, c.want) {
				t.Fatalf("Commit: %v, want %v", err, c.want)
			}
			if got := held(t, inner, "k") == 1; got != c.applied {
				t.Errorf("applied is %t, want %t", got, c.applied)
			}
			if c.want != lockstep.ErrUnknownOutcome {
				if errors.Is(err, lockstep.ErrUnknownOutcome) {
					t.Errorf("%v is unknown", err)
				}
				return
			}
			for range 2 { // the answer is the same as often as it is asked for
				settled, settleErr := store.Capabilities().Settle(t.Context(), err)
				if settleErr != nil || (settled.Err == nil) != c.knows || c.knows && settled.Applied != c.applied {
					t.Errorf("Settle: %+v, %v", settled, settleErr)
				}
				if (settled.Outcomes != nil) != c.rows {
					t.Errorf("the settlement's outcomes are %v", settled.Outcomes)
				}
			}
			if _, err := store.Commit(t.Context(), put("k", 2)); err != nil {
				t.Errorf("the second commit: %v", err)
			}
		})
	}
}

// A late commit is applied before its settlement, by it, or never; and what the
// settlement says stays true.
func TestLateCommits(t *testing.T) {
	seen := make(map[string]int)
	for seed := range uint64(60) {
		store, inner := inject("commit 1: lose reply, late", seed)
		values := put("k", 1)
		_, err := store.Commit(t.Context(), values)
		if !errors.Is(err, lockstep.ErrUnknownOutcome) || held(t, inner, "k") != 0 {
			t.Fatalf("Commit: %v, and the store has %d", err, held(t, inner, "k"))
		}
		values[0].Changes[0] = lockstep.Change[string, int]{Key: "other", Value: 9}
		if _, err := store.Load(t.Context(), []string{"k"}); err != nil {
			t.Fatal(err)
		}
		early := held(t, inner, "k") == 1
		settled, err := store.Capabilities().Settle(t.Context(), err)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if got := held(t, inner, "k") == 1; got != settled.Applied || early && !got {
				t.Fatalf("seed %d: settled as applied=%t, and applied is %t", seed, settled.Applied, got)
			}
			if _, err := store.Commit(t.Context(), put("x", 1)); err != nil {
				t.Fatal(err)
			}
		}
		if held(t, inner, "other") != 0 {
			t.Fatal("the late commit has kept its caller's slices")
		}
		switch {
		case early:
			seen["before a load"]++
		case settled.Applied:
			seen["by its settlement"]++
		default:
			seen["never"]++
		}
	}
	if len(seen) != 3 {
		t.Errorf("of 60 late commits were applied: %v", seen)
	}
}

func TestHangEndsWithItsContextOrRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, inner := inject("load 1..2: hang; commit 1: hang after; commit 2: hang", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := store.Load(ctx, []string{"k"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Load: %v, want the deadline", err)
		}
		done := make(chan error)
		go func() {
			_, err := store.Load(t.Context(), []string{"k"})
			done <- err
		}()
		synctest.Wait()
		store.Release()
		if err := <-done; err != nil {
			t.Errorf("Load after Release: %v", err)
		}

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := store.Commit(ctx, put("k", 1))
		if !errors.Is(err, lockstep.ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) || held(t, inner, "k") != 1 {
			t.Errorf("a commit that hangs after the database: %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = store.Commit(ctx, put("k", 2))
		if errors.Is(err, lockstep.ErrUnknownOutcome) || !errors.Is(err, lockstep.ErrUnavailable) || held(t, inner, "k") != 1 {
			t.Errorf("a commit that hangs before the database: %v", err)
		}
		if c := store.Counts(); c.Hangs != 4 || c.Loads != 2 || c.Commits != 2 {
			t.Errorf("the counts are %+v", c)
		}
	})
}

func TestLatencyTakesThatLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, _ := inject("load *: latency 10ms..20ms", 1)
		began := time.Now()
		if _, err := store.Load(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 10*time.Millisecond || took > 20*time.Millisecond {
			t.Errorf("the load took %v, want 10ms to 20ms", took)
		}
	})
}

func TestPanics(t *testing.T) {
	store, inner := inject("commit 1: panic; commit 2: panic after", 1)
	for value := 1; value <= 2; value++ {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("commit %d does not panic", value)
				}
			}()
			_, _ = store.Commit(t.Context(), put("k", value))
		}()
	}
	if got := held(t, inner, "k"); got != 2 {
		t.Errorf("the store has %d, want what was committed before the second panic", got)
	}
}

func TestBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, inner := inject("", 1)
		load := store.Block(fault.AfterLoad, "k")
		read := make(chan int)
		go func() {
			rows, _ := store.Load(t.Context(), []string{"a", "k"})
			read <- rows["k"].Value
		}()
		<-load.Reached

		// Others pass, and the next load too: a block stops one operation.
		for _, key := range []string{"a", "k"} {
			if _, err := store.Load(t.Context(), []string{key}); err != nil {
				t.Fatal(err)
			}
		}

		before, after := store.Block(fault.BeforeCommit), store.Block(fault.AfterCommit)
		done := make(chan error)
		go func() {
			_, err := store.Commit(t.Context(), put("k", 1))
			done <- err
		}()
		<-before.Reached
		if held(t, inner, "k") != 0 {
			t.Error("a commit that is blocked before the database has been applied")
		}
		before.Pass()
		<-after.Reached
		if held(t, inner, "k") != 1 {
			t.Error("a commit that is blocked after the database has not been applied")
		}
		after.Pass()
		after.Pass()
		if err := <-done; err != nil {
			t.Errorf("Commit: %v", err)
		}

		load.Pass()
		if got := <-read; got != 0 {
			t.Errorf("the blocked load has %d, want what it had read before the commit", got)
		}

		// A block that nobody reached is gone when it is passed.
		store.Block(fault.BeforeLoad).Pass()
		if _, err := store.Load(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
}

func TestTransactionsAreLostToo(t *testing.T) {
	for _, c := range []struct {
		script  string
		want    error
		applied bool
	}{
		{"", nil, true},
		{"commit 1: fail", lockstep.ErrUnavailable, false},
		{"commit 1: lose request", lockstep.ErrUnknownOutcome, false},
		{"commit 1: lose reply", lockstep.ErrUnknownOutcome, true},
	} {
		store, inner := inject(c.script, 1)
		caps := store.Capabilities()
		txn, err := caps.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := caps.Apply(t.Context(), txn, put("k", 1)[0]); err != nil {
			t.Fatal(err)
		}
		if err := txn.Commit(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%q: Commit: %v, want %v", c.script, err, c.want)
		}
		if applied, err := txn.Settle(t.Context()); applied != c.applied || err != nil {
			t.Errorf("%q: Settle: %t, %v, want %t", c.script, applied, err, c.applied)
		}
		if got := held(t, inner, "k") == 1; got != c.applied {
			t.Errorf("%q: applied is %t, want %t", c.script, got, c.applied)
		}
		if _, err := inner.Commit(t.Context(), put("k", 2)); err != nil {
			t.Errorf("%q: the database is still locked: %v", c.script, err)
		}
	}
}

func TestPlayBeginsAnew(t *testing.T) {
	store, _ := inject("load 1: fail", 1)
	for i, want := range []bool{true, false} {
		if _, err := store.Load(t.Context(), nil); (err != nil) != want {
			t.Errorf("load %d: %v", i+1, err)
		}
	}
	store.Play(fault.MustParse("load 1: fail"))
	if _, err := store.Load(t.Context(), nil); err == nil {
		t.Error("the first load of the new script does not fail")
	}
	store.Play(fault.Script{})
	if _, err := store.Load(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if c := store.Counts(); c.Loads != 4 || c.Failures != 2 {
		t.Errorf("the counts are %+v", c)
	}
}

// partial is a store that leaves out the first set of every batch.
type partial struct {
	lockstep.Store[string, int]
}

func (p partial) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, int]) ([]lockstep.Outcome[int], error) {
	outcomes, err := p.Store.Commit(ctx, sets[1:])
	return append([]lockstep.Outcome[int]{{Err: lockstep.ErrUnavailable}}, outcomes...), err
}

// A settlement without outcomes says that every set without conditions was committed, and
// a writer whose set was left out was told so: verify found it on MariaDB, where somebody
// else held the row locked.
func TestWhatWasLeftOutIsNotForgotten(t *testing.T) {
	inner := partial{memstore.New(memstore.Options[string, int]{})}
	for _, script := range []string{"commit *: lose reply, forget rows", "commit *: lose reply, forget rows, late"} {
		store := fault.Inject[string, int](inner, fault.MustParse(script), 1)
		_, err := store.Commit(t.Context(), []lockstep.ChangeSet[string, int]{
			{Changes: []lockstep.Change[string, int]{{Key: "left out", Value: 1}}},
			{Changes: []lockstep.Change[string, int]{{Key: "made", Value: 1}}},
		})
		if !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		settled, err := store.Capabilities().Settle(t.Context(), err)
		if err != nil {
			t.Fatal(err)
		}
		if settled.Applied && (len(settled.Outcomes) != 2 || settled.Outcomes[0].Err == nil) {
			t.Errorf("%s: applied, with outcomes %v", script, settled.Outcomes)
		}
	}
}
