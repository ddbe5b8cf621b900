package behind

import (
	"cmp"
	"slices"
	"time"
)

// segment is in the line until it is over.
type segment[K comparable, T any] struct {
	began time.Time // when its first write came
	// sealed: nothing is added any more, and it need not wait to be taken.
	sealed bool
	cells  map[K]*cell[K, T]
	bytes  int64
	// replaced are bytes that others took the place of and that are reserved all the same.
	replaced int64
	writes   int    // changes of rows, those among them that others took the place of
	last     uint64 // the number of its last write
}

// cell is the newest state of a key in one segment.
type cell[K comparable, T any] struct {
	item   Item[K, T]
	number uint64 // of the write that it is from
	place  int    // among the items of that write
	group  *group[K, T]
}

// group are the keys that are written all or none: those of each write of several,
// and of writes that share a key.
type group[K comparable, T any] struct {
	cells         []*cell[K, T]
	writes, calls int
}

// passage is writes that wait.
type passage[K comparable, T any] struct {
	began  time.Time
	writes []*Write[K, T]
	taken  bool
}

func (s *segment[K, T]) since() time.Time { return s.began }
func (p *passage[K, T]) since() time.Time { return p.began }

func newSegment[K comparable, T any](now time.Time) *segment[K, T] {
	return &segment[K, T]{began: now, cells: make(map[K]*cell[K, T])}
}

// takes tells whether the write has room in the segment.
func (s *segment[K, T]) takes(w *Write[K, T], config *Config) bool {
	rows, bytes := len(s.cells), s.bytes
	for i := range w.Items {
		if c := s.cells[w.Items[i].Key]; c == nil {
			rows++
		} else {
			bytes -= int64(c.item.Bytes)
		}
		bytes += int64(w.Items[i].Bytes)
	}
	return len(s.cells) == 0 || rows <= config.MaxRows && bytes <= config.MaxSegmentBytes
}

// full tells whether it is to be taken although it is young: what it has is enough for a
// transaction, or half of all that may be acknowledged.
func (s *segment[K, T]) full(config *Config) bool {
	return s.sealed || len(s.cells) >= config.MaxRows || s.bytes >= config.MaxSegmentBytes ||
		s.writes >= (config.MaxWrites+1)/2 || s.bytes+s.replaced >= (config.MaxBytes+1)/2
}

// add returns how many keys are new in the segment, and the bytes of what was replaced.
func (s *segment[K, T]) add(w *Write[K, T], number uint64) (added int, replaced int64) {
	var all *group[K, T]
	for i, item := range w.Items {
		c := s.cells[item.Key]
		if c == nil {
			c = &cell[K, T]{}
			c.group = &group[K, T]{cells: []*cell[K, T]{c}}
			s.cells[item.Key] = c
			added++
		} else {
			replaced += int64(c.item.Bytes)
		}
		c.item, c.number, c.place = item, number, i
		s.bytes += int64(item.Bytes)
		all = joined(all, c.group)
	}
	s.bytes -= replaced
	s.writes += len(w.Items)
	all.writes += len(w.Items)
	all.calls++
	return added, replaced
}

// joined makes one group of two. The smaller one's cells move, so that a cell moves a
// few times at most.
func joined[K comparable, T any](a, b *group[K, T]) *group[K, T] {
	if a == nil || a == b {
		return b
	}
	if len(a.cells) < len(b.cells) {
		a, b = b, a
	}
	for _, c := range b.cells {
		c.group = a
	}
	a.cells = append(a.cells, b.cells...)
	a.writes += b.writes
	a.calls += b.calls
	return a
}

// Segment is what one transaction of the database is to make of acknowledged writes.
type Segment[K comparable, T any] struct {
	// Items are the newest states of its keys, in the order of the writes that they are
	// from.
	Items []Item[K, T]
	// Sets are the items that are written all or none, by their places in Items, in the
	// order of each set's last.
	Sets []Set
	// Last is the number of its last write.
	Last uint64
}

// Set is a part of a segment that is written all or none.
type Set struct {
	Places []int
	// Writes is how many changes of rows it stands for, and Calls how many Writes they are
	// from.
	Writes, Calls int
}

func (s *segment[K, T]) taken() *Segment[K, T] {
	cells := make([]*cell[K, T], 0, len(s.cells))
	for _, c := range s.cells {
		cells = append(cells, c)
	}
	slices.SortFunc(cells, func(a, b *cell[K, T]) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.place, b.place))
	})
	t := &Segment[K, T]{Items: make([]Item[K, T], len(cells)), Last: s.last}
	places := make(map[*group[K, T]][]int)
	for i, c := range cells {
		t.Items[i] = c.item
		places[c.group] = append(places[c.group], i)
	}
	for g, at := range places {
		t.Sets = append(t.Sets, Set{Places: at, Writes: g.writes, Calls: g.calls})
	}
	slices.SortFunc(t.Sets, func(a, b Set) int { return cmp.Compare(a.Places[len(a.Places)-1], b.Places[len(b.Places)-1]) })
	return t
}
