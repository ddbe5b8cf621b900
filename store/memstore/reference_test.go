package memstore_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

type set[V any] = lockstep.ChangeSet[string, V]

func put[V any](key string, value V) set[V] {
	return set[V]{Changes: []lockstep.Change[string, V]{{Key: key, Value: value}}}
}

func commit[K comparable, V any](t *testing.T, s *memstore.Store[K, V], set lockstep.ChangeSet[K, V]) lockstep.Outcome[V] {
	t.Helper()
	outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[K, V]{set})
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return outcomes[0]
}

func load[K comparable, V any](t *testing.T, s *memstore.Store[K, V], key K) lockstep.Row[V] {
	t.Helper()
	rows, err := s.Load(t.Context(), []K{key})
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return rows[key]
}

func TestTombstonesAreForgottenAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New(memstore.Options[string, int]{})
		for i := range 100 {
			commit(t, s, put(string(rune('a'+i)), i))
		}
		commit(t, s, set[int]{DeleteAll: true})
		deleted := load(t, s, "a").Version

		time.Sleep(23 * time.Hour) // the bubble's clock
		commit(t, s, put("x", 1))
		if got := load(t, s, "a").Version; got != deleted || got == 0 {
			t.Errorf("after 23 hours the tombstone's version is %d, want %d", got, deleted)
		}
		time.Sleep(2 * time.Hour)
		for i := range 100 {
			commit(t, s, put("x", i))
		}
		if got := load(t, s, "a").Version; got != 0 {
			t.Errorf("after 25 hours and 100 commits the tombstone is still there, with version %d", got)
		}
		commit(t, s, put("a", 7))
		if got := load(t, s, "a"); got.Value != 7 || got.Version <= deleted {
			t.Errorf("written again, the row is %+v; before its deletion it had version %d", got, deleted)
		}
		page, err := s.Capabilities().Scan(t.Context(), nil, 1000)
		if err != nil || len(page.Keys) != 2 {
			t.Errorf("Scan: %v, %v, want the keys x and a", page.Keys, err)
		}
	})
}

func TestKeysThatCannotBeFoundAgainAreRefused(t *testing.T) {
	floats := memstore.New(memstore.Options[float64, int]{})
	anys := memstore.New(memstore.Options[any, int]{})
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
	nan := lockstep.Change[float64, int]{Key: math.NaN()}
	_, _, err := floats.Capabilities().Prepare(nan)
	refused("Prepare of NaN", err)
	refused("Commit of NaN", commit(t, floats, lockstep.ChangeSet[float64, int]{Changes: []lockstep.Change[float64, int]{nan}}).Err)
	_, err = floats.Load(t.Context(), []float64{1, math.NaN()})
	refused("Load of NaN", err)
	_, err = anys.Load(t.Context(), []any{[]int{1}})
	refused("Load of a slice", err)
	_, err = anys.Load(t.Context(), []any{struct{ x any }{math.NaN()}})
	refused("Load of NaN in a struct in an interface", err)
	if _, err := anys.Load(t.Context(), []any{1, "1", nil}); err != nil {
		t.Errorf("Load of comparable keys: %v", err)
	}
}

func TestValuesThatDoNotEncodeAreRefused(t *testing.T) {
	s := memstore.New(memstore.Options[string, []float64]{})
	change := lockstep.Change[string, []float64]{Key: "k", Value: []float64{math.Inf(1)}}
	if _, _, err := s.Capabilities().Prepare(change); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("Prepare: %v, want ErrInvalid", err)
	}
	if o := commit(t, s, put("k", []float64{math.NaN()})); !errors.Is(o.Err, lockstep.ErrInvalid) {
		t.Errorf("Commit: %v, want ErrInvalid", o.Err)
	}
	change.Value = []float64{1, 2.5}
	if _, size, err := s.Capabilities().Prepare(change); err != nil || size != len("[1,2.5]") {
		t.Errorf("Prepare: %d bytes, %v, want the size of the JSON", size, err)
	}
}

func TestFlatValuesAreMeasuredWithoutEncoding(t *testing.T) {
	type point struct {
		Name string
		X, Y float64
		Rest [2]int32
	}
	s := memstore.New(memstore.Options[string, point]{})
	_, size, err := s.Capabilities().Prepare(lockstep.Change[string, point]{Key: "k", Value: point{Name: "abc", X: math.NaN()}})
	if err != nil || size != 3+8+8+8 {
		t.Errorf("Prepare: %d bytes, %v, want 27", size, err)
	}
}

// An open transaction keeps writers waiting, and nobody else.
func TestLoadsDoNotWaitForATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New(memstore.Options[string, int]{})
		caps := s.Capabilities()
		txn, err := caps.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := caps.Apply(t.Context(), txn, put("k", 1)); err != nil {
			t.Fatal(err)
		}
		if r := load(t, s, "k"); r.Exists {
			t.Errorf("Load sees what is not committed: %+v", r)
		}
		if _, err := caps.Scan(t.Context(), nil, 10); err != nil {
			t.Error(err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := caps.Begin(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second Begin: %v, want the deadline", err)
		}
		if _, err := s.Commit(ctx, []set[int]{put("k", 2)}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("Commit: %v, want the deadline, and ErrUnavailable", err)
		}
		if err := txn.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if applied, err := txn.Settle(t.Context()); !applied || err != nil {
			t.Errorf("Settle: %t, %v", applied, err)
		}
		if r := load(t, s, "k"); r.Value != 1 {
			t.Errorf("after Commit the row is %+v", r)
		}
	})
}

// A transaction over two stores is seen in both or in neither.
func TestStoresOfOneDatabaseChangeAtOnce(t *testing.T) {
	db := memstore.NewDatabase()
	a := memstore.New(memstore.Options[string, int]{Database: db})
	b := memstore.New(memstore.Options[int, string]{Database: db})
	txn, err := a.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Capabilities().Apply(t.Context(), txn, put("k", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Capabilities().Apply(t.Context(), txn, lockstep.ChangeSet[int, string]{
		Changes: []lockstep.Change[int, string]{{Key: 1, Value: "one"}},
	}); err != nil {
		t.Fatal(err)
	}
	if load(t, a, "k").Exists || load(t, b, 1).Exists {
		t.Error("a row is visible before the commit")
	}
	if err := txn.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if load(t, a, "k").Value != 1 || load(t, b, 1).Value != "one" {
		t.Error("a row is missing after the commit")
	}
}
