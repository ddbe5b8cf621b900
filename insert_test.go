package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// inserts makes a row, which must have the next key.
func (s *scene) inserts(value int, o ...lockstep.WriteOption) (key string) {
	s.Helper()
	key, version, err := s.Insert(s.ctx, value, o...)
	if want := fmt.Sprint("new", s.news); err != nil || key != want || version != s.row(key).Version {
		s.Fatalf("Insert(%d) = %q, %d, %v, want %q", value, key, version, err, want)
	}
	return key
}

func (s *scene) startInsert(ctx context.Context, value int) *call {
	return s.start(func() error {
		_, _, err := s.Insert(ctx, value)
		return err
	})
}

func TestInsert(t *testing.T) {
	var log log
	inBubble(t, options{Hooks: log.hooks(), Validate: func(key string, value int) error {
		if value < 0 && key == "" {
			return errors.New("it is negative")
		}
		return nil
	}}, func(s *scene) {
		if n := s.loads(func() {
			key := s.inserts(1)
			s.remembers(key, 1)
			s.reads(key, 1)
			s.stored(key, 1)
		}); n != 0 {
			t.Errorf("%d loads of a row that was just inserted", n)
		}
		if got := log.told(""); got != "pending" {
			t.Errorf("hooks without the key: %s", got)
		}
		if got := log.told("new1"); !strings.Contains(got, "committed with version, synchronized with version") {
			t.Errorf("hooks with the key: %s", got)
		}
		_, _, err := s.Insert(s.ctx, -1)
		s.notApplied(err, lockstep.ErrInvalid)
		_, _, err = s.Insert(s.ctx, 1, lockstep.IfAbsent())
		s.notApplied(err, lockstep.ErrInvalid)
		s.script("commit 1: fail")
		_, _, err = s.Insert(s.ctx, 1)
		s.notApplied(err, lockstep.ErrUnavailable)
		s.script("")
		err = lockstep.Transact(s.ctx, func(ctx context.Context, tx *lockstep.Tx) error {
			s.In(tx)
			_, _, err := s.Insert(ctx, 1)
			return err
		})
		s.notApplied(err, lockstep.ErrInTransaction)

		short, long := s.inserts(2, lockstep.TTL(time.Second)), s.inserts(3, lockstep.Lifetime(time.Minute))
		time.Sleep(2 * time.Second)
		s.forgot(short)
		s.reads(short, 2)
		s.reads(long, 3)
		time.Sleep(time.Minute)
		s.readsNothing(long)

		if stats := s.Stats(); stats.Writes != 3 || stats.Committed != 3 || stats.Refused < 2 || stats.Unavailable != 1 || stats.RowsPerBatch > 1 {
			t.Errorf("stats: %+v", stats)
		}
	})
}

func TestInsertIsRefusedWhereTheStoreCannot(t *testing.T) {
	inBubbleOver(t, options{}, without(func(c *capability) { c.Inserts = false }), func(s *scene) {
		if n := s.commits(func() {
			_, _, err := s.Insert(s.ctx, 1)
			s.notApplied(err, lockstep.ErrUnsupported)
		}); n != 0 {
			t.Errorf("%d commits", n)
		}
	})
}

// A key that has a row is no key for a new one. It fails alone.
func TestAnInsertionOverwritesNothing(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("new2", 9)
		commit := s.store.Block(fault.BeforeCommit)
		first := s.startSet(s.ctx, "k", 1)
		<-commit.Reached
		var calls [3]*call
		for i := range calls {
			calls[i] = s.startInsert(s.ctx, 10+i)
			synctest.Wait()
		}
		if n := s.commits(func() {
			commit.Pass()
			first.succeeds()
			calls[0].succeeds()
			s.notApplied(calls[1].wait(), lockstep.ErrInvalid)
			calls[2].succeeds()
		}); n != 1 {
			t.Errorf("three insertions take %d commits after the one under way", n)
		}
		s.reads("new1", 10)
		s.reads("new2", 9)
		s.reads("new3", 12)
	})
}

func TestAStoreThatDoesNotTellTheKeyIsUnknown(t *testing.T) {
	around := func(inner *fault.Store[string, int]) store {
		return altered{store: inner, commit: func(ctx context.Context, sets []changeSet) ([]outcome, error) {
			outcomes, err := inner.Commit(ctx, sets)
			for i := range outcomes {
				outcomes[i].Keys = []any{42}
			}
			return outcomes, err
		}}
	}
	inBubbleOver(t, options{}, around, func(s *scene) {
		_, _, err := s.Insert(s.ctx, 1)
		s.unknown(err)
		s.stored("new1", 1)
	})
}

