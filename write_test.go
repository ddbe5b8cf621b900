package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// The lines of the package's table of what a write says and what memory does, and
// then what stands behind them.

func TestCommittedWrite(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		version := s.write("k", 1)
		if row := s.row("k"); row.Version != version || version == 0 {
			t.Errorf("Set returned version %d of %+v", version, row)
		}
		loads := s.loads(func() {
			s.remembers("k", 1)
			s.reads("k", 1)
			if existed, err := s.Delete(s.ctx, "k"); !existed || err != nil {
				t.Errorf("Delete = %v, %v", existed, err)
			}
			s.readsNothing("k")
			if existed, err := s.Delete(s.ctx, "k"); existed || err != nil {
				t.Errorf("Delete of nothing = %v, %v", existed, err)
			}
			s.readsNothing("k")
		})
		if loads != 0 {
			t.Errorf("%d loads of rows that the cache has written", loads)
		}
		s.notStored("k")
	})
}

func TestRefusedBeforeItIsQueued(t *testing.T) {
	errOdd := errors.New("odd")
	for _, c := range []struct {
		name string
		do   func(s *scene) error
		want []error
		says string
	}{
		{"by Validate", func(s *scene) error { return second(s.Set(s.ctx, "k", 3)) }, []error{lockstep.ErrInvalid, errOdd}, "key k"},
		{"by Validate, one of several", func(s *scene) error {
			return s.SetMany(s.ctx, map[string]int{"k": 2, "l": 3})
		}, []error{lockstep.ErrInvalid, errOdd}, "key l"},
		{"by Validate, in Update", func(s *scene) error {
			return second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return old + 1, nil }))
		}, []error{lockstep.ErrInvalid, errOdd}, "key k"},
		{"too large", func(s *scene) error { return second(s.Set(s.ctx, "k", 123456)) }, []error{lockstep.ErrTooLarge}, "MaxValueBytes 4"},
		{"two conditions", func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.IfVersion(1), lockstep.IfAbsent()))
		}, []error{lockstep.ErrInvalid}, "IfVersion and IfAbsent"},
		{"an option twice", func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.TTL(time.Second), lockstep.TTL(time.Hour)))
		}, []error{lockstep.ErrInvalid}, "TTL is given twice"},
		{"a condition of an update", func(s *scene) error {
			return second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return old + 2, nil }, lockstep.IfVersion(1)))
		}, []error{lockstep.ErrInvalid}, "Update does not take IfVersion"},
		{"a lifetime of nothing", func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.Lifetime(0)))
		}, []error{lockstep.ErrInvalid}, "Lifetime(0s)"},
		{"a TTL of less", func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.TTL(-1)))
		}, []error{lockstep.ErrInvalid}, "TTL(-1ns)"},
		{"no option at all", func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.WriteOption{}))
		}, []error{lockstep.ErrInvalid}, "WriteOption"},
		{"a deletion if there is nothing", func(s *scene) error {
			return second(s.Delete(s.ctx, "k", lockstep.IfAbsent()))
		}, []error{lockstep.ErrInvalid}, "Delete does not take IfAbsent"},
		{"an ended context", func(s *scene) error {
			ctx, cancel := context.WithCancelCause(s.ctx)
			cancel(errOdd)
			return second(s.Set(ctx, "k", 2))
		}, []error{context.Canceled, errOdd}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options{MaxValueBytes: 4, Validate: func(_ string, value int) error {
				if value%2 != 0 {
					return errOdd
				}
				return nil
			}}
			inBubbleOver(t, o, sizes, func(s *scene) {
				s.write("k", 10)
				commits := s.commits(func() {
					err := c.do(s)
					s.notApplied(err, c.want...)
					if !strings.Contains(err.Error(), c.says) {
						t.Errorf("the error does not say %q: %v", c.says, err)
					}
				})
				if commits != 0 {
					t.Errorf("%d commits of a refused write", commits)
				}
				s.remembers("k", 10)
				s.notStored("l")
			})
		})
	}
}

