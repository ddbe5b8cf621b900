package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/lockstep-cache/lockstep"
)

// expectLaws: conditions of changes, decided by the database.
var expectLaws = []law{
	{"ExpectAbsent", expectAbsent},
	{"ExpectVersion", expectVersion},
	{"ExpectInsideASet", expectInsideASet},
	{"ExpectAbsentIsWonByOne", expectAbsentOnce},
}

func expectAbsent(s *subject) {
	s.put("taken", doc(1))
	if !s.has(Versions) {
		s.refusedOrHonoured()
		return
	}
	outcomes := s.commit(set(ifAbsent(put("taken", doc(2)))), set(ifAbsent(put("free", doc(3)))))
	s.conflicts(outcomes[0], "taken")
	s.expect(outcomes[1].Err == nil, "a free key: %v", outcomes[1].Err)
	s.holds("taken", doc(1))
	s.holds("free", doc(3))

	s.write(erase("taken"))
	s.write(ifAbsent(put("taken", doc(4))))
	s.holds("taken", doc(4))
}

// refusedOrHonoured is for stores that do not promise expectations: they may
// know how to keep ExpectAbsent all the same, but not ignore it.
func (s *subject) refusedOrHonoured() {
	s.Helper()
	before := s.load1("taken")
	outcomes, err := s.try(s.ctx, set(ifAbsent(put("taken", doc(2)))))
	if err == nil {
		err = outcomes[0].Err
	}
	if !errors.Is(err, lockstep.ErrUnsupported) && !errors.Is(err, lockstep.ErrConflict) {
		s.Errorf("ExpectAbsent of a row that exists was answered with %v", err)
	}
	if after := s.load1("taken"); !same(before, after) {
		s.Errorf("ExpectAbsent changed %s into %s", show(before), show(after))
	}
}

func expectVersion(s *subject) {
	first := s.put("k", doc(1))
	if !s.has(Versions) {
		s.refused(lockstep.ErrUnsupported, set(ifVersion(1, put("k", doc(2)))), "k")
		return
	}
	for _, wrong := range []lockstep.Version{0, -1, first.Version - 1, first.Version + 1} {
		s.conflicts(s.commit(set(ifVersion(wrong, put("k", doc(2)))))[0], "k")
		s.conflicts(s.commit(set(ifVersion(wrong, erase("k"))))[0], "k")
	}
	s.holds("k", doc(1))

	s.write(ifVersion(first.Version, put("k", doc(2))))
	second := s.holds("k", doc(2))
	s.conflicts(s.commit(set(ifVersion(first.Version, put("k", doc(3)))))[0], "k")
	s.write(ifVersion(second.Version, erase("k")))

	// A tombstone is not a row, whatever its version is.
	gone := s.load1("k")
	for _, v := range []lockstep.Version{0, second.Version, gone.Version} {
		s.conflicts(s.commit(set(ifVersion(v, put("k", doc(4)))))[0], "k")
		s.conflicts(s.commit(set(ifVersion(v, erase("k"))))[0], "k")
		s.conflicts(s.commit(set(ifVersion(v, put("never", doc(4)))))[0], "never")
	}
	s.absent("k", "never")
}

func expectInsideASet(s *subject) {
	if !s.has(Versions) || !s.has(Atomic) {
		return // declared, and tested by Law3_ASetIsAllOrNothing
	}
	a, b := s.put("a", doc(1)), s.put("b", doc(2))
	s.refused(lockstep.ErrConflict, set(ifVersion(a.Version, put("a", doc(3))), ifVersion(b.Version+1, erase("b"))), "a", "b")
	s.refused(lockstep.ErrConflict, set(ifVersion(b.Version+1, erase("b")), ifVersion(a.Version, put("a", doc(3)))), "a", "b")
	s.write(ifVersion(a.Version, put("a", doc(3))), ifVersion(b.Version, erase("b")), ifAbsent(put("c", doc(4))))
	s.holds("a", doc(3))
	s.absent("b")
	s.holds("c", doc(4))
}

// expectAbsentOnce: of many who create a key at the same time one succeeds, also
// where two of them travel in one batch.
func expectAbsentOnce(s *subject) {
	if !s.has(Versions) {
		return // declared, and tested by ExpectAbsent
	}
	const rounds, callers = 10, 8
	for round := range rounds {
		key := fmt.Sprint("key", round)
		var mu sync.Mutex
		var group sync.WaitGroup
		var winners []int64
		start := make(chan struct{})
		for c := range int64(callers) {
			group.Go(func() {
				<-start
				outcomes, err := s.try(s.ctx, set(ifAbsent(put(key, doc(2*c)))), set(ifAbsent(put(key, doc(2*c+1)))))
				if err != nil {
					s.Errorf("Commit: %v", err)
					return
				}
				for i, o := range outcomes {
					if o.Err == nil {
						mu.Lock()
						winners = append(winners, 2*c+int64(i))
						mu.Unlock()
					} else if !errors.Is(o.Err, lockstep.ErrConflict) && !(i == 0 && unavailable(o.Err)) {
						s.Errorf("outcome: %v, want success or a conflict", o.Err)
					}
				}
			})
		}
		close(start)
		group.Wait()
		if len(winners) != 1 {
			s.Fatalf("%d callers have created %s", len(winners), key)
		}
		s.holds(key, doc(winners[0]))
	}
}
