package lockstep_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A reader that missed loads the old row, a writer commits and updates memory,
// the reader then puts the old value back: stale for ever.
func TestFault01StaleFill(t *testing.T) {
	finds(t, setup[int]{}, func(tr *trial[int]) error {
		if err := tr.behind("k", 1); err != nil {
			return err
		}
		load := tr.store.Block(fault.AfterLoad, "k")
		defer load.Pass()
		reader := tr.startGet("k")
		<-load.Reached // the old row is on its way
		_, err := tr.set("k", 2)
		load.Pass()
		<-reader.done
		return first(err, reader.err, tr.get("k", 2))
	})
}

// Readers that share one load get a value older than a write acknowledged before
// they asked.
func TestFault02JoiningAnOlderLoad(t *testing.T) {
	finds(t, setup[int]{}, func(tr *trial[int]) error {
		if err := tr.behind("k", 1); err != nil {
			return err
		}
		load := tr.store.Block(fault.AfterLoad, "k")
		defer load.Pass()
		early := tr.startGet("k")
		<-load.Reached
		_, err := tr.set("k", 2)
		tr.Invalidate("k") // as if it were evicted
		late := tr.startGet("k")
		tr.quiet() // it waits for a load
		load.Pass()
		<-early.done
		<-late.done
		if late.value != 2 {
			err = first(err, late.err, fmt.Errorf("a reader who asked after the write got %d", late.value))
		}
		return first(err, early.err)
	})
}

// A hit takes the write lock to note the access time: it waits for whoever has
// the lock, such as a writer whose database takes its time.
func TestFault04HitTakesTheWriteLock(t *testing.T) {
	finds(t, setup[int]{outside: textbookOnly}, func(tr *trial[int]) error {
		if _, err := tr.set("k", 1); err != nil {
			return err
		}
		commit := tr.store.Block(fault.BeforeCommit, "k")
		defer commit.Pass()
		writer := tr.startSet(tr.ctx, "k", 2)
		<-commit.Reached
		for range 100 {
			hit := tr.startGet("k")
			if !tr.answers(hit) {
				return errors.New("a hit waits for a writer")
			}
			if hit.err != nil || hit.value != 1 {
				return fmt.Errorf("a hit during the commit is %d, %v", hit.value, hit.err)
			}
		}
		commit.Pass()
		<-writer.done
		return first(writer.err, tr.get("k", 2))
	})
}

// A panic in a load leaves every waiter hanging.
func TestFault14PanicInALoad(t *testing.T) {
	finds(t, setup[int]{}, func(tr *trial[int]) error {
		if err := tr.behind("k", 1); err != nil {
			return err
		}
		tr.script("load 1: panic")
		load := tr.store.Block(fault.BeforeLoad, "k")
		defer load.Pass()
		loader := tr.startGet("k")
		<-load.Reached
		waiter := tr.startGet("k")
		tr.quiet()
		load.Pass()
		for _, reader := range []*pending[int]{loader, waiter} {
			switch {
			case !tr.answers(reader):
				return errors.New("a reader hangs")
			case reader.err == nil:
				return errors.New("a load that panicked has a value")
			}
		}
		return tr.get("k", 1)
	})
}

// An invalidation is undone by a load that was under way.
func TestFault16InvalidationUndone(t *testing.T) {
	finds(t, setup[int]{}, func(tr *trial[int]) error {
		if err := tr.behind("k", 1); err != nil {
			return err
		}
		load := tr.store.Block(fault.AfterLoad, "k")
		defer load.Pass()
		reader := tr.startGet("k")
		<-load.Reached
		err := tr.behind("k", 2)
		tr.Invalidate("k")
		load.Pass()
		<-reader.done
		return first(err, reader.err, tr.get("k", 2))
	})
}

// The caller and the cache share one mutable value.
func TestFault17SharedValue(t *testing.T) {
	t.Run("given", func(t *testing.T) {
		finds(t, setup[[]int]{}, func(tr *trial[[]int]) error {
			given := []int{1, 2, 3}
			_, err := tr.set("k", given)
			given[0] = 99
			return first(err, tr.get("k", []int{1, 2, 3}), tr.agrees("k"))
		})
	})
	t.Run("gotten", func(t *testing.T) {
		finds(t, setup[[]int]{clone: slices.Clone[[]int]}, func(tr *trial[[]int]) error {
			_, err := tr.set("k", []int{1, 2, 3})
			gotten, getErr := tr.Get(tr.ctx, "k")
			if err := first(err, getErr); err != nil {
				return err
			}
			gotten[0] = 99
			return first(tr.get("k", []int{1, 2, 3}), tr.agrees("k"))
		})
	})
}

// A row that does not exist is looked up every time.
func TestFault21AbsentRows(t *testing.T) {
	finds(t, setup[int]{}, func(tr *trial[int]) error {
		for range 10 {
			if _, err := tr.Get(tr.ctx, "nobody"); !errors.Is(err, lockstep.ErrNotFound) {
				return fmt.Errorf("an absent row: %w", err)
			}
		}
		if loads := tr.store.Counts().Loads; loads != 1 {
			return fmt.Errorf("%d loads of one absent row", loads)
		}
		_, err := tr.set("nobody", 1)
		return first(err, tr.get("nobody", 1))
	})
}
