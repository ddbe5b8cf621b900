package history

import (
	"cmp"
	"fmt"
	"slices"
)

// facts are what the whole of a history says about its rows, whatever the order
// of its operations.
type facts struct {
	// ops are those that may have happened, sorted by their calls. An operation
	// of unknown outcome that left a trace did happen; a row that was seen by its
	// version alone has its value.
	ops      []*Op
	versions map[rowID]int64
}

// contradiction is what no order of operations can explain.
type contradiction struct {
	reason string
	ops    []*Op
}

// learn finds the facts, or the first contradiction between them.
func learn(ops []*Op) (facts, *contradiction) {
	l := learner{
		writers:  make(map[rowID]*Op),
		versions: make(map[rowID]*sighting),
		values:   make(map[versionID]*sighting),
	}
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	for _, pass := range []func(*Op) *contradiction{l.write, l.version, l.trace} {
		for _, op := range ops {
			if c := pass(op); c != nil {
				return facts{}, c
			}
		}
	}
	f := facts{versions: make(map[rowID]int64)}
	for id, s := range l.versions {
		f.versions[id] = s.version
	}
	for _, op := range ops {
		if op.Fate == NotApplied {
			continue
		}
		known := *op
		if op.Fate == Unknown && l.seen[op] {
			known.Fate = Applied
		}
		known.Reads = slices.Clone(op.Reads)
		for i, r := range known.Reads {
			if s := l.values[versionID{r.Key, r.Version}]; r.Exists && r.Value == 0 && s != nil {
				known.Reads[i].Value = s.value
			}
		}
		f.ops = append(f.ops, &known)
	}
	return f, nil
}

// sighting is where a value and its version were first seen together.
type sighting struct {
	value, version int64
	op             *Op
}

type versionID struct {
	key     string
	version int64
}

type learner struct {
	writers  map[rowID]*Op
	versions map[rowID]*sighting
	values   map[versionID]*sighting
	// seen are the operations of whose writes something was seen.
	seen map[*Op]bool
}

// write notes who wrote what.
func (l *learner) write(op *Op) *contradiction {
	if op.Broken != "" {
		return &contradiction{op.Broken, []*Op{op}}
	}
	for _, w := range op.Writes {
		id := rowID{w.Key, w.Value}
		if !w.Exists {
			continue
		}
		if other := l.writers[id]; other != nil {
			return &contradiction{fmt.Sprintf("two operations write %d to %s: the history cannot be checked", w.Value, w.Key), []*Op{other, op}}
		}
		l.writers[id] = op
	}
	return nil
}

// version notes which value has which version.
func (l *learner) version(op *Op) *contradiction {
	var told []Row
	if op.Fate == Applied {
		told = op.Reads // of another fate they are what would have to be so
	}
	if op.Fate != NotApplied {
		told = slices.Concat(told, op.Writes)
	}
	for _, r := range told {
		if !r.Exists || r.Value == 0 || r.Version == 0 {
			continue
		}
		here := &sighting{r.Value, r.Version, op}
		id, version := rowID{r.Key, r.Value}, versionID{r.Key, r.Version}
		if first := l.versions[id]; first == nil {
			l.versions[id] = here
		} else if first.version != r.Version {
			return &contradiction{fmt.Sprintf("%s was %d at two versions", r.Key, r.Value), []*Op{first.op, op}}
		}
		if first := l.values[version]; first == nil {
			l.values[version] = here
		} else if first.value != r.Value {
			return &contradiction{fmt.Sprintf("%s had two values at version %d", r.Key, r.Version), []*Op{first.op, op}}
		}
	}
	return nil
}

// trace follows what was read to the operation that wrote it.
func (l *learner) trace(op *Op) *contradiction {
	if op.Fate != Applied {
		return nil
	}
	for _, r := range op.Reads {
		if s := l.values[versionID{r.Key, r.Version}]; r.Exists && r.Value == 0 && s != nil {
			r.Value = s.value
		}
		if !r.Exists || r.Value == 0 {
			continue
		}
		switch writer := l.writers[rowID{r.Key, r.Value}]; {
		case writer == nil:
			return &contradiction{fmt.Sprintf("nobody wrote %d to %s", r.Value, r.Key), []*Op{op}}
		case writer.Fate == NotApplied:
			return &contradiction{"a write that was said not to be applied was seen", []*Op{writer, op}}
		case writer != op:
			if l.seen == nil {
				l.seen = make(map[*Op]bool)
			}
			l.seen[writer] = true
		}
	}
	return nil
}
