package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// outcomeLaws: what an acknowledgement means, and what a refusal does.
var outcomeLaws = []law{
	{"Law1_LoadSeesWhatWasAcknowledged", law1},
	{"Law2_CommittedIsVisible", law2},
	{"Law2_CommittedOutlivesTheStore", law2Restart},
	{"Law3_ASetIsAllOrNothing", law3Atomic},
	{"Law3_AFailingSetSparesItsNeighbours", law3Neighbours},
	{"Law3_WhatTheDatabaseRefusesIsLeftOutAlone", law3Refused},
	{"Law3_SeveralKeysBecomeVisibleAtOnce", law3Visible},
	{"Law4_SetsTakeEffectInOrder", law4},
	{"Law5_AnErrorMeansThatNothingWasApplied", law5},
	{"Law7_RowsAreWhatLoadReturns", law7},
	{"ExistedTellsWhetherARowWasThere", existed},
}

// law1 lets writers hand what was acknowledged to readers that have not read it
// before: each of them must see it or something newer.
func law1(s *subject) {
	const writers, writes = 4, 25
	var group sync.WaitGroup
	for w := range writers {
		key := fmt.Sprint("key", w)
		acknowledged := make(chan int64)
		group.Go(func() {
			defer close(acknowledged)
			for n := range int64(writes) {
				outcomes, err := s.try(s.ctx, set(put(key, doc(n))))
				if err != nil || outcomes[0].Err != nil {
					s.Errorf("write %d of %s: %v, %v", n, key, outcomes, err)
					return
				}
				acknowledged <- n
			}
		})
		group.Go(func() {
			for n := range acknowledged {
				rows, err := s.store.Load(s.ctx, []string{key})
				if err != nil {
					s.Errorf("Load: %v", err)
				} else if r := rows[key]; !r.Exists || r.Value.Count < n {
					s.Errorf("%s: write %d was acknowledged, a Load after it returned %s", key, n, show(r))
				}
			}
		})
	}
	group.Wait()
}

func law2(s *subject) {
	for n := range int64(20) {
		s.write(put("k", doc(n)))
		s.holds("k", doc(n))
	}
	s.write(erase("k"))
	s.absent("k")
}

func law2Restart(s *subject) {
	if !s.has(Restart) {
		return // declared: there is no second store to ask
	}
	kept := s.put("kept", doc(1))
	s.put("gone", doc(2))
	s.write(erase("gone"))
	s.reopen()
	if r := s.holds("kept", doc(1)); !same(r, kept) {
		s.Errorf("after a restart the row is %s, before it was %s", show(r), show(kept))
	}
	s.absent("gone")
}

func law3Atomic(s *subject) {
	kept := s.put("kept", doc(1))
	mixed := set(put("new", doc(2)), erase("kept"), put("third", doc(3)))
	if !s.has(Atomic) {
		s.refused(lockstep.ErrUnsupported, mixed, "new", "kept", "third")
		return
	}
	if s.has(Versions) {
		failing := set(put("new", doc(2)), put("kept", doc(4)), ifAbsent(put("third", doc(3))), ifVersion(kept.Version-1, put("kept2", doc(5))))
		s.refused(lockstep.ErrConflict, failing, "new", "kept", "third", "kept2")
	}
	if s.has(Checks) {
		failing := mixed
		failing.Checks = []check{{Key: "kept", Absent: true}}
		s.refused(lockstep.ErrConflict, failing, "new", "kept", "third")
	}
	s.write(mixed.Changes...)
	s.holds("new", doc(2))
	s.holds("third", doc(3))
	s.absent("kept")
}

// law3Neighbours puts a set that fails between sets that do not, at each place
// of a batch, and lets some of them share a key with it.
func law3Neighbours(s *subject) {
	var fail func(key string) changeSet
	switch {
	case s.has(Versions):
		fail = func(key string) changeSet { return set(ifAbsent(put(key, doc(-1)))) }
	case s.has(Checks):
		fail = func(key string) changeSet {
			return changeSet{Changes: []change{put(key, doc(-1))}, Checks: []check{{Key: key, Absent: true}}}
		}
	default:
		return // declared: such a store has no set that can fail
	}
	for place := range 4 {
		taken := fmt.Sprint("taken", place)
		s.put(taken, doc(0))
		var batch []changeSet
		for i := range 4 {
			if i == place {
				batch = append(batch, fail(taken))
			}
			batch = append(batch, set(put(fmt.Sprint("n", place, i), doc(int64(i)))))
		}
		batch = append(batch, fail(taken), set(put(taken, doc(7))))
		outcomes := s.commit(batch...)
		for i, o := range outcomes {
			if i == place || i == len(batch)-2 {
				s.expect(errors.Is(o.Err, lockstep.ErrConflict), "set %d: %v, want a conflict", i, o.Err)
			} else {
				s.expect(o.Err == nil, "set %d was left out because of its neighbour: %v", i, o.Err)
			}
		}
		for i := range 4 {
			s.holds(fmt.Sprint("n", place, i), doc(int64(i)))
		}
		s.holds(taken, doc(7))
	}
}

