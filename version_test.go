package lockstep_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// Versions of a key grow in the order of its commits, whatever happens between.
func TestVersionsGrow(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		last := lockstep.Version(0)
		for round, between := range []func(){
			func() {},
			func() { s.Invalidate("k") },
			func() { s.InvalidateAll(); s.reads("k", 2) },
			func() { _ = second(s.Delete(s.ctx, "k")) },
			func() { _ = s.DeleteMany(s.ctx, []string{"k", "l"}) },
			func() { _ = s.DeleteAll(s.ctx) },
			func() { s.write("k", 0, lockstep.Lifetime(time.Second)); time.Sleep(2 * time.Second) },
			func() { s.behind("k", 0) },
			func() { s.script("commit 1: fail"); _ = second(s.Set(s.ctx, "k", 1)) },
			func() { s.script("commit 1: lose reply"); _ = second(s.Set(s.ctx, "k", 1)) },
			func() { time.Sleep(time.Hour) },
			func() { _ = second(s.Delete(s.ctx, "k")); time.Sleep(25 * time.Hour) },
		} {
			version := s.write("k", round)
			if version <= last {
				t.Errorf("round %d: version %d after %d", round, version, last)
			}
			last = version
			between()
		}
	})
}

func TestWritersOfOneKeyGetVersionsOfTheirOwn(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		const writers = 20
		versions := make(chan lockstep.Version, writers)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		var calls []*call
		for i := range writers {
			calls = append(calls, s.start(func() error {
				version, err := s.Set(s.ctx, "k", i)
				versions <- version
				return err
			}))
		}
		<-commit.Reached
		synctest.Wait() // the others gather
		commit.Pass()
		for _, c := range calls {
			c.succeeds()
		}
		seen := make(map[lockstep.Version]bool)
		for range writers {
			seen[<-versions] = true
		}
		if len(seen) != writers {
			t.Errorf("%d writers got %d versions", writers, len(seen))
		}
		if n := s.store.Counts().Commits; n != 2 {
			t.Errorf("%d commits", n)
		}
	})
}

func TestConditionDoesNotHold(t *testing.T) {
	for _, c := range []struct {
		name   string
		exists bool
		do     func(s *scene, v lockstep.Version) error
	}{
		{"IfVersion", true, func(s *scene, v lockstep.Version) error {
			return second(s.Set(s.ctx, "k", 9, lockstep.IfVersion(v)))
		}},
		{"IfAbsent", true, func(s *scene, _ lockstep.Version) error {
			return second(s.Set(s.ctx, "k", 9, lockstep.IfAbsent()))
		}},
		{"Delete", true, func(s *scene, v lockstep.Version) error {
			return second(s.Delete(s.ctx, "k", lockstep.IfVersion(v)))
		}},
		{"IfVersion of nothing", false, func(s *scene, v lockstep.Version) error {
			return second(s.Set(s.ctx, "gone", 9, lockstep.IfVersion(v)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, options{}, func(s *scene) {
				old := s.write("k", 1)
				now := s.behind("k", 2) // somebody else, so that memory is wrong
				s.remembers("k", 1)
				err := c.do(s, old)
				s.notApplied(err, lockstep.ErrConflict)
				var conflict *lockstep.ConflictError
				if !errors.As(err, &conflict) {
					t.Fatalf("no *ConflictError: %v", err)
				}
				if conflict.Exists != c.exists || c.exists && conflict.Version != now {
					t.Errorf("the conflict is %+v, and the row has version %d", conflict, now)
				}
				if c.exists {
					s.forgot("k")
					s.reads("k", 2)
				}
				s.Invalidate("k")
				if n := s.Stats().Conflicts; n != 1 {
					t.Errorf("Stats count %d conflicts", n)
				}
			})
		})
	}
}

func TestConditionHolds(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		one := s.write("k", 1, lockstep.IfAbsent())
		two := s.write("k", 2, lockstep.IfVersion(one))
		s.remembers("k", 2)
		if existed, err := s.Delete(s.ctx, "k", lockstep.IfVersion(two)); !existed || err != nil {
			t.Errorf("Delete = %v, %v", existed, err)
		}
		if three := s.write("k", 3, lockstep.IfAbsent()); three <= two {
			t.Errorf("version %d after %d", three, two)
		}
	})
}
