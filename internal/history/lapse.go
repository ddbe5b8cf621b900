package history

// lapses returns the ends of all rows as operations, once it is known what became
// of every write. An update keeps the end of the row that it read, so what it
// wrote ends when the first of its line was to.
func lapses(ops []*Op) (ends []*Op) {
	heirs := make(map[rowID][]*Op)
	for _, op := range ops {
		if op.Inherits && op.Reads[0].Exists {
			old := rowID{op.Reads[0].Key, op.Reads[0].Value}
			heirs[old] = append(heirs[old], op)
		}
	}
	for _, first := range ops {
		if first.Lifetime == 0 {
			continue
		}
		for line := []*Op{first}; len(line) > 0; {
			op := line[0]
			line = line[1:]
			if op.Fate != NotApplied {
				w := op.Writes[0]
				ends = append(ends, first.end(w))
				line = append(line, heirs[rowID{w.Key, w.Value}]...)
			}
		}
	}
	return ends
}

// end is the end of a row of the operation's line: at that moment it is absent, if
// it is still the row.
func (op *Op) end(w Row) *Op {
	end := &Op{
		Client: op.Client, Name: "the end of a lifetime", Fate: Conditional,
		Reads:  []Row{{Key: w.Key, Exists: true, Value: w.Value}},
		Writes: []Row{{Key: w.Key, Lapsed: true}},
	}
	end.Call, _ = later(op.Call, op.Lifetime)
	_, end.Return = later(op.Return, op.Lifetime)
	return end
}
