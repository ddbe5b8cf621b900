package memstore_test

import (
	"crypto/rand"
	"testing"

	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestContract(t *testing.T) {
	storetest.Run(t, harness(memstore.Options[string, storetest.Doc]{}))
}

// With a Clone of the program's own the contract is the same.
func TestContractWithClone(t *testing.T) {
	storetest.Run(t, harness(memstore.Options[string, storetest.Doc]{Clone: func(d storetest.Doc) storetest.Doc {
		d.Body = append([]byte(nil), d.Body...)
		return d
	}}))
}

func harness(o memstore.Options[string, storetest.Doc]) storetest.Harness {
	open := func(db *memstore.Database) storetest.Store {
		o := o
		o.Database, o.NewKey = db, rand.Text
		return memstore.New(o)
	}
	return storetest.Harness{
		Bubble: true,
		Open:   func(testing.TB) storetest.Store { return open(nil) },
		OpenTwo: func(testing.TB) (a, b storetest.Store) {
			db := memstore.NewDatabase()
			return open(db), open(db)
		},
		OpenUnreliable: func(testing.TB) storetest.Store {
			return storetest.Inject(open(nil), fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
		},
		Lacks: []storetest.Feature{storetest.Restart, storetest.Refusals},
	}
}
