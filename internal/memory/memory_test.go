package memory

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rig is a map that notes what it removes by itself.
type rig struct {
	*Map[string, int]
	t     *testing.T
	clock *Clock

	mu      sync.Mutex
	removed []string // "key cause"
}

func inBubble(t *testing.T, config Config[string, int], test func(t *testing.T, m *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newRig(t, config)
		defer m.clock.Close()
		defer m.Close()
		test(t, m)
	})
}

func newRig(t *testing.T, config Config[string, int]) *rig {
	m := &rig{t: t, clock: NewClock()}
	config.Clock = m.clock
	config.Removed = func(e *Entry[string, int], cause Cause) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.removed = append(m.removed, fmt.Sprint(e.Key, " ", map[Cause]string{Evicted: "evicted", Expired: "expired"}[cause]))
	}
	var err error
	if m.Map, err = New(config); err != nil {
		t.Fatal(err)
	}
	return m
}

// use notes a use of the key, if it is there.
func (m *rig) use(key string) {
	if e, ok := m.Get(key); ok {
		m.Used(e)
	}
}

func (m *rig) set(key string, value int) { m.Set(key, &Entry[string, int]{Key: key, Value: value}) }

// setFor sets an entry that is over after a while.
func (m *rig) setFor(key string, value int, d time.Duration) {
	m.setUntil(key, value, m.clock.Precise()+int64(d))
}

func (m *rig) setUntil(key string, value int, deadline int64) {
	m.Set(key, &Entry[string, int]{Key: key, Value: value, Lives: &Lives{Deadline: deadline}})
}

func (m *rig) has(key string, want int) {
	m.t.Helper()
	if e, ok := m.Get(key); !ok || e.Value != want {
		m.t.Errorf("Get(%s) = %+v, %v, want %d", key, e, ok, want)
	}
}

func (m *rig) hasNot(keys ...string) {
	m.t.Helper()
	for _, key := range keys {
		if e, ok := m.Get(key); ok {
			m.t.Errorf("Get(%s) = %+v", key, e)
		}
	}
}

// gone says what was removed since it was last asked.
func (m *rig) gone(want ...string) {
	m.t.Helper()
	m.Settle()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.removed)
	if !slices.Equal(m.removed, want) {
		m.t.Errorf("removed %q, want %q", m.removed, want)
	}
	m.removed = nil
}

func (m *rig) count() (evicted, expired int) {
	m.Settle()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, line := range m.removed {
		if line[len(line)-len("evicted"):] == "evicted" {
			evicted++
		} else {
			expired++
		}
	}
	return evicted, expired
}

// TestTakingOverAPlace: an entry takes over the place of the one that it replaces, unless
// the policy has to hear of another weight or another end. It leaves when that place is
// evicted, and is what is told then.
func TestTakingOverAPlace(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after *Entry[string, int]
		same          bool
	}{
		{"as heavy", &Entry[string, int]{Value: 3}, &Entry[string, int]{Value: 3, Version: 1}, true},
		{"heavier", &Entry[string, int]{Value: 3}, &Entry[string, int]{Value: 4}, false},
		{"with an end", &Entry[string, int]{Value: 3}, &Entry[string, int]{Value: 3, Lives: &Lives{Deadline: math.MaxInt64}}, false},
		{"without an end", &Entry[string, int]{Value: 3, Lives: &Lives{Deadline: math.MaxInt64}}, &Entry[string, int]{Value: 3}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			weigh := func(e *Entry[string, int]) uint32 { return uint32(e.Value) }
			inBubble(t, Config[string, int]{MaxWeight: 1000, Weigh: weigh}, func(t *testing.T, m *rig) {
				before, after := c.before, c.after
				before.Key, after.Key = "k", "k"
				m.Set("k", before)
				m.Settle()
				m.Set("k", after)
				if (after.place == before.place) != c.same {
					t.Errorf("the place is the same: %v, want %v", !c.same, c.same)
				}
				if known, ok := m.policy.GetEntryQuietly("k"); !ok || known.Value != after.place {
					t.Errorf("the policy knows %+v, %v, want %+v", known.Value, ok, after.place)
				}
				if _, weight, _ := m.Size(); weight != uint64(after.Value) {
					t.Errorf("the map weighs %d, want %d", weight, after.Value)
				}
				m.policy.SetMaximum(0)
				m.hasNot("k")
				m.gone("k evicted")
			})
		})
	}
}

