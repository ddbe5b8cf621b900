package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// staleOptions: a copy answers for a minute, and in an outage for an hour more.
var staleOptions = options{TTL: time.Minute, StaleIfError: time.Hour, Logger: quiet}

const past = time.Minute + 1 // the TTL, just over

// outage is an outage of the database for everything that reads.
const outage = "load *: fail; scan *: fail"

// answersStale says that GetEntry answers with an expired copy.
func (s *scene) answersStale(key string, want int) lockstep.Entry[string, int] {
	s.Helper()
	e, err := s.GetEntry(s.ctx, key)
	if err != nil || e.Value != want || !e.Stale || e.TTL >= 0 {
		s.Errorf("GetEntry(%s) = %+v, %v, want %d, stale", key, e, err, want)
	}
	return e
}

// answersNothing says that GetEntry has no answer while the database is away.
func (s *scene) answersNothing(key string) {
	s.Helper()
	if e, err := s.GetEntry(s.ctx, key); !errors.Is(err, lockstep.ErrUnavailable) {
		s.Errorf("GetEntry(%s) = %+v, %v, want ErrUnavailable", key, e, err)
	}
}

func TestAnExpiredCopyAnswersInAnOutageAndSaysSo(t *testing.T) {
	var told []string
	o := staleOptions
	o.Hooks.Stale = func(key string, err error) {
		told = append(told, fmt.Sprint(key, errors.Is(err, lockstep.ErrUnavailable)))
	}
	inBubble(t, o, func(s *scene) {
		s.write("k", 1)
		if e, err := s.GetEntry(s.ctx, "k"); err != nil || e.Stale || e.TTL != time.Minute {
			t.Errorf("a fresh copy: %+v, %v", e, err)
		}
		s.script(outage)
		s.reads("k", 1) // a hit
		time.Sleep(past)
		if e := s.answersStale("k", 1); e.TTL != -1 || e.Version == 0 {
			t.Errorf("the stale copy: %+v", e)
		}
		time.Sleep(time.Hour - 3)
		s.answersStale("k", 1)
		time.Sleep(2 * time.Nanosecond)
		s.answersNothing("k")
		synctest.Wait()
		if st := s.Stats(); st.StaleHits != 2 || st.Hits != 2 || st.Misses != 3 {
			t.Errorf("%d stale hits, %d hits, %d misses", st.StaleHits, st.Hits, st.Misses)
		}
		if fmt.Sprint(told) != "[ktrue ktrue]" {
			t.Errorf("the hook was told %v", told)
		}
	})
}

func TestAnExpiredCopyGivesWayWhenTheDatabaseIsBack(t *testing.T) {
	inBubble(t, staleOptions, func(s *scene) {
		s.write("k", 1)
		s.behind("k", 2)
		time.Sleep(past)
		s.script(outage)
		s.answersStale("k", 1)
		s.script("")
		if e, err := s.GetEntry(s.ctx, "k"); err != nil || e.Value != 2 || e.Stale {
			t.Errorf("GetEntry = %+v, %v", e, err)
		}
	})
}

// What cannot be marked is not stale: all other reads return the error.
func TestOnlyGetEntryAnswersStale(t *testing.T) {
	inBubble(t, staleOptions, func(s *scene) {
		version := s.write("k", 1)
		time.Sleep(past)
		s.script(outage + "; begin *: fail")
		for name, call := range map[string]func() error{
			"Get":     func() error { return second(s.Get(s.ctx, "k")) },
			"GetMany": func() error { return second(s.GetMany(s.ctx, []string{"k"})) },
			"Exists":  func() error { return second(s.Exists(s.ctx, "k")) },
			"Refresh": func() error { return s.Refresh(s.ctx, "k") },
			"Scan": func() (err error) {
				for _, err = range s.Scan(s.ctx) {
				}
				return err
			},
			"Warm": func() error { return second(s.Warm(s.ctx, lockstep.WarmOptions{})) },
			"Update": func() error {
				return second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return old + 1, nil }))
			},
			"Transact": func() error {
				return transact(s, func(tx lockstep.InTx[string, int]) error { return second(tx.Get(s.ctx, "k")) })
			},
		} {
			if err := call(); !errors.Is(err, lockstep.ErrUnavailable) {
				t.Errorf("%s: %v, want ErrUnavailable", name, err)
			}
		}
		s.forgot("k")
		if report, err := s.Audit(s.ctx); err != nil || report.Entries+report.InMotion > 0 {
			t.Errorf("Audit = %+v, %v: an expired copy is none that answers", report, err)
		}
		s.answersStale("k", 1)
		// The database decides a condition, by the version that a stale copy has too.
		if _, err := s.Set(s.ctx, "k", 2, lockstep.IfVersion(version)); err != nil {
			t.Error(err)
		}
		s.remembers("k", 2)
	})
}

