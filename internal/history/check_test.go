package history

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// The histories of these tests are written as during(call, return, what happened).

type part func(*Op)

func during(call, end int64, parts ...part) *Op {
	op := &Op{Name: "op", Call: call, Return: end}
	for _, p := range parts {
		p(op)
	}
	return op
}

func read(r Row) part  { return func(op *Op) { op.Reads = append(op.Reads, r) } }
func write(r Row) part { return func(op *Op) { op.Writes = append(op.Writes, r) } }

func row1(key string, value int64, version []int64) Row {
	r := Row{Key: key, Exists: value != 0, Value: value}
	if len(version) > 0 {
		r.Version = version[0]
	}
	return r
}

func saw(key string, value int64, version ...int64) part { return read(row1(key, value, version)) }
func put(key string, value int64, version ...int64) part { return write(row1(key, value, version)) }
func sawNone(key string, version ...int64) part          { return read(row1(key, 0, version)) }
func remove(key string) part                             { return write(row1(key, 0, nil)) }
func sawSome(key string, version ...int64) part {
	r := row1(key, 0, version)
	r.Exists = true
	return read(r)
}

func unknown(op *Op) { op.Fate = Unknown }
func void(op *Op)    { op.Fate = NotApplied }
func lapse1(key string, value int64) part {
	return func(op *Op) {
		op.Fate = Conditional
		op.Reads = []Row{{Key: key, Exists: true, Value: value}}
		op.Writes = []Row{{Key: key, Lapsed: true}}
	}
}

const patience = 10 * time.Second

func TestExplained(t *testing.T) {
	for name, ops := range map[string][]*Op{
		"nothing": nil,
		"reads beside a write see either": {
			during(1, 9, put("a", 1)), during(2, 3, sawNone("a")), during(4, 5, saw("a", 1)),
		},
		"a write that nobody was told of may come late": {
			during(1, Forever, put("a", 1), unknown), during(2, 3, sawNone("a")), during(8, 9, saw("a", 1)),
		},
		"or never": {
			during(1, Forever, put("a", 1), unknown), during(8, 9, sawNone("a")),
		},
		"one that was settled either way may have come or not": {
			during(1, 4, put("a", 1), unknown), during(1, 4, put("b", 2), unknown),
			during(8, 9, saw("a", 1)), during(8, 9, sawNone("b")),
		},
		"and be hidden by the next": {
			during(1, 4, put("a", 1), unknown), during(5, 6, put("a", 2), sawSome("a")),
		},
		"a condition that did not hold leaves the row": {
			during(1, 2, put("a", 1, 10)), during(3, 9, saw("a", 7), put("a", 2), unknown), during(5, 6, put("b", 7)), during(7, 8, saw("a", 1)),
		},
		"a key that was deleted and made again": {
			during(1, 2, put("a", 1, 10)), during(3, 4, sawSome("a"), remove("a")), during(5, 6, sawNone("a", 11)),
			during(7, 8, sawNone("a"), put("a", 2, 12)), during(9, 10, saw("a", 2, 12)),
		},
		"deleting nothing": {
			during(1, 2, sawNone("a"), remove("a")), during(3, 4, put("a", 1, 10)),
		},
		"a transaction beside readers": {
			during(1, 9, sawNone("a"), put("a", 1), put("b", 2)), during(2, 3, sawNone("b")), during(4, 5, saw("a", 1)), during(6, 7, saw("b", 2)),
		},
		"a write that was not applied": {
			during(1, 2, put("a", 1), void), during(3, 4, sawNone("a")),
		},
		"a conflict with a write beside it": {
			during(1, 9, put("a", 1, 10)), during(2, 3, sawNone("a")), during(2, 9, sawSome("a", 10)),
		},
		"versions tell the order of writes": {
			during(1, 9, put("a", 1, 12)), during(2, 9, put("a", 2, 11)), during(10, 11, saw("a", 1)),
		},
		"a row until its lifetime is over": {
			during(1, 2, put("a", 1, 10)), during(5, 7, lapse1("a", 1)), during(3, 6, saw("a", 1)), during(6, 8, sawNone("a", 10)),
		},
		"a row that was written again before": {
			during(1, 2, put("a", 1, 10)), during(3, 4, put("a", 2, 11)), during(5, 7, lapse1("a", 1)), during(8, 9, saw("a", 2)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Check(ops, patience); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNotExplained(t *testing.T) {
	for name, c := range map[string]struct {
		ops  []*Op
		want string // in the reason
	}{
		"a stale read": {[]*Op{
			during(1, 2, put("a", 1)), during(3, 4, put("a", 2)), during(5, 6, saw("a", 1)),
		}, "no order"},
		"a lost write": {[]*Op{
			during(1, 2, put("a", 1)), during(3, 4, sawNone("a")),
		}, "no order"},
		"a write that goes back while it is under way": {[]*Op{
			during(1, 9, put("a", 1)), during(2, 3, saw("a", 1)), during(4, 5, sawNone("a")),
		}, "no order"},
		"a lost update": {[]*Op{
			during(1, 2, put("a", 1)), during(3, 8, saw("a", 1), put("a", 2)), during(4, 9, saw("a", 1), put("a", 3)),
		}, "no order"},
		"half a transaction": {[]*Op{
			during(1, 9, put("a", 1), put("b", 2)), during(2, 3, saw("a", 1)), during(4, 5, sawNone("b")),
		}, "no order"},
		"half a transaction in another": {[]*Op{
			during(1, 9, put("a", 1), put("b", 2)), during(2, 8, saw("a", 1), sawNone("b")),
		}, "no order"},
		"half a transaction of unknown outcome": {[]*Op{
			during(1, 4, put("a", 1), put("b", 2), unknown), during(5, 6, saw("a", 1)), during(7, 8, sawNone("b")),
		}, "no order"},
		"a transaction that gave up for what was never so at once": {[]*Op{
			during(1, 2, put("a", 1), put("b", 2)), during(3, 4, put("a", 3), put("b", 4)), during(1, 9, saw("a", 1), saw("b", 4)),
		}, "no order"},
		"write skew": {[]*Op{
			during(1, 9, sawNone("a"), put("b", 1)), during(1, 9, sawNone("b"), put("a", 2)),
		}, "no order"},
		"a write that was not applied and was seen": {[]*Op{
			during(1, 2, put("a", 1), void), during(3, 4, saw("a", 1)),
		}, "said not to be applied"},
		"a write that nobody made": {[]*Op{
			during(3, 4, saw("a", 1)),
		}, "nobody wrote"},
		"a write that comes after it was settled": {[]*Op{
			during(1, 4, put("a", 1), unknown), during(5, 6, sawNone("a")), during(7, 8, saw("a", 1)),
		}, "no order"},
		"a write settled as applied that was not": {[]*Op{
			during(1, 4, put("a", 1)), during(5, 6, sawNone("a")),
		}, "no order"},
		"a write that came twice": {[]*Op{
			during(1, 9, put("a", 1), unknown), during(2, 3, saw("a", 1)), during(4, 5, put("a", 2)), during(6, 7, saw("a", 1)),
		}, "no order"},
		"a condition that was not so": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(3, 4, put("a", 2, 11)), during(5, 6, sawSome("a", 10), put("a", 3, 12)),
		}, "no order"},
		"a condition by a version that never was": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(5, 6, sawSome("a", 7), put("a", 3, 12)),
		}, "no order"},
		"a condition that nobody was told of and that was not so": {[]*Op{
			during(1, 2, put("a", 1)), during(3, 9, sawNone("a"), put("a", 2), unknown), during(4, 5, saw("a", 2)),
		}, "no order"},
		"a conflict that nothing explains": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(3, 4, sawNone("a")),
		}, "no order"},
		"a deletion that found what was not there": {[]*Op{
			during(1, 2, sawSome("a"), remove("a")),
		}, "no order"},
		"a version that goes back": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(3, 4, put("a", 2, 9)),
		}, "no order"},
		"a version that goes back when the key is made again": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(3, 4, remove("a")), during(5, 6, put("a", 2, 10)),
		}, "two values at version"},
		"a deletion without a version of its own": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(3, 4, remove("a")), during(5, 6, sawNone("a", 10)),
		}, "no order"},
		"one value, two versions": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(3, 4, saw("a", 1, 11)),
		}, "at two versions"},
		"one version, two values": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(3, 4, put("a", 2, 11)), during(5, 6, saw("a", 2, 10)),
		}, "at two versions"},
		"a row after its lifetime": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(5, 7, lapse1("a", 1)), during(8, 9, saw("a", 1)),
		}, "no order"},
		"a row that is gone before its lifetime": {[]*Op{
			during(1, 2, put("a", 1, 10)), during(5, 7, lapse1("a", 1)), during(3, 4, sawNone("a")),
		}, "no order"},
		"an answer that contradicts itself": {[]*Op{
			during(1, 2, saw("a", 1), func(op *Op) { op.Broken = "a conflict with itself" }),
		}, "a conflict with itself"},
	} {
		t.Run(name, func(t *testing.T) {
			var v *Violation
			switch err := Check(c.ops, patience); {
			case !errors.As(err, &v):
				t.Errorf("Check returns %v", err)
			case !strings.Contains(v.Reason, c.want):
				t.Errorf("the reason is %q, want %q in it", v.Reason, c.want)
			case len(v.Part) == 0 || len(v.Part) > len(c.ops):
				t.Errorf("the failing part is %v", v.Part)
			}
		})
	}
}

