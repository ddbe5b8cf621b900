package storetest

import (
	"time"

	"github.com/lockstep-cache/lockstep"
)

// lifetimeLaws: a row whose lifetime is over is absent.
var lifetimeLaws = []law{
	{"Law10_LifetimeEnds", law10Lifetime},
	{"Law10_ExpiredIsAbsentForConditions", law10Conditions},
	{"Law10_DeletingAnExpiredRowIsAChange", law10Deletion},
	{"LifetimeIsReported", lifetimeReported},
	{"LifetimeIsClearedByAPlainWrite", lifetimeCleared},
}

func lives(d time.Duration, c change) change {
	c.Lifetime = d
	return c
}

func until(t time.Time, c change) change {
	c.ExpiresAt = t
	return c
}

// longAgo is past by any database's clock.
func longAgo() time.Time { return time.Now().Add(-48 * time.Hour) }

// hasLifetimes checks that a store without lifetimes refuses one.
func (s *subject) hasLifetimes() bool {
	s.Helper()
	if s.has(Lifetimes) {
		return true
	}
	s.put("k", doc(1))
	s.refused(lockstep.ErrUnsupported, set(lives(time.Hour, put("k", doc(2)))), "k")
	s.refused(lockstep.ErrUnsupported, set(until(longAgo(), put("k", doc(2)))), "k")
	return false
}

func law10Lifetime(s *subject) {
	if !s.hasLifetimes() {
		return
	}
	s.put("stays", doc(1))
	s.write(until(longAgo(), put("past", doc(2))))
	s.absent("past")

	s.write(lives(300*time.Millisecond, put("short", doc(3))))
	s.write(lives(time.Hour, put("long", doc(4))))
	s.holds("long", doc(4))
	s.expires("short")
	s.holds("stays", doc(1))
	s.holds("long", doc(4))

	// The version goes on from where the expired row had been.
	before := s.put("past", doc(5))
	s.write(until(longAgo(), put("past", doc(6))))
	after := s.put("past", doc(7))
	if s.has(Versions) {
		s.expect(after.Version > before.Version+1, "the version was %d, and after an expired state %d", before.Version, after.Version)
	}
}

// expires waits until a row's lifetime is over, by asking the database, whose
// clock decides. It must be absent not earlier than it said, and soon after.
func (s *subject) expires(key string) {
	s.Helper()
	began := time.Now()
	r := s.load1(key)
	for r.Exists {
		s.expect(!r.ExpiresAt.IsZero(), "key %q: its lifetime is not reported", key)
		s.expect(r.Remaining > 0, "key %q is there with %v of its lifetime remaining", key, r.Remaining)
		if time.Since(began) > patience {
			s.Fatalf("key %q: still there after %v: %s", key, patience, show(r))
		}
		<-time.After(max(r.Remaining, time.Millisecond))
		r = s.load1(key)
	}
}

func law10Conditions(s *subject) {
	if !s.hasLifetimes() {
		return
	}
	expire := func(key string) lockstep.Version {
		r := s.put(key, doc(1))
		s.write(until(longAgo(), put(key, doc(2))))
		return max(r.Version, s.load1(key).Version)
	}
	if s.has(Versions) {
		v := expire("a")
		s.conflicts(s.commit(set(ifVersion(v, put("a", doc(3)))))[0], "a")
		s.write(ifAbsent(put("a", doc(4))))
		s.holds("a", doc(4))
	}
	if s.has(Checks) {
		v := expire("b")
		o := s.commit(changeSet{Changes: []change{put("c", doc(5))}, Checks: []check{{Key: "b", Version: v, Value: doc(2)}}})[0]
		s.conflicts(o, "b")
		o = s.commit(changeSet{Changes: []change{put("c", doc(5))}, Checks: []check{{Key: "b", Absent: true}}})[0]
		s.expect(o.Err == nil, "an expired row is not absent for a check: %v", o.Err)
	}
	expire("d")
	o := s.write(erase("d"))
	s.expect(!o.Existed[0], "an expired row existed for its deletion")
	expire("e")
	o = s.write(put("e", doc(6)))
	s.expect(o.Existed == nil || !o.Existed[0], "an expired row existed for the write that replaced it")
	s.holds("e", doc(6))
}

func law10Deletion(s *subject) {
	if !s.hasLifetimes() || !s.has(Versions) {
		return // declared: nothing to compare
	}
	for _, key := range []string{"alone", "a", "b"} {
		s.put(key, doc(1))
		s.write(until(longAgo(), put(key, doc(2))))
	}
	last := s.load("alone", "a", "b")
	grown := func(key string, grows bool, o outcome) {
		s.Helper()
		s.expect(!o.Existed[0], "key %q: an absent row existed for its deletion", key)
		now := s.load1(key)
		if s.has(Tombstones) {
			s.expect(now.Version > last[key].Version == grows, "key %q: the version was %d, and after a deletion it is %d", key, last[key].Version, now.Version)
			if o.Rows != nil {
				s.expect(o.Rows[0].Version == now.Version, "key %q: the outcome has version %d, Load has %d", key, o.Rows[0].Version, now.Version)
			}
		}
		last[key] = now
	}
	grown("alone", true, s.write(erase("alone")))
	grown("alone", false, s.write(erase("alone")))
	outcomes := s.commit(set(erase("a")), set(erase("b")))
	grown("a", true, outcomes[0])
	grown("b", true, outcomes[1])
	before := last["a"]
	if r := s.put("a", doc(3)); r.Version <= before.Version {
		s.Errorf("the version was %d, and after a new row it is %d", before.Version, r.Version)
	}
}

func lifetimeReported(s *subject) {
	if !s.hasLifetimes() {
		return
	}
	r := s.put("plain", doc(1))
	s.expect(r.ExpiresAt.IsZero(), "a row without a lifetime expires at %v", r.ExpiresAt)

	o := s.write(lives(time.Hour, put("k", doc(2))))
	for _, r := range append(o.Rows, s.load1("k")) {
		s.expect(!r.ExpiresAt.IsZero(), "the lifetime is not reported")
		s.expect(r.Remaining > 59*time.Minute && r.Remaining <= time.Hour, "of an hour's lifetime %v remain", r.Remaining)
	}

	// ExpiresAt is kept to the millisecond at least.
	at := time.Now().Add(2 * time.Hour)
	s.write(until(at, put("k", doc(3))))
	r = s.load1("k")
	s.expect(r.ExpiresAt.Sub(at).Abs() <= time.Millisecond, "the row was to expire at %v, and expires at %v", at, r.ExpiresAt)
	if again := s.load1("k"); !again.ExpiresAt.Equal(r.ExpiresAt) {
		s.Errorf("ExpiresAt moves from load to load: %v, then %v", r.ExpiresAt, again.ExpiresAt)
	}
}

func lifetimeCleared(s *subject) {
	if !s.hasLifetimes() {
		return
	}
	s.write(lives(time.Hour, put("k", doc(1))))
	r := s.put("k", doc(2))
	s.expect(r.ExpiresAt.IsZero(), "after a plain write the row expires at %v", r.ExpiresAt)
	s.write(lives(time.Hour, put("k", doc(3))))
	s.write(erase("k"))
	r = s.put("k", doc(4))
	s.expect(r.ExpiresAt.IsZero(), "after deletion and a plain write the row expires at %v", r.ExpiresAt)
}
