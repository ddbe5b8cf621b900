package lockstep_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestLostReply(t *testing.T) {
	for _, c := range []struct {
		name    string
		script  string
		applied bool
		value   int
	}{
		{"applied", "commit 1: lose reply", true, 2},
		{"never sent", "commit 1: lose request", false, 1},
		{"applied, and its rows forgotten", "commit 1: lose reply, forget rows", true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, options{}, func(s *scene) {
				s.write("k", 1)
				s.script(c.script)
				settle := s.store.Block(fault.BeforeSettle)
				defer settle.Pass()
				_, err := s.Set(s.ctx, "k", 2)
				w := s.unknown(err)
				<-settle.Reached
				if n := s.Stats().InDoubt; n != 1 {
					t.Errorf("%d in doubt, want 1", n)
				}
				// Reads go to the database and are not kept.
				s.forgot("k")
				if n := s.loads(func() { s.reads("k", c.value); s.reads("k", c.value) }); n != 2 {
					t.Errorf("%d loads of two reads of a key in doubt", n)
				}
				s.forgot("k")
				// Writes on the key wait; those on others do not.
				next := s.startSet(s.ctx, "k", 3)
				s.write("l", 1)
				next.hangs()
				s.stored("k", c.value)
				settle.Pass()
				s.settles(w, c.applied)
				next.succeeds()
				s.remembers("k", 3)
				s.stored("k", 3)
				synctest.Wait()
				if n := s.Stats().InDoubt; n != 0 {
					t.Errorf("%d in doubt after the settlement", n)
				}
			})
		})
	}
}

// What is written to a key in doubt waits for the settlement within its own
// deadline.
func TestWritesOnAKeyInDoubtHaveADeadline(t *testing.T) {
	inBubble(t, options{CommitTimeout: 10 * time.Second}, func(s *scene) {
		s.script("commit 1: lose reply; settle 1..: fail")
		_, err := s.Set(s.ctx, "k", 1)
		w := s.unknown(err)
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		_, err = s.Set(ctx, "k", 2)
		s.notApplied(err, context.DeadlineExceeded)
		_, err = s.Set(s.ctx, "k", 2)
		s.notApplied(err, lockstep.ErrUnavailable)
		s.script("")
		s.settles(w, true)
		s.write("k", 3)
	})
}

func TestSettlingIsTriedUntilItSucceeds(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.script("commit 1: lose reply; settle 1..5: fail; settle 6: panic")
		_, err := s.Set(s.ctx, "k", 1)
		w := s.unknown(err)
		began := time.Now()
		s.settles(w, true)
		if n := s.store.Counts().Settles; n != 7 {
			t.Errorf("%d settlements, want 7", n)
		}
		if took := time.Since(began); took < 100*time.Millisecond || took > 10*time.Second {
			t.Errorf("they took %v", took)
		}
		s.write("k", 2)
	})
}

func TestASettlementThatCannotTell(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.script("commit 1: lose reply, forget outcome")
		_, err := s.Set(s.ctx, "k", 2)
		w := s.unknown(err)
		if applied, _, err := w.Wait(s.ctx); applied || !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("Wait = %v, %v", applied, err)
		}
		// Nothing can happen any more, so the key is as any other.
		s.reads("k", 2)
		s.remembers("k", 2)
		s.write("k", 3)
	})
}

// Without Settle the key is read from the database, and writes on it are refused,
// for as long as the cache lives.
func TestAStoreThatCannotSettle(t *testing.T) {
	inBubbleOver(t, options{}, without(func(c *capability) { c.Settle = nil }), func(s *scene) {
		s.script("commit 1: lose reply")
		_, err := s.Set(s.ctx, "k", 1)
		w := s.unknown(err)
		_, err = s.Set(s.ctx, "k", 2)
		s.notApplied(err, lockstep.ErrUnavailable)
		s.reads("k", 1)
		s.forgot("k")
		s.write("l", 1)
		if err := s.Close(s.ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, _, err := w.Wait(s.ctx); !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("Wait after Close: %v", err)
		}
	})
}

func TestStorePanicsInACommit(t *testing.T) {
	for _, script := range []string{"commit 1: panic", "commit 1: panic after"} {
		t.Run(script, func(t *testing.T) {
			inBubble(t, options{}, func(s *scene) {
				s.write("k", 1)
				s.script(script)
				_, err := s.Set(s.ctx, "k", 2)
				w := s.unknown(err)
				if !strings.Contains(err.Error(), "on purpose") {
					t.Errorf("the error does not tell the panic: %v", err)
				}
				// This store does not know what became of a commit that it did not end.
				if applied, _, err := w.Wait(s.ctx); applied || !errors.Is(err, lockstep.ErrUnknownOutcome) {
					t.Errorf("Wait = %v, %v", applied, err)
				}
				s.reads("k", s.row("k").Value)
				s.write("k", 3)
			})
		})
	}
}

// A store that breaks the contract is taken for one that does not know.
func TestStoresThatBreakTheContract(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(outcomes []outcome) []outcome
	}{
		{"no outcomes", func([]outcome) []outcome { return nil }},
		{"an outcome too many", func(o []outcome) []outcome { return append(o, outcome{}) }},
		{"no rows where it says rows", func(o []outcome) []outcome { o[0].Rows = []row{}; return o }},
		{"a set whose outcome is unknown", func(o []outcome) []outcome { o[0].Err = lockstep.ErrUnknownOutcome; return o }},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := func(inner *fault.Store[string, int]) store {
				return altered{store: inner, commit: func(ctx context.Context, sets []changeSet) ([]outcome, error) {
					outcomes, err := inner.Commit(ctx, sets)
					if sets[0].Changes[0].Value == 2 {
						outcomes = c.spoil(outcomes)
					}
					return outcomes, err
				}}
			}
			inBubbleOver(t, options{}, broken, func(s *scene) {
				s.write("k", 1)
				_, err := s.Set(s.ctx, "k", 2)
				w := s.unknown(err)
				if _, _, err := w.Wait(s.ctx); !errors.Is(err, lockstep.ErrUnknownOutcome) {
					t.Errorf("Wait: %v", err)
				}
				s.reads("k", 2)
				s.write("k", 3)
			})
		})
	}
}