// sizes makes a store say that a value has as many bytes as it has digits.
func sizes(inner *fault.Store[string, int]) store {
	return altered{store: inner, can: func(c *capability) {
		c.Prepare = func(c change) (change, int, error) { return c, len(fmt.Sprint(c.Value)), nil }
	}}
}

func TestRefusedBecauseTheStoreCannot(t *testing.T) {
	for _, c := range []struct {
		name string
		take func(*capability)
		do   func(s *scene) error
	}{
		{"IfVersion", func(c *capability) { c.Versions = false }, func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.IfVersion(1)))
		}},
		{"IfAbsent", func(c *capability) { c.Versions = false }, func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.IfAbsent()))
		}},
		{"Delete with IfVersion", func(c *capability) { c.Versions = false }, func(s *scene) error {
			return second(s.Delete(s.ctx, "k", lockstep.IfVersion(1)))
		}},
		{"Lifetime", func(c *capability) { c.Lifetimes = false }, func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.Lifetime(time.Hour)))
		}},
		{"Update", func(c *capability) { c.Checks = false }, func(s *scene) error {
			return second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return 2, nil }))
		}},
		{"Transact", func(c *capability) { c.Checks = false }, func(s *scene) error {
			return lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error { return s.In(tx).Set(ctx, "k", 2) })
		}},
		{"Transact over pieces", func(c *capability) { c.Atomic = false }, func(s *scene) error {
			return lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error { return s.In(tx).Set(ctx, "k", 2) })
		}},
		{"DeleteMany", func(c *capability) { c.Atomic = false }, func(s *scene) error {
			return s.DeleteMany(s.ctx, []string{"k", "l"})
		}},
		{"DeleteAll", func(c *capability) { c.DeleteAll = false }, func(s *scene) error { return s.DeleteAll(s.ctx) }},
		{"Set", readOnly, func(s *scene) error { return second(s.Set(s.ctx, "k", 2)) }},
		{"SetMany", readOnly, func(s *scene) error { return s.SetMany(s.ctx, map[string]int{"k": 2, "l": 2}) }},
		{"Delete", readOnly, func(s *scene) error { return second(s.Delete(s.ctx, "k")) }},
		{"DeleteMany of a read-only store", readOnly, func(s *scene) error { return s.DeleteMany(s.ctx, []string{"k", "l"}) }},
		{"DeleteAll of a read-only store", readOnly, func(s *scene) error { return s.DeleteAll(s.ctx) }},
		{"Update of a read-only store", readOnly, func(s *scene) error {
			return second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return 2, nil }))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubbleOver(t, options{}, without(c.take), func(s *scene) {
				s.behind("k", 1)
				s.reads("k", 1)
				if n := s.commits(func() { s.notApplied(c.do(s), lockstep.ErrUnsupported) }); n != 0 {
					t.Errorf("%d commits", n)
				}
				s.remembers("k", 1)
				s.stored("k", 1)
			})
		})
	}
}

func readOnly(c *capability) { c.ReadOnly = true }

func TestNoPlaceInTheQueue(t *testing.T) {
	inBubble(t, options{QueueLimit: 1}, func(s *scene) {
		s.write("k", 1)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		under := s.startSet(s.ctx, "a", 1)
		<-commit.Reached
		queued := s.startSet(s.ctx, "b", 1)
		queued.hangs()
		_, err := s.Set(s.ctx, "k", 2)
		s.notApplied(err, lockstep.ErrUnavailable)
		if !strings.Contains(err.Error(), "QueueLimit") {
			t.Errorf("the error does not name the option: %v", err)
		}
		s.remembers("k", 1)
		commit.Pass()
		under.succeeds()
		queued.succeeds()
		s.write("k", 3)
		if n := s.Stats().Unavailable; n != 1 {
			t.Errorf("Stats count %d unavailable", n)
		}
	})
}

