package history

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The checker takes short cuts: it learns facts from the whole history, ranks the
// writes of a key, and carries several worlds along. TestAgainstSearch compares
// it with a search that takes none: every order of every choice of what happened.

// orders tells whether some order of the operations explains them.
func orders(todo []*Op, rows map[string]plain) bool {
	if len(todo) == 0 {
		return true
	}
	for i, op := range todo {
		if slices.ContainsFunc(todo, func(other *Op) bool { return other.Return < op.Call }) {
			continue
		}
		rest := slices.Delete(slices.Clone(todo), i, i+1)
		after, ok := apply(rows, op)
		if ok && orders(rest, after) {
			return true
		}
		if (op.Fate == Unknown || op.Fate == NotApplied || op.Fate == Conditional && !ok) && orders(rest, rows) {
			return true
		}
	}
	return false
}

// plain is a row, and a version that its own is not below.
type plain struct{ value, version int64 }

func apply(rows map[string]plain, op *Op) (map[string]plain, bool) {
	after := make(map[string]plain)
	for key, r := range rows {
		after[key] = r
	}
	for _, r := range op.Reads {
		now := after[r.Key]
		if r.Exists != (now.value != 0) || r.Value != 0 && r.Value != now.value || r.Version != 0 && r.Version != now.version {
			return nil, false
		}
	}
	for _, w := range op.Writes {
		now := after[w.Key]
		switch {
		case op.Fate == NotApplied:
			return nil, false
		case w.Lapsed:
			now.value = 0
		case !w.Exists && now.value == 0:
		case !w.Exists:
			now = plain{0, now.version + 1}
		case w.Version != 0 && w.Version <= now.version:
			return nil, false
		default:
			now = plain{w.Value, max(w.Version, now.version)}
		}
		after[w.Key] = now
	}
	return after, true
}

// chaos makes a short history in which about as many are explained as not.
func chaos(random *rand.Rand) (ops []*Op) {
	keys := []string{"a", "b"}[:1+random.IntN(2)]
	versions := random.IntN(2) == 0
	n := 2 + random.IntN(6)
	moments := random.Perm(2 * n)
	slices.Sort(moments[:n])
	type written struct {
		key string
		Row
	}
	var values []written
	row := func(key string, value int64) Row {
		r := Row{Key: key, Exists: true, Value: value}
		if versions {
			r.Version = 10 * value
		}
		return r
	}
	for i := range n {
		// A call among the first moments keeps most of them overlapping a little.
		call := int64(moments[i])
		op := &Op{Name: fmt.Sprint(i), Call: call, Return: call + 1 + int64(random.IntN(6))}
		for _, key := range keys {
			if random.IntN(len(keys)) > 0 {
				continue
			}
			if random.IntN(2) == 0 {
				r := Row{Key: key}
				if len(values) > 0 && random.IntN(4) > 0 {
					if v := values[random.IntN(len(values))]; v.key == key {
						r = v.Row
						switch random.IntN(4) {
						case 0:
							r.Value = 0
						case 1:
							r.Version = 0
						}
					}
				}
				op.Reads = append(op.Reads, r)
			}
			if random.IntN(2) == 0 {
				w := Row{Key: key}
				if random.IntN(4) > 0 {
					w = row(key, int64(1+2*i+random.IntN(2)))
					values = append(values, written{key, w})
				}
				op.Writes = append(op.Writes, w)
			}
		}
		switch random.IntN(8) {
		case 0:
			op.Fate = NotApplied
		case 1, 2:
			op.Fate = Unknown
		case 3:
			if len(op.Writes) == 1 && !op.Writes[0].Exists {
				op.Fate, op.Writes[0].Lapsed = Conditional, true
			}
		}
		if len(op.Reads)+len(op.Writes) > 0 {
			ops = append(ops, op)
		}
	}
	return ops
}

func TestAgainstSearch(t *testing.T) {
	explained := 0
	const n = 20_000
	for seed := range uint64(n) {
		ops := chaos(rand.New(rand.NewPCG(seed, 1)))
		want := orders(ops, map[string]plain{})
		if want {
			explained++
		}
		var v *Violation
		err := Check(ops, patience)
		if got := err == nil; got != want || !got && !errors.As(err, &v) {
			var b strings.Builder
			timeline(&b, ops)
			t.Fatalf("seed %d: an order exists: %t, Check says %v, of\n%s", seed, want, err, b.String())
		}
	}
	if explained < n/10 || explained > n*19/20 {
		t.Errorf("%d of %d were explained", explained, n)
	}
}
