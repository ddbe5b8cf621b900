package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/sabotage"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// TestSimulationFindsSabotages shows that TestHistories would notice: the histories of
// each sabotage have no explanation, and those of the cache as it is, made in the same
// way under the same faults, have one.
func TestSimulationFindsSabotages(t *testing.T) {
	// Races are lost by luck, so there are more seeds to show in than are run as a rule.
	const seeds, most = 6, 60
	for _, s := range sabotage.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			found := false
			for seed := uint64(1); seed <= seeds || !found && seed <= most; seed++ {
				if err := sabotaged(t, s.Mended(), seed, false); err != nil {
					t.Errorf("seed %d of the cache as it is: %v", seed, err)
				}
				if found {
					continue
				}
				err := sabotaged(t, s, seed, s.Needs.RealTime)
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

// sabotaged checks one seed's history, in a bubble unless realTime is set.
func sabotaged(t *testing.T, s sabotage.Sabotage, seed uint64, realTime bool) (err error) {
	if realTime {
		return sabotagedIn(t, s, seed, 100*time.Microsecond, history.RealTime())
	}
	synctest.Test(t, func(t *testing.T) { err = sabotagedIn(t, s, seed, time.Millisecond, history.FakeTime()) })
	return err
}

func sabotagedIn(t *testing.T, s sabotage.Sabotage, seed uint64, unit time.Duration, clock history.Clock) error {
	script := fmt.Sprintf("load *: latency 0s..%v; commit *: latency 0s..%v\n", 3*unit, 3*unit)
	for statement, needed := range map[string]bool{
		"commit 5%: lose reply\n":   s.Needs.LostReplies,
		"commit 5%: lose request\n": s.Needs.LostRequests,
		"commit 10%: fail\n":        s.Needs.Failures,
	} {
		if needed {
			script += statement
		}
	}
	w := history.Workload{
		Seed: seed, Calls: 200, Clients: 6, Keys: 3,
		Pause: 2 * unit, Patience: time.Minute, LeaveAfter: 5 * unit,
		Clock: clock,
	}
	if s.Needs.Leavers {
		w.Leave = 0.1
	}
	db := memstore.NewDatabase()
	var stores []lockstep.Store[int, int64]
	for i := range max(1, s.Needs.Tables) {
		table := memstore.New(memstore.Options[int, int64]{Database: db})
		stores = append(stores, fault.Inject(table, fault.MustParse(script), seed+uint64(i)<<32))
	}
	subject, end, err := s.Open(stores, lockstep.Options[int, int64]{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	h := w.Run(context.Background(), subject)
	if err := end(context.Background()); err != nil {
		t.Error(err)
	}
	return history.Check(h.Ops, historyPatience)
}
