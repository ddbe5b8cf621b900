package gate

import (
	"context"
	"maps"
	"testing"
)

// A rig is a gate in front of a memory that a test can look into. Entries are
// versions of the row.
type rig struct {
	*Gate[string, int]
	t      testing.TB
	memory mapMemory
	end    context.CancelFunc // of the gate's life
}

type mapMemory map[string]int

func (m mapMemory) Set(key string, e int) { m[key] = e }
func (m mapMemory) Delete(key string)     { delete(m, key) }
func (m mapMemory) Clear()                { clear(m) }

// Absent: an absence has an even version. What says nothing of insertions takes no
// notice of it.
func (m mapMemory) Absent(e int) bool { return e%2 == 0 }

func (m mapMemory) DeleteAbsent() {
	maps.DeleteFunc(m, func(_ string, e int) bool { return m.Absent(e) })
}

func (m mapMemory) Get(key string) (int, bool) {
	e, ok := m[key]
	return e, ok
}

func newRig(t testing.TB) *rig {
	life, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	memory := make(mapMemory)
	return &rig{Gate: New[string, int](life, memory, func(a, b int) bool { return a >= b }), t: t, memory: memory, end: end}
}

type flight = Flight[string, int]

func usable(int) bool { return true }

// starts is a reader who misses and has to load.
func (g *rig) starts(key string) *flight {
	g.t.Helper()
	f, start, _ := g.Join(key, usable)
	if f == nil || !start {
		g.t.Fatalf("a reader of %s does not start a load", key)
	}
	return f
}

// shares is a reader who misses and waits for a load.
func (g *rig) shares(key string, want *flight) {
	g.t.Helper()
	f, start, _ := g.Join(key, usable)
	if f != want || start {
		g.t.Fatalf("a reader of %s does not share the load: %p, want %p", key, f, want)
	}
}

// waits is a reader who misses and waits for a load that has not started.
func (g *rig) waits(key string, running *flight) *flight {
	g.t.Helper()
	f, start, _ := g.Join(key, usable)
	if f == nil || f == running || start {
		g.t.Fatalf("a reader of %s does not wait for the next load", key)
	}
	return f
}

func (g *rig) refreshes(key string) (f *flight, start bool) {
	f, start, _ = g.Join(key, nil)
	return f, start
}

// lands ends a load that has read a version.
func (g *rig) lands(f *flight, version int) (next *flight) {
	g.t.Helper()
	next = g.Land(f, version, nil, true)
	select {
	case <-f.Done():
	default:
		g.t.Error("a flight has landed, and its readers wait")
	}
	if e, err := f.Result(); e != version || err != nil {
		g.t.Errorf("the flight's result is %d, %v", e, err)
	}
	return next
}

// holds says what memory holds, as a map of versions.
func (g *rig) holds(want mapMemory) {
	g.t.Helper()
	if !maps.Equal(g.memory, want) {
		g.t.Errorf("memory holds %v, want %v", g.memory, want)
	}
}

// idle says that nothing is under way on any key.
func (g *rig) idle() {
	g.t.Helper()
	for i := range g.shards {
		for key := range g.shards[i].slots {
			g.t.Errorf("the gate still knows key %s", key)
		}
		if n := g.shards[i].allHolds; n != 0 {
			g.t.Fatalf("a shard has %d holds on all keys", n)
		}
	}
}