// The reader finds no row just before there is one, and tells memory just after.
func TestAnAbsenceThatIsLoadedWhileARowIsInserted(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		load := s.store.Block(fault.AfterLoad, "new1")
		early := s.startGet(s.ctx, "new1")
		<-load.Reached
		s.inserts(1)
		s.readsNothing("new2") // another key
		load.Pass()
		if err := early.wait(); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("the early reader is told %v", err)
		}
		s.reads("new1", 1)
	})
}

func TestAnAbsenceInMemoryGoesWhenTheRowIsInserted(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.readsNothing("new1")
		commit := s.store.Block(fault.AfterCommit)
		insert := s.startInsert(s.ctx, 1)
		<-commit.Reached
		// Nobody has been told yet; but a scan tells.
		s.readsNothing("new1")
		for e, err := range s.Scan(s.ctx) {
			if e.Key != "new1" || err != nil {
				t.Errorf("Scan has %v, %v", e, err)
			}
		}
		s.reads("new1", 1)
		commit.Pass()
		insert.succeeds()
		s.reads("new1", 1)
	})
}

// A row is inserted under a key whose deletion is committed, and not published.
func TestADeletionPublishesNoAbsenceBesideAnInsertion(t *testing.T) {
	inBubble(t, options{Batch: lockstep.Batch{InFlight: 2}}, func(s *scene) {
		s.write("new1", 9)
		deletion := s.store.Block(fault.AfterCommit, "new1")
		removal := s.start(func() error { return second(s.Delete(s.ctx, "new1")) })
		<-deletion.Reached
		insertion := s.store.Block(fault.AfterCommit)
		insert := s.startInsert(s.ctx, 1)
		<-insertion.Reached
		s.Invalidate("new1")
		s.reads("new1", 1) // and whoever asks after him must not be told less
		deletion.Pass()
		removal.succeeds()
		s.reads("new1", 1)
		insertion.Pass()
		insert.succeeds()
		s.reads("new1", 1)
	})
}

// The reply is lost: the row is there under a key that nobody has learned.
func TestAnInsertionInDoubt(t *testing.T) {
	for _, c := range []struct {
		name, script string
		applied      bool
	}{
		{"applied", "commit 1: lose reply", true},
		{"applied, and its rows forgotten", "commit 1: lose reply, forget rows", true},
		{"never sent", "commit 1: lose request", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log log
			inBubble(t, options{Hooks: log.hooks()}, func(s *scene) {
				s.write("k", 9)
				s.readsNothing("new1")
				s.readsNothing("other")
				load := s.store.Block(fault.AfterLoad, "new1")
				s.Invalidate("new1")
				early := s.startGet(s.ctx, "new1")
				<-load.Reached
				s.script(c.script)
				settle := s.store.Block(fault.BeforeSettle)
				_, _, err := s.Insert(s.ctx, 1)
				w := s.unknown(err)
				<-settle.Reached

				// Whoever finds the row in another way and asks for it is not told of its
				// absence: not by memory, and not by a load that began before he asked.
				late := s.start(func() error { return second(s.Get(s.ctx, "new1")) })
				synctest.Wait()
				load.Pass()
				if err := early.wait(); !errors.Is(err, lockstep.ErrNotFound) {
					t.Errorf("the early reader is told %v", err)
				}
				if err := late.wait(); errors.Is(err, lockstep.ErrNotFound) == c.applied {
					t.Errorf("the late reader is told %v", err)
				}
				if c.applied {
					s.reads("new1", 1)
				}
				// No absence is remembered, whosever it is, and every row is.
				if n := s.loads(func() { s.readsNothing("other"); s.readsNothing("other") }); n != 2 {
					t.Errorf("%d loads of two reads of an absent row", n)
				}
				if n := s.loads(func() { s.reads("k", 9) }); n != 0 {
					t.Errorf("%d loads of a row that memory has", n)
				}
				// And nobody waits.
				s.write("k", 10)
				if _, err := s.Delete(s.ctx, "k"); err != nil {
					t.Error(err)
				}
				if n := s.loads(func() { s.readsNothing("k") }); n != 1 {
					t.Errorf("%d loads of a row that was deleted in doubt", n)
				}
				second := s.inserts(2)
				s.reads(second, 2)
				all := s.start(func() error { return s.DeleteAll(s.ctx) })
				all.hangs() // it might not delete that row

				log.told("")
				log.told("new1")
				settle.Pass()
				s.settles(w, c.applied)
				all.succeeds()
				if n := s.loads(func() { s.readsNothing("other"); s.readsNothing("other") }); n != 1 {
					t.Errorf("%d loads of two reads of an absent row, after the settlement", n)
				}
				key := ""
				if c.name == "applied" {
					key = "new1"
				}
				if got := log.told(key); !strings.HasPrefix(got, "settled") {
					t.Errorf("hooks with key %q: %s", key, got)
				}
			})
		})
	}
}

