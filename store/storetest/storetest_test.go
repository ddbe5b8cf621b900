package storetest_test

import (
	"testing"

	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A Store without a script is as good as the one inside. With one that loses
// requests and replies, what its settlements say is true.
func TestInjectKeepsTheContract(t *testing.T) {
	open := func(db *memstore.Database, script string, seed uint64) storetest.Store {
		inner := memstore.New(memstore.Options[string, storetest.Doc]{Database: db})
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
