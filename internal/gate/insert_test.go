package gate

import (
	"fmt"
	"testing"
)

// The load read its row after the insertion, and was unfit to fill memory before: what
// it brings its readers, memory must not deny to the next.
func TestATaintedLoadTakesAnAbsenceAwayBesideAnInsertion(t *testing.T) {
	g := newRig(t)
	g.Hold("k", 1, false)
	f := g.starts("k")
	g.Release("k", Install(2)) // a deletion
	g.holds(mapMemory{"k": 2})
	n := g.BeginInsertion()
	g.lands(f, 3)
	g.holds(mapMemory{})
	g.Inserted("k", n, Install(3)) // who was shown the row may have been shown a newer one
	g.EndInsertion()
	g.holds(mapMemory{})
}

// Somebody else has deleted the row that memory has, or a reader has loaded the new one
// and it has been changed since.
func TestAnInsertionDoesNotInstallOverARow(t *testing.T) {
	g := newRig(t)
	f := g.starts("k")
	g.lands(f, 1)
	n := g.BeginInsertion()
	g.Inserted("k", n, Install(3))
	g.EndInsertion()
	g.holds(mapMemory{})
}

// What is remembered of keys that have changed is bounded. Beyond it insertions under
// way install nothing, and later ones do.
func TestAGateForgetsWhatHasChangedBesideInsertions(t *testing.T) {
	g := newRig(t)
	n := g.BeginInsertion()
	for i := range 4 * maxChanged * shardCount {
		g.Invalidate(fmt.Sprint("other", i))
	}
	remembered := 0
	for i := range g.shards {
		remembered += len(g.shards[i].changed)
	}
	if remembered > maxChanged*shardCount {
		t.Errorf("%d keys are remembered", remembered)
	}
	later := g.BeginInsertion()
	g.Inserted("k", n, Install(1))
	g.holds(mapMemory{})
	g.Inserted("l", later, Install(1))
	g.holds(mapMemory{"l": 1})
	g.EndInsertion()
	g.EndInsertion()
}

// Another program has written the row after the insertion, and a reader was told so by a
// load that could not fill memory. What the insertion publishes is older.
func TestAnInsertionDoesNotInstallLessThanATaintedLoadHasShown(t *testing.T) {
	t.Run("LandedAfterTheHold", func(t *testing.T) {
		g := newRig(t)
		n := g.BeginInsertion()
		g.Hold("k", 1, false)
		f := g.starts("k")
		g.Release("k", Unchanged[int]())
		g.lands(f, 5)
		g.Inserted("k", n, Install(3))
		g.EndInsertion()
		g.holds(mapMemory{})
	})
	t.Run("LandedInTheHold", func(t *testing.T) {
		g := newRig(t)
		n := g.BeginInsertion()
		g.Hold("k", 1, false)
		f := g.starts("k")
		g.lands(f, 5)
		g.Release("k", Unchanged[int]())
		g.Inserted("k", n, Install(3))
		g.EndInsertion()
		g.holds(mapMemory{})
	})
}

// The same where the load has filled memory, and eviction has forgotten the row.
func TestAnInsertionDoesNotInstallLessThanWhatWasEvicted(t *testing.T) {
	g := newRig(t)
	n := g.BeginInsertion()
	g.lands(g.starts("k"), 5)
	g.memory.Delete("k")
	g.Inserted("k", n, Install(3))
	g.EndInsertion()
	g.holds(mapMemory{})
}

// The same where another program has deleted the row, and a reader knows.
func TestAnInsertionDoesNotInstallOverADeletionThatALoadHasShown(t *testing.T) {
	g := newRig(t)
	n := g.BeginInsertion()
	g.lands(g.starts("k"), 6)
	g.Inserted("k", n, Install(3))
	g.EndInsertion()
	g.holds(mapMemory{})
}