func TestSetGetDelete(t *testing.T) {
	inBubble(t, Config[string, int]{MaxEntries: 10}, func(t *testing.T, m *rig) {
		m.hasNot("a")
		m.set("a", 1)
		m.has("a", 1)
		m.set("a", 2)
		m.has("a", 2)
		m.Delete("a")
		m.Delete("a")
		m.hasNot("a")
		m.set("a", 3)
		m.set("b", 4)
		got := make(map[string]int)
		for key, e := range m.All() {
			got[key] = e.Value
		}
		if len(got) != 2 || got["a"] != 3 || got["b"] != 4 {
			t.Errorf("All: %v", got)
		}
		m.Clear()
		m.hasNot("a", "b")
		m.gone() // nothing went by itself
	})
}

func TestBoundOfEntries(t *testing.T) {
	const bound, sets = 100, 1000
	inBubble(t, Config[string, int]{MaxEntries: bound}, func(t *testing.T, m *rig) {
		for i := range sets {
			m.set(fmt.Sprint(i), i)
		}
		evicted, expired := m.count()
		entries, weight, maximum := m.Size()
		if entries != bound || weight != 0 || maximum != bound {
			t.Errorf("Size = %d, %d, %d", entries, weight, maximum)
		}
		if evicted != sets-bound || expired != 0 {
			t.Errorf("%d were evicted and %d expired of %d", evicted, expired, sets)
		}
	})
}

func TestBoundOfWeight(t *testing.T) {
	const bound = 1000
	weigh := func(e *Entry[string, int]) uint32 { return uint32(e.Value) }
	inBubble(t, Config[string, int]{MaxWeight: bound, Weigh: weigh}, func(t *testing.T, m *rig) {
		for i := range 200 {
			m.set(fmt.Sprint(i), 10+i%20)
		}
		m.Settle()
		synctest.Wait()
		entries, weight, maximum := m.Size()
		if weight > bound || maximum != bound {
			t.Errorf("Size = %d, %d, %d", entries, weight, maximum)
		}
		sum := uint64(0)
		for _, e := range m.All() {
			sum += uint64(e.Value)
		}
		if sum != weight {
			t.Errorf("the entries weigh %d, and Size says %d", sum, weight)
		}
		m.set("heavier than all", bound+1)
		m.Settle()
		synctest.Wait()
		m.hasNot("heavier than all")
	})
}

// What was used often stays when many come that are used once; and Get alone is
// no use.
func TestUsedEntriesStay(t *testing.T) {
	const bound, noted = 100, 20
	inBubble(t, Config[string, int]{MaxEntries: bound}, func(t *testing.T, m *rig) {
		for i := range bound {
			m.set(fmt.Sprint(i), i)
		}
		for range 10 {
			for i := range noted {
				m.use(fmt.Sprint(i))
			}
			m.Settle()
		}
		for i := range 20 * bound {
			m.Get(fmt.Sprint(noted + i%noted))
			m.set(fmt.Sprint("once", i), i)
		}
		m.Settle()
		synctest.Wait()
		kept := func(from int) (n int) {
			for i := range noted {
				if _, ok := m.Get(fmt.Sprint(from + i)); ok {
					n++
				}
			}
			return n
		}
		if often, got := kept(0), kept(noted); often < noted*3/4 || got > noted/2 {
			t.Errorf("%d of %d stayed that were noted, and %d that were not", often, noted, got)
		}
	})
}

// The policy hears of an entry's first uses in an epoch, and of no more of them
// until entries have been evicted.
func TestThePolicyHearsOfTheFirstUsesInAnEpoch(t *testing.T) {
	const bound = 8 * epochPart
	inBubble(t, Config[string, int]{MaxEntries: bound}, func(t *testing.T, m *rig) {
		m.set("k", 0)
		e, _ := m.Get("k")
		notes := func() (n int) {
			for range 10 * notesPerEpoch {
				before := e.noted.Load()
				m.Used(e)
				if e.noted.Load() != before {
					n++
				}
			}
			return n
		}
		if n := notes(); n != notesPerEpoch {
			t.Errorf("%d notes in the first epoch", n)
		}
		time.Sleep(time.Minute)
		if n := notes(); n != 0 {
			t.Errorf("%d notes in the same epoch, a minute later", n)
		}
		for i := range bound + bound/epochPart {
			m.set(fmt.Sprint(i), i)
			m.Settle()
		}
		synctest.Wait()
		if n := notes(); n != notesPerEpoch {
			t.Errorf("%d notes after %d evictions", n, bound/epochPart)
		}
	})
}

func TestExpiredEntriesAreRemoved(t *testing.T) {
	inBubble(t, Config[string, int]{MaxEntries: 10}, func(t *testing.T, m *rig) {
		m.setFor("short", 1, 10*time.Second)
		m.setFor("long", 2, time.Minute)
		m.set("for ever", 3)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		m.has("short", 1)
		time.Sleep(4 * time.Second) // within about two
		synctest.Wait()
		m.gone("short expired")
		m.hasNot("short")
		time.Sleep(time.Minute)
		synctest.Wait()
		m.gone("long expired")
		m.has("for ever", 3)
		if entries, _, _ := m.Size(); entries != 1 {
			t.Errorf("%d entries", entries)
		}
	})
}

