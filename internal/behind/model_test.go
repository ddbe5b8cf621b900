package behind

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is what an order is compared with: every acknowledged write, in order.
type model struct {
	*Order[string, int]
	config Config

	acknowledged []*Write[string, int] // by number, from 1
	waiting      []*Write[string, int] // in the line, or on their way
	under        any                   // what Next has returned: a *Segment, or writes
	over         int                   // number of the last write that is over
	values       int                   // given so far
}

func (m *model) newest(key string) (int, bool) {
	for i := len(m.acknowledged) - 1; i >= m.over; i-- {
		for _, item := range m.acknowledged[i].Items {
			if item.Key == key {
				return item.Value, true
			}
		}
	}
	return 0, false
}

func (m *model) dirty() (writes int) {
	for _, w := range m.acknowledged[m.over:] {
		writes += len(w.Items)
	}
	return writes
}

// mayBe tells whether the write may be acknowledged.
func (m *model) mayBe(w *Write[string, int]) bool {
	for _, other := range m.waiting {
		if other.All {
			return false
		}
		for _, item := range other.Items {
			if len(other.Items) > 1 && slices.ContainsFunc(w.Items, func(i Item[string, int]) bool { return i.Key == item.Key }) {
				return false
			}
		}
	}
	return !w.All && m.dirty()+len(w.Items) <= m.config.MaxWrites
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := Config{
			MaxWrites: rapid.IntRange(1, 12).Draw(t, "writes"), MaxBytes: 1 << 20, MaxWaiting: rapid.IntRange(1, 4).Draw(t, "waiting"),
			MaxRows: rapid.IntRange(1, 5).Draw(t, "rows"), MaxSegmentBytes: int64(rapid.IntRange(20, 60).Draw(t, "segment")),
			Apart: rapid.Bool().Draw(t, "apart"),
		}
		m := &model{Order: New[string, int](config), config: config}
		t.Repeat(map[string]func(*rapid.T){
			"":       m.check,
			"submit": m.submit,
			"leave":  m.leave,
			"next":   m.next,
			"end":    m.end,
		})
	})
}

func (m *model) submit(t *rapid.T) {
	w := &Write[string, int]{All: rapid.IntRange(0, 15).Draw(t, "all") == 0}
	if !w.All {
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g"}), 1, 3, rapid.ID[string]).Draw(t, "keys") {
			m.values++
			w.Items = append(w.Items, Item[string, int]{Key: key, Value: m.values, Bytes: rapid.IntRange(1, 30).Draw(t, "bytes")})
		}
	}
	may := m.mayBe(w)
	waits, err := m.Submit(w)
	switch {
	case err != nil:
		if !errors.Is(err, ErrFull) || may || len(m.waiting) < m.config.MaxWaiting {
			t.Fatalf("Submit = %v, with %d waiting", err, len(m.waiting))
		}
	case waits == may:
		t.Fatalf("waits = %t of a write that may be acknowledged: %t", waits, may)
	case waits:
		m.waiting = append(m.waiting, w)
	default:
		m.acknowledged = append(m.acknowledged, w)
	}
}

func (m *model) leave(t *rapid.T) {
	if len(m.waiting) == 0 {
		t.Skip()
	}
	i := rapid.IntRange(0, len(m.waiting)-1).Draw(t, "which")
	under, _ := m.under.([]*Write[string, int])
	onItsWay := slices.Contains(under, m.waiting[i])
	if m.Leave(m.waiting[i]) == onItsWay {
		t.Fatalf("a write on its way (%t) has left, or another one has not", onItsWay)
	}
	if !onItsWay {
		m.waiting = slices.Delete(m.waiting, i, i+1)
	}
}

func (m *model) next(t *rapid.T) {
	if m.under != nil {
		t.Skip()
	}
	s, passing, _ := m.Order.next()
	switch {
	case s != nil:
		m.take(t, s)
		m.under = s
	case passing != nil:
		for i, w := range passing {
			if w != m.waiting[i] {
				t.Fatal("what waits is not taken in order")
			}
		}
		m.under = slices.Clone(passing)
	case len(m.acknowledged) > m.over || len(m.waiting) > 0:
		t.Fatal("nothing is taken, and something is there")
	}
}

