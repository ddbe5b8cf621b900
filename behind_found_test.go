package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// The flushes end where a store says that it cannot settle one. What was acknowledged
// and stands behind it is lost with the cache, and Close has to say so.
func TestCloseTellsOfAFlushThatCannotBeSettled(t *testing.T) {
	unsettling := func(f *fault.Store[string, int]) store {
		return altered{store: f, can: func(c *capability) {
			c.Settle = func(context.Context, error) (settlement, error) {
				return settlement{}, fmt.Errorf("%w: no record is kept", lockstep.ErrUnsupported)
			}
		}}
	}
	inBubbleOver(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), unsettling, func(s *scene) {
		s.script("commit 1: lose reply")
		s.write("k", 1)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s.write("l", 1)
		s.write("m", 1)
		err := s.Close(s.ctx)
		if err == nil || !strings.Contains(err.Error(), "3 acknowledged writes") {
			s.Errorf("Close = %v", err)
		}
		s.notStored("l", "m")
	})
}

// What the database refuses is copied for Rejected, by the program's Clone. Where that
// fails, the flushes go on, and the row is there all the same.
func TestACloneThatFailsForARefusedRow(t *testing.T) {
	for name, fail := range map[string]func(){
		"Panic":  func() { panic("no copy") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			var failing atomic.Bool
			o := behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second})
			o.Clone = func(v int) int {
				if v < 0 && failing.Load() {
					fail()
				}
				return v
			}
			inChoosyBubble(t, o, func(s *scene) {
				s.write("k", -1)
				failing.Store(true)
				if err := s.Flush(s.ctx); !errors.Is(err, lockstep.ErrInvalid) {
					s.Errorf("Flush = %v", err)
				}
				failing.Store(false)
				if rejected := s.Rejected(); len(rejected) != 1 || rejected[0].Key != "k" || rejected[0].Value != -1 {
					s.Errorf("Rejected = %+v", rejected)
				}
				s.write("l", 2)
				s.flushes()
				s.stored("l", 2)
			})
		})
	}
}

// A call counts once, however many rows it has, as in every mode; and an outcome that
// nobody can tell is not counted as a refusal.
func TestOutcomesOfWritesBehindAreCountedByCalls(t *testing.T) {
	inChoosyBubble(t, behindWith(lockstep.Behind[string, int]{MaxDelay: time.Second}), func(s *scene) {
		several := func(rows map[string]int) {
			s.Helper()
			if err := s.SetMany(s.ctx, rows); err != nil {
				s.Error(err)
			}
		}
		several(map[string]int{"a": 1, "b": 1, "c": 1})
		s.write("a", 2)
		s.flushes()
		several(map[string]int{"a": 3, "b": -1})
		_ = s.Flush(s.ctx)
		s.script("commit 1: lose reply, forget outcome")
		several(map[string]int{"a": 4, "b": 4, "c": 4})
		_ = s.Flush(s.ctx)
		stats := s.Stats()
		if stats.Committed != 2 || stats.Refused != 1 || stats.Unknown != 1 || stats.InDoubt != 0 {
			s.Errorf("%d committed, %d refused, %d unknown, %d in doubt; want 2, 1, 1, 0", stats.Committed, stats.Refused, stats.Unknown, stats.InDoubt)
		}
		if stats.Writes != 3 || stats.RejectedWrites != 5 {
			s.Errorf("%d rows written, %d rejected; want 3, 5", stats.Writes, stats.RejectedWrites)
		}
	})
}

// A Flush that begins while a write that was acknowledged before it is being refused did
// not tell of it: the refusal was counted already, and readers still saw the write.
func TestFlushThatBeginsBesideARefusalTellsOfIt(t *testing.T) {
	var first func() // its channels are the bubble's
	o := behindWith(lockstep.Behind[string, int]{})
	o.Logger = slog.New(atError{slog.DiscardHandler, func() { first() }})
	inChoosyBubble(t, o, func(s *scene) {
		refusing, goOn := make(chan struct{}), make(chan struct{})
		first = func() {
			close(refusing)
			<-goOn
		}
		s.write("bad", -1)
		<-refusing
		s.reads("bad", -1)
		flushed := make(chan error, 1)
		go func() { flushed <- s.Flush(s.ctx) }()
		synctest.Wait()
		close(goOn)
		if err := <-flushed; !errors.Is(err, lockstep.ErrInvalid) {
			s.Errorf("Flush = %v", err)
		}
	})
}

// atError calls a function at the first error that is logged.
type atError struct {
	slog.Handler
	first func()
}

func (h atError) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (h atError) Handle(context.Context, slog.Record) error        { h.first(); return nil }
