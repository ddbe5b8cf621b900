package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/lockstep-cache/lockstep"
)

// insertLaws: rows whose keys the database gives.
var insertLaws = []law{
	{"AnInsertionTellsItsKey", insertTells},
	{"AnInsertionIsAlone", insertAlone},
	{"ARefusedInsertionFailsAlone", insertRefused},
	{"InsertionsAtOnce", insertsAtOnce},
	{"AnUnknownInsertionIsSettled", insertUnknown},
}

// inserted checks an insertion that was committed, and returns its key.
func (s *subject) inserted(o outcome, want Doc) string {
	s.Helper()
	if o.Err != nil {
		s.Fatalf("an insertion was left out: %v", o.Err)
	}
	key, ok := o.Keys[0].(string)
	if !ok {
		s.Fatalf("the key of an insertion is a %T", o.Keys[0])
	}
	r := s.holds(key, want)
	if o.Rows != nil && !same(o.Rows[0], r) {
		s.Errorf("key %q: the outcome has %s, Load has %s", key, show(o.Rows[0]), show(r))
	}
	s.expect(o.Existed == nil || !o.Existed[0], "key %q: a new row existed", key)
	s.expect(!s.has(Versions) || r.Version > 0, "key %q: a new row has version %d", key, r.Version)
	return key
}

func insertTells(s *subject) {
	if !s.has(Inserts) {
		s.refused(lockstep.ErrUnsupported, set(insert(doc(1))))
		return
	}
	s.put("kept", doc(0))
	// Two of them are alike, and the keys are told apart all the same.
	outcomes := s.commit(set(insert(doc(1))), set(put("kept", doc(9))), set(insert(doc(2))), set(insert(doc(2))))
	keys := map[string]bool{"kept": true}
	for i, want := range map[int]Doc{0: doc(1), 2: doc(2), 3: doc(2)} {
		keys[s.inserted(outcomes[i], want)] = true
	}
	s.expect(len(keys) == 4, "four rows have %d keys", len(keys))
	s.holds("kept", doc(9))
	// It is a row like any other.
	key := s.inserted(s.write(insert(doc(3))), doc(3))
	s.expect(s.write(put(key, doc(4))).Err == nil, "a row that was inserted cannot be written")
	s.holds(key, doc(4))
	s.expect(s.write(erase(key)).Existed[0], "a row that was inserted is not there to be deleted")
	s.absent(key)
	if s.has(DeleteAll) {
		outcomes := s.commit(set(insert(doc(5))), changeSet{DeleteAll: true})
		s.expect(outcomes[0].Err == nil && outcomes[1].Err == nil, "an insertion before DeleteAll: %v, %v", outcomes[0].Err, outcomes[1].Err)
		s.absent(fmt.Sprint(outcomes[0].Keys[0]), "kept")
	}
}

func insertAlone(s *subject) {
	a := s.put("a", doc(1))
	why := lockstep.ErrInvalid
	if !s.has(Inserts) {
		why = lockstep.ErrUnsupported
	}
	mixed := []changeSet{set(insert(doc(2)), put("a", doc(2))), set(put("a", doc(2)), insert(doc(2))), set(insert(doc(2)), insert(doc(3)))}
	if s.has(Checks) && s.has(Inserts) {
		mixed = append(mixed, changeSet{Changes: []change{insert(doc(2))}, Checks: []check{seen("a", a)}})
	}
	for _, mixed := range mixed {
		s.refused(why, mixed, "a")
	}
	if s.has(Transactions) {
		txn := s.begin()
		err := s.applyErr(txn, set(insert(doc(2))))
		s.expect(errors.Is(err, lockstep.ErrUnsupported), "Apply has answered an insertion with %v", err)
		s.expect(txn.Rollback(s.ctx) == nil, "Rollback fails")
	}
	if s.has(Scan) {
		s.expect(len(s.scan(10, nil)) == 1, "refused insertions have left rows")
	}
}

func insertRefused(s *subject) {
	if !s.has(Inserts) || !s.has(Refusals) {
		return // declared: there is nothing to insert, or nothing to refuse
	}
	refused := s.harness.Refused(s, s.store, "refused")
	refused.Key, refused.Insert, refused.Prepared = "", true, nil
	outcomes := s.commit(set(insert(doc(1))), set(refused), set(put("a", doc(2))), set(insert(doc(3))))
	s.expect(errors.Is(outcomes[1].Err, lockstep.ErrInvalid), "the insertion was answered with %v", outcomes[1].Err)
	s.inserted(outcomes[0], doc(1))
	s.expect(outcomes[2].Err == nil, "a set was left out because of its neighbour: %v", outcomes[2].Err)
	s.inserted(outcomes[3], doc(3))
	alone := s.commit(set(refused))[0]
	s.expect(errors.Is(alone.Err, lockstep.ErrInvalid), "alone, the insertion was answered with %v", alone.Err)
}

func insertsAtOnce(s *subject) {
	if !s.has(Inserts) {
		return // declared
	}
	const writers, each = 4, 5
	var mu sync.Mutex
	var writing sync.WaitGroup
	keys := make(map[any]int64)
	for w := range int64(writers) {
		writing.Go(func() {
			for i := range int64(each) {
				n := w*each + i
				outcomes, err := s.try(s.ctx, set(insert(doc(n))), set(insert(doc(n+100))))
				if err != nil || outcomes[0].Err != nil || outcomes[1].Err != nil {
					s.Errorf("insertions at once: %v, %+v", err, outcomes)
					return
				}
				mu.Lock()
				keys[outcomes[0].Keys[0]], keys[outcomes[1].Keys[0]] = n, n+100
				mu.Unlock()
			}
		})
	}
	writing.Wait()
	s.expect(len(keys) == 2*writers*each, "%d insertions have %d keys", 2*writers*each, len(keys))
	for key, n := range keys {
		s.holds(key.(string), doc(n))
	}
}

// insertUnknown: what a settlement says of insertions is what a scan finds.
func insertUnknown(s *subject) {
	if !s.has(Inserts) || !s.has(UnknownOutcomes) || !s.has(Settle) || !s.has(Scan) {
		return // declared
	}
	s.store = s.harness.OpenUnreliable(s)
	s.caps = s.store.Capabilities()
	there := map[int64]bool{}
	for n := range int64(40) {
		outcomes, err := s.try(s.ctx, set(insert(doc(n))))
		if errors.Is(err, lockstep.ErrUnknownOutcome) {
			var settled lockstep.Settlement[Doc]
			serr := errors.New("not asked")
			for range repeats {
				if settled, serr = s.caps.Settle(s.ctx, err); serr == nil {
					break
				}
			}
			switch {
			case serr != nil:
				s.Fatalf("Settle: %v", serr)
			case settled.Err != nil:
				continue // it cannot be told
			}
			there[n] = settled.Applied
			outcomes = settled.Outcomes
		} else {
			there[n] = err == nil && outcomes[0].Err == nil
		}
		if there[n] && outcomes != nil {
			s.holds(outcomes[0].Keys[0].(string), doc(n))
		}
	}
	rows := map[int64]int{}
	for _, r := range s.scan(100, nil) {
		for n := range int64(40) {
			if r.Value.Equal(doc(n)) {
				rows[n]++
			}
		}
	}
	for n, want := range there {
		s.expect(rows[n] == 1 == want && rows[n] < 2, "insertion %d: applied=%t, and %d rows", n, want, rows[n])
	}
}