// take checks that the segment is what the writes up to its last come to.
func (m *model) take(t *rapid.T, s *Segment[string, int]) {
	writes := m.acknowledged[m.over:s.Last]
	want := map[string]int{}
	count := 0
	for _, w := range writes {
		count += len(w.Items)
		for _, item := range w.Items {
			want[item.Key] = item.Value
		}
	}
	got := map[string]int{}
	bytes := 0
	for _, item := range s.Items {
		got[item.Key] = item.Value
		bytes += item.Bytes
	}
	if !maps.Equal(got, want) || len(s.Items) != len(got) {
		t.Fatalf("the segment is %v, and its writes come to %v", got, want)
	}
	if len(writes) > 1 && (len(got) > m.config.MaxRows || int64(bytes) > m.config.MaxSegmentBytes) {
		t.Fatalf("%d writes of %d rows and %d bytes are one segment", len(writes), len(got), bytes)
	}
	if m.config.Apart && len(writes) > 1 && slices.ContainsFunc(writes, func(w *Write[string, int]) bool { return len(w.Items) > 1 }) {
		t.Fatal("a write of several is not apart")
	}
	// Sets: a partition, in which each write's keys are in one; and no two that need not be.
	setOf := map[string]int{}
	for i, set := range s.Sets {
		count -= set.Writes
		for _, place := range set.Places {
			if _, twice := setOf[s.Items[place].Key]; twice {
				t.Fatal("a key is in two sets")
			}
			setOf[s.Items[place].Key] = i
		}
	}
	if len(setOf) != len(s.Items) || count != 0 {
		t.Fatalf("%d keys in sets, of %d; %d writes too few", len(setOf), len(s.Items), count)
	}
	if n := components(writes); n != len(s.Sets) {
		t.Fatalf("%d sets, want %d", len(s.Sets), n)
	}
	for _, w := range writes {
		for _, item := range w.Items {
			if setOf[item.Key] != setOf[w.Items[0].Key] {
				t.Fatal("a write is in two sets")
			}
		}
	}
}

// components counts the groups of keys that writes connect.
func components(writes []*Write[string, int]) int {
	name := map[string]int{}
	for _, w := range writes {
		for _, item := range w.Items {
			if _, ok := name[item.Key]; !ok {
				name[item.Key] = len(name)
			}
		}
	}
	for range writes {
		for _, w := range writes {
			least := len(name)
			for _, item := range w.Items {
				least = min(least, name[item.Key])
			}
			for _, item := range w.Items {
				name[item.Key] = least
			}
		}
	}
	distinct := map[int]bool{}
	for _, n := range name {
		distinct[n] = true
	}
	return len(distinct)
}

func (m *model) end(t *rapid.T) {
	switch under := m.under.(type) {
	case nil:
		t.Skip()
	case *Segment[string, int]:
		m.over = int(under.Last)
		m.Over()
	case []*Write[string, int]:
		m.waiting = m.waiting[len(under):]
		m.Passed()
	}
	m.under = nil
}

func (m *model) check(t *rapid.T) {
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		want, there := m.newest(key)
		if got, found := m.Get(key); got != want || found != there {
			t.Fatalf("Get(%s) = %d, %t, want %d, %t", key, got, found, want, there)
		}
	}
	state := m.State()
	writes := m.dirty()
	if state.Writes != writes || state.Waiting != len(m.waiting) || state.Writes > m.config.MaxWrites || state.Oldest.IsZero() != (writes == 0) {
		t.Fatalf("%+v, want %d writes and %d waiting", state, writes, len(m.waiting))
	}
	if writes == 0 && state.Bytes != 0 {
		t.Fatalf("%d bytes of nothing", state.Bytes)
	}
}

// Next waits for MaxDelay, but not for what is full, or has something behind it, or is
// waited for.
func TestNextWaitsForCompany(t *testing.T) {
	write := func(keys ...string) *Write[string, int] {
		w := &Write[string, int]{}
		for _, key := range keys {
			w.Items = append(w.Items, Item[string, int]{Key: key, Bytes: 1})
		}
		return w
	}
	config := Config{MaxWrites: 20, MaxBytes: 100, MaxWaiting: 10, MaxRows: 4, MaxSegmentBytes: 50, MaxDelay: time.Hour}
	for name, c := range map[string]struct {
		do    func(o *Order[string, int])
		ready bool
	}{
		"OneWrite":    {func(o *Order[string, int]) { o.Submit(write("a")) }, false},
		"FullOfRows":  {func(o *Order[string, int]) { o.Submit(write("a", "b", "c", "d")) }, true},
		"FullOfBytes": {func(o *Order[string, int]) { w := write("a"); w.Items[0].Bytes = 50; o.Submit(w) }, true},
		"HalfOfAllWrites": {func(o *Order[string, int]) {
			for range 10 {
				o.Submit(write("a"))
			}
		}, true},
		"ASegmentBehindIt": {func(o *Order[string, int]) { o.Submit(write("a", "b", "c")); o.Submit(write("d", "e")) }, true},
		"APassageBehindIt": {func(o *Order[string, int]) { o.Submit(write("a")); o.Submit(&Write[string, int]{All: true}) }, true},
		"Drain": {func(o *Order[string, int]) {
			o.Submit(write("a"))
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := o.Drain(ctx); !errors.Is(err, context.Canceled) {
				panic(fmt.Sprint("Drain = ", err))
			}
		}, true},
		"Close": {func(o *Order[string, int]) { o.Submit(write("a")); o.Close() }, true},
	} {
		o := New[string, int](config)
		c.do(o)
		if s, _, _ := o.next(); (s != nil) != c.ready {
			t.Errorf("%s: ready is %t", name, s != nil)
		}
	}
}