// An outage is ErrUnavailable, or a deadline that the load has not kept. Whatever else
// fails is an answer, or the caller's own doing.
func TestWhatIsNoOutageIsNotAnsweredStale(t *testing.T) {
	failing := errors.New("a driver's bug")
	for name, c := range map[string]struct {
		fails error
		stale bool
	}{
		"Unavailable":           {fmt.Errorf("%w: away", lockstep.ErrUnavailable), true},
		"TooLate":               {context.DeadlineExceeded, true},
		"Other":                 {failing, false},
		"Refused":               {errors.Join(lockstep.ErrUnavailable, lockstep.ErrInvalid), false},
		"TheStoreWasClosed":     {lockstep.ErrClosed, false},
		"TheTransactionIsOnlyA": {lockstep.ErrInTransaction, false},
	} {
		t.Run(name, func(t *testing.T) {
			down := false
			around := func(inner *fault.Store[string, int]) store {
				return altered{store: inner, load: func(ctx context.Context, keys []string) (map[string]row, error) {
					if down {
						return nil, c.fails
					}
					return inner.Load(ctx, keys)
				}}
			}
			inBubbleOver(t, staleOptions, around, func(s *scene) {
				s.write("k", 1)
				time.Sleep(past)
				down = true
				defer func() { down = false }()
				e, err := s.GetEntry(s.ctx, "k")
				if c.stale != (err == nil && e.Stale) || !c.stale && !errors.Is(err, c.fails) && !errors.Is(err, lockstep.ErrInvalid) {
					t.Errorf("GetEntry = %+v, %v", e, err)
				}
			})
		})
	}
}

func TestAStaleAnswerComesByTheReadersDeadline(t *testing.T) {
	inBubble(t, staleOptions, func(s *scene) {
		s.write("k", 1)
		time.Sleep(past)
		s.script("load *: hang")
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		start := time.Now()
		e, err := s.GetEntry(ctx, "k")
		if err != nil || !e.Stale || time.Since(start) != time.Second {
			t.Errorf("GetEntry = %+v, %v after %v", e, err, time.Since(start))
		}
		// The deadline is over: nothing was tried, so nothing has failed.
		if e, err := s.GetEntry(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("GetEntry = %+v, %v", e, err)
		}
		ctx, leave := context.WithCancel(s.ctx)
		left := s.start(func() error { return second(s.GetEntry(ctx, "k")) })
		left.hangs()
		leave()
		if err := left.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("a reader who has left got %v", err)
		}
	})
}

