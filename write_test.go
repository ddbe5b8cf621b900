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
		{"an end that is no time", func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.ExpiresAt(time.Time{})))
		}, []error{lockstep.ErrInvalid}, "ExpiresAt"},
		{"two ends", func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.Lifetime(time.Hour), lockstep.ExpiresAt(time.Now())))
		}, []error{lockstep.ErrInvalid}, "exclude each other"},
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
		{"ExpiresAt", func(c *capability) { c.Lifetimes = false }, func(s *scene) error {
			return second(s.Set(s.ctx, "k", 2, lockstep.ExpiresAt(time.Now().Add(time.Hour))))
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