// law3Refused is law3Neighbours for what nobody knows before the database has
// tried it.
func law3Refused(s *subject) {
	if !s.has(Refusals) {
		return // declared: the database refuses nothing, or nothing that is known here
	}
	there := s.put("there", doc(1))
	isRefused := func(what string, err error) {
		s.Helper()
		s.expect(errors.Is(err, lockstep.ErrInvalid), "%s: %v, want an error that is ErrInvalid", what, err)
	}
	for _, key := range []string{"there", "new"} {
		bad := s.harness.Refused(s, s.store, key)
		if _, err := s.prepared(set(bad)); err != nil {
			s.Fatalf("the change of Harness.Refused is not the database's to refuse: Prepare says %v", err)
		}
		s.refused(lockstep.ErrInvalid, set(bad), "there", "new")
		for place := range 4 {
			var batch []changeSet
			for i := range 3 {
				if i == place {
					batch = append(batch, set(bad))
				}
				batch = append(batch, set(put(fmt.Sprint("n", i), doc(int64(10*place+i)))))
			}
			if place == 3 {
				batch = append(batch, set(bad))
			}
			for i, o := range s.commit(batch...) {
				if i == place {
					isRefused("the set that the database refuses", o.Err)
				} else {
					s.expect(o.Err == nil, "set %d was left out because of its neighbour: %v", i, o.Err)
				}
			}
			for i := range 3 {
				s.holds(fmt.Sprint("n", i), doc(int64(10*place+i)))
			}
			s.expect(same(there, s.load1("there")), "a refused set has changed %s into %s", show(there), show(s.load1("there")))
			s.absent("new")
		}
		if s.has(Atomic) {
			for _, company := range [][]change{{put("other", doc(2)), bad}, {bad, put("other", doc(2))}, {erase("n0"), bad, put("n1", doc(9))}} {
				s.refused(lockstep.ErrInvalid, set(company...), "there", "new", "other", "n0", "n1")
				outcomes := s.commit(set(put("n2", doc(7))), set(company...))
				isRefused("a set of several in company", outcomes[1].Err)
				s.absent("new", "other")
				s.holds("n0", doc(30))
				s.holds("n1", doc(31))
				s.holds("n2", doc(7))
			}
		}
		if s.has(Transactions) {
			txn := s.begin()
			s.apply(txn, set(put("other", doc(3))))
			isRefused("Apply", s.applyErr(txn, set(bad)))
			s.expect(txn.Commit(s.ctx) != nil, "a transaction with a refused set has committed")
			s.expect(txn.Rollback(s.ctx) == nil, "Rollback fails")
			s.absent("other")
		}
	}
	// Sets before and after it on the same row go on.
	outcomes := s.commit(set(put("there", doc(2))), set(s.harness.Refused(s, s.store, "there")), set(put("there", doc(3))))
	s.expect(outcomes[0].Err == nil && outcomes[2].Err == nil, "sets on the row of a refused one: %v, %v", outcomes[0].Err, outcomes[2].Err)
	isRefused("a set between two on its row", outcomes[1].Err)
	s.holds("there", doc(3))
}

// law3Visible reads two rows that are always written together, one after the
// other: the second may be newer than the first, never older.
func law3Visible(s *subject) {
	if !s.has(Atomic) {
		return // declared: several values may become visible piece by piece
	}
	s.write(put("a", doc(0)), put("b", doc(0)))
	var group sync.WaitGroup
	defer group.Wait()
	done := make(chan struct{})
	defer close(done)
	for _, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Microsecond): // a bubble's clock stands still while somebody is busy
				}
				first, err1 := s.store.Load(s.ctx, []string{order[0]})
				second, err2 := s.store.Load(s.ctx, []string{order[1]})
				if err := errors.Join(err1, err2); err != nil {
					s.Errorf("Load: %v", err)
					return
				}
				if x, y := first[order[0]].Value.Count, second[order[1]].Value.Count; y < x {
					s.Errorf("%s was at write %d, and %s after it still at %d", order[0], x, order[1], y)
					return
				}
			}
		})
	}
	for n := range int64(100) {
		s.write(put("a", doc(n+1)), put("b", doc(n+1)))
	}
}

