package history

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// ErrUndecided says that a check ran out of time. It is no verdict.
var ErrUndecided = errors.New("history: no verdict in time")

// Violation is a history that is not linearizable.
type Violation struct {
	Reason string
	// Part is the smallest part of the history that was found to have no
	// explanation, in the order of its calls.
	Part []*Op
}

func (v *Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "history: not linearizable: %s\n", v.Reason)
	timeline(&b, v.Part)
	return b.String()
}

// Check tells whether the operations can be put in one order that respects their
// calls and returns and in which each of them sees what the ones before it left,
// starting with no rows. The error is a *Violation, or ErrUndecided when patience
// ran out.
func Check(ops []*Op, patience time.Duration) error {
	f, c := learn(ops)
	if c != nil {
		return &Violation{Reason: c.reason, Part: c.ops}
	}
	switch f.explain(f.ops, false, patience/2) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		if f.someKeyFails(patience / 2) {
			break
		}
		return fmt.Errorf("%w: %d operations, %v", ErrUndecided, len(f.ops), patience)
	}
	return f.reduce(patience)
}

// someKeyFails tells whether what was done to one key cannot be explained, whatever was
// done to the others. That is found where the whole is too much to search: with many
// outcomes that are unknown, the search combines what may be of each key with what may be
// of every other one.
func (f *facts) someKeyFails(patience time.Duration) bool {
	keys := newModel(f.ops, f.versions, false).keys
	return slices.ContainsFunc(keys, func(key string) bool {
		return f.explain(on(f.ops, []string{key}), false, patience/time.Duration(len(keys))) == porcupine.Illegal
	})
}

// explain looks for an order of some of the operations. open says that the rows
// at the start may be anything.
func (f *facts) explain(ops []*Op, open bool, patience time.Duration) porcupine.CheckResult {
	m := newModel(ops, f.versions, open)
	return porcupine.CheckOperationsTimeout(m.porcupine(), m.history(), patience)
}

// WriteHTML writes the history as a page to look at: the operations in time, and
// the longest orders of them that can be explained.
func WriteHTML(ops []*Op, patience time.Duration, path string) error {
	f, c := learn(ops)
	if c != nil {
		f = facts{ops: c.ops}
	}
	m := newModel(f.ops, f.versions, false)
	_, info := porcupine.CheckOperationsVerbose(m.porcupine(), inLanes(m.history()), patience)
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(porcupine.Visualize(m.porcupine(), info, file), file.Close())
}
