package storetest

import (
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
)

// tableLaws: what concerns the table as a whole.
var tableLaws = []law{
	{"ScanCoversEachRowOnce", scanOnce},
	{"ScanSeesAcknowledgedCommits", scanFresh},
	{"DeleteAllEmptiesTheTable", deleteAll},
	{"DeleteAllIsAlone", deleteAllAlone},
}

// scan reads the whole table; between, if set, runs after each page.
func (s *subject) scan(limit int, between func(pages int)) map[string]row {
	s.Helper()
	rows := make(map[string]row)
	var cursor any
	for pages := 1; ; pages++ {
		page, err := s.caps.Scan(s.ctx, cursor, limit)
		if err != nil {
			s.Fatalf("Scan: %v", err)
		}
		if len(page.Keys) != len(page.Rows) || len(page.Keys) > limit {
			s.Fatalf("a page of at most %d has %d keys and %d rows", limit, len(page.Keys), len(page.Rows))
		}
		for i, key := range page.Keys {
			if _, twice := rows[key]; twice {
				s.Errorf("Scan returned key %q twice", key)
			}
			s.expect(page.Rows[i].Exists, "Scan returned key %q without a row", key)
			rows[key] = page.Rows[i]
		}
		if page.Next == nil {
			return rows
		}
		if between != nil {
			between(pages)
		}
		cursor = page.Next
	}
}

// scanAgreesWithLoad ends every test of a store that scans.
func (s *subject) scanAgreesWithLoad() {
	s.Helper()
	if s.Failed() || !s.has(Scan) {
		return
	}
	var keys []string
	scanned := s.scan(100, nil)
	for key := range scanned {
		keys = append(keys, key)
	}
	loaded := s.load(keys...)
	for key, r := range scanned {
		// A row may have expired between the two.
		if got := loaded[key]; !same(r, got) && (r.ExpiresAt.IsZero() || got.Exists) {
			s.Errorf("key %q: Scan has %s, Load has %s", key, show(r), show(got))
		}
	}
}

func scanOnce(s *subject) {
	if !s.has(Scan) {
		return // declared: there is nothing to call
	}
	s.expect(len(s.scan(10, nil)) == 0, "an empty table has rows")
	want := make(map[string]Doc)
	var batch []changeSet
	for i := range int64(57) {
		key := fmt.Sprintf("key %d", i*7919%101)
		want[key] = doc(i)
		batch = append(batch, set(put(key, doc(i))))
	}
	for _, key := range []string{"", "Key 1", "key 1 "} {
		want[key] = doc(100)
		batch = append(batch, set(put(key, doc(100))))
	}
	batch = append(batch, set(put("gone", doc(1))), set(erase("gone")))
	if s.has(Lifetimes) {
		batch = append(batch, set(until(longAgo(), put("expired", doc(2)))))
	}
	for i, o := range s.commit(batch...) {
		if o.Err != nil {
			delete(want, batch[i].Changes[0].Key)
		}
	}
	for _, limit := range []int{1, 2, 7, len(want) - 1, len(want), len(want) + 1, 1000} {
		got := s.scan(limit, nil)
		s.expect(len(got) == len(want), "pages of %d cover %d of %d rows", limit, len(got), len(want))
		for key, d := range want {
			s.expect(got[key].Value.Equal(d), "pages of %d: key %q is %s, want %v", limit, key, show(got[key]), d)
		}
	}
}

// scanFresh changes every row after each page: what the later pages have must
// not be older than that, and rows that nobody inserts or deletes are all there.
func scanFresh(s *subject) {
	if !s.has(Scan) {
		return // declared: there is nothing to call
	}
	const rows = 20
	write := func(round int64) {
		var changes []change
		for i := range rows {
			changes = append(changes, put(fmt.Sprint("key", i), doc(round)))
		}
		s.write(changes...)
	}
	write(0)
	oldest := make(map[string]int64)
	seen := make(map[string]bool)
	var cursor any
	for round := int64(1); ; round++ {
		page, err := s.caps.Scan(s.ctx, cursor, 3)
		if err != nil {
			s.Fatalf("Scan: %v", err)
		}
		for i, key := range page.Keys {
			seen[key] = true
			oldest[key] = page.Rows[i].Value.Count
			if got := page.Rows[i].Value.Count; got < round-1 {
				s.Errorf("key %q: the page was asked for after write %d, and has write %d", key, round-1, got)
			}
		}
		if page.Next == nil {
			break
		}
		write(round)
		cursor = page.Next
	}
	s.expect(len(seen) == rows, "Scan has covered %d of %d rows while they changed", len(seen), rows)
}

func deleteAll(s *subject) {
	old := s.put("a", doc(1))
	s.put("b", doc(2))
	all := changeSet{DeleteAll: true}
	if !s.has(DeleteAll) {
		s.refused(lockstep.ErrUnsupported, all, "a", "b")
		return
	}
	for range 2 { // the second time there is nothing left to delete
		if o := s.commit(all)[0]; o.Err != nil {
			s.Fatalf("DeleteAll: %v", o.Err)
		}
		s.absent("a", "b")
	}
	if s.has(Scan) {
		s.expect(len(s.scan(10, nil)) == 0, "after DeleteAll the table has rows")
	}
	if s.has(Versions) {
		s.conflicts(s.commit(set(ifVersion(old.Version, put("a", doc(3)))))[0], "a")
		s.write(ifAbsent(put("a", doc(4))))
		now := s.holds("a", doc(4))
		s.expect(now.Version > old.Version, "the version was %d before DeleteAll, and is %d after it", old.Version, now.Version)
	}
}

// deleteAllAlone: which of changes, checks and DeleteAll come first is a question
// that no store has to answer.
func deleteAllAlone(s *subject) {
	a := s.put("a", doc(1))
	why := lockstep.ErrInvalid
	if !s.has(DeleteAll) {
		why = lockstep.ErrUnsupported
	}
	for _, mixed := range []changeSet{
		{DeleteAll: true, Changes: []change{put("a", doc(2))}},
		{DeleteAll: true, Changes: []change{put("b", doc(2))}},
		{DeleteAll: true, Changes: []change{erase("a")}},
		{DeleteAll: true, Checks: []check{seen("a", a)}},
		{DeleteAll: true, Checks: []check{{Key: "a", Absent: true}}},
	} {
		s.refused(why, mixed, "a", "b")
		outcomes := s.commit(set(put("c", doc(3))), mixed, set(put("d", doc(4))))
		s.expect(errors.Is(outcomes[1].Err, why), "in company it was answered with %v, want an error that is %v", outcomes[1].Err, why)
		for _, i := range []int{0, 2} {
			s.expect(outcomes[i].Err == nil, "set %d was left out because of its neighbour: %v", i, outcomes[i].Err)
		}
		s.holds("c", doc(3))
		s.holds("d", doc(4))
		if s.has(Transactions) {
			txn := s.begin()
			err := s.applyErr(txn, mixed)
			s.expect(errors.Is(err, why), "Apply has answered with %v, want an error that is %v", err, why)
			s.expect(txn.Rollback(s.ctx) == nil, "Rollback fails")
		}
		s.holds("a", doc(1))
		s.absent("b")
	}
}
