package storetest

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep"
)

// versionLaws: versions order the states of a row.
var versionLaws = []law{
	{"Law8_VersionsGrow", law8},
	{"Law8_VersionsGrowAcrossRestart", law8Restart},
	{"Law8_VersionsGrowInCommitOrder", law8Concurrent},
	{"TombstonesKeepTheVersion", tombstones},
}

// law8 also holds a store without versions to what it says: 0, always.
func law8(s *subject) {
	var last lockstep.Version
	grown := func(r row) {
		s.Helper()
		switch {
		case !s.has(Versions):
			s.expect(r.Version == 0, "a store without versions reports version %d", r.Version)
		case r.Version <= last:
			s.Errorf("the version was %d, and after a change it is %d", last, r.Version)
		}
		last = r.Version
	}
	for n := range int64(5) {
		grown(s.put("k", doc(n)))
		grown(s.put("k", doc(n))) // the same value is a change too
		o := s.write(erase("k"))
		if o.Rows != nil {
			grown(o.Rows[0])
		}
		s.write(erase("k"))
	}
}

func law8Restart(s *subject) {
	if !s.has(Versions) || !s.has(Restart) {
		return // declared: nothing to compare
	}
	var last lockstep.Version
	for n := range int64(4) {
		r := s.put("k", doc(n))
		s.expect(r.Version > last, "the version was %d, and after a restart it is %d", last, r.Version)
		if last = r.Version; n%2 == 1 {
			s.write(erase("k"))
		}
		s.reopen()
	}
}

// law8Concurrent lets writers change and delete one row at the same time. Each
// notes when its commit began and ended; commits that did not overlap must have
// versions in their order, and no two of them the same.
func law8Concurrent(s *subject) {
	if !s.has(Versions) {
		return // declared, and tested by Law8_VersionsGrow
	}
	type commit struct {
		begun, ended int64
		version      lockstep.Version
	}
	const writers, writes = 6, 30
	var clock atomic.Int64
	var mu sync.Mutex
	var commits []commit
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range int64(writes) {
				c := put("k", doc(n))
				if (int(n)+w)%3 == 0 {
					c = erase("k")
				}
				begun := clock.Add(1)
				outcomes, err := s.try(s.ctx, set(c))
				ended := clock.Add(1)
				if err != nil || outcomes[0].Err != nil {
					s.Errorf("Commit: %v, %v", outcomes, err)
					return
				}
				o := outcomes[0]
				if o.Rows == nil || c.Delete && !o.Existed[0] {
					continue
				}
				mu.Lock()
				commits = append(commits, commit{begun, ended, o.Rows[0].Version})
				mu.Unlock()
			}
		})
	}
	group.Wait()

	slices.SortFunc(commits, func(a, b commit) int { return cmp.Compare(a.version, b.version) })
	latest := int64(0) // the latest beginning of a commit with a lower version
	for i, c := range commits {
		if i > 0 && c.version == commits[i-1].version {
			s.Errorf("two commits got version %d", c.version)
		}
		if c.ended < latest {
			s.Errorf("version %d was acknowledged before the commit of a lower version began", c.version)
		}
		latest = max(latest, c.begun)
	}
	if n := len(commits); n > 0 {
		if r := s.load1("k"); r.Exists && r.Version != commits[n-1].version {
			s.Errorf("the highest acknowledged version is %d, Load has %s", commits[n-1].version, show(r))
		}
	}
}

func tombstones(s *subject) {
	s.put("k", doc(1))
	o := s.write(erase("k"))
	r, found := s.load("k")["k"]
	if !s.has(Tombstones) {
		s.expect(!found || r.Version == 0, "a store without tombstones returned %s", show(r))
		return
	}
	if !found || r.Exists || r.Version == 0 {
		s.Fatalf("Load of a deleted row returned %s (found=%t), want a tombstone with its version", show(r), found)
	}
	if o.Rows != nil {
		s.expect(o.Rows[0].Version == r.Version, "the deletion has version %d, its tombstone %d", o.Rows[0].Version, r.Version)
	}
	s.expect(r.Value.Equal(Doc{}), "a tombstone carries the value %v", r.Value)
}