// What must not answer from memory does not answer stale either.
func TestACopyThatIsNotTrustedIsNotAnsweredStale(t *testing.T) {
	for name, distrust := range map[string]func(*scene){
		"Invalidated":    func(s *scene) { s.Invalidate("k") },
		"InvalidatedAll": func(s *scene) { s.InvalidateAll() },
		"InDoubt": func(s *scene) {
			s.script("commit 1: lose reply; settle *: fail")
			s.unknown(second(s.Set(s.ctx, "k", 2)))
		},
		"LeftDuringTheCommit": func(s *scene) {
			ctx, leave := context.WithCancel(s.ctx)
			commit := s.store.Block(fault.BeforeCommit, "k")
			s.T.Cleanup(commit.Pass)
			set := s.startSet(ctx, "k", 2)
			<-commit.Reached
			leave()
			s.unknown(set.wait())
		},
		"Conflict": func(s *scene) {
			s.behind("k", 2)
			s.notApplied(second(s.Set(s.ctx, "k", 3, lockstep.IfVersion(1))), lockstep.ErrConflict)
		},
		"Deleted": func(s *scene) { s.Delete(s.ctx, "k") },
		"DeletedAll": func(s *scene) {
			if err := s.DeleteAll(s.ctx); err != nil {
				s.Error(err)
			}
		},
		"DeleteAllInDoubt": func(s *scene) {
			s.script("commit 1: lose request; settle *: fail")
			s.unknown(s.DeleteAll(s.ctx))
		},
		"SeveralUnderWay": func(s *scene) {
			commit := s.store.Block(fault.BeforeCommit, "k")
			s.T.Cleanup(commit.Pass)
			s.start(func() error { return s.SetMany(s.ctx, map[string]int{"k": 2, "l": 2}) })
			<-commit.Reached
		},
		"RefreshedAndGone": func(s *scene) {
			if _, err := s.table.Commit(s.ctx, []changeSet{{Changes: []change{{Key: "k", Delete: true}}}}); err != nil {
				s.Fatal(err)
			}
			if err := s.Refresh(s.ctx, "k"); err != nil {
				s.Error(err)
			}
			time.Sleep(past)
		},
		"Scanned": func(s *scene) {
			s.behind("k", 2)
			for _, err := range s.Scan(s.ctx) {
				if err != nil {
					s.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, staleOptions, func(s *scene) {
				s.write("k", 1)
				time.Sleep(past)
				distrust(s)
				// The script goes on from where it is: what is in doubt stays so.
				s.script(outage + "; settle *: fail; commit *: fail")
				if e, err := s.GetEntry(s.ctx, "k"); err == nil || e.Stale {
					t.Errorf("GetEntry = %+v, %v", e, err)
				}
			})
		})
	}
}

func TestAStaleAnswerHasEveryAcknowledgedWrite(t *testing.T) {
	inBubble(t, staleOptions, func(s *scene) {
		s.write("k", 1)
		time.Sleep(past)
		s.script(outage)
		s.answersStale("k", 1)
		s.write("k", 2)
		time.Sleep(past)
		s.answersStale("k", 2)
		// A write that was not applied changes nothing.
		s.script(outage + "; commit *: fail")
		s.notApplied(second(s.Set(s.ctx, "k", 3)), lockstep.ErrUnavailable)
		s.answersStale("k", 2)
		// An old copy may answer until the commit is known, and not after it.
		s.script(outage)
		commit := s.store.Block(fault.AfterCommit, "k")
		defer commit.Pass()
		set := s.startSet(s.ctx, "k", 4, lockstep.TTL(time.Nanosecond))
		<-commit.Reached
		s.answersStale("k", 2)
		commit.Pass()
		set.succeeds()
		time.Sleep(past)
		s.answersStale("k", 4)
	})
}

// A row that somebody has seen in the database is not older in memory afterwards, also
// where it was not put there.
func TestAStaleAnswerIsNotOlderThanWhatALoadHasShown(t *testing.T) {
	t.Run("AnAbsenceThatIsNotKept", func(t *testing.T) {
		o := staleOptions
		o.NegativeTTL = -1
		inBubble(t, o, func(s *scene) {
			s.write("k", 1)
			time.Sleep(past)
			if _, err := s.table.Commit(s.ctx, []changeSet{{Changes: []change{{Key: "k", Delete: true}}}}); err != nil {
				t.Fatal(err)
			}
			s.readsNothing("k")
			s.script(outage)
			s.answersNothing("k")
		})
	})
	t.Run("ALoadBesideACommit", func(t *testing.T) {
		inBubble(t, staleOptions, func(s *scene) {
			s.write("k", 1)
			s.behind("k", 2)
			time.Sleep(past)
			s.script("commit 1: fail")
			commit := s.store.Block(fault.BeforeCommit, "k")
			defer commit.Pass()
			set := s.startSet(s.ctx, "k", 3)
			<-commit.Reached
			load := s.store.Block(fault.AfterLoad, "k")
			defer load.Pass()
			var seen int
			read := s.start(func() (err error) { seen, err = s.Get(s.ctx, "k"); return err })
			<-load.Reached
			commit.Pass()
			s.notApplied(set.wait(), lockstep.ErrUnavailable)
			load.Pass()
			read.succeeds()
			if seen != 2 {
				t.Errorf("the reader was told %d", seen)
			}
			s.script(outage)
			s.answersNothing("k")
		})
	})
}

