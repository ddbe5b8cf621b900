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
	g.Inserted("k", n, Install(3))
	g.EndInsertion()
	g.holds(mapMemory{"k": 3})
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
