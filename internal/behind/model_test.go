package behind

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is what an order is compared with: every acknowledged write, in order.
type model struct {
	*Order[string, int]
	config Config

	acknowledged []*Write[string, int] // by number, from First+1; nil for a doubtful one
	waiting      []*Write[string, int] // in the line, or on their way
	under        any                   // what Next has returned: a *Segment, or writes
	over         int                   // number of the last write that is over
	values       int                   // given so far

	logging  error // what the log says when it is asked
	logged   []uint64
	number   uint64 // of the last that was acknowledged, or is doubtful
	doubtful bool
}

var errLog = errors.New("the log is full")

func (m *model) log(writes []Logged) error {
	for _, w := range writes {
		m.logged = append(m.logged, w.Number)
	}
	return m.logging
}

func (m *model) newest(key string) (int, bool) {
	for i := len(m.acknowledged) - 1; i >= m.over; i-- {
		for _, item := range m.items(i) {
			if item.Key == key {
				return item.Value, true
			}
		}
	}
	return 0, false
}

func (m *model) dirty() (writes int) {
	for i := m.over; i < len(m.acknowledged); i++ {
		writes += len(m.items(i))
	}
	return writes
}

func (m *model) first() uint64 { return m.Order.config.First }

// items are those of an acknowledged write; none of a number that the log may have.
func (m *model) items(i int) []Item[string, int] {
	if w := m.acknowledged[i]; w != nil {
		return w.Items
	}
	return nil
}

// mayBe tells whether the write may be acknowledged.
func (m *model) mayBe(w *Write[string, int]) bool {
	if m.doubtful {
		return false
	}
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
		m := &model{config: config}
		if rapid.Bool().Draw(t, "logged") {
			config.Log = m.log
			config.First = 7
		}
		m.number = config.First
		m.Order = New[string, int](config)
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
	m.logging, m.logged = nil, nil
	if i := rapid.IntRange(0, 9).Draw(t, "log"); i < 2 && m.Order.config.Log != nil {
		m.logging = []error{errLog, ErrDoubtful}[i]
	}
	waits, err := m.Submit(w)
	if asked := m.Order.config.Log != nil && may; asked != (len(m.logged) == 1) || asked && m.logged[0] != m.number+1 {
		t.Fatalf("the log was asked for %v, after %d, of a write that may be acknowledged: %t", m.logged, m.number, may)
	}
	switch {
	case may && m.logging != nil:
		if err != m.logging {
			t.Fatalf("Submit = %v", err)
		}
		if m.doubtful = err == ErrDoubtful; m.doubtful {
			m.number++
			m.acknowledged = append(m.acknowledged, nil) // its number is not given again
		}
	case err != nil:
		if !errors.Is(err, ErrFull) || may || len(m.waiting) < m.config.MaxWaiting {
			t.Fatalf("Submit = %v, with %d waiting", err, len(m.waiting))
		}
	case waits == may:
		t.Fatalf("waits = %t of a write that may be acknowledged: %t", waits, may)
	case waits:
		m.waiting = append(m.waiting, w)
	default:
		m.number++
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
	turn, ok, _ := m.Order.next()
	s, passing := turn.Segment, turn.Passing
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
	case turn.Renew > 0:
		if !m.doubtful || m.acknowledged[m.over] != nil || turn.Renew != m.first()+uint64(m.over)+1 {
			t.Fatalf("a renewal of %d, after %d", turn.Renew, m.over)
		}
		m.under = turn.Renew
	case ok || len(m.acknowledged) > m.over || len(m.waiting) > 0:
		t.Fatal("nothing is taken, and something is there")
	}
}

// take checks that the segment is what the writes up to its last come to.
func (m *model) take(t *rapid.T, s *Segment[string, int]) {
	writes := m.acknowledged[m.over : s.Last-m.first()]
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
		m.over = int(under.Last - m.first())
		m.Over(0)
	case uint64:
		m.over, m.doubtful = m.over+1, false
		m.Renewed()
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
		if _, ready, _ := o.next(); ready != c.ready {
			t.Errorf("%s: ready is %t", name, ready)
		}
	}
}

// Many writers share the log, which sees each number once and in order, and the line is in
// that order, too.
func TestManyWritersShareTheLog(t *testing.T) {
	const writers, each = 16, 50
	var logged []Logged
	calls := 0
	o := New[int, int](Config{MaxWrites: 1 << 20, MaxBytes: 1 << 20, MaxWaiting: 10, MaxRows: 1 << 20, MaxSegmentBytes: 1 << 20, Log: func(writes []Logged) error {
		calls++ // by one goroutine at a time, or the race detector says so
		logged = append(logged, writes...)
		return nil
	}})
	var running sync.WaitGroup
	for writer := range writers {
		running.Go(func() {
			for i := range each {
				value := writer*each + i
				w := &Write[int, int]{Items: []Item[int, int]{{Key: i % 5, Value: value}}, Record: []byte(fmt.Sprint(value))}
				if waits, err := o.Submit(w); waits || err != nil {
					t.Errorf("Submit = %t, %v", waits, err)
				}
				if got, _ := o.Get(i % 5); got != value && got/each == writer {
					t.Errorf("a writer reads what it wrote before")
				}
			}
		})
	}
	running.Wait()
	want := map[int]int{}
	for i, l := range logged {
		if l.Number != uint64(i+1) {
			t.Fatalf("record %d has number %d", i, l.Number)
		}
		value := 0
		fmt.Sscan(string(l.Record), &value)
		want[value%each%5] = value
	}
	if len(logged) != writers*each {
		t.Errorf("%d were logged", len(logged))
	}
	for key, value := range want {
		if got, _ := o.Get(key); got != value {
			t.Errorf("key %d is %d, and the log ends with %d", key, got, value)
		}
	}
	t.Logf("%d writes in %d calls", len(logged), calls)
	if !o.logging {
		select {
		case <-o.Close():
			t.Error("idle, with a segment in the line")
		default:
		}
	}
}
