package lockstep_test

import (
	"errors"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestRefresh(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.behind("k", 2)
		s.reads("k", 1)
		if err := s.Refresh(s.ctx, "k"); err != nil {
			t.Error(err)
		}
		s.remembers("k", 2)
		s.behind("k", 3)
		s.script("load 1: fail")
		if err := s.Refresh(s.ctx, "k"); !errors.Is(err, lockstep.ErrUnavailable) {
			t.Errorf("Refresh: %v", err)
		}
		s.remembers("k", 2) // better than nothing
		s.Invalidate("k")
		if err := s.Refresh(s.ctx, "nobody"); err != nil {
			t.Errorf("Refresh of nothing: %v", err)
		}
	})
}

// A refresh begins a load of its own: the one under way may have read the row
// before whatever made somebody ask for a refresh.
func TestRefreshDuringALoad(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.behind("k", 1)
		load := s.store.Block(fault.AfterLoad)
		defer load.Pass()
		reader := s.startGet(s.ctx, "k")
		<-load.Reached
		s.behind("k", 2)
		refresh := s.start(func() error { return s.Refresh(s.ctx, "k") })
		refresh.hangs()
		load.Pass()
		reader.succeeds()
		refresh.succeeds()
		s.remembers("k", 2)
	})
}

// The publication of a write that came before somebody else's does not undo what
// a refresh has shown of that one.
func TestRefreshDuringACommit(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		commit := s.store.Block(fault.AfterCommit)
		defer commit.Pass()
		writer := s.startSet(s.ctx, "k", 2)
		<-commit.Reached
		s.behind("k", 3)
		if err := s.Refresh(s.ctx, "k"); err != nil {
			t.Error(err)
		}
		s.forgot("k")
		commit.Pass()
		writer.succeeds()
		s.reads("k", 3)
	})
}

func TestInvalidate(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.write("l", 1)
		s.behind("k", 2)
		s.behind("l", 2)
		s.Invalidate("k")
		s.forgot("k")
		s.remembers("l", 1)
		s.reads("k", 2)
		s.behind("k", 3)
		s.InvalidateAll()
		s.forgot("k", "l")
		s.reads("k", 3)
		s.reads("l", 2)
	})
}

// An invalidation during a commit defeats its publication: what made somebody
// invalidate may have come after it.
func TestInvalidateDuringACommit(t *testing.T) {
	for name, invalidate := range map[string]func(s *scene){
		"Invalidate":    func(s *scene) { s.Invalidate("k") },
		"InvalidateAll": func(s *scene) { s.InvalidateAll() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, options{}, func(s *scene) {
				s.write("k", 1)
				commit := s.store.Block(fault.AfterCommit)
				defer commit.Pass()
				writer := s.startSet(s.ctx, "k", 2)
				<-commit.Reached
				s.behind("k", 3)
				invalidate(s)
				commit.Pass()
				writer.succeeds()
				s.reads("k", 3)
			})
		})
	}
}
