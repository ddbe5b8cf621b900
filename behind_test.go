package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// behindWith is Mode WriteBehind within bounds.
func behindWith(b lockstep.Behind[string, int]) options {
	return options{Mode: lockstep.WriteBehind, Behind: b}
}

// flushes waits until everything that was acknowledged is in the database.
func (s *scene) flushes() {
	s.Helper()
	if err := s.Flush(s.ctx); err != nil {
		s.Errorf("Flush: %v", err)
	}
}

func TestAWriteBehindIsSeenAtOnceAndFlushedLater(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		if version := s.write("k", 2); version != 0 {
			s.Errorf("Set returned version %d", version)
		}
		s.reads("k", 2)
		s.remembers("k", 2)
		e, err := s.GetEntry(s.ctx, "k")
		if err != nil || !e.Dirty || e.Version != 0 || e.Value != 2 {
			s.Errorf("GetEntry = %+v, %v", e, err)
		}
		s.stored("k", 1)
		if stats := s.Stats(); stats.DirtyWrites != 1 || stats.DirtyBytes == 0 || stats.Committed != 0 || stats.Flushes != 0 {
			s.Errorf("before the flush: %+v", stats)
		}
		time.Sleep(500 * time.Millisecond)
		if age := s.Stats().DirtyAge; age != 500*time.Millisecond {
			s.Errorf("the oldest is %v old", age)
		}
		time.Sleep(time.Second)
		s.stored("k", 2)
		e, err = s.GetEntry(s.ctx, "k")
		if err != nil || e.Dirty || e.Version == 0 {
			s.Errorf("after the flush GetEntry = %+v, %v", e, err)
		}
		stats := s.Stats()
		if stats.DirtyWrites != 0 || stats.DirtyBytes != 0 || stats.DirtyAge != 0 || stats.Committed != 1 || stats.Writes != 1 || stats.Flushes != 1 || stats.FlushedRows != 1 {
			s.Errorf("after the flush: %+v", stats)
		}
		if loads := stats.Loads; loads != 1 {
			s.Errorf("%d loads: the flush did not leave the row in memory", loads)
		}
	})
}

func TestWritesOfOneKeyBecomeOneRow(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), func(s *scene) {
		for i := range 100 {
			s.write("k", i)
			s.reads("k", i)
		}
		s.flushes()
		s.stored("k", 99)
		stats := s.Stats()
		if stats.Flushes != 1 || stats.FlushedRows != 1 || stats.CoalescedWrites != 99 || stats.Committed != 100 {
			s.Errorf("%d flushes of %d rows, %d coalesced, %d committed", stats.Flushes, stats.FlushedRows, stats.CoalescedWrites, stats.Committed)
		}
	})
}

func TestADeletionBehind(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), func(s *scene) {
		s.behind("unread", 1)
		s.write("k", 1)
		for key, want := range map[string]bool{"k": true, "none": false, "unread": false} {
			if existed, err := s.Delete(s.ctx, key); existed != want || err != nil {
				s.Errorf("Delete(%s) = %t, %v", key, existed, err)
			}
			s.readsNothing(key)
		}
		s.stored("unread", 1)
		s.flushes()
		s.notStored("k", "none", "unread")
		s.readsNothing("unread")
	})
}

// What a read would join, or fill memory with, while a write is dirty is older than it.
func TestALoadBesideADirtyWriteIsNotReadLater(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), func(s *scene) {
		s.behind("k", 1)
		block := s.store.Block(fault.AfterLoad, "k")
		read := make(chan int)
		go func() {
			v, _ := s.Get(s.ctx, "k")
			read <- v
		}()
		<-block.Reached
		s.write("k", 2)
		s.reads("k", 2)
		block.Pass()
		if v := <-read; v != 1 {
			s.Errorf("the load that began before brought %d", v)
		}
		s.reads("k", 2)
		s.flushes()
		s.reads("k", 2)
	})
}

func TestDirtyRowsAreNotEvicted(t *testing.T) {
	o := behindWith(lockstep.Behind[string, int]{MaxDelay: time.Hour, MaxOps: 1000})
	o.MaxEntries = 10
	inBubble(t, o, func(s *scene) {
		for i := range 300 {
			s.write(fmt.Sprint("k", i), i)
		}
		for i := range 300 {
			s.remembers(fmt.Sprint("k", i), i)
		}
		s.Invalidate("k7")
		s.InvalidateAll()
		for i := range 300 {
			s.reads(fmt.Sprint("k", i), i)
		}
		if loads := s.Stats().Loads; loads != 0 {
			s.Errorf("%d loads", loads)
		}
		s.flushes()
		for i := range 300 {
			s.stored(fmt.Sprint("k", i), i)
		}
	})
}

