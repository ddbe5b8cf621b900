package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// fill makes the order full: so many writes are acknowledged, and the first is being
// flushed until the block is passed.
func (s *scene) fill(n int) *fault.Block {
	s.Helper()
	block := s.store.Block(fault.BeforeCommit)
	for i := range n {
		s.write(fmt.Sprint("full", i), i)
	}
	<-block.Reached
	return block
}

// calls makes a write on a goroutine of its own.
func (s *scene) calls(write func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- write() }()
	synctest.Wait()
	return done
}

func (s *scene) sets(ctx context.Context, key string, value int) func() error {
	return func() error {
		_, err := s.Set(ctx, key, value)
		return err
	}
}

func (s *scene) waits(what string, done <-chan error) {
	s.Helper()
	select {
	case err := <-done:
		s.Errorf("%s has not waited: %v", what, err)
	default:
	}
}

func TestAWriteThatFindsNoRoomGoesThrough(t *testing.T) {
	for name, b := range map[string]lockstep.Behind[string, int]{
		"Writes": {MaxWrites: 3}, "Bytes": {MaxBytes: 24}, "Delayed": {MaxWrites: 3, MaxDelay: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, behindWith(b), func(s *scene) {
				s.behind("full0", 10)
				s.behind("k", 10)
				block := s.fill(3)
				done := s.calls(s.sets(s.ctx, "k", 1))
				again := s.calls(s.sets(s.ctx, "full0", 5))
				s.waits("Set of k", done)
				// It is not seen before it is acknowledged; what was acknowledged is.
				s.reads("k", 10)
				s.reads("full0", 0)
				if stats := s.Stats(); stats.DirtyWrites != 3 || stats.QueueLength != 2 || stats.WritesThrough != 2 {
					s.Errorf("%d dirty, %d queued, %d through", stats.DirtyWrites, stats.QueueLength, stats.WritesThrough)
				}
				block.Pass()
				if err := <-done; err != nil {
					s.Errorf("Set: %v", err)
				}
				s.stored("k", 1) // with its answer
				if err := <-again; err != nil {
					s.Errorf("Set: %v", err)
				}
				s.stored("full0", 5)
				s.reads("k", 1)
				s.reads("full0", 5)
				s.write("k", 2)
				s.flushes()
				s.stored("k", 2)
			})
		})
	}
}

func TestAWriteThatGoesThroughHasItsOwnOutcome(t *testing.T) {
	inChoosyBubble(t, behindWith(lockstep.Behind[string, int]{MaxWrites: 2}), func(s *scene) {
		block := s.fill(2)
		bad := s.calls(s.sets(s.ctx, "bad", -1))
		good := s.calls(s.sets(s.ctx, "good", 1))
		existed := make(chan bool, 1)
		deleted := s.calls(func() error {
			existed1, err := s.Delete(s.ctx, "full0")
			existed <- existed1
			return err
		})
		block.Pass()
		var refused *lockstep.WriteError
		if err := <-bad; !errors.As(err, &refused) || refused.Outcome != lockstep.NotApplied || !errors.Is(err, lockstep.ErrInvalid) {
			s.Errorf("the refused write: %v", err)
		}
		if err := <-good; err != nil {
			s.Error(err)
		}
		if err := <-deleted; err != nil || !<-existed {
			s.Errorf("Delete: %v", err)
		}
		s.notStored("bad", "full0")
		if s.Rejected() != nil {
			s.Errorf("Rejected = %v: its caller was told", s.Rejected())
		}
	})
}

func TestTheWritesThatWaitForRoomAreBounded(t *testing.T) {
	o := behindWith(lockstep.Behind[string, int]{MaxWrites: 1})
	o.QueueLimit = 2
	inBubble(t, o, func(s *scene) {
		block := s.fill(1)
		first := s.calls(s.sets(s.ctx, "a", 1))
		second := s.calls(s.sets(s.ctx, "b", 1))
		err := <-s.calls(s.sets(s.ctx, "c", 1))
		if !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), "QueueLimit") {
			s.Errorf("the third: %v", err)
		}
		block.Pass()
		for _, done := range []<-chan error{first, second} {
			if err := <-done; err != nil {
				s.Error(err)
			}
		}
		s.notStored("c")
	})
}