// The row's own end is the database's word, and no outage takes it back.
func TestARowWhoseLifetimeIsOverIsNotAnsweredStale(t *testing.T) {
	for name, lifetime := range map[string]time.Duration{"WithinItsTTL": 30 * time.Second, "AfterItsTTL": 2 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, staleOptions, func(s *scene) {
				s.write("k", 1, lockstep.Lifetime(lifetime))
				s.script(outage)
				if lifetime > past {
					time.Sleep(past)
					s.answersStale("k", 1)
					time.Sleep(lifetime - past - time.Microsecond)
					s.answersStale("k", 1)
					time.Sleep(time.Microsecond)
				} else {
					time.Sleep(lifetime)
				}
				s.answersNothing("k")
			})
		})
	}
}

// That there is no row is an answer that could not be marked.
func TestAnAbsenceIsNotAnsweredStale(t *testing.T) {
	inBubble(t, staleOptions, func(s *scene) {
		s.readsNothing("k")
		time.Sleep(past)
		s.script(outage)
		s.answersNothing("k")
	})
}

func TestALostWatchLeavesNothingToAnswerStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := fault.Inject(memstore.New(memstore.Options[string, int]{}), fault.Script{}, 1)
		events, lose := make(chan lockstep.Event[string]), make(chan error)
		var replaced func()
		over := altered{store: inner, can: func(c *capability) {
			c.Watch = func(ctx context.Context, f func(lockstep.Event[string])) error {
				for {
					select {
					case e := <-events:
						f(e)
					case err := <-lose:
						return err
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
			c.Replaced = func(f func()) func() { replaced = f; return func() {} }
		}}
		cache := cachetest.Open(t, store(over), staleOptions)
		stale := func(want bool) {
			t.Helper()
			inner.Play(fault.MustParse(outage))
			defer inner.Play(fault.Script{})
			if e, err := cache.GetEntry(t.Context(), "k"); (err == nil && e.Stale) != want {
				t.Errorf("GetEntry = %+v, %v, want stale: %t", e, err, want)
			}
		}
		write := func() {
			t.Helper()
			if _, err := cache.Set(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(past)
		}
		write() // nobody watches yet, so memory takes in nothing
		stale(false)
		events <- lockstep.Event[string]{}
		synctest.Wait()
		write()
		stale(true)
		events <- lockstep.Event[string]{Changed: []lockstep.Changed[string]{{Key: "k"}}}
		synctest.Wait()
		stale(false)
		write()
		replaced()
		stale(false)
		write()
		lose <- errors.New("the connection broke")
		synctest.Wait()
		stale(false)
	})
}

// A copy that a write has left while the load failed is not called stale. The reader
// gets what became of the load that it waited for.
func TestACopyThatCameDuringTheLoadIsNotCalledStale(t *testing.T) {
	inBubble(t, staleOptions, func(s *scene) {
		s.write("k", 1)
		time.Sleep(past)
		s.script("load *: hang")
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		read := s.start(func() error {
			e, err := s.GetEntry(ctx, "k")
			if e.Stale {
				s.Errorf("GetEntry = %+v", e)
			}
			return err
		})
		read.hangs()
		s.write("k", 2)
		if err := read.wait(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("GetEntry: %v", err)
		}
		s.reads("k", 2)
	})
}

// An expired copy takes its place until StaleIfError is over too, and no longer.
func TestAnExpiredCopyLeavesMemory(t *testing.T) {
	inBubble(t, staleOptions, func(s *scene) {
		s.write("k", 1)
		time.Sleep(time.Minute + time.Hour - time.Second)
		if st := s.Stats(); st.Entries != 1 || st.Expirations != 0 {
			t.Errorf("%d entries, %d expirations", st.Entries, st.Expirations)
		}
		time.Sleep(4 * time.Second)
		if st := s.Stats(); st.Entries != 0 || st.Expirations != 1 {
			t.Errorf("%d entries, %d expirations", st.Entries, st.Expirations)
		}
	})
}
