package gate

// Hold makes the key busy until the matching Release. Holds of one owner, which
// a batch is, add up; holds of different owners at once leave nothing in memory.
// With evict, the key leaves memory at once; otherwise an old copy may go on
// answering until its writer knows that it is old.
func (g *Gate[K, E]) Hold(key K, owner uint64, evict bool) {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slotLocked(key)
	if sl.holds == 0 {
		sl.owner = owner
	} else if sl.owner != owner {
		sl.mixed = true
	}
	sl.holds++
	if sl.running != nil {
		sl.running.tainted = true
	}
	if evict || g.insertionDoubted() {
		g.memory.Delete(key)
	}
}

// Release ends one of owner's holds and publishes what became of the row. When
// it returns, memory has nothing older than p, so the writer may be answered
// once all holds of its batch are released.
func (g *Gate[K, E]) Release(key K, p Publication[E]) {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[key]
	if sl == nil || sl.holds == 0 {
		panic("gate: release of a key that is not held")
	}
	if sl.running != nil {
		sl.running.tainted = true
	}
	if p.kind != unchanged {
		sl.published = p
		g.changedLocked(s, key)
	}
	sl.holds--
	if sl.holds > 0 {
		if p.kind != unchanged {
			g.memory.Delete(key)
		}
		return
	}
	switch {
	case sl.published.kind == unchanged:
	case sl.published.kind == install && !sl.mixed && s.allHolds == 0 && !(g.memory.Absent(sl.published.entry) && g.inserting()) &&
		(!sl.shown || g.atLeast(sl.published.entry, sl.newest)):
		g.memory.Set(key, sl.published.entry)
	default:
		g.memory.Delete(key)
	}
	sl.mixed, sl.published = false, Publication[E]{}
	sl.shown, sl.newest = false, *new(E)
	s.tidyLocked(key, sl)
}

// Evict removes the key from memory and leaves what is under way alone. It is
// for a key that is held.
func (g *Gate[K, E]) Evict(key K) {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.memory.Delete(key)
}

// HoldAll makes every key busy, those that nobody has named yet among them, and
// clears memory.
func (g *Gate[K, E]) HoldAll() {
	g.everyShard(func(s *shard[K, E]) {
		s.allHolds++
		g.forgetLocked(s)
		for _, sl := range s.slots {
			sl.disturbLocked()
		}
	})
	g.memory.Clear()
}

// ReleaseAll ends HoldAll.
func (g *Gate[K, E]) ReleaseAll() {
	g.everyShard(func(s *shard[K, E]) {
		s.allHolds--
		g.forgetLocked(s)
		for _, sl := range s.slots {
			sl.disturbLocked()
		}
	})
}