func TestWaitedTooLongInTheQueue(t *testing.T) {
	inBubble(t, options{CommitTimeout: time.Minute, Batch: lockstep.Batch{MaxOps: 1}}, func(s *scene) {
		s.write("k", 1)
		s.script("commit 1..2: hang")
		first := s.startSet(s.ctx, "a", 1)
		time.Sleep(time.Second)
		second := s.startSet(s.ctx, "b", 1)
		time.Sleep(time.Second)
		began := time.Now()
		_, err := s.Set(s.ctx, "k", 2)
		s.notApplied(err, lockstep.ErrUnavailable)
		if !strings.Contains(err.Error(), "CommitTimeout") {
			t.Errorf("the error does not name the option: %v", err)
		}
		if waited := time.Since(began); waited != time.Minute {
			t.Errorf("the write waited for %v", waited)
		}
		s.remembers("k", 1)
		s.notApplied(first.wait(), lockstep.ErrUnavailable)
		s.notApplied(second.wait(), lockstep.ErrUnavailable)
		time.Sleep(time.Hour)
		s.stored("k", 1)
	})
}

func TestCallerLeavesTheQueue(t *testing.T) {
	errGone := errors.New("gone home")
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		commit := s.store.Block(fault.BeforeCommit)
		defer commit.Pass()
		under := s.startSet(s.ctx, "a", 1)
		<-commit.Reached
		ctx, leave := context.WithCancelCause(s.ctx)
		queued := s.startSet(ctx, "k", 2)
		behind := s.startSet(s.ctx, "l", 3)
		queued.hangs()
		leave(errGone)
		s.notApplied(queued.returned(), context.Canceled, errGone)
		s.remembers("k", 1)
		commit.Pass()
		under.succeeds()
		behind.succeeds()
		s.write("l", 4)
		time.Sleep(time.Hour)
		s.stored("k", 1)
		s.reads("k", 1)
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

func TestDatabaseRefuses(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.script("commit 1: refuse")
		_, err := s.Set(s.ctx, "k", 2)
		s.notApplied(err, lockstep.ErrInvalid)
		s.remembers("k", 1)
		s.stored("k", 1)
	})
}

func TestDatabaseCannotBeReached(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		s.script("commit 1: fail")
		_, err := s.Set(s.ctx, "k", 2)
		s.notApplied(err, lockstep.ErrUnavailable)
		s.remembers("k", 1)
		s.stored("k", 1)
	})
}

func TestCallerLeavesDuringTheCommit(t *testing.T) {
	for _, c := range []struct {
		name    string
		script  string
		at      fault.Point
		applied bool
		value   int
	}{
		{"and it commits", "", fault.BeforeCommit, true, 2},
		{"and it has committed", "", fault.AfterCommit, true, 2},
		{"and it fails", "commit 1: fail", fault.BeforeCommit, false, 1},
		{"and it is refused", "commit 1: refuse", fault.BeforeCommit, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, options{}, func(s *scene) {
				before := s.write("k", 1)
				s.script(c.script)
				commit := s.store.Block(c.at)
				defer commit.Pass()
				ctx, leave := context.WithCancel(s.ctx)
				writer := s.startSet(ctx, "k", 2)
				<-commit.Reached
				s.reads("k", 1) // its readers come before the write
				leave()
				w := s.unknown(writer.wait(), context.Canceled)
				// Memory does not answer for the key, and nothing brings it back.
				s.forgot("k")
				if _, err := s.Get(s.ctx, "k"); err != nil {
					t.Error(err)
				}
				s.forgot("k")
				short, cancel := context.WithTimeout(s.ctx, time.Second)
				defer cancel()
				if _, _, err := w.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Wait: %v", err)
				}
				settled := s.start(func() error {
					version := s.settles(w, c.applied)
					if c.applied && version <= before {
						t.Errorf("version %d after %d", version, before)
					}
					return nil
				})
				settled.hangs()
				commit.Pass()
				settled.succeeds()
				s.stored("k", c.value)
				s.reads("k", c.value)
				if c.applied {
					if n := s.loads(func() { s.reads("k", c.value) }); n != 0 {
						t.Error("memory was not set right when the commit returned")
					}
				}
				s.settles(w, c.applied)
				synctest.Wait()
				stats := s.Stats()
				if stats.Unknown != 1 || stats.Settled != 1 || stats.InDoubt != 0 {
					t.Errorf("Stats say unknown %d, settled %d, in doubt %d", stats.Unknown, stats.Settled, stats.InDoubt)
				}
			})
		})
	}
}

