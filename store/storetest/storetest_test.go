package storetest_test

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A Store without a script is as good as the one inside. With one that loses
// requests and replies, what its settlements say is true.
func TestInjectKeepsTheContract(t *testing.T) {
	open := func(db *memstore.Database, script string, seed uint64) storetest.Store {
		inner := memstore.New(memstore.Options[string, storetest.Doc]{Database: db, NewKey: crand.Text})
		return storetest.Inject(inner, fault.MustParse(script), seed)
	}
	for _, c := range []struct{ name, script string }{
		{"WithoutAScript", ""},
		{"WithLatency", "load *: latency 0ms..200us; commit *: latency 0ms..200us; settle *: latency 1ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			storetest.Run(t, storetest.Harness{
				Bubble: true,
				Open:   func(testing.TB) storetest.Store { return open(nil, c.script, 1) },
				OpenTwo: func(testing.TB) (a, b storetest.Store) {
					db := memstore.NewDatabase()
					return open(db, c.script, 1), open(db, c.script, 2)
				},
				OpenUnreliable: func(testing.TB) storetest.Store {
					return open(nil, `
						commit 15%: lose request
						commit 20%: lose reply
						commit 30%: lose reply, late
						commit 10%: lose reply, forget outcome
						commit 10%: fail
						settle 30%: fail
					`, 3)
				},
				Lacks: []storetest.Feature{storetest.Restart, storetest.Refusals},
			})
		})
	}
}

// busy leaves one set in 16 out, as one that was locked for too long, and fails one
// commit in 16.
type busy struct {
	storetest.Store
	sets, commits atomic.Uint64
}

func (b *busy) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, storetest.Doc]) ([]lockstep.Outcome[storetest.Doc], error) {
	if unlucky(b.commits.Add(1)) {
		return nil, lockstep.ErrUnavailable
	}
	tried := slices.Clone(sets)
	locked := make([]bool, len(sets))
	for i := range sets {
		if locked[i] = unlucky(b.sets.Add(1)); locked[i] {
			tried[i] = lockstep.ChangeSet[string, storetest.Doc]{}
		}
	}
	outcomes, err := b.Store.Commit(ctx, tried)
	for i := range outcomes {
		if locked[i] {
			outcomes[i] = lockstep.Outcome[storetest.Doc]{Err: fmt.Errorf("locked: %w", lockstep.ErrUnavailable)}
		}
	}
	return outcomes, err
}

// unlucky draws for the n-th of something.
func unlucky(n uint64) bool { return rand.New(rand.NewPCG(n, 7)).IntN(16) == 0 }

// A set may be left out because it could not be tried: the contract allows it.
func TestAStoreThatIsBusyNowAndThen(t *testing.T) {
	open := func(db *memstore.Database) storetest.Store {
		return &busy{Store: memstore.New(memstore.Options[string, storetest.Doc]{Database: db, NewKey: crand.Text})}
	}
	storetest.Run(t, storetest.Harness{
		Bubble: true,
		Open:   func(testing.TB) storetest.Store { return open(nil) },
		OpenTwo: func(testing.TB) (a, b storetest.Store) {
			db := memstore.NewDatabase()
			return open(db), open(db)
		},
		OpenUnreliable: func(testing.TB) storetest.Store {
			return storetest.Inject(open(nil), fault.MustParse("commit 25%: lose request; commit 25%: lose reply"), 1)
		},
		Lacks: []storetest.Feature{storetest.Restart, storetest.Refusals},
	})
}
