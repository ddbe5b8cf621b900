package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// choosy is a table that refuses values below zero, as a CHECK does.
type choosy struct{ *fault.Store[string, int] }

func (s choosy) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	outcomes := make([]outcome, len(sets))
	var good []changeSet
	var at []int
	for i, set := range sets {
		if outcomes[i].Err = refusedBy(set); outcomes[i].Err == nil {
			good, at = append(good, set), append(at, i)
		}
	}
	if len(good) == 0 {
		return outcomes, nil
	}
	made, err := s.Store.Commit(ctx, good)
	for i, o := range made {
		outcomes[at[i]] = o
	}
	return outcomes, err
}

func refusedBy(set changeSet) error {
	for _, c := range set.Changes {
		if c.Value < 0 {
			return fmt.Errorf("%w: %s = %d is below zero", lockstep.ErrInvalid, c.Key, c.Value)
		}
	}
	return nil
}

// inChoosyBubble plays a scene over a choosy table.
func inChoosyBubble(t *testing.T, o options, play func(s *scene)) {
	t.Helper()
	inBubbleOver(t, o, func(f *fault.Store[string, int]) store { return choosy{f} }, play)
}

func TestARefusedWriteIsHandedBack(t *testing.T) {
	var told []lockstep.RejectedEvent[string]
	var outside [][]string
	o := behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second})
	o.Hooks.Rejected = func(e lockstep.RejectedEvent[string]) { told = append(told, e) }
	o.Hooks.Outside = func(e lockstep.OutsideEvent[string]) { outside = append(outside, e.Keys) }
	inChoosyBubble(t, o, func(s *scene) {
		s.behind("old", 7)
		s.reads("old", 7)
		s.write("good", 1)
		s.write("old", -1)
		s.write("bad", -2)
		if _, err := s.Delete(s.ctx, "gone"); err != nil {
			s.Fatal(err)
		}
		s.reads("old", -1)
		if err := s.Flush(s.ctx); !errors.Is(err, lockstep.ErrInvalid) {
			s.Errorf("Flush = %v", err)
		}
		// A write that is refused fails alone, and its key is answered as before.
		s.stored("good", 1)
		s.stored("old", 7)
		s.reads("good", 1)
		s.reads("old", 7)
		s.readsNothing("bad")
		rejected := s.Rejected()
		if len(rejected) != 2 || rejected[0].Key != "old" || rejected[0].Value != -1 || rejected[0].Delete ||
			!errors.Is(rejected[0].Err, lockstep.ErrInvalid) || !rejected[0].At.Equal(time.Now()) || rejected[1].Key != "bad" {
			s.Errorf("Rejected = %+v", rejected)
		}
		if stats := s.Stats(); stats.RejectedWrites != 2 || stats.Refused != 2 || stats.Committed != 2 || stats.DirtyWrites != 0 {
			s.Errorf("%+v", stats)
		}
		synctest.Wait() // for the hooks
		if len(told) != 2 {
			s.Fatalf("the hook was told %+v", told)
		}
		if !slices.Equal(told[0].Keys, []string{"old"}) || !errors.Is(told[0].Err, lockstep.ErrInvalid) {
			s.Errorf("the hook was told %+v", told)
		}
		if fmt.Sprint(outside) != "[[old] [bad]]" {
			s.Errorf("Outside was told %v", outside)
		}
		// What was refused earlier is not this Flush's.
		s.flushes()
	})
}

func TestSeveralRowsAreRefusedTogether(t *testing.T) {
	inChoosyBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), func(s *scene) {
		for _, values := range []map[string]int{{"a": 1, "b": 1}, {"b": 2, "c": 2}, {"d": 3, "e": 3}} {
			if err := s.SetMany(s.ctx, values); err != nil {
				s.Fatal(err)
			}
		}
		s.write("a", -1)
		if err := s.Flush(s.ctx); !errors.Is(err, lockstep.ErrInvalid) {
			s.Errorf("Flush = %v", err)
		}
		s.notStored("a", "b", "c")
		s.stored("d", 3)
		s.stored("e", 3)
		for _, key := range []string{"a", "b", "c"} {
			s.readsNothing(key)
		}
		if rejected := s.Rejected(); len(rejected) != 3 {
			s.Errorf("Rejected = %+v", rejected)
		}
		if stats := s.Stats(); stats.RejectedWrites != 5 || stats.Committed != 1 || stats.Refused != 3 {
			s.Errorf("%d rows rejected, %d calls committed, %d refused", stats.RejectedWrites, stats.Committed, stats.Refused)
		}
	})
}

// What was written after the flush began is not taken back with what it was refused.
func TestAWriteAfterARefusedOneStays(t *testing.T) {
	inChoosyBubble(t, behindWith(lockstep.Behind[string, int]{}), func(s *scene) {
		block := s.store.Block(fault.BeforeCommit, "other")
		s.write("other", 1)
		<-block.Reached
		s.write("k", -1)
		if err := s.SetMany(s.ctx, map[string]int{"k": -2, "l": 5}); err != nil {
			s.Fatal(err)
		}
		second := s.store.Block(fault.BeforeCommit, "z")
		s.write("z", 1)
		block.Pass()
		<-second.Reached
		s.write("k", 3)
		second.Pass()
		_ = s.Flush(s.ctx) // nil where they were refused before the call
		if s.Rejected() == nil {
			s.Error("nothing was refused")
		}
		s.stored("k", 3)
		s.reads("k", 3)
		s.notStored("l")
		s.stored("z", 1)
	})
}

func TestRejectedRowsAreBounded(t *testing.T) {
	inChoosyBubble(t, behindWith(lockstep.Behind[string, int]{MaxRejected: 2}), func(s *scene) {
		for i := range 5 {
			s.write(fmt.Sprint("k", i), -1-i)
			_ = s.Flush(s.ctx)
		}
		rejected := s.Rejected()
		if len(rejected) != 2 || rejected[0].Key != "k3" || rejected[1].Key != "k4" {
			s.Errorf("Rejected = %+v", rejected)
		}
		if n := s.Stats().RejectedWrites; n != 5 {
			s.Errorf("%d rejected", n)
		}
	})
}

// An outcome that the database cannot tell is not tried again: what was written may be
// there, and somebody else may have written since.
func TestAFlushThatNobodyCanTellOfIsHandedBack(t *testing.T) {
	for name, script := range map[string]string{
		"Applied":    "commit 1: lose reply, forget outcome",
		"NotApplied": "commit 1: lose request, forget outcome",
		"Panic":      "commit 1: panic",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Hour}), func(s *scene) {
				s.behind("k", 1)
				s.reads("k", 1)
				s.script(script)
				s.write("k", 2)
				if err := s.Flush(s.ctx); !errors.Is(err, lockstep.ErrInvalid) {
					s.Errorf("Flush = %v", err)
				}
				rejected := s.Rejected()
				if len(rejected) != 1 || rejected[0].Key != "k" || !errors.Is(rejected[0].Err, lockstep.ErrUnknownOutcome) {
					s.Errorf("Rejected = %+v", rejected)
				}
				want := 1
				if name == "Applied" {
					want = 2
				}
				s.stored("k", want)
				s.reads("k", want)
			})
		})
	}
}