// The others in the batch are told what became of it.
func TestOneOfABatchLeaves(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		first := s.store.Block(fault.BeforeCommit)
		defer first.Pass()
		early := s.startSet(s.ctx, "a", 1)
		<-first.Reached
		ctx, leave := context.WithCancel(s.ctx)
		leaver := s.startSet(ctx, "k", 1)
		leaver.hangs()
		stayer := s.startSet(s.ctx, "k", 2)
		other := s.startSet(s.ctx, "l", 3)
		other.hangs()
		commit := s.store.Block(fault.AfterCommit, "k")
		defer commit.Pass()
		first.Pass()
		<-commit.Reached
		leave()
		w := s.unknown(leaver.wait(), context.Canceled)
		stayer.hangs()
		commit.Pass()
		early.succeeds()
		stayer.succeeds()
		other.succeeds()
		if version := s.settles(w, true); version >= s.row("k").Version {
			t.Errorf("the first of two writes has version %d, and the row %d", version, s.row("k").Version)
		}
		s.remembers("k", 2)
		s.remembers("l", 3)
		if n := s.store.Counts().Commits; n != 2 {
			t.Errorf("%d commits, want 2", n)
		}
	})
}

func TestCommitTimeout(t *testing.T) {
	const limit = 8 * time.Second
	t.Run("before the database", func(t *testing.T) {
		inBubble(t, options{CommitTimeout: limit}, func(s *scene) {
			s.write("k", 1)
			s.script("commit 1: hang")
			began := time.Now()
			_, err := s.Set(s.ctx, "k", 2)
			s.notApplied(err, lockstep.ErrUnavailable) // the store knows that it did nothing
			if waited := time.Since(began); waited != limit {
				t.Errorf("the commit had %v", waited)
			}
			s.remembers("k", 1)
		})
	})
	t.Run("after the database", func(t *testing.T) {
		inBubble(t, options{CommitTimeout: limit}, func(s *scene) {
			s.write("k", 1)
			s.script("commit 1: hang after")
			began := time.Now()
			_, err := s.Set(s.ctx, "k", 2)
			w := s.unknown(err)
			if waited := time.Since(began); waited != limit {
				t.Errorf("the commit had %v", waited)
			}
			s.settles(w, true)
			s.reads("k", 2)
		})
	})
	t.Run("a store that ignores its context", func(t *testing.T) {
		var release chan struct{}
		hanging := false
		deaf := func(inner *fault.Store[string, int]) store {
			release = make(chan struct{}) // in the bubble
			return altered{store: inner, commit: func(ctx context.Context, sets []changeSet) ([]outcome, error) {
				if sets[0].Changes[0].Key == "k" && hanging {
					<-release
				}
				return inner.Commit(context.WithoutCancel(ctx), sets)
			}}
		}
		inBubbleOver(t, options{CommitTimeout: limit}, deaf, func(s *scene) {
			s.write("k", 1)
			s.write("l", 1)
			hanging = true
			began := time.Now()
			_, err := s.Set(s.ctx, "k", 2)
			w := s.unknown(err)
			if !strings.Contains(err.Error(), "CommitTimeout") {
				t.Errorf("the error does not name the option: %v", err)
			}
			if waited := time.Since(began); waited < limit || waited > 2*limit {
				t.Errorf("the caller waited %v", waited)
			}
			// Hits go on, and the key is read from the database.
			s.reads("l", 1)
			s.reads("k", 1)
			s.forgot("k")
			// The only place for a commit is taken.
			_, err = s.Set(s.ctx, "l", 2)
			s.notApplied(err, lockstep.ErrUnavailable)
			s.remembers("l", 1)
			close(release)
			s.settles(w, true)
			s.remembers("k", 2)
			s.write("l", 3)
		})
	})
}

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

