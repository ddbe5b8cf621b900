package lockstep

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type supervised struct{}

// underSupervision has a context of a commit that may take a minute, in a cache whose life
// endLife ends, with a caller whom leave has leave.
func underSupervision(t *testing.T, f func(s *supervision, endLife, leave context.CancelCauseFunc)) {
	synctest.Test(t, func(t *testing.T) {
		life, endLife := context.WithCancelCause(context.WithValue(t.Context(), supervised{}, "value"))
		caller, leave := context.WithCancelCause(t.Context())
		l := newLimits(time.Minute)
		context.AfterFunc(life, l.end)
		s := l.supervise(life, nil, func(why, unsent error) {})
		s.endWith(caller)
		defer s.stop()
		f(s, endLife, leave)
	})
}

// A commit's context is one of our own, and has to be one like any other for a store
// and for what a store derives from it.
func TestTheContextOfACommit(t *testing.T) {
	reason := errors.New("the reason")
	for _, end := range []struct {
		name       string
		by         func(s *supervision, endLife, leave context.CancelCauseFunc)
		err, cause error
	}{
		{"its deadline", func(*supervision, context.CancelCauseFunc, context.CancelCauseFunc) { time.Sleep(time.Minute) }, context.DeadlineExceeded, context.DeadlineExceeded},
		{"the cache's life", func(_ *supervision, endLife, _ context.CancelCauseFunc) { endLife(reason) }, context.Canceled, reason},
		{"its caller", func(_ *supervision, _, leave context.CancelCauseFunc) { leave(reason) }, context.Canceled, reason},
		{"its caller's deadline", func(_ *supervision, _, leave context.CancelCauseFunc) { leave(context.DeadlineExceeded) }, context.Canceled, context.DeadlineExceeded},
		{"the commit", func(s *supervision, _, _ context.CancelCauseFunc) { s.stop() }, context.Canceled, context.Canceled},
	} {
		t.Run(end.name, func(t *testing.T) {
			underSupervision(t, func(s *supervision, endLife, leave context.CancelCauseFunc) {
				child, cancel := context.WithCancel(context.WithValue(s, "child", 1))
				defer cancel()
				sooner, cancelSooner := context.WithTimeout(s, time.Hour)
				defer cancelSooner()
				if at, ok := sooner.Deadline(); !ok || time.Until(at) != time.Minute {
					t.Errorf("a child's deadline is in %v", time.Until(at))
				}
				var told atomic.Int32
				context.AfterFunc(s, func() { told.Add(1) })
				s.AfterFunc(func() { told.Add(1) })
				stopped := s.AfterFunc(func() { t.Error("a call that was stopped") })
				if !stopped() || stopped() {
					t.Error("stop does not tell whether it has stopped the call")
				}
				ended := s.Done()
				synctest.Wait()
				if s.Err() != nil || context.Cause(s) != nil || child.Err() != nil || told.Load() != 0 {
					t.Fatalf("ended before the end: %v, %v, %v, %d", s.Err(), context.Cause(s), child.Err(), told.Load())
				}
				end.by(s, endLife, leave)
				synctest.Wait()
				for name, done := range map[string]<-chan struct{}{"asked for before": ended, "asked for now": s.Done(), "the child's": child.Done(), "the other's": sooner.Done()} {
					select {
					case <-done:
					default:
						t.Errorf("Done, %s, is open", name)
					}
				}
				if s.Err() != end.err {
					t.Errorf("Err: %v, want %v", s.Err(), end.err)
				}
				for name, ctx := range map[string]context.Context{"": s, "a child's ": child, "the other's ": sooner} {
					if cause := context.Cause(ctx); !errors.Is(cause, end.cause) {
						t.Errorf("%scause: %v, want %v", name, cause, end.cause)
					}
				}
				if s.Value(supervised{}) != "value" || child.Value(supervised{}) != "value" {
					t.Error("the values are lost")
				}
				if told.Load() != 2 {
					t.Errorf("%d calls were made of 2", told.Load())
				}
				late := make(chan struct{})
				if s.AfterFunc(func() { close(late) })() {
					t.Error("a call that came late is stopped")
				}
				<-late
			})
		})
	}
}

// A commit that begins when the cache has ended, in the moment before it is known.
func TestACommitThatBeginsAfterTheCachesLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("the reason")
		life, endLife := context.WithCancelCause(t.Context())
		l := newLimits(time.Minute)
		endLife(reason)
		l.end()
		doubted := make(chan error, 1)
		s := l.supervise(life, nil, func(_, unsent error) { doubted <- unsent })
		defer s.stop()
		if s.Err() == nil || context.Cause(s) != reason {
			t.Errorf("%v, because of %v", s.Err(), context.Cause(s))
		}
		<-s.Done()
		if err := <-doubted; !errors.Is(err, ErrClosed) {
			t.Errorf("its callers are told %v", err)
		}
	})
}

// What has ended a commit's context first stays its cause, although the life of its cache,
// whose values it has, ends after it.
func TestTheFirstCauseOfACommitsEndStays(t *testing.T) {
	for _, end := range []struct {
		name string
		by   func(leave context.CancelCauseFunc)
		want error
	}{
		{"its deadline", func(context.CancelCauseFunc) { time.Sleep(time.Minute) }, context.DeadlineExceeded},
		{"its caller", func(leave context.CancelCauseFunc) { leave(nil) }, context.Canceled},
	} {
		t.Run(end.name, func(t *testing.T) {
			underSupervision(t, func(s *supervision, endLife, leave context.CancelCauseFunc) {
				end.by(leave)
				synctest.Wait()
				endLife(ErrClosed)
				synctest.Wait()
				if cause := context.Cause(s); cause != end.want {
					t.Errorf("after the end of the cache the cause is %v, and was %v", cause, end.want)
				}
			})
		})
	}
}

// lonelyStake is what supervise asks of one.
type lonelyStake struct {
	stake
	of host
}

func (s lonelyStake) host() host { return s.of }

// The context of a joint transaction is a child of its cache's life. Whichever of the two
// ends the commit first, a store that tells the cause tells that the cache was closed.
func TestAJointCommitThatEndsWithTheCacheIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, endLife := context.WithCancelCause(t.Context())
		e := newEnding([]stake{lonelyStake{of: host{commits: life, life: life, limits: newLimits(time.Minute)}}}, transaction)
		e.ctx, e.cancel = context.WithCancel(life)
		defer e.cancel()
		s := e.supervise()
		defer s.stop()
		endLife(ErrClosed) // limits.end has not come yet
		<-s.Done()
		if err := s.Err(); err != context.Canceled {
			t.Errorf("it has ended with %v", err)
		}
		if cause := context.Cause(s); !errors.Is(cause, ErrClosed) {
			t.Errorf("the cause is %v, which is not ErrClosed", cause)
		}
	})
}