func TestACallerLeavesWhileHisWriteWaitsForRoom(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxWrites: 1}), func(s *scene) {
		block := s.fill(1)
		ctx, leave := context.WithCancel(s.ctx)
		done := s.calls(s.sets(ctx, "k", 1))
		leave()
		var left *lockstep.WriteError
		if err := <-done; !errors.As(err, &left) || left.Outcome != lockstep.NotApplied || !errors.Is(err, context.Canceled) {
			s.Errorf("Set = %v", err)
		}
		block.Pass()
		s.flushes()
		s.notStored("k")
		if n := s.Stats().QueueLength; n != 0 {
			s.Errorf("%d are queued", n)
		}
	})
}

func TestACallerLeavesWhileHisWriteGoesThrough(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxWrites: 1}), func(s *scene) {
		block := s.fill(1)
		through := s.store.Block(fault.BeforeCommit, "k")
		ctx, leave := context.WithCancel(s.ctx)
		done := s.calls(s.sets(ctx, "k", 1))
		block.Pass()
		<-through.Reached
		leave()
		var unknown *lockstep.WriteError
		if err := <-done; !errors.As(err, &unknown) || unknown.Outcome != lockstep.Unknown {
			s.Fatalf("Set = %v", err)
		}
		// What comes after it is acknowledged, and flushed when it is settled.
		s.write("k", 2)
		s.reads("k", 2)
		synctest.Wait()
		s.notStored("k")
		through.Pass()
		if applied, _, err := unknown.Wait(s.ctx); !applied || err != nil {
			s.Errorf("Wait = %t, %v", applied, err)
		}
		s.flushes()
		s.stored("k", 2)
	})
}

func TestAWriteWaitsForRoomForCommitTimeout(t *testing.T) {
	o := behindWith(lockstep.Behind[string, int]{MaxWrites: 1})
	o.CommitTimeout = 3 * time.Second
	inBubble(t, o, func(s *scene) {
		s.script("commit *: fail")
		s.write("k", 1)
		began := time.Now()
		err := <-s.calls(s.sets(s.ctx, "l", 1))
		if !errors.Is(err, lockstep.ErrUnavailable) || !strings.Contains(err.Error(), "CommitTimeout") || time.Since(began) != 3*time.Second {
			s.Errorf("Set = %v, after %v", err, time.Since(began))
		}
		if stats := s.Stats(); stats.FlushRetries == 0 || stats.DirtyWrites != 1 {
			s.Errorf("%+v", stats)
		}
		s.script("")
		s.flushes()
		s.notStored("l")
	})
}

// A row that is acknowledged while a write of several rows waits, one of them the same,
// would be seen before it, and its other rows after.
func TestNoWriteOvertakesSeveralThatWait(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxWrites: 2}), func(s *scene) {
		block := s.fill(2)
		several := s.calls(func() error { return s.SetMany(s.ctx, map[string]int{"a": 1, "b": 1}) })
		through := s.store.Block(fault.BeforeCommit, "a")
		block.Pass()
		<-through.Reached
		// There is room again.
		s.write("c", 2)
		one := s.calls(s.sets(s.ctx, "a", 2))
		s.waits("Set of a", one)
		s.readsNothing("b")
		through.Pass()
		for _, done := range []<-chan error{several, one} {
			if err := <-done; err != nil {
				s.Error(err)
			}
		}
		s.reads("a", 2)
		s.reads("b", 1)
	})
}