// What is unknown of other keys must not hide what is wrong with one. Found where a Get
// went back behind what a Scan had reported, in a round with many unknown outcomes.
func TestOneKeyIsDecidedWhereTheWholeIsNot(t *testing.T) {
	ops := []*Op{during(10, 11, put("z", 1)), during(12, 13, put("z", 2)), during(14, 15, saw("z", 1))}
	for i := range 12 {
		ops = append(ops, during(int64(i), Forever, put(KeyOf(0, i), 7), unknown))
	}
	var v *Violation
	if err := Check(ops, 2*time.Second); !errors.As(err, &v) || !strings.Contains(v.Reason, "saw of z") {
		t.Errorf("%v", err)
	}
	for _, op := range ops[:3] {
		op.Reads = nil // which leaves nothing wrong, and nothing to tell in time
	}
	ops = append(ops, during(20, 21, saw("z", 2)))
	if err := Check(ops, 2*time.Second); errors.As(err, &v) {
		t.Errorf("nothing is wrong: %v", err)
	}
}

// An operation that was under way where a part of a history begins may be done by then.
// It was taken for one that comes later, and a part that can be explained was shown.
func TestWhatWasUnderWayMayBeDone(t *testing.T) {
	ops := []*Op{during(1, 2, put("a", 1, 10)), during(3, Forever, put("a", 2, 20)), during(3, 6, sawSome("a")), during(4, 5, put("a", 3, 30)), during(8, 9, saw("a", 3))}
	part := since(ops, 6)
	if len(part) != 2 || part[0].Fate != Unknown || part[1] != ops[4] || ops[1].Fate != Applied {
		t.Fatalf("%v", part)
	}
	f, _ := learn(ops)
	if result := f.explain(since(f.ops, 6), true, patience); result != porcupine.Ok {
		t.Errorf("the end of what can be explained: %s", result)
	}
}