// Nothing but the sweep may be there to notice: a new copy comes first.
func TestReplacingAnExpiredEntry(t *testing.T) {
	inBubble(t, Config[string, int]{MaxEntries: 10}, func(t *testing.T, m *rig) {
		m.setFor("k", 1, time.Millisecond)
		m.setFor("d", 1, time.Millisecond)
		time.Sleep(2 * time.Millisecond)
		m.set("k", 2)
		m.Delete("d")
		m.gone("d expired", "k expired")
		m.has("k", 2)
		m.set("k", 3)
		m.gone()
	})
}

// A deadline that is over when the entry is set is no reason to keep it for ever.
func TestAnEntryThatIsOverAlready(t *testing.T) {
	inBubble(t, Config[string, int]{MaxEntries: 10}, func(t *testing.T, m *rig) {
		time.Sleep(time.Hour)
		m.setUntil("k", 1, int64(time.Minute))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		m.gone("k expired")
	})
}

// A longer life follows a shorter one, and the other way round.
func TestANewCopyHasItsOwnDeadline(t *testing.T) {
	inBubble(t, Config[string, int]{MaxEntries: 10}, func(t *testing.T, m *rig) {
		m.setFor("longer", 1, 5*time.Second)
		m.setFor("longer", 2, time.Minute)
		m.setFor("shorter", 1, time.Minute)
		m.setFor("shorter", 2, 5*time.Second)
		m.setFor("for ever", 1, 5*time.Second)
		m.set("for ever", 2)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		m.gone("shorter expired")
		m.has("longer", 2)
		time.Sleep(time.Hour)
		synctest.Wait()
		m.gone("longer expired")
		m.has("for ever", 2)
	})
}

func TestManyAtOnce(t *testing.T) {
	m := newRig(t, Config[string, int]{MaxEntries: 64})
	defer m.clock.Close()
	defer m.Close()
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			for n := range 3000 {
				key := fmt.Sprint((n*7 + i) % 200)
				switch n % 8 {
				case 0, 1:
					m.set(key, n)
				case 2:
					m.Delete(key)
				case 3:
					m.use(key)
				case 4:
					m.setFor(key, n, time.Microsecond)
				case 5:
					if n%500 == 5 {
						m.Clear()
					}
				default:
					m.Get(key)
				}
			}
		})
	}
	running.Wait()
	m.Settle()
	if entries, _, _ := m.Size(); entries > 64 {
		t.Errorf("%d entries in a map of 64", entries)
	}
	m.Clear()
	for key := range m.All() {
		t.Errorf("%s is still there", key)
	}
}

// What answers and what decides who leaves are two maps. The one never keeps what
// the other does not know of, or it would keep it for ever.
func TestTheTwoMapsAgree(t *testing.T) {
	const keys, bound = 200, 64
	m := newRig(t, Config[string, int]{MaxEntries: bound})
	defer m.clock.Close()
	defer m.Close()
	var locks [keys]sync.Mutex // as the gate's
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			for n := range 2000 {
				k := (n*7 + i*31 + n*n) % keys
				key := fmt.Sprint(k)
				if n%300 == 299 {
					m.Clear()
					continue
				}
				locks[k].Lock()
				switch n % 4 {
				case 0:
					m.Delete(key)
				case 1:
					m.setFor(key, n, time.Microsecond)
				default:
					m.set(key, n)
				}
				locks[k].Unlock()
				m.use(key)
			}
		})
	}
	running.Wait()
	m.Settle()
	answers := 0
	for key, e := range m.index.all() {
		answers++
		if known, ok := m.policy.GetEntryQuietly(key); !ok || known.Value != e.place {
			t.Errorf("memory answers for %s, and the policy does not know", key)
		}
	}
	if answers > bound {
		t.Errorf("%d entries in a map of %d", answers, bound)
	}
}

// TestAnExpiredEntryWhosePlaceIsTakenOver is told as expired as any other: copies that
// are kept for ever after their time, for one, all leave at the same time.
func TestAnExpiredEntryWhosePlaceIsTakenOver(t *testing.T) {
	inBubble(t, Config[string, int]{MaxEntries: 10}, func(t *testing.T, m *rig) {
		kept := func(value int) *Entry[string, int] {
			return &Entry[string, int]{Key: "k", Value: value,
				Lives: &Lives{Deadline: m.clock.Precise() + int64(time.Second), Kept: math.MaxInt64}}
		}
		m.Set("k", kept(1))
		m.Set("k", kept(2)) // the first was not over yet
		m.gone()
		time.Sleep(2 * time.Second)
		m.Set("k", kept(3))
		m.gone("k expired")
		m.has("k", 3)
	})
}
