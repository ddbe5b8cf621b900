package kv

import (
	"slices"

	"github.com/lockstep-cache/lockstep"
)

// Insertion tells whether the set makes a row whose key the database gives. The error
// refuses one that does something else as well.
func Insertion[K comparable, V any](set lockstep.ChangeSet[K, V]) (bool, error) {
	if !slices.ContainsFunc(set.Changes, func(c lockstep.Change[K, V]) bool { return c.Insert }) {
		return false, nil
	}
	c := set.Changes[0]
	if len(set.Changes)+len(set.Checks) > 1 || set.DeleteAll || c.Delete || c.Expect.Kind != lockstep.ExpectAnything {
		return false, invalid("an insertion beside other changes, checks or conditions")
	}
	return true, nil
}
