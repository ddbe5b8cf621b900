package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/lockstep-cache/lockstep"
)

// checkLaws: what a transaction has read must still be so when it commits.
var checkLaws = []law{
	{"ChecksOfRows", checksOfRows},
	{"ChecksOfAbsentRows", checksOfAbsentRows},
	{"ChecksAlone", checksAlone},
	{"ChecksSeeEarlierSetsOfTheBatch", checksInBatch},
	{"ChecksPreventWriteSkew", checksWriteSkew},
	{"ChecksOfAbsentPreventWriteSkew", checksPhantom},
}

// checked is a set with checks; ok says whether the store can be asked for it.
// A store without checks must refuse it.
func (s *subject) checked(checks []check, changes ...change) (set changeSet, ok bool) {
	s.Helper()
	set = changeSet{Changes: changes, Checks: checks}
	if !s.has(Checks) {
		s.refused(lockstep.ErrUnsupported, set, "a", "b")
		return set, false
	}
	return set, true
}

func checksOfRows(s *subject) {
	read := s.put("a", doc(1))
	passing, ok := s.checked([]check{seen("a", read)}, put("b", doc(2)))
	if !ok {
		return
	}
	s.expect(s.commit(passing)[0].Err == nil, "nothing has changed, and the check failed")
	s.holds("b", doc(2))

	s.put("a", doc(3))
	passing.Changes = []change{put("b", doc(4))}
	s.conflicts(s.commit(passing)[0], "a")
	s.holds("b", doc(2))

	s.write(erase("a"))
	s.conflicts(s.commit(passing)[0], "a")
	if s.has(Versions) {
		s.put("a", doc(1)) // the same value again is another version
		s.conflicts(s.commit(passing)[0], "a")
	}

	// The row that is read is the row that is written.
	read = s.put("a", doc(5))
	own, _ := s.checked([]check{seen("a", read)}, put("a", doc(6)))
	s.expect(s.commit(own)[0].Err == nil, "a check of the key that is written failed")
	s.holds("a", doc(6))
	s.conflicts(s.commit(own)[0], "a")
}

func checksOfAbsentRows(s *subject) {
	passing, ok := s.checked([]check{{Key: "a", Absent: true}}, put("b", doc(1)))
	if !ok {
		return
	}
	s.expect(s.commit(passing)[0].Err == nil, "the key never was there, and the check failed")
	s.put("a", doc(2))
	s.conflicts(s.commit(passing)[0], "a")
	s.write(erase("a"))
	passing.Changes = []change{put("b", doc(3))}
	s.expect(s.commit(passing)[0].Err == nil, "the key is absent again, and the check failed")
	s.holds("b", doc(3))
}

func checksAlone(s *subject) {
	a := s.put("a", doc(1))
	reading, ok := s.checked([]check{seen("a", a), {Key: "b", Absent: true}})
	if !ok {
		return
	}
	s.expect(s.commit(reading)[0].Err == nil, "nothing has changed, and the check failed")
	if after := s.load1("a"); !same(a, after) {
		s.Errorf("a set that only reads changed %s into %s", show(a), show(after))
	}
	s.absent("b")
	s.put("b", doc(2))
	s.conflicts(s.commit(reading)[0], "b")
}

func checksInBatch(s *subject) {
	a := s.put("a", doc(1))
	late, ok := s.checked([]check{seen("a", a)}, put("b", doc(2)))
	if !ok {
		return
	}
	outcomes := s.commit(set(put("a", doc(3))), late)
	s.conflicts(outcomes[1], "a")
	s.absent("b")
	outcomes = s.commit(
		changeSet{Changes: []change{put("b", doc(4))}, Checks: []check{{Key: "b", Absent: true}}},
		changeSet{Changes: []change{put("b", doc(5))}, Checks: []check{{Key: "b", Absent: true}}},
	)
	s.expect(outcomes[0].Err == nil, "the first set of the batch: %v", outcomes[0].Err)
	s.conflicts(outcomes[1], "b")
	s.holds("b", doc(4))
}

// checksWriteSkew runs pairs of transactions each of which reads both rows and
// writes one. Were both to commit, neither would have seen the other.
func checksWriteSkew(s *subject) {
	if !s.has(Checks) {
		return // declared, and tested by ChecksOfRows
	}
	for round := range int64(20) {
		a, b := s.put("a", doc(10*round)), s.put("b", doc(10*round+1))
		read := []check{seen("a", a), seen("b", b)}
		s.oneWins(
			changeSet{Changes: []change{put("a", doc(10*round+2))}, Checks: read},
			changeSet{Changes: []change{put("b", doc(10*round+3))}, Checks: read},
		)
	}
}

func checksPhantom(s *subject) {
	if !s.has(Checks) {
		return // declared, and tested by ChecksOfAbsentRows
	}
	for round := range int64(20) {
		a, b := fmt.Sprint("a", round), fmt.Sprint("b", round)
		s.oneWins(
			changeSet{Changes: []change{put(a, doc(1))}, Checks: []check{{Key: b, Absent: true}}},
			changeSet{Changes: []change{put(b, doc(2))}, Checks: []check{{Key: a, Absent: true}}},
		)
	}
}

// oneWins commits two sets at the same time, of which the first to be committed
// makes the other fail.
func (s *subject) oneWins(sets ...changeSet) {
	s.Helper()
	start := make(chan struct{})
	errs := make([]error, len(sets))
	var group sync.WaitGroup
	for i, set := range sets {
		group.Go(func() {
			<-start
			outcomes, err := s.try(s.ctx, set)
			if err == nil {
				err = outcomes[0].Err
			}
			errs[i] = err
		})
	}
	close(start)
	group.Wait()
	winners := 0
	for _, err := range errs {
		if err == nil {
			winners++
		} else if !errors.Is(err, lockstep.ErrConflict) {
			s.Errorf("outcome: %v, want success or a conflict", err)
		}
	}
	s.expect(winners == 1, "%d of %d transactions that exclude each other have committed", winners, len(sets))
}
