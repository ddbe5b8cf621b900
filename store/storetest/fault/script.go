package fault

import (
	"math/rand/v2"
	"time"
)

// Op is a kind of operation that a script names.
type Op uint8

// The operations of a store: its methods, and the functions of its
// Capabilities. Commit is also the commit of a transaction.
const (
	Load Op = iota
	Commit
	Settle
	Scan
	Begin
	Apply
	ops
)

var opNames = [ops]string{"load", "commit", "settle", "scan", "begin", "apply"}

func (o Op) String() string { return opNames[o] }

// Script says what goes wrong, and when. It is immutable; the zero value is a
// script in which nothing does.
type Script struct {
	statements []statement
}

type statement struct {
	op    Op
	which which
	fault fault
}

// which selects operations by their number: first to last, each step-th of
// them, with a probability.
type which struct {
	first, last, step int
	probability       float64
}

// kind is what goes wrong.
type kind uint8

const (
	nothing kind = iota
	latency
	fail
	refuse
	hang
	panicking
	loseRequest
	loseReply
)

// forgetting is what a settlement does not know.
type forgetting uint8

const (
	forgetNothing forgetting = iota
	forgetRows
	forgetOutcome
)

type fault struct {
	kind              kind
	shortest, longest time.Duration // of a latency
	after             bool          // hang and panic: after the database
	late              bool          // loseReply: not applied yet
	forget            forgetting    // loseRequest, loseReply
}

// plan is what a script has in store for one operation.
type plan struct {
	op            Op
	number        int
	before, after time.Duration
	fault         fault // other than latencies
	// random is for what is decided later; it belongs to this operation.
	random *rand.Rand
}

// plan decides about the operation with that number.
func (s Script) plan(seed uint64, op Op, number int) plan {
	p := plan{op: op, number: number, random: source(seed, op, number, 0)}
	for i, st := range s.statements {
		if st.op != op {
			continue
		}
		random := source(seed, op, number, i+1)
		if !st.which.matches(number, random) {
			continue
		}
		switch {
		case st.fault.kind == latency:
			d := st.fault.shortest
			d += time.Duration(random.Float64() * float64(st.fault.longest-st.fault.shortest))
			before := time.Duration(random.Float64() * float64(d))
			p.before += before
			p.after += d - before
		case p.fault.kind == nothing:
			p.fault = st.fault
		}
	}
	return p
}

func (w which) matches(number int, random *rand.Rand) bool {
	return number >= w.first && number <= w.last && number%w.step == 0 &&
		(w.probability == 1 || random.Float64() < w.probability)
}

// source returns random numbers that depend on its arguments alone. The rounds
// of splitmix64 keep neighbours from resembling each other.
func source(seed uint64, op Op, number, index int) *rand.Rand {
	h := seed
	for _, n := range []uint64{uint64(op), uint64(number), uint64(index)} {
		h += n + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return rand.New(rand.NewPCG(h, seed))
}