func TestDeleteAllComesBetweenWhatWasAcknowledgedBeforeAndAfter(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Minute}), func(s *scene) {
		s.behind("old", 1)
		s.reads("old", 1)
		s.write("before", 1)
		block := s.store.Block(fault.BeforeCommit, "before")
		done := s.calls(func() error { return s.DeleteAll(s.ctx) })
		<-block.Reached
		after := s.calls(s.sets(s.ctx, "after", 1))
		s.waits("Set after DeleteAll", after)
		s.reads("before", 1)
		block.Pass()
		if err := <-done; err != nil {
			s.Fatal(err)
		}
		if err := <-after; err != nil {
			s.Fatal(err)
		}
		s.readsNothing("before")
		s.readsNothing("old")
		s.reads("after", 1)
		s.stored("after", 1)
		s.notStored("before", "old")
	})
}

func TestWhatReadsPastMemoryFlushesFirst(t *testing.T) {
	for name, read := range map[string]func(s *scene) error{
		"Refresh": func(s *scene) error { return s.Refresh(s.ctx, "k") },
		"Audit": func(s *scene) error {
			_, err := s.Audit(s.ctx)
			return err
		},
		"Scan": func(s *scene) error {
			for e, err := range s.Scan(s.ctx) {
				if err != nil || e.Key != "k" || e.Value != 2 {
					return fmt.Errorf("Scan yields %+v, %w", e, err)
				}
			}
			return nil
		},
		"ScanPage": func(s *scene) error {
			page, err := s.ScanPage(s.ctx, nil, 10)
			if err == nil && (len(page.Rows) != 1 || page.Rows[0].Value != 2) {
				err = fmt.Errorf("%+v", page)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Hour}), func(s *scene) {
				s.behind("k", 1)
				s.write("k", 2)
				if err := read(s); err != nil {
					s.Error(err)
				}
				s.stored("k", 2)
				s.write("k", 3)
				s.script("commit *: fail")
				ctx, cancel := context.WithTimeout(s.ctx, time.Second)
				defer cancel()
				s.ctx = ctx
				if err := read(s); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the last flush has failed") {
					s.Errorf("while the database is away: %v", err)
				}
				s.ctx = s.T.Context()
			})
		})
	}
}

func TestCloseFlushes(t *testing.T) {
	inBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Hour}), func(s *scene) {
		s.write("k", 1)
		if err := s.Close(s.ctx); err != nil {
			s.Errorf("Close: %v", err)
		}
		s.stored("k", 1)
		if _, err := s.Get(s.ctx, "k"); !errors.Is(err, lockstep.ErrClosed) {
			s.Errorf("Get = %v", err)
		}
		if _, err := s.Set(s.ctx, "k", 2); !errors.Is(err, lockstep.ErrClosed) {
			s.Errorf("Set = %v", err)
		}
		if err := s.Flush(s.ctx); !errors.Is(err, lockstep.ErrClosed) {
			s.Errorf("Flush = %v", err)
		}
	})
}

func TestCloseThatGivesUpSaysWhatIsLost(t *testing.T) {
	for name, script := range map[string]string{"Away": "commit *: fail", "Hanging": "commit *: hang", "InDoubt": "commit *: lose reply; settle *: fail"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, behindWith(lockstep.Behind[string, int]{MaxWrites: 3}), func(s *scene) {
				s.script(script)
				for i := range 3 {
					s.write(fmt.Sprint("k", i), i)
				}
				waiting := s.calls(s.sets(s.ctx, "w", 1))
				flushing := s.calls(func() error { return s.Flush(s.ctx) })
				ctx, cancel := context.WithTimeout(s.ctx, time.Second)
				defer cancel()
				err := s.Close(ctx)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "3 acknowledged writes are not in the database") {
					s.Errorf("Close = %v", err)
				}
				if _, err := s.Get(s.ctx, "k0"); !errors.Is(err, lockstep.ErrClosed) {
					s.Errorf("Get = %v", err)
				}
				if err := <-waiting; !errors.Is(err, lockstep.ErrClosed) || errors.Is(err, lockstep.ErrUnknownOutcome) {
					s.Errorf("the waiting write: %v", err)
				}
				if err := <-flushing; !errors.Is(err, lockstep.ErrClosed) {
					s.Errorf("Flush: %v", err)
				}
			})
		})
	}
}

func TestFlushInOtherModesHasNothingToWaitFor(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.flushes()
	})
}
