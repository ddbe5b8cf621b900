package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// row is what a key is, as far as the operations so far tell.
type row struct {
	value int64 // 0: absent; or anything
	// floor is the version, if exact; otherwise the version is not below it.
	floor int64
	exact bool
	// rank is the number of writes so far that are ranked.
	rank int32
}

// anything is the value of a row of which nothing is known.
const anything = -1

// world is a row for each key. It is not changed once made.
type world []row

// state is every world that the operations so far may have left: one, until an
// operation of unknown outcome comes, and one again when the rows that it may
// have written are read or overwritten.
type state []world

// model says what a table does when operations come one after the other.
type model struct {
	keys  []string
	steps []step // the operations
	// versions are those of all values of which it is known.
	versions map[rowID]int64
	// open: nothing is known of the rows at the start.
	open bool
}

// rowID names a value of a key.
type rowID struct {
	key   string
	value int64
}

// step is an operation with everything looked up that it takes to apply it.
type step struct {
	op            *Op
	number        int // by the order of calls
	reads, writes []access
}

// access is a read or a write of one row.
type access struct {
	Row
	key int
	// version is that of the value, where it is known.
	version int64
	// rank orders the writes of a key that certainly happened and whose versions
	// are known, from 1. They can come in no other order. Without it, an order that
	// skips one would be found to be wrong only where that one is due.
	rank int32
}

func newModel(ops []*Op, versions map[rowID]int64, open bool) *model {
	m := &model{versions: versions, open: open, steps: make([]step, len(ops))}
	index := make(map[string]int)
	access := func(rows []Row) []access {
		list := make([]access, len(rows))
		for i, r := range rows {
			key, ok := index[r.Key]
			if !ok {
				key = len(index)
				index[r.Key] = key
				m.keys = append(m.keys, r.Key)
			}
			list[i].Row, list[i].key, list[i].version = r, key, r.Version
			if r.Exists && r.Value != 0 {
				list[i].version = versions[rowID{r.Key, r.Value}]
			}
		}
		return list
	}
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	for i, op := range ops {
		m.steps[i] = step{op, i, access(op.Reads), access(op.Writes)}
	}
	m.rank()
	return m
}

func (m *model) rank() {
	ordered := make([][]*access, len(m.keys))
	for _, s := range m.steps {
		for i := range s.writes {
			if w := &s.writes[i]; s.op.Fate == Applied && w.Exists && w.version != 0 {
				ordered[w.key] = append(ordered[w.key], w)
			}
		}
	}
	for _, writes := range ordered {
		slices.SortFunc(writes, func(a, b *access) int { return cmp.Compare(a.version, b.version) })
		for i, w := range writes {
			w.rank = int32(i) + 1
		}
	}
}

func (m *model) initial() state {
	w := make(world, len(m.keys))
	if m.open {
		for i := range w {
			w[i].value = anything
		}
	}
	return state{w}
}

// step returns the worlds that the step may leave, none if it cannot come here.
func (m *model) step(s state, next *step) state {
	after := make(state, 0, len(s))
	add := func(w world) {
		if !after.has(w) {
			after = append(after, w)
		}
	}
	for _, w := range s {
		applied := w.apply(next)
		if applied != nil {
			add(applied)
		}
		if next.op.Fate == Unknown || next.op.Fate == Conditional && (applied == nil || w.guesses(next)) {
			add(w)
		}
	}
	return after
}

// guesses tells whether the step reads a row of which nothing is known: that it
// can be so does not mean that it is.
func (w world) guesses(next *step) bool {
	return slices.ContainsFunc(next.reads, func(r access) bool { return w[r.key].value == anything })
}

// apply returns the world after the step, or nil if it cannot come in this one.
func (w world) apply(next *step) world {
	after := w
	change := func(key int, to row) {
		if after[key] == to {
			return
		}
		if &after[0] == &w[0] {
			after = slices.Clone(w)
		}
		after[key] = to
	}
	for i := range next.reads {
		r := &next.reads[i]
		seen, ok := after[r.key].read(r)
		if !ok {
			return nil
		}
		change(r.key, seen)
	}
	for i := range next.writes {
		r := &next.writes[i]
		written, ok := after[r.key].write(r)
		if !ok {
			return nil
		}
		change(r.key, written)
	}
	return after
}

// read returns what is known of the row once it was read, and whether it can have
// been read so.
func (now row) read(r *access) (row, bool) {
	if now.value == anything {
		switch {
		case !r.Exists:
			now.value = 0
		case r.Value != 0:
			now.value, now.floor, now.exact = r.Value, r.version, r.version != 0
		default:
			return now, true
		}
	}
	switch {
	case r.Exists != (now.value != 0):
		return now, false
	case r.Value != 0 && r.Value != now.value:
		return now, false
	case r.Version == 0:
		return now, true
	case r.Version < now.floor, now.exact && r.Version > now.floor:
		return now, false
	}
	now.floor, now.exact = r.Version, true
	return now, true
}

