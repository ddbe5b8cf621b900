package storetest

import (
	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// The names of package fault that tests use most.
type (
	// Faulty is a Store around a Store that goes wrong on purpose.
	Faulty[K comparable, V any] = fault.Store[K, V]
	// Script says what goes wrong, and when.
	Script = fault.Script
)

// Inject puts the faults of a script into a store; see package fault. The same
// seed draws the same faults.
func Inject[K comparable, V any](inner lockstep.Store[K, V], script Script, seed uint64) *Faulty[K, V] {
	return fault.Inject(inner, script, seed)
}

// ParseScript reads a fault script; see package fault for the language. Its error
// names line and column.
func ParseScript(text string) (Script, error) { return fault.ParseScript(text) }
