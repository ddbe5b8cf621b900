package history

import "time"

// lapse is the end of a row that was written with a lifetime.
type lapse struct {
	set      *Op
	lifetime time.Duration
}

// lapses returns the ends of all rows as operations, once it is known what became
// of every write. An update keeps the end of the row that it read, so what it
// wrote ends when the first of its line was to.
func lapses(clients []*client) (ops []*Op) {
	type row struct {
		key   string
		value int64
	}
	heirs := make(map[row][]*Op)
	for _, c := range clients {
		for _, op := range c.updates {
			if old := op.Reads[0]; old.Exists {
				heirs[row{old.Key, old.Value}] = append(heirs[row{old.Key, old.Value}], op)
			}
		}
	}
	for _, c := range clients {
		for _, l := range c.lapses {
			for line := []*Op{l.set}; len(line) > 0; {
				op := line[0]
				line = line[1:]
				if op.Fate != NotApplied {
					w := op.Writes[0]
					ops = append(ops, l.of(w))
					line = append(line, heirs[row{w.Key, w.Value}]...)
				}
			}
		}
	}
	return ops
}

// of is the end of a row of the line: at that moment it is absent, if it is still
// the row.
func (l lapse) of(w Row) *Op {
	op := &Op{
		Client: l.set.Client, Name: "the end of a lifetime", Fate: Conditional,
		Reads:  []Row{{Key: w.Key, Exists: true, Value: w.Value}},
		Writes: []Row{{Key: w.Key, Lapsed: true}},
	}
	op.Call, _ = later(l.set.Call, l.lifetime)
	_, op.Return = later(l.set.Return, l.lifetime)
	return op
}