// write returns the row once it was written, and whether that can come now.
func (now row) write(w *access) (row, bool) {
	switch {
	case w.Lapsed:
		now.value = 0
		return now, true
	case !w.Exists && now.value == 0:
		// A store may give a row that is not there a new version, or not.
		now.exact = false
		return now, true
	case w.rank != 0 && w.rank != now.rank+1:
		return now, false
	case w.rank != 0:
		now.rank = w.rank
	}
	switch {
	case w.version == 0 && now.exact:
		now.floor, now.exact = now.floor+1, false
	case w.version == 0:
	case w.version < now.floor, now.exact && w.version == now.floor:
		return now, false
	default:
		now.floor, now.exact = w.version, true
	}
	now.value = 0
	if w.Exists {
		now.value = w.Value
	}
	return now, true
}

func (s state) has(w world) bool {
	return slices.ContainsFunc(s, func(other world) bool { return slices.Equal(other, w) })
}

func (s state) equal(other state) bool {
	return len(s) == len(other) && !slices.ContainsFunc(s, func(w world) bool { return !other.has(w) })
}

// hash does not depend on the order of the worlds.
func (s state) hash() (sum uint64) {
	const prime = 1099511628211
	for _, w := range s {
		h := uint64(len(w))
		for _, r := range w {
			h = (h ^ uint64(r.value)) * prime
			h = (h ^ uint64(r.floor)) * prime
			h ^= h >> 29
		}
		sum += h
	}
	return sum
}

// position is how far an order has come.
type position struct {
	state state
	// done are the steps that have come, and first is the first that has not.
	done  []uint64
	first int
	// read is a step that comes next: see eager; -1 if there is none.
	read int
}

func (m *model) start() *position {
	p := &position{state: m.initial(), done: make([]uint64, len(m.steps)/64+1)}
	p.read = m.eager(p)
	return p
}

func (p *position) has(i int) bool { return p.done[i/64]>>(i%64)&1 != 0 }

// advance returns the position after a step, or nil if it cannot come next.
func (m *model) advance(p *position, next *step) *position {
	if p.read >= 0 && p.read != next.number {
		return nil
	}
	after := m.step(p.state, next)
	if len(after) == 0 {
		return nil
	}
	q := &position{state: after, done: slices.Clone(p.done), first: p.first}
	q.done[next.number/64] |= 1 << (next.number % 64)
	for q.first < len(m.steps) && q.has(q.first) {
		q.first++
	}
	q.read = m.eager(q)
	return q
}

// eager looks for an operation that may come now, only reads, and sees what is
// there. Whatever order explains the rest with it coming later, explains the rest
// with it coming now: nothing changes by it, and it is out of the way. So nothing
// else has to be tried, which spares the search most of its choices.
func (m *model) eager(p *position) int {
	earliest := int64(Forever) // return of those that have not come
	for i := p.first; i < len(m.steps) && m.steps[i].op.Call < earliest; i++ {
		if !p.has(i) {
			earliest = min(earliest, m.steps[i].op.Return)
		}
	}
	for i := p.first; i < len(m.steps) && m.steps[i].op.Call < earliest; i++ {
		s := &m.steps[i]
		if len(s.writes) == 0 && s.op.Fate == Applied && !p.has(i) && p.state.shows(s) {
			return i
		}
	}
	return -1
}

// shows tells whether the step sees what is there in every world, and tells
// nothing new.
func (s state) shows(next *step) bool {
	for _, w := range s {
		for i := range next.reads {
			r := &next.reads[i]
			if seen, ok := w[r.key].read(r); !ok || seen != w[r.key] {
				return false
			}
		}
	}
	return true
}

// porcupine is the model in the checker's terms.
func (m *model) porcupine() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return m.start() },
		Step: func(p, input, _ any) (bool, any) {
			after := m.advance(p.(*position), input.(*step))
			return after != nil, after
		},
		// The checker compares what is done by itself.
		Equal:             func(a, b any) bool { return a.(*position).state.equal(b.(*position).state) },
		Hash:              func(p any) uint64 { return p.(*position).state.hash() },
		DescribeOperation: func(input, _ any) string { return input.(*step).op.String() },
		DescribeState:     func(p any) string { return m.describe(p.(*position).state) },
	}
}

// history is the operations as the checker takes them.
func (m *model) history() []porcupine.Operation {
	history := make([]porcupine.Operation, len(m.steps))
	for i := range m.steps {
		s := &m.steps[i]
		history[i] = porcupine.Operation{ClientId: s.op.Client, Input: s, Call: s.op.Call, Return: s.op.Return}
	}
	return history
}

// describe says what the rows are, or may be.
func (m *model) describe(s state) string {
	var worlds []string
	for _, w := range s {
		var rows []string
		for i, r := range w {
			switch r.value {
			case 0:
			case anything:
				rows = append(rows, m.keys[i]+"=?")
			default:
				rows = append(rows, fmt.Sprintf("%s=%d", m.keys[i], r.value))
			}
		}
		slices.Sort(rows)
		worlds = append(worlds, strings.Join(rows, " "))
	}
	return strings.Join(worlds, " or ")
}
