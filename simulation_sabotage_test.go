package lockstep_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/sabotage"
)

// TestSimulationFindsSabotages shows that TestSimulation would notice: in its worlds,
// the histories of each sabotage have no explanation, and those of the cache as it is,
// called in the same way, have one. What hangs or panics is left out of the worlds, as
// the textbook's cache would hang with it.
func TestSimulationFindsSabotages(t *testing.T) {
	// Races are lost by luck, and not every world has what a sabotage needs: there are
	// more seeds to show in than are run as a rule.
	const seeds, most = 6, 100
	for _, s := range sabotage.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			found := false
			for seed := uint64(1); seed <= seeds || !found && seed <= most; seed++ {
				if err := sabotaged(t, s.Mended(), seed, calm(fakeTime)); err != nil {
					t.Errorf("seed %d of the cache as it is: %v", seed, err)
				}
				if found {
					continue
				}
				scale := calm(fakeTime)
				if s.Needs.RealTime {
					scale = realTime
				}
				err := sabotaged(t, s, seed, scale)
				var v *history.Violation
				if found = errors.As(err, &v); found {
					t.Logf("seed %d: %v", seed, err)
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if !found {
				t.Errorf("not found in %d histories", most)
			}
		})
	}
}

func calm(of func() scale) func() scale {
	return func() scale {
		scale := of()
		scale.calm = true
		return scale
	}
}

// sabotaged checks the history of one seed's world over a sabotage. A world that the
// sabotage cannot show in has none.
func sabotaged(t *testing.T, s sabotage.Sabotage, seed uint64, of func() scale) (err error) {
	run := func(t *testing.T) {
		w := newWorld(t, seed, 4*shortHistory, of())
		var stores []lockstep.Store[int, int64]
		for _, table := range w.tables {
			stores = append(stores, table.top)
		}
		var subject history.Subject
		var end sabotage.Close
		if subject, end, err = s.Open(stores, w.options); err != nil {
			return
		}
		h := w.workload.Run(context.Background(), subject)
		for _, table := range w.tables {
			table.mend(w.workload.Pause)
		}
		if err := end(context.Background()); err != nil {
			t.Error(err)
		}
		err = history.Check(h.Ops, historyPatience)
	}
	if of().clock.Fake() {
		synctest.Test(t, run)
	} else {
		run(t)
	}
	if errors.Is(err, lockstep.ErrUnsupported) {
		return nil
	}
	return err
}