// A load that began in doubt may have read what the settlement has overtaken.
func TestAnAbsenceThatWasLoadedInDoubtIsNotKeptAfterIt(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		late := newTardy(s.table, func(context.Context, error) (settlement, error) { return settlement{Applied: true}, nil })
		way := fault.Inject[string, int](late, fault.Script{}, 1)
		c := openOver(s, way)
		settle := way.Block(fault.BeforeSettle)
		_, _, err := c.Insert(s.ctx, 1)
		w := s.unknown(err)
		load := way.Block(fault.AfterLoad, "new1")
		early := s.start(func() error { return second(c.Get(s.ctx, "new1")) })
		<-load.Reached
		late.arrive(s)
		settle.Pass()
		s.settles(w, true)
		load.Pass()
		<-early.done
		if got, err := c.Get(s.ctx, "new1"); got != 1 || err != nil {
			t.Errorf("Get = %d, %v", got, err)
		}
	})
}

// A caller who leaves during the commit is told that nobody knows, and may look for
// the row at once.
func TestAnInserterWhoLeaves(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.readsNothing("new1")
		commit := s.store.Block(fault.AfterCommit)
		ctx, leave := context.WithCancel(s.ctx)
		insert := s.startInsert(ctx, 1)
		<-commit.Reached
		queued := s.startInsert(ctx, 2)
		synctest.Wait()
		leave()
		w := s.unknown(insert.wait(), context.Canceled)
		s.notApplied(queued.wait(), context.Canceled)
		s.reads("new1", 1)
		if n := s.loads(func() { s.readsNothing("other"); s.readsNothing("other") }); n != 2 {
			t.Errorf("%d loads of two reads of an absent row", n)
		}
		commit.Pass()
		s.settles(w, true)
		if n := s.loads(func() { s.readsNothing("other"); s.readsNothing("other") }); n != 1 {
			t.Errorf("%d loads of two reads of an absent row, when it is known", n)
		}
		s.reads("new1", 1)
	})
}

func TestInsertionsEndWithTheCache(t *testing.T) {
	inBubble(t, options{QueueLimit: 1}, func(s *scene) {
		commit := s.store.Block(fault.AfterCommit)
		insert := s.startInsert(s.ctx, 1)
		<-commit.Reached
		queued := s.startInsert(s.ctx, 2)
		synctest.Wait()
		_, _, err := s.Insert(s.ctx, 3)
		s.notApplied(err, lockstep.ErrUnavailable)
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		if err := s.Close(ctx); err == nil {
			t.Error("Close has waited for nothing")
		}
		s.notApplied(queued.wait(), lockstep.ErrClosed)
		s.unknown(insert.wait())
		_, _, err = s.Insert(s.ctx, 3)
		s.notApplied(err, lockstep.ErrClosed)
	})
}

// Many at once, each with a key of its own, and readers who run ahead of them.
func TestManyInsertions(t *testing.T) {
	inBubble(t, options{Batch: lockstep.Batch{MaxOps: 2, InFlight: 2}}, func(s *scene) {
		s.script("commit *: latency 1ms..5ms; load *: latency 1ms..9ms; commit 20%: lose reply; commit 10%: fail")
		const writers = 20
		keys := make(chan string, writers)
		var calls []*call
		for i := range writers {
			calls = append(calls, s.start(func() error {
				key, _, err := s.Insert(s.ctx, i+1)
				if err != nil {
					var w *lockstep.WriteError
					errors.As(err, &w)
					_, _, err = w.Wait(s.ctx)
					return err
				}
				keys <- key
				if got, err := s.Get(s.ctx, key); got != i+1 || err != nil {
					return fmt.Errorf("Get(%s) = %d, %w, want %d", key, got, err, i+1)
				}
				return nil
			}), s.start(func() error {
				for n := range writers {
					key := fmt.Sprint("new", n)
					_, err := s.Get(s.ctx, key)
					if again := second(s.Get(s.ctx, key)); err == nil && again != nil {
						return fmt.Errorf("%s was there, and then %w", key, again)
					}
				}
				return nil
			}))
		}
		for _, c := range calls {
			c.succeeds()
		}
		close(keys)
		var all []string
		for key := range keys {
			all = append(all, key)
		}
		slices.Sort(all)
		if len(all) == 0 || len(slices.Compact(all)) != len(all) {
			t.Errorf("keys: %v", all)
		}
	})
}
