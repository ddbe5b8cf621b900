package storetest

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/lockstep-cache/lockstep"
)

// Store is the kind of store that the suite tests.
type Store = lockstep.Store[string, Doc]

// Harness tells Run how to come by a store, and what to expect of it.
type Harness struct {
	// Open returns a store over an empty table. Each test calls it once, and two
	// stores of one test binary never share rows. What has to be closed is closed
	// by t.Cleanup.
	Open func(t testing.TB) Store

	// Reopen ends the given store as the end of its program would, and returns a
	// new one over the same rows. A harness without it declares Restart lacking.
	Reopen func(t testing.TB, old Store) Store

	// OpenTwo returns two stores over empty tables of one database. It is needed
	// unless Transactions are lacking.
	OpenTwo func(t testing.TB) (a, b Store)

	// OpenUnreliable returns an empty store some of whose commits have an unknown
	// outcome, applied and not. It shows that Settle tells the truth; what Inject
	// makes of a reliable one will do. A harness without it declares UnknownOutcomes
	// lacking.
	OpenUnreliable func(t testing.TB) Store

	// Refused returns a change of the row of key that Prepare accepts and the
	// database does not, whatever the row is: one that a constraint forbids, say. It
	// may write rows of its own first. A harness without it declares Refusals
	// lacking.
	Refused func(t testing.TB, s Store, key string) lockstep.Change[string, Doc]

	// Lacks is everything the store cannot do, no more and no less.
	Lacks []Feature

	// Bubble runs each test in a bubble of fake time (testing/synctest), where
	// waiting costs nothing. It is for stores whose clock is time.Now and which do
	// no I/O.
	Bubble bool
}

// Feature is something that a store may lack.
type Feature string

// Each Feature but the last three stands for the field, or the fields, of
// lockstep.Capabilities of that name.
const (
	Versions     Feature = "Versions"
	Checks       Feature = "Checks"
	Atomic       Feature = "Atomic"
	Tombstones   Feature = "Tombstones"
	Lifetimes    Feature = "Lifetimes"
	DeleteAll    Feature = "DeleteAll"
	Inserts      Feature = "Inserts"
	Prepare      Feature = "Prepare"
	Clone        Feature = "Clone"
	Settle       Feature = "Settle"
	Scan         Feature = "Scan"
	Transactions Feature = "Transactions" // Database, Begin and Apply
	Read         Feature = "Read"
	// Restart: the rows outlive the store.
	Restart Feature = "Restart"
	// UnknownOutcomes: the harness can bring them about, with OpenUnreliable.
	UnknownOutcomes Feature = "UnknownOutcomes"
	// Refusals: the database can refuse a change, and the harness has one: Refused.
	Refusals Feature = "Refusals"
)

// Run tests the contract, each law in a subtest of its own. A failure of one
// says which sentence of the contract is not kept.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Open == nil {
		t.Fatal("storetest: the harness has no Open")
	}
	t.Run("Declared", func(t *testing.T) { h.declared(t) })
	for _, law := range laws() {
		t.Run(law.name, func(t *testing.T) {
			if h.Bubble {
				synctest.Test(t, func(t *testing.T) { h.check(t, law) })
			} else {
				h.check(t, law)
			}
		})
	}
	t.Run("Model", func(t *testing.T) { RunModel(t, h) })
}

// law is one test of the suite.
type law struct {
	name string
	test func(s *subject)
}

func laws() []law {
	return slices.Concat(
		outcomeLaws, expectLaws, checkLaws, versionLaws, keyLaws, lifetimeLaws,
		callLaws, sizeLaws, tableLaws, insertLaws, txnLaws, settleLaws, raceLaws,
	)
}

func (h Harness) check(t *testing.T, l law) {
	s := h.open(t)
	l.test(s)
	s.scanAgreesWithLoad()
}

// declared compares what the harness says with what the store says.
func (h Harness) declared(t *testing.T) {
	caps := h.Open(t).Capabilities()
	if caps.Name == "" {
		t.Error("Capabilities.Name is empty")
	}
	if caps.ReadOnly {
		t.Fatal("a read-only store cannot be tested by this suite")
	}
	lacking := make(map[Feature]bool)
	for _, f := range h.Lacks {
		lacking[f] = true
	}
	has := h.features(caps)
	for _, f := range slices.Sorted(maps.Keys(has)) {
		switch {
		case has[f] && lacking[f]:
			t.Errorf("the harness declares %s lacking, but the store has it", f)
		case !has[f] && !lacking[f]:
			t.Errorf("the store lacks %s, and the harness does not declare it", f)
		}
		delete(lacking, f)
	}
	for f := range lacking {
		t.Errorf("the harness declares an unknown feature %q lacking", f)
	}
	if caps.Begin != nil && h.OpenTwo == nil {
		t.Error("the store has Transactions, and the harness has no OpenTwo")
	}
	if caps.Begin == nil != (caps.Apply == nil) || caps.Begin == nil != (caps.Database == nil) {
		t.Error("Database, Begin and Apply come together or not at all")
	}
	if caps.Read != nil && caps.Begin == nil {
		t.Error("Read is of no use without Begin")
	}
}

// features are those of the store and of its harness.
func (h Harness) features(caps lockstep.Capabilities[string, Doc]) map[Feature]bool {
	return map[Feature]bool{
		Restart:         h.Reopen != nil,
		UnknownOutcomes: h.OpenUnreliable != nil,
		Refusals:        h.Refused != nil,

		Versions:     caps.Versions,
		Checks:       caps.Checks,
		Atomic:       caps.Atomic,
		Tombstones:   caps.Tombstones,
		Lifetimes:    caps.Lifetimes,
		DeleteAll:    caps.DeleteAll,
		Inserts:      caps.Inserts,
		Prepare:      caps.Prepare != nil,
		Clone:        caps.Clone != nil,
		Settle:       caps.Settle != nil,
		Scan:         caps.Scan != nil,
		Transactions: caps.Begin != nil,
		Read:         caps.Read != nil,
	}
}
