package mysqlstore

import (
	"cmp"
	"slices"
	"time"
)

// gaps are the numbers of the change log that a watcher has passed and not seen. It
// looks for them each time, until a row is there: a change, or one that says that the
// number is nobody's.
//
// A long transaction beside others leaves as many gaps as it has changes, and its rows
// become visible all at once. So after a while its numbers are put together as a
// flight, of which the first and the last are looked for: as long as neither is
// visible, nor gone, none of the others is.
type gaps struct {
	spans   []span // ascending
	flights map[int64]*flight
}

// span is the numbers from lo to hi.
type span struct {
	lo, hi int64
	// retry is when to ask whose the numbers are; pause is how long to wait after that.
	retry time.Time
	pause time.Duration
}

// flight is what one connection has inserted, and not committed.
type flight struct{ spans []span }

func (f *flight) ends() (lo, hi int64) { return f.spans[0].lo, f.spans[len(f.spans)-1].hi }

const (
	// gapGrace is how old a gap is before its numbers are taken away: far more than a
	// transaction takes from drawing a number to inserting the row, so that it hardly
	// ever has to draw another one.
	gapGrace = time.Second
	// gapPause is the longest time until a gap is asked about again.
	gapPause = 30 * time.Second
	// looseSpans is how many gaps are looked for one by one without more ado.
	looseSpans = 64
	// maxSpans bounds the memory that gaps take.
	maxSpans = 1 << 20
)

// pass notes that the numbers from lo to hi have been passed. They are above all that
// were before.
func (g *gaps) pass(lo, hi int64, now time.Time) {
	if lo <= hi {
		g.spans = append(g.spans, newSpan(lo, hi, now))
	}
}

// fill notes that numbers were seen, which are in ascending order.
func (g *gaps) fill(ids []int64) { g.spans = without(g.spans, ids) }

// without leaves numbers out, in one pass: a transaction may have as many as there are
// gaps.
func without(spans []span, ids []int64) (left []span) {
	if len(ids) == 0 {
		return spans
	}
	for _, s := range spans {
		for len(ids) > 0 && ids[0] <= s.hi {
			if ids[0] > s.lo {
				below := s
				below.hi = ids[0] - 1
				left = append(left, below)
			}
			s.lo = max(s.lo, ids[0]+1)
			ids = ids[1:]
		}
		if s.lo <= s.hi {
			left = append(left, s)
		}
	}
	return left
}

// least is the lowest number that is missing, or otherwise.
func (g *gaps) least(otherwise int64) int64 {
	if len(g.spans) > 0 {
		otherwise = min(otherwise, g.spans[0].lo)
	}
	for _, f := range g.flights {
		lo, _ := f.ends()
		otherwise = min(otherwise, lo)
	}
	return otherwise
}

// size is how many spans there are.
func (g *gaps) size() int {
	n := len(g.spans)
	for _, f := range g.flights {
		n += len(f.spans)
	}
	return n
}

// lookedFor are the numbers that a look asks for.
func (g *gaps) lookedFor() []span {
	all := slices.Clone(g.spans)
	for _, f := range g.flights {
		lo, hi := f.ends()
		all = append(all, span{lo: lo, hi: lo})
		if hi > lo {
			all = append(all, span{lo: hi, hi: hi})
		}
	}
	sortSpans(all)
	return all
}

// crowded tells whether numbers of one connection are worth being put together.
func (g *gaps) crowded() bool { return len(g.spans) > looseSpans }

// join adds numbers, in ascending order, to a connection's flight. They were missing when
// it was seen that its first one is not visible yet, and so are of the same transaction:
// a later one draws its numbers later.
func (g *gaps) join(conn int64, ids []int64, now time.Time) {
	if g.flights == nil {
		g.flights = map[int64]*flight{}
	}
	f := g.flights[conn]
	if f == nil {
		f = &flight{}
		g.flights[conn] = f
	}
	for _, id := range ids {
		if n := len(f.spans); n > 0 && f.spans[n-1].hi == id-1 {
			f.spans[n-1].hi = id
		} else {
			f.spans = append(f.spans, newSpan(id, id, now))
		}
	}
	sortSpans(f.spans)
	g.spans = without(g.spans, ids)
}

// part takes a flight apart again, of which a number was seen, or is gone, and returns
// its numbers.
func (g *gaps) part(conn int64) []span {
	f := g.flights[conn]
	delete(g.flights, conn)
	g.spans = append(g.spans, f.spans...)
	sortSpans(g.spans)
	return f.spans
}

// landed are the connections whose flights have a number that was seen.
func (g *gaps) landed(seen func(id int64) bool) (conns []int64) {
	for conn, f := range g.flights {
		if lo, hi := f.ends(); seen(lo) || seen(hi) {
			conns = append(conns, conn)
		}
	}
	return conns
}

// ripe are gaps that are to be asked about, at most so many.
func (g *gaps) ripe(now time.Time, most int) (spans []span) {
	for i := range g.spans {
		s := &g.spans[i]
		if now.Before(s.retry) {
			continue
		}
		spans = append(spans, *s)
		s.pause = min(2*s.pause, gapPause)
		s.retry = now.Add(s.pause)
		if len(spans) == most {
			break
		}
	}
	return spans
}

// soon has the rest of a gap asked about again at once.
func (g *gaps) soon(id int64, now time.Time) {
	if i, ok := slices.BinarySearchFunc(g.spans, id, spanOf); ok {
		g.spans[i].retry, g.spans[i].pause = now, gapGrace
	}
}

func newSpan(lo, hi int64, now time.Time) span {
	return span{lo: lo, hi: hi, retry: now.Add(gapGrace), pause: gapGrace}
}

func sortSpans(spans []span) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
}

// spanOf compares a span with a number.
func spanOf(s span, id int64) int {
	switch {
	case s.hi < id:
		return -1
	case s.lo > id:
		return 1
	}
	return 0
}
