package lockstep_test

import (
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestSetManyIsOneTransaction(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("a", 1)
		s.write("b", 1)
		commit := s.store.Block(fault.AfterCommit)
		defer commit.Pass()
		var writer *call
		n := s.commits(func() {
			writer = s.start(func() error { return s.SetMany(s.ctx, map[string]int{"a": 2, "b": 2, "c": 2}) })
			<-commit.Reached
			// They left memory when they became busy: nobody sees half.
			s.forgot("a", "b")
			s.reads("a", 2)
			s.reads("b", 2)
			s.forgot("a", "b", "c")
			commit.Pass()
			writer.succeeds()
		})
		if n != 1 {
			t.Errorf("%d commits", n)
		}
		for _, key := range []string{"a", "b", "c"} {
			s.remembers(key, 2)
		}
		s.script("commit 1: refuse")
		s.notApplied(s.SetMany(s.ctx, map[string]int{"a": 3, "d": 3}), lockstep.ErrInvalid)
		s.reads("a", 2)
		s.readsNothing("d")
	})
}

func TestSetsOfNothing(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		n := s.commits(func() {
			if err := errors.Join(s.SetMany(s.ctx, nil), s.DeleteMany(s.ctx, nil)); err != nil {
				t.Error(err)
			}
		})
		if n != 0 {
			t.Errorf("%d commits of nothing", n)
		}
	})
}

func TestDeleteMany(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		for _, key := range []string{"a", "b", "c"} {
			s.write(key, 1)
		}
		n := s.commits(func() {
			if err := s.DeleteMany(s.ctx, []string{"a", "b", "a", "nobody"}); err != nil {
				t.Error(err)
			}
		})
		if n != 1 {
			t.Errorf("%d commits", n)
		}
		s.notStored("a", "b")
		n = s.loads(func() { s.readsNothing("a"); s.readsNothing("b"); s.readsNothing("nobody"); s.reads("c", 1) })
		if n != 0 {
			t.Errorf("%d loads of rows that the cache has deleted", n)
		}
	})
}

func TestDeleteAllIsABarrier(t *testing.T) {
	inBubble(t, options{Batch: lockstep.Batch{InFlight: 4}}, func(s *scene) {
		s.write("old", 1)
		s.behind("never loaded", 1)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		before := s.startSet(s.ctx, "before", 1)
		<-commit.Reached
		all := s.start(func() error { return s.DeleteAll(s.ctx) })
		all.hangs()
		after := s.startSet(s.ctx, "after", 1)
		after.hangs()
		commit.Pass()
		before.succeeds()
		all.succeeds()
		after.succeeds()
		for _, key := range []string{"old", "never loaded", "before"} {
			s.notStored(key)
			s.readsNothing(key)
		}
		s.stored("after", 1)
		s.reads("after", 1)
	})
}

func TestDeleteAllWhileOthersRead(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		load := s.store.Block(fault.AfterLoad)
		defer load.Pass()
		reader := s.startGet(s.ctx, "k")
		<-load.Reached
		commit := s.store.Block(fault.AfterCommit)
		defer commit.Pass()
		all := s.start(func() error { return s.DeleteAll(s.ctx) })
		<-commit.Reached
		load.Pass() // with the row that is gone
		reader.succeeds()
		s.forgot("k")
		s.readsNothing("k")
		commit.Pass()
		all.succeeds()
		s.readsNothing("k")
	})
}

func TestDeleteAllThatFails(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.script("commit 1: fail; commit 2: lose reply")
		s.notApplied(s.DeleteAll(s.ctx), lockstep.ErrUnavailable)
		s.reads("k", 1)
		s.settles(s.unknown(s.DeleteAll(s.ctx)), true)
		s.readsNothing("k")
		s.write("k", 2)
	})
}
