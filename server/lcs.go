package server

import "context"

func lcsCommands() []command {
	return []command{
		{name: "lcs", arity: -3, flags: "readonly", categories: "string", group: "string", keys: keys{1, 2, 1}, access: "RO access", since: "7.0.0", keyed: lcs, syntax: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]", summary: "The longest text that is in two strings, with gaps"},
	}
}

// longLCS is held while two strings are compared of which the comparison takes long, and much
// memory: one at a time, whoever asks.
var longLCS = make(chan struct{}, 1)

const (
	// lcsCells is how many pairs of positions Redis compares at most: it has 4 bytes for
	// each, and no more than 512 MiB.
	lcsCells = 512 << 20 / 4
	// quickCells is how many are compared beside others.
	quickCells = 1 << 20
)

// LCS key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]
func lcs(r *request) {
	var texts [2]string
	for i, arg := range r.args[1:3] {
		old, _, err := r.keys.read(r.ctx, string(arg))
		switch {
		case err != nil:
			r.fail(err)
			return
		case old.exists && old.value.kind() != stringKind:
			r.error("ERR The specified keys must contain string values")
			return
		case old.exists:
			texts[i] = old.value.text()
		}
	}
	var (
		length, index, withLength bool
		least                     int64
	)
	for rest := r.args[3:]; len(rest) > 0; rest = rest[1:] {
		switch {
		case is(rest[0], "idx"):
			index = true
		case is(rest[0], "len"):
			length = true
		case is(rest[0], "withmatchlen"):
			withLength = true
		case is(rest[0], "minmatchlen") && len(rest) > 1:
			var ok bool
			if least, ok = r.number(rest[1]); !ok {
				return
			}
			least = max(least, 0)
			rest = rest[1:]
		default:
			r.error(syntaxError)
			return
		}
	}
	if index && length {
		r.error("ERR If you want both the length and indexes, please just use IDX.")
		return
	}
	a, b := texts[0], texts[1]
	cells := int64(len(a)+1) * int64(len(b)+1)
	if cells > lcsCells {
		r.error("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
		return
	}
	if cells > quickCells {
		select {
		case longLCS <- struct{}{}:
			defer func() { <-longLCS }()
		case <-r.ctx.Done():
			r.fail(context.Cause(r.ctx))
			return
		}
	}
	table := compareTexts(a, b, !length)
	switch {
	case length:
		r.w.Integer(int64(table.length))
	case index:
		ranges := table.ranges()
		n := 0
		for _, m := range ranges {
			if int64(m.length) >= least {
				n++
			}
		}
		r.w.Map(2)
		r.w.BulkString("matches")
		r.w.Array(n)
		for _, m := range ranges {
			if int64(m.length) < least {
				continue
			}
			if withLength {
				r.w.Array(3)
			} else {
				r.w.Array(2)
			}
			for _, from := range []int{m.a, m.b} {
				r.w.Array(2)
				r.w.Integer(int64(from))
				r.w.Integer(int64(from + m.length - 1))
			}
			if withLength {
				r.w.Integer(int64(m.length))
			}
		}
		r.w.BulkString("len")
		r.w.Integer(int64(table.length))
	default:
		r.w.Bulk(table.common())
	}
}

// lcsTable says how the longest common text of two is found from their ends. Redis keeps the
// length for each pair of positions, 4 bytes; for the way back it is enough to know of each
// whether to go on in a or in b, one bit: 16 MiB where Redis takes 512.
type lcsTable struct {
	a, b   string
	length int
	inA    []uint64 // a bit for each i, j: go on with i-1, j
}

func compareTexts(a, b string, way bool) *lcsTable {
	t := &lcsTable{a: a, b: b}
	if way {
		t.inA = make([]uint64, (len(a)*len(b)+63)/64)
	}
	row := make([]uint32, len(b)+1) // lengths for a[:i] and b[:j]
	for i := range len(a) {
		corner := uint32(0) // for a[:i] and b[:j]
		for j := range len(b) {
			above := row[j+1]
			switch {
			case a[i] == b[j]:
				row[j+1] = corner + 1
			case above > row[j]:
				if way {
					at := i*len(b) + j
					t.inA[at/64] |= 1 << (at % 64)
				}
			default:
				row[j+1] = row[j]
			}
			corner = above
		}
	}
	t.length = int(row[len(b)])
	return t
}

// walk goes the way back, and calls f for each pair of positions that match.
func (t *lcsTable) walk(f func(i, j int)) {
	for i, j := len(t.a)-1, len(t.b)-1; i >= 0 && j >= 0; {
		at := i*len(t.b) + j
		switch {
		case t.a[i] == t.b[j]:
			f(i, j)
			i--
			j--
		case t.inA[at/64]&(1<<(at%64)) != 0:
			i--
		default:
			j--
		}
	}
}

// common is the text.
func (t *lcsTable) common() []byte {
	text := make([]byte, t.length)
	n := len(text)
	t.walk(func(i, _ int) {
		n--
		text[n] = t.a[i]
	})
	return text
}

// match is a part that both texts have.
type match struct{ a, b, length int }

// ranges are the parts, the last one first.
func (t *lcsTable) ranges() (all []match) {
	t.walk(func(i, j int) {
		if n := len(all); n > 0 && all[n-1].a == i+1 && all[n-1].b == j+1 {
			all[n-1].a, all[n-1].b = i, j
			all[n-1].length++
			return
		}
		all = append(all, match{i, j, 1})
	})
	return all
}
