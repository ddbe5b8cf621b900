package history

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// reduce finds a small part of a history that is not linearizable and cannot be
// either, whatever is around it. Each step leaves out what could only make it
// harder to explain:
//
//   - keys: what operations did to others is forgotten;
//   - the end: operations that were called later are forgotten, and those that
//     had not returned may have happened or not;
//   - the beginning: operations that returned earlier are forgotten, the rows at the
//     start may be anything, and what was under way may be done;
//   - reads, one by one.
func (f *facts) reduce(patience time.Duration) *Violation {
	deadline := time.Now().Add(patience)
	fails := func(ops []*Op, open bool) bool {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		return f.explain(ops, open, left) == porcupine.Illegal
	}
	keys, ops := f.fewestKeys(fails)

	moments := make([]int64, 0, 2*len(ops))
	for _, op := range ops {
		moments = append(moments, op.Call, op.Return)
	}
	slices.Sort(moments)
	if end := sort.Search(len(moments), func(i int) bool { return fails(until(ops, moments[i]), false) }); end < len(moments) {
		ops = until(ops, moments[end])
	}
	// The last start from which it still fails: one before the first from which it
	// does not.
	start := sort.Search(len(moments), func(i int) bool { return !fails(since(ops, moments[i]), true) })
	open := start > 0
	if open {
		ops = since(ops, moments[start-1])
	}
	for i := len(ops) - 1; i >= 0; i-- {
		if less := slices.Delete(slices.Clone(ops), i, i+1); len(ops[i].Writes) == 0 && fails(less, open) {
			ops = less
		}
	}
	reason := fmt.Sprintf("no order of these operations explains what they saw of %s", strings.Join(keys, ", "))
	if open {
		reason += ", whatever was there before"
	}
	return &Violation{Reason: reason, Part: ops}
}

// fewestKeys returns the fewest keys, up to three, whose part of the history
// fails; all of them if there are none so few.
func (f *facts) fewestKeys(fails func([]*Op, bool) bool) (chosen []string, part []*Op) {
	keys := newModel(f.ops, f.versions, false).keys
	slices.Sort(keys)
	var choose func(n, from int) bool
	choose = func(n, from int) bool {
		if n == 0 {
			part = on(f.ops, chosen)
			return fails(part, false)
		}
		for i := from; i < len(keys); i++ {
			chosen = append(chosen, keys[i])
			if choose(n-1, i+1) {
				return true
			}
			chosen = chosen[:len(chosen)-1]
		}
		return false
	}
	for n := 1; n <= min(3, len(keys)); n++ {
		if choose(n, 0) {
			return chosen, part
		}
	}
	return keys, f.ops
}

// on is what the operations did to the keys.
func on(ops []*Op, keys []string) (part []*Op) {
	of := func(rows []Row) []Row {
		return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !slices.Contains(keys, r.Key) })
	}
	for _, op := range ops {
		less := *op
		less.Reads, less.Writes = of(op.Reads), of(op.Writes)
		if len(less.Reads)+len(less.Writes) > 0 {
			part = append(part, &less)
		}
	}
	return part
}

// until is what had happened, or may have, at a moment.
func until(ops []*Op, moment int64) (part []*Op) {
	seen := make(map[rowID]bool)
	for _, op := range ops {
		if op.Return <= moment && op.Fate == Applied {
			for _, r := range op.Reads {
				seen[rowID{r.Key, r.Value}] = r.Exists
			}
		}
	}
	for _, op := range ops {
		switch {
		case op.Call > moment:
			continue
		case op.Return > moment && len(op.Writes) == 0:
			continue
		case op.Return > moment:
			open := *op
			open.Return = Forever
			if !slices.ContainsFunc(op.Writes, func(w Row) bool { return w.Exists && seen[rowID{w.Key, w.Value}] }) {
				open.Fate = Unknown
			}
			op = &open
		}
		part = append(part, op)
	}
	return part
}

// since is what happened after a moment, or may have. What was under way may have come
// before: a read of it is forgotten, and a write may be made or not.
func since(ops []*Op, moment int64) (part []*Op) {
	for _, op := range ops {
		switch {
		case op.Return < moment, op.Call < moment && len(op.Writes) == 0:
			continue
		case op.Call < moment:
			open := *op
			open.Fate = Unknown
			op = &open
		}
		part = append(part, op)
	}
	return part
}

// inLanes gives each operation a row of its own among those that overlap it: one
// whose outcome was long unknown overlaps its client's next ones.
func inLanes(timed []porcupine.Operation) []porcupine.Operation {
	var free []int64 // by lane, when its last operation returned
	for i, op := range timed {
		lane := slices.IndexFunc(free, func(at int64) bool { return at < op.Call })
		if lane < 0 {
			lane = len(free)
			free = append(free, 0)
		}
		free[lane] = op.Return
		timed[i].ClientId = lane
	}
	return timed
}

// timeline writes the operations one a line, with their calls and returns
// numbered by order.
func timeline(w io.Writer, ops []*Op) {
	var moments []int64
	for _, op := range ops {
		moments = append(moments, op.Call, op.Return)
	}
	slices.Sort(moments)
	moments = slices.Compact(moments)
	number := func(moment int64) string {
		if moment == math.MaxInt64 {
			return "…"
		}
		i, _ := slices.BinarySearch(moments, moment)
		return fmt.Sprint(i + 1)
	}
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	for _, op := range ops {
		fmt.Fprintf(w, "  %4s – %-4s %v\n", number(op.Call), number(op.Return), op)
	}
}
