package gate

import (
	"sync"
	"sync/atomic"
)

// An insertion is a commit whose key the database gives. Until it is known, no key
// can be made busy for it. It changes no row that is there, so that memory's copies
// of rows stay right whatever key it gets. Copies of absences are another matter:
//
//   - While an insertion is under way, an absence may go on answering, and a clean
//     load may fill memory with one: such readers come before the insertion, like
//     those of an old row whose commit is not known. Whoever has seen the new row
//     takes the absence away: an observer does so anyway, and a load that brings the
//     row replaces it, or, unfit to fill memory, removes it.
//   - No commit of another writer publishes an absence meanwhile. A load of its key
//     may have brought somebody the row that came after the deletion, and nothing of
//     that is left by the time it is published.
//   - When the key is known, before anybody is answered, its absence goes, and so
//     does what is under way on it (Inserted).
//   - While it is not known what has become of an insertion, memory has no absence,
//     takes in none, and no reader shares a load that began before he asked: any of
//     them may be wrong by now, and somebody may know it (DoubtInsertion). Nor has it
//     a row whose key is held: the row may be deleted already, and another be there.
//
// Two designs were rejected. To hold every key while an insertion is under way is
// simple, and a program that always inserts something would have no cache. To keep
// no absence meanwhile is nearly as simple, and such a program would not have any.
type insertions struct {
	under atomic.Int64 // under way, those in doubt among them
	begun atomic.Uint64
	// doubts is changed with mu held.
	mu     sync.Mutex
	doubts atomic.Int64
}

// An insertion counts before it is sent, and until its key is published. So whoever
// knows what was done after it took effect finds it counted, without a lock. It may be
// in doubt before it begins, if its writer has left.
func (g *Gate[K, E]) inserting() bool {
	return g.insertions.under.Load() > 0 || g.insertionDoubted()
}

func (g *Gate[K, E]) insertionDoubted() bool { return g.insertions.doubts.Load() > 0 }

// BeginInsertion is called before an insertion is sent to the database. The number is
// for Inserted.
func (g *Gate[K, E]) BeginInsertion() (number uint64) {
	g.insertions.under.Add(1)
	return g.insertions.begun.Add(1)
}

// EndInsertion ends BeginInsertion, after Inserted if the insertion was committed,
// and after the database has settled it.
func (g *Gate[K, E]) EndInsertion() { g.insertions.under.Add(-1) }

// Inserted publishes the row of an insertion that was committed. It is installed if
// nobody can have learned of, or made, a newer state of it.
func (g *Gate[K, E]) Inserted(key K, number uint64, p Publication[E]) {
	s := g.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[key]
	old, there := g.memory.Get(key)
	switch {
	case p.kind != install,
		s.allHolds > 0 || sl != nil && sl.holds > 0,
		s.changed[key] >= number || s.forgotten >= number,
		there && !g.memory.Absent(old): // loaded since; or of a row that somebody else has deleted
		g.memory.Delete(key)
	default:
		g.memory.Set(key, p.entry)
	}
	if sl != nil {
		sl.disturbLocked()
	}
	g.changedLocked(s, key)
}

// DoubtInsertion says that nobody knows what has become of an insertion, until
// SettleInsertion. When it returns, memory has no absence, and no key that is held.
func (g *Gate[K, E]) DoubtInsertion() {
	g.insertions.mu.Lock()
	defer g.insertions.mu.Unlock()
	if g.insertions.doubts.Add(1) > 1 {
		return
	}
	// Each shard's lock, once: a fill that has not seen the doubt is over by then.
	g.everyShard(func(s *shard[K, E]) {
		for key, sl := range s.slots {
			sl.disturbLocked()
			if sl.holds > 0 {
				g.memory.Delete(key)
			}
		}
	})
	g.memory.DeleteAbsent()
}

// SettleInsertion ends DoubtInsertion. The loads that run were begun in doubt, and a
// deletion that is not published yet may have been followed by the insertion.
func (g *Gate[K, E]) SettleInsertion() {
	g.insertions.mu.Lock()
	defer g.insertions.mu.Unlock()
	g.everyShard(func(s *shard[K, E]) {
		for _, sl := range s.slots {
			sl.disturbLocked()
		}
	})
	g.insertions.doubts.Add(-1)
}

// maxChanged bounds what a shard remembers. Beyond it the rows of the insertions
// under way are not installed, which costs each of them a load.
const maxChanged = 64

// changedLocked notes that somebody may have made, or seen, a state of the key that is
// newer than the row of an insertion under way.
func (g *Gate[K, E]) changedLocked(s *shard[K, E], key K) {
	if !g.inserting() {
		return
	}
	if len(s.changed) >= maxChanged {
		clear(s.changed)
		g.forgetLocked(s)
	}
	if s.changed == nil {
		s.changed = make(map[K]uint64)
	}
	s.changed[key] = g.insertions.begun.Load()
}

// forgetLocked is changedLocked for every key.
func (g *Gate[K, E]) forgetLocked(s *shard[K, E]) { s.forgotten = g.insertions.begun.Load() }