func law4(s *subject) {
	var batch []changeSet
	for n := range int64(10) {
		batch = append(batch, set(put("k", doc(n))), set(put("other", doc(n))))
	}
	outcomes := s.commit(batch...)
	for i, o := range outcomes {
		s.expect(o.Err == nil, "set %d: %v", i, o.Err)
	}
	if s.has(Versions) && outcomes[0].Rows != nil {
		for i := 2; i < len(outcomes); i++ {
			if before, after := outcomes[i-2].Rows[0].Version, outcomes[i].Rows[0].Version; after <= before {
				s.Errorf("two sets of one batch on one key have versions %d and then %d", before, after)
			}
		}
	}
	s.holds("k", doc(9))
	s.holds("other", doc(9))

	s.commit(set(put("k", doc(1))), set(erase("k")), set(put("k", doc(2))), set(erase("k")))
	s.absent("k")
	outcomes = s.commit(set(erase("k")), set(put("k", doc(3))))
	s.holds("k", doc(3))
	s.expect(!outcomes[0].Existed[0], "Existed is true for a row that an earlier batch deleted")

	if s.has(Versions) {
		outcomes = s.commit(set(erase("k")), set(ifAbsent(put("k", doc(4)))), set(ifAbsent(put("k", doc(5)))))
		s.expect(outcomes[1].Err == nil, "the key is free after the set before: %v", outcomes[1].Err)
		s.conflicts(outcomes[2], "k")
		s.holds("k", doc(4))
	}
}

func law5(s *subject) {
	before := s.put("k", doc(1))
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.try(ended, set(put("k", doc(2))), set(put("new", doc(3))))
	switch {
	case err == nil:
		s.holds("k", doc(2))
		s.holds("new", doc(3))
	case errors.Is(err, lockstep.ErrUnknownOutcome):
		s.Errorf("a commit whose context had ended before it began is unknown: %v", err)
	default:
		if after := s.load1("k"); !same(before, after) {
			s.Errorf("Commit failed (%v), and changed %s into %s", err, show(before), show(after))
		}
		s.absent("new")
	}
}

// law7 compares outcomes and loads strictly: what a program reads must not
// depend on whether its copy came from a write or from a read.
func law7(s *subject) {
	batch := []changeSet{
		set(put("a", doc(1))),
		set(put("b", Doc{})),
		set(put("c", Doc{Title: "ütf-8 ☃ \U0001F600", Count: -1 << 62, Score: 1e300, Body: []byte{}})),
		set(put("d", Doc{Title: "tail ", Score: 0.1, Body: []byte{0, 255}})),
		set(erase("e")),
	}
	s.put("e", doc(5))
	for i, o := range s.commit(batch...) {
		if o.Err != nil {
			s.Errorf("set %d: %v", i, o.Err)
			continue
		}
		key := batch[i].Changes[0].Key
		loaded := s.load1(key)
		if want := batch[i].Changes[0]; want.Delete {
			s.expect(!loaded.Exists, "key %q is there after its deletion", key)
		} else {
			s.expect(loaded.Value.Equal(want.Value), "key %q holds %s, want %v", key, show(loaded), want.Value)
		}
		if o.Rows == nil {
			continue
		}
		if !s.has(Tombstones) && !loaded.Exists {
			o.Rows[0].Version = loaded.Version
		}
		if !same(o.Rows[0], loaded) || !reflect.DeepEqual(o.Rows[0].Value, loaded.Value) {
			s.Errorf("key %q: the outcome has %s %#v, Load has %s %#v",
				key, show(o.Rows[0]), o.Rows[0].Value, show(loaded), loaded.Value)
		}
	}
}

func existed(s *subject) {
	s.put("there", doc(1))
	outcomes := s.commit(set(erase("there")), set(erase("there")), set(erase("never")))
	for i, want := range []bool{true, false, false} {
		s.expect(outcomes[i].Err == nil, "deleting: %v", outcomes[i].Err)
		s.expect(outcomes[i].Existed[0] == want, "deletion %d: Existed is %t, want %t", i, !want, want)
	}
	// A store may fold the changes of a key into what the last of them makes of it.
	outcomes = s.commit(set(put("folded", doc(1))), set(erase("folded")), set(erase("folded")), set(put("folded", doc(2))))
	for i, want := range []bool{true, false} {
		o := outcomes[i+1]
		s.expect(o.Err == nil && o.Existed != nil && o.Existed[0] == want, "deletion %d between two writes of a batch: Existed is %v, want %t; %v", i, o.Existed, want, o.Err)
		s.expect(o.Rows == nil || !o.Rows[0].Exists, "deletion %d between two writes of a batch left a row", i)
	}
	s.holds("folded", doc(2))
	if s.has(Lifetimes) {
		over := put("folded", doc(3))
		over.ExpiresAt = longAgo()
		o := s.commit(set(over), set(put("folded", doc(4))))[0]
		s.expect(o.Err == nil && (o.Rows == nil || !o.Rows[0].Exists), "a row whose end is over, before another write of a batch: %v, %v", o.Rows, o.Err)
		s.holds("folded", doc(4))
	}
	if !s.has(Atomic) {
		return
	}
	s.put("there", doc(1))
	o := s.write(erase("never"), erase("there"), put("new", doc(2)))
	s.expect(!o.Existed[0] && o.Existed[1] && !o.Existed[2], "Existed is %v, want false true false", o.Existed)
}