// Several keys are flushed in one transaction, or not at all, also when single writes of
// some of them have come after.
func TestSeveralKeysAreFlushedTogether(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), func(s *scene) {
		if err := s.SetMany(s.ctx, map[string]int{"a": 1, "b": 1}); err != nil {
			s.Fatal(err)
		}
		s.write("b", 2)
		if err := s.SetMany(s.ctx, map[string]int{"b": 3, "c": 3}); err != nil {
			s.Fatal(err)
		}
		s.write("d", 4)
		s.flushes()
		for key, want := range map[string]int{"a": 1, "b": 3, "c": 3, "d": 4} {
			s.stored(key, want)
		}
		if err := s.DeleteMany(s.ctx, []string{"a", "b", "a"}); err != nil {
			s.Fatal(err)
		}
		s.readsNothing("a")
		s.readsNothing("b")
		s.flushes()
		s.notStored("a", "b")
	})
}

func TestWhatNeedsTheDatabaseIsRefusedBehind(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{}), func(s *scene) {
		refusals := map[string]error{}
		for name, option := range map[string]lockstep.WriteOption{
			"IfVersion": lockstep.IfVersion(1), "IfAbsent": lockstep.IfAbsent(), "Lifetime": lockstep.Lifetime(time.Hour),
			"ExpiresAt": lockstep.ExpiresAt(time.Now()), "TTL": lockstep.TTL(time.Hour),
		} {
			_, refusals["Set with "+name] = s.Set(s.ctx, "k", 1, option)
		}
		_, refusals["Delete with IfVersion"] = s.Delete(s.ctx, "k", lockstep.IfVersion(1))
		_, refusals["Update"] = s.Update(s.ctx, "k", func(int, bool) (int, error) { return 1, nil })
		_, _, refusals["Insert"] = s.Insert(s.ctx, 1)
		refusals["Transact"] = lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			_, err := s.In(tx).Get(ctx, "k")
			return err
		})
		for call, err := range refusals {
			if !errors.Is(err, lockstep.ErrUnsupported) || !strings.Contains(err.Error(), call) || !strings.Contains(err.Error(), "Mode WriteBehind") {
				s.Errorf("%s: %v", call, err)
			}
		}
		s.notStored("k")
	})
}

func TestOptionsThatContradictWriteBehind(t *testing.T) {
	table := memstore.New(memstore.Options[string, int]{})
	for want, o := range map[string]options{
		"Behind.MaxWrites needs Mode WriteBehind": {Behind: lockstep.Behind[string, int]{MaxWrites: 1}},
		"Behind.MaxDelay needs Mode WriteBehind":  {Behind: lockstep.Behind[string, int]{MaxDelay: 1}},
		"Behind.MaxBytes is negative":             behindWith(lockstep.Behind[string, int]{MaxBytes: -1}),
		"Batch contradicts Mode WriteBehind":      {Mode: lockstep.WriteBehind, Batch: lockstep.Batch{MaxOps: 1}},
	} {
		if _, err := lockstep.New(table, o); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %q", err, want)
		}
	}
	readOnly := lockstep.FromFunc(func(context.Context, string) (int, error) { return 0, nil })
	if _, err := lockstep.New(readOnly, behindWith(lockstep.Behind[string, int]{})); !errors.Is(err, lockstep.ErrUnsupported) {
		t.Errorf("over a read-only store: %v", err)
	}
}

// A flush that the database does not take is tried again until it does, and readers see
// the writes all the while.
func TestAFlushIsTriedAgain(t *testing.T) {
	for name, script := range map[string]string{
		"NotSent":                "commit 1..3: fail",
		"Cut off":                "commit 1: hang",
		"NotApplied":             "commit 1..2: lose request",
		"AppliedWithoutRows":     "commit 1: lose reply, forget rows",
		"Applied":                "commit 1: lose reply",
		"AppliedLate":            "commit 1: lose reply, late",
		"NotSettledForSomeTime":  "commit 1: lose reply; settle 1..3: fail",
		"NotSentAndThenUnknown":  "commit 1: fail; commit 2: lose reply",
		"NotAppliedAndThenFails": "commit 1: lose request; commit 2..3: fail",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), func(s *scene) {
				s.script(script)
				s.write("a", 1)
				s.write("b", 2)
				time.Sleep(2 * time.Second)
				s.reads("a", 1)
				s.write("a", 3)
				s.reads("a", 3)
				s.script("")
				s.store.Release()
				err := s.Flush(s.ctx)
				if err != nil {
					s.Errorf("Flush: %v", err)
				}
				s.stored("a", 3)
				s.stored("b", 2)
				s.reads("a", 3)
				s.reads("b", 2)
				if rejected := s.Rejected(); rejected != nil {
					s.Errorf("rejected: %v", rejected)
				}
			})
		})
	}
}

// What was lost is not written again, blindly, over what somebody else has written since.
func TestAFlushThatWasAppliedIsNotMadeAgain(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{}), func(s *scene) {
		s.script("commit 1: lose reply; settle 1: fail")
		block := s.store.Block(fault.BeforeSettle)
		s.write("k", 1)
		<-block.Reached
		s.stored("k", 1)
		s.behind("k", 2)
		block.Pass()
		s.flushes()
		s.stored("k", 2)
		s.reads("k", 2)
	})
}
