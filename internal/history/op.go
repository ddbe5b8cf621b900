package history

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Forever is the Return of an operation that may yet take effect.
const Forever = math.MaxInt64

// Op is one operation of a history: at one moment between Call and Return all of
// Reads was so, and Writes became so. A call that does several things of which
// each has a moment of its own, as GetMany does, is recorded as several.
type Op struct {
	Client int
	Name   string
	// Number tells the calls of a client apart. Those that are recorded as several
	// operations have one number.
	Number int64
	// Call and Return are moments of the Clock.
	Call, Return int64
	Fate         Fate
	// Doubted says that its caller was told that nobody knows what becomes of it.
	// Fate may have been settled since.
	Doubted bool
	// Reads and Writes name each key at most once.
	Reads, Writes []Row
	// Lifetime ends the row that was written so long after the operation's moment; 0
	// leaves it. Inherits: the row written ends when the one that was read would have.
	Lifetime time.Duration
	Inherits bool
	// Broken says how the answer contradicts itself; empty for most.
	Broken string
}

// Fate is what is known of an operation's effect.
type Fate uint8

const (
	// Applied: it took effect between Call and Return, once.
	Applied Fate = iota
	// NotApplied: it did not, and never will.
	NotApplied
	// Unknown: it did so, or never will.
	Unknown
	// Conditional: it took effect between Call and Return if Reads was so, and
	// did nothing otherwise.
	Conditional
)

// Row is what an operation saw of a row, or made of it.
type Row struct {
	Key    string
	Exists bool
	// Value names the write that the row comes from: no two operations write the
	// same value to one key. 0 where it was not told.
	Value int64
	// Version is the row's, or its tombstone's; 0 where it was not told.
	Version int64
	// Lapsed: the row is absent because its lifetime is over, and keeps its version.
	Lapsed bool
}

func (r Row) state() string {
	var text string
	switch {
	case r.Lapsed:
		text = "lapsed"
	case !r.Exists:
		text = "absent"
	case r.Value == 0:
		text = "there"
	default:
		text = fmt.Sprint(r.Value)
	}
	if r.Version != 0 {
		text += fmt.Sprintf(" (version %d)", r.Version)
	}
	return text
}

// String says what the operation did, in one line.
func (op *Op) String() string {
	var parts []string
	for _, r := range op.Reads {
		parts = append(parts, r.Key+" was "+r.state())
	}
	for _, w := range op.Writes {
		parts = append(parts, w.Key+" := "+w.state())
	}
	text := fmt.Sprintf("client %d %s: %s", op.Client, op.Name, strings.Join(parts, ", "))
	switch op.Fate {
	case NotApplied:
		text += ", not applied"
	case Unknown:
		text += ", perhaps"
	case Conditional:
		text += ", if so"
	}
	if op.Broken != "" {
		text += "; " + op.Broken
	}
	return text
}