// Memory holds what Load would return, never what the caller passed.
func TestMemoryHoldsWhatTheDatabaseMadeOfTheValue(t *testing.T) {
	rounding := func(inner *fault.Store[string, int]) store {
		return altered{store: inner, commit: func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			for i := range sets {
				sets[i].Changes = slices.Clone(sets[i].Changes)
				for j := range sets[i].Changes {
					sets[i].Changes[j].Value = sets[i].Changes[j].Value / 10 * 10
				}
			}
			return inner.Commit(ctx, sets)
		}}
	}
	inBubbleOver(t, options{}, rounding, func(s *scene) {
		s.write("k", 17)
		s.remembers("k", 10)
		if value, err := s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return old + 15, nil }); value != 20 || err != nil {
			t.Errorf("Update = %d, %v", value, err)
		}
		s.remembers("k", 20)
	})
}

func TestAStoreThatCannotTellWhatTheRowHasBecome(t *testing.T) {
	silent := func(inner *fault.Store[string, int]) store {
		return altered{store: inner, commit: func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			outcomes, err := inner.Commit(ctx, sets)
			for i := range outcomes {
				outcomes[i].Rows = nil
			}
			return outcomes, err
		}}
	}
	inBubbleOver(t, options{}, silent, func(s *scene) {
		s.behind("k", 1)
		s.reads("k", 1)
		if version := s.write("k", 2); version != 0 {
			t.Errorf("version %d of a row that the store does not tell", version)
		}
		s.forgot("k")
		s.reads("k", 2)
	})
}

// Sets of several rows.

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

// Values.

func TestValuesAreNotSharedWithTheWriter(t *testing.T) {
	cache := cachetest.Open(t, memstore.New(memstore.Options[string, []int]{}), lockstep.Options[string, []int]{})
	ctx := t.Context()
	given := []int{1, 2}
	if _, err := cache.Set(ctx, "k", given); err != nil {
		t.Fatal(err)
	}
	if err := cache.SetMany(ctx, map[string][]int{"l": given, "m": given}); err != nil {
		t.Fatal(err)
	}
	given[0] = 9
	for _, key := range []string{"k", "l", "m"} {
		if value, err := cache.Get(ctx, key); !slices.Equal(value, []int{1, 2}) || err != nil {
			t.Errorf("Get(%s) = %v, %v", key, value, err)
		}
	}
}

// A key that is not equal to itself could be written, and never be found.
func TestNaNKeys(t *testing.T) {
	cache := cachetest.Open(t, memstore.New(memstore.Options[float64, int]{}), lockstep.Options[float64, int]{})
	ctx, nan := t.Context(), math.NaN()
	cache.Invalidate(nan)
	if _, ok := cache.Peek(nan); ok {
		t.Error("memory answers for it")
	}
	for name, err := range map[string]error{
		"Get":        second(cache.Get(ctx, nan)),
		"GetEntry":   second(cache.GetEntry(ctx, nan)),
		"GetMany":    second(cache.GetMany(ctx, []float64{1, nan})),
		"Exists":     second(cache.Exists(ctx, nan)),
		"Refresh":    cache.Refresh(ctx, nan),
		"Set":        second(cache.Set(ctx, nan, 1)),
		"SetMany":    cache.SetMany(ctx, map[float64]int{1: 1, nan: 1}),
		"Delete":     second(cache.Delete(ctx, nan)),
		"DeleteMany": cache.DeleteMany(ctx, []float64{1, nan}),
		"Update":     second(cache.Update(ctx, nan, func(int, bool) (int, error) { return 1, nil })),
		"In.Get": lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			return second(cache.In(tx).Get(ctx, nan))
		}),
		"In.Set": lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			return cache.In(tx).Set(ctx, nan, 1)
		}),
	} {
		if !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ok, err := cache.Exists(ctx, 1); ok || err != nil {
		t.Errorf("half of a refused set was written: %v, %v", ok, err)
	}
}
