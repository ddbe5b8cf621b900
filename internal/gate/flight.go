package gate

import "context"

// Join returns the flight that a reader who missed the key may wait for. When
// start is true the caller has to run the load and Land the flight.
//
// The miss may be over by now: an entry that memory holds, and that usable
// accepts, is returned instead of a flight. A nil usable accepts none and asks
// for a refresh: memory may hold an older copy, which the flight replaces. So it does
// where that copy was not usable, and is kept for other answers than this one.
//
// A reader that was given a flight must Leave it once, landed or not.
func (g *Gate[K, E]) Join(key K, usable func(E) bool) (f *Flight[K, E], start bool, hit E) {
	return g.JoinWith(key, usable, nil)
}

// JoinWith is Join for a reader with a way of his own to load the row: a flight that is
// made for him has it as its By.
func (g *Gate[K, E]) JoinWith(key K, usable func(E) bool, by any) (f *Flight[K, E], start bool, hit E) {
	refresh := usable == nil
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := false // a copy that is not usable
	if !refresh {
		var e E
		if e, kept = g.memory.Get(key); kept && usable(e) {
			return nil, false, e
		}
	}
	sl := s.slotLocked(key)
	busy := sl.holds > 0 || s.allHolds > 0
	alone := busy || refresh || g.insertionDoubted()
	switch r := sl.running; {
	case r == nil:
		f, start = g.newFlight(key, by), true
		f.tainted = busy
		sl.running = f
	case !r.tainted && !alone:
		f = r
	default:
		if sl.next == nil {
			sl.next = g.newFlight(key, by)
		}
		f = sl.next
	}
	f.waiters++
	f.replaces = f.replaces || refresh || kept
	return f, start, hit
}

// shownLocked is for a flight whose readers are about to be told of a row that memory
// may not have: nothing older stays there, nor gets there. It may have seen a commit that
// is under way, and it may have seen what another program has written after a commit that
// was published since, or will be.
func (g *Gate[K, E]) shownLocked(s *shard[K, E], sl *slot[K, E], f *Flight[K, E], entry E) {
	held := sl.holds > 0 || s.allHolds > 0
	if f.replaces || held || g.inserting() {
		g.memory.Delete(f.Key)
	} else if e, ok := g.memory.Get(f.Key); ok && !g.atLeast(e, entry) {
		g.memory.Delete(f.Key)
	}
	if sl.holds == 0 {
		return
	}
	// Who refreshes does so for a reason that no version may show.
	sl.mixed = sl.mixed || f.replaces
	if !sl.shown || !g.atLeast(sl.newest, entry) {
		sl.shown, sl.newest = true, entry
	}
}

func (g *Gate[K, E]) newFlight(key K, by any) *Flight[K, E] {
	f := &Flight[K, E]{Key: key, By: by, done: make(chan struct{})}
	f.Ctx, f.cancel = context.WithCancelCause(g.life)
	return f
}

// Leave says that a reader does not wait any more. When the last one leaves, the
// load's context ends, because of why, and nobody joins it any more.
func (g *Gate[K, E]) Leave(f *Flight[K, E], why error) {
	s := g.shard(f.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	f.waiters--
	if f.waiters > 0 {
		return
	}
	f.tainted = true
	f.cancel(why)
	if sl := s.slots[f.Key]; sl != nil && sl.next == f {
		sl.next = nil
	}
}

// Land ends a flight: fills memory with the entry if fill is set and the flight
// is clean, then frees those who wait. The flight that waited for this one to
// end, if any, is returned for the caller to run.
func (g *Gate[K, E]) Land(f *Flight[K, E], entry E, err error, fill bool) (next *Flight[K, E]) {
	f.entry, f.err = entry, err
	s := g.shard(f.Key)
	s.mu.Lock()
	sl := s.slots[f.Key]
	if err == nil {
		g.changedLocked(s, f.Key) // also where memory is given the row, for eviction may forget it
		// A clean flight's key is not held: holding it would have tainted it.
		if fill && !f.tainted && s.allHolds == 0 && !(g.memory.Absent(entry) && g.insertionDoubted()) {
			g.memory.Set(f.Key, entry)
		} else {
			g.shownLocked(s, sl, f, entry)
		}
	}
	next = sl.next
	sl.running, sl.next = next, nil
	if next != nil {
		next.tainted = sl.holds > 0 || s.allHolds > 0
	}
	s.tidyLocked(f.Key, sl)
	s.mu.Unlock()
	close(f.done)
	f.cancel(nil)
	return next
}
