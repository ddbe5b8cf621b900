package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestUpdate(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		value, err := s.Update(s.ctx, "k", func(old int, exists bool) (int, error) {
			if exists || old != 0 {
				t.Errorf("an absent row is given as %d, %v", old, exists)
			}
			return 1, nil
		})
		if value != 1 || err != nil {
			t.Errorf("Update = %d, %v", value, err)
		}
		value, err = s.Update(s.ctx, "k", func(old int, exists bool) (int, error) {
			if !exists || old != 1 {
				t.Errorf("the row is given as %d, %v", old, exists)
			}
			return old + 1, nil
		})
		if value != 2 || err != nil {
			t.Errorf("Update = %d, %v", value, err)
		}
		s.remembers("k", 2)
	})
}

func TestUpdateKeepsTheEndOfTheRow(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		end := time.Now().Add(time.Minute)
		s.write("k", 1, lockstep.Lifetime(time.Minute))
		s.write("stays", 1)
		more := func(old int, _ bool) (int, error) { return old + 1, nil }
		ends := func(key string, want time.Time) {
			t.Helper()
			if entry, err := s.GetEntry(s.ctx, key); err != nil || !entry.ExpiresAt.Equal(want) {
				t.Errorf("%s ends at %v, %v, want %v", key, entry.ExpiresAt, err, want)
			}
		}
		time.Sleep(30 * time.Second)
		for _, key := range []string{"k", "stays"} {
			if _, err := s.Update(s.ctx, key, more); err != nil {
				t.Fatal(err)
			}
		}
		ends("k", end)
		s.Invalidate("k")
		ends("k", end)
		ends("stays", time.Time{})
		// A session that is touched lives on.
		if _, err := s.Update(s.ctx, "k", more, lockstep.Lifetime(time.Hour), lockstep.TTL(time.Second)); err != nil {
			t.Fatal(err)
		}
		s.remembers("k", 3)
		time.Sleep(time.Second)
		s.forgot("k")
		ends("k", time.Now().Add(time.Hour-time.Second))
		time.Sleep(time.Hour)
		s.readsNothing("k")
		s.stored("stays", 2)
	})
}

// TestExpiresAt: a row ends when it was said, however long its commit took.
func TestExpiresAt(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		end := time.Now().Add(time.Minute)
		ends := func(want time.Time) {
			t.Helper()
			if entry, err := s.GetEntry(s.ctx, "k"); err != nil || !entry.ExpiresAt.Equal(want) {
				t.Errorf("it ends at %v, %v, want %v", entry.ExpiresAt, err, want)
			}
		}
		s.write("k", 1, lockstep.ExpiresAt(end))
		ends(end)
		same := func(old int, _ bool) (int, error) { return old, nil }
		if _, err := s.Update(s.ctx, "k", same, lockstep.ExpiresAt(end.Add(time.Minute))); err != nil {
			t.Fatal(err)
		}
		ends(end.Add(time.Minute))
		s.Invalidate("k")
		ends(end.Add(time.Minute))
		time.Sleep(2 * time.Minute)
		s.readsNothing("k")
		s.write("k", 2, lockstep.ExpiresAt(end)) // it is over
		s.readsNothing("k")
		s.Invalidate("k")
		s.readsNothing("k")
	})
}

// TestScanPages: pages together are the table, and a cursor can be used again.
func TestScanPages(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		want := map[string]int{}
		for i := range 10 {
			key := fmt.Sprint("k", i)
			want[key] = i
			s.write(key, i)
		}
		got := map[string]int{}
		var cursor any
		for {
			page, err := s.ScanPage(s.ctx, cursor, 3)
			again, errAgain := s.ScanPage(s.ctx, cursor, 3)
			if err != nil || errAgain != nil || len(page.Keys) > 3 || !slices.Equal(page.Keys, again.Keys) {
				t.Fatalf("%v, %v, and again %v, %v", page.Keys, err, again.Keys, errAgain)
			}
			for i, key := range page.Keys {
				got[key] = page.Rows[i].Value
			}
			if cursor = page.Next; cursor == nil {
				break
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%v", got)
		}
		if _, err := s.ScanPage(s.ctx, nil, 0); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("a page of nothing: %v", err)
		}
	})
}

func TestUpdateKeepsTheRow(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		n := s.commits(func() {
			keep := func(int, bool) (int, error) { return 9, fmt.Errorf("as it was: %w", lockstep.Keep) }
			if value, err := s.Update(s.ctx, "k", keep); value != 1 || err != nil {
				t.Errorf("Update = %d, %v", value, err)
			}
			if value, err := s.Update(s.ctx, "nobody", keep); value != 0 || err != nil {
				t.Errorf("Update of nothing = %d, %v", value, err)
			}
		})
		if n != 0 {
			t.Errorf("%d commits", n)
		}
	})
}

func TestUpdateWhoseFunctionFails(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		for _, failed := range []error{
			errors.New("failed"),
			lockstep.ErrConflict, // of something else
			&lockstep.ConflictError{Key: "other"},
		} {
			calls := 0
			_, err := s.Update(s.ctx, "k", func(int, bool) (int, error) { calls++; return 2, failed })
			s.notApplied(err, failed)
			if calls != 1 {
				t.Errorf("called %d times", calls)
			}
		}
		// Somebody else's unknown outcome is not this one's.
		_, err := s.Update(s.ctx, "k", func(int, bool) (int, error) { return 2, lockstep.ErrUnknownOutcome })
		s.notApplied(err)
		s.stored("k", 1)
	})
}

func TestUpdateRunsAgainWhenOthersHaveWritten(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		var given []int
		value, err := s.Update(s.ctx, "k", func(old int, _ bool) (int, error) {
			given = append(given, old)
			if len(given) <= 3 {
				s.behind("k", old*10)
			}
			return old + 1, nil
		})
		if value != 1001 || err != nil || !slices.Equal(given, []int{1, 10, 100, 1000}) {
			t.Errorf("Update = %d, %v, given %v", value, err, given)
		}
		s.stored("k", 1001)
		if n := s.Stats().Reruns; n != 3 {
			t.Errorf("Stats count %d reruns", n)
		}
	})
}

func TestUpdateThatCollidesForEver(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		calls := 0
		_, err := s.Update(s.ctx, "k", func(old int, _ bool) (int, error) {
			calls++
			s.behind("k", calls)
			return 0, nil
		})
		s.notApplied(err, lockstep.ErrConflict)
		if calls < 10 || calls > 1000 {
			t.Errorf("it was tried %d times", calls)
		}
		ctx, cancel := context.WithTimeout(s.ctx, 20*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err = s.Update(ctx, "k", func(int, bool) (int, error) { s.behind("k", 0); return 0, nil })
		s.notApplied(err)
		if took := time.Since(began); took > 20*time.Millisecond {
			t.Errorf("the caller had 20ms, and was kept for %v", took)
		}
	})
}

// Updates of one key take turns, so none of them runs twice, and the row is read
// from memory.
func TestUpdatesTakeTurns(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 0)
		const updates = 50
		var calls []*call
		ran := make(chan struct{}, 2*updates)
		for range updates {
			calls = append(calls, s.start(func() error {
				return second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { ran <- struct{}{}; return old + 1, nil }))
			}))
		}
		for _, c := range calls {
			c.succeeds()
		}
		s.stored("k", updates)
		if len(ran) != updates {
			t.Errorf("%d updates ran %d times", updates, len(ran))
		}
	})
}

func TestLeavingWhileWaitingForATurn(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		finish := make(chan struct{})
		slow := s.start(func() error {
			return second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { <-finish; return old + 1, nil }))
		})
		slow.hangs()
		ctx, leave := context.WithCancel(s.ctx)
		waits := s.start(func() error {
			return second(s.Update(ctx, "k", func(old int, _ bool) (int, error) { t.Error("it was called"); return 0, nil }))
		})
		waits.hangs()
		leave()
		s.notApplied(waits.returned(), context.Canceled)
		close(finish)
		slow.succeeds()
		s.stored("k", 2)
	})
}

func TestAPanicInUpdateFreesTheTurn(t *testing.T) {
	inBubble(t, options{}, func(s *scene) {
		s.write("k", 1)
		func() {
			defer func() {
				if recover() != "oops" {
					t.Error("the panic does not reach the caller")
				}
			}()
			_, _ = s.Update(s.ctx, "k", func(int, bool) (int, error) { panic("oops") })
		}()
		if value, err := s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return old + 1, nil }); value != 2 || err != nil {
			t.Errorf("Update = %d, %v", value, err)
		}
	})
}

// Without versions an update compares the values.
func TestUpdateOverAStoreWithoutVersions(t *testing.T) {
	noVersions := func(inner *fault.Store[string, int]) store { return newUnversioned(inner) }
	inBubbleOver(t, options{}, noVersions, func(s *scene) {
		increment := func() {
			t.Helper()
			if err := second(s.Update(s.ctx, "k", func(old int, _ bool) (int, error) { return old + 1, nil })); err != nil {
				t.Error(err)
			}
		}
		increment()
		increment()
		s.remembers("k", 2)
		s.behind("k", 7)
		increment()
		s.remembers("k", 8)
		s.stored("k", 8)
	})
}

// unversioned is a store that keeps no versions, and compares values.
type unversioned struct{ *fault.Store[string, int] }

func newUnversioned(inner *fault.Store[string, int]) store { return unversioned{inner} }

func (u unversioned) Capabilities() capability {
	c := u.Store.Capabilities()
	c.Versions, c.Tombstones = false, false
	return c
}

func (u unversioned) Load(ctx context.Context, keys []string) (map[string]row, error) {
	rows, err := u.Store.Load(ctx, keys)
	for key, r := range rows {
		r.Version = 0
		rows[key] = r
	}
	return rows, err
}

// Commit compares before it commits, which is good enough for one test's writer.
func (u unversioned) Commit(ctx context.Context, sets []changeSet) ([]outcome, error) {
	outcomes := make([]outcome, len(sets))
	for i, set := range sets {
		for _, check := range set.Checks {
			now, err := u.Store.Load(ctx, []string{check.Key})
			if err != nil {
				return nil, err
			}
			if row := now[check.Key]; row.Exists == check.Absent || row.Exists && row.Value != check.Value.(int) {
				outcomes[i].Err = &lockstep.ConflictError{Key: check.Key, Exists: row.Exists}
			}
		}
		if outcomes[i].Err != nil {
			continue
		}
		set.Checks = nil
		done, err := u.Store.Commit(ctx, []changeSet{set})
		if err != nil {
			return nil, err
		}
		outcomes[i] = done[0]
		for j := range outcomes[i].Rows {
			outcomes[i].Rows[j].Version = 0
		}
	}
	return outcomes, nil
}

func TestUpdateHandsOutPrivateCopies(t *testing.T) {
	cache := cachetest.Open(t, memstore.New(memstore.Options[string, []int]{}), lockstep.Options[string, []int]{})
	ctx := t.Context()
	if _, err := cache.Set(ctx, "k", []int{1, 2}); err != nil {
		t.Fatal(err)
	}
	_, err := cache.Update(ctx, "k", func(old []int, _ bool) ([]int, error) { old[0] = 9; return nil, errors.New("no") })
	if err == nil {
		t.Error("Update succeeds")
	}
	kept, err := cache.Update(ctx, "k", func(old []int, _ bool) ([]int, error) { old[0] = 9; return nil, lockstep.Keep })
	if !slices.Equal(kept, []int{1, 2}) || err != nil {
		t.Errorf("Update that keeps = %v, %v", kept, err)
	}
	kept[0] = 9
	written, err := cache.Update(ctx, "k", func(old []int, _ bool) ([]int, error) { return append(old, 3), nil })
	if !slices.Equal(written, []int{1, 2, 3}) || err != nil {
		t.Errorf("Update = %v, %v", written, err)
	}
	written[0] = 9
	if value, err := cache.Get(ctx, "k"); !slices.Equal(value, []int{1, 2, 3}) || err != nil {
		t.Errorf("Get = %v, %v", value, err)
	}
}

func TestUpdateOfATypeThatCannotBeCopied(t *testing.T) {
	type opaque struct{ ch chan int }
	store := memstore.New(memstore.Options[string, opaque]{Clone: func(o opaque) opaque { return o }})
	uncopied := &uncopyable[opaque]{store}
	cache := cachetest.Open[string, opaque](t, uncopied, lockstep.Options[string, opaque]{})
	ch := make(chan int)
	if _, err := cache.Set(t.Context(), "k", opaque{ch}); err != nil {
		t.Fatal(err)
	}
	_, err := cache.Update(t.Context(), "k", func(old opaque, _ bool) (opaque, error) { return old, nil })
	if !errors.Is(err, lockstep.ErrUnsupported) || !strings.Contains(err.Error(), "Options.Clone") {
		t.Errorf("Update: %v", err)
	}
	if value, err := cache.Get(t.Context(), "k"); value.ch != ch || err != nil {
		t.Errorf("Get = %v, %v", value, err)
	}
}

// uncopyable is a store that does not offer to copy values.
type uncopyable[V any] struct{ lockstep.Store[string, V] }

func (u uncopyable[V]) Capabilities() lockstep.Capabilities[string, V] {
	c := u.Store.Capabilities()
	c.Clone = nil
	return c
}

// The value is copied for the caller, which must not fail when the row is written.
func TestUpdateDoesNotCallACommittedWriteNotApplied(t *testing.T) {
	type document struct{ Extra any }
	table := memstore.New(memstore.Options[string, document]{Clone: func(d document) document { return d }})
	cache := cachetest.Open(t, table, lockstep.Options[string, document]{})
	_, err := cache.Update(t.Context(), "k", func(document, bool) (document, error) {
		return document{Extra: func() {}}, nil
	})
	var w *lockstep.WriteError
	if !errors.As(err, &w) || w.Outcome != lockstep.NotApplied {
		t.Errorf("Update: %v", err)
	}
	if rows, err := table.Load(t.Context(), []string{"k"}); err != nil || rows["k"].Exists {
		t.Errorf("the table has %+v, %v", rows["k"], err)
	}
}

// Nothing leaves the function that the database has not confirmed: memory may be
// behind what somebody else has written.
func TestUpdateRefusesAndKeepsByTheRowAndNotByAnOldCopy(t *testing.T) {
	errPoor := errors.New("insufficient funds")
	for _, versions := range []bool{true, false} {
		around := func(inner *fault.Store[string, int]) store {
			if versions {
				return inner
			}
			return unversioned{inner}
		}
		inBubbleOver(t, options{}, around, func(s *scene) {
			defer s.InvalidateAll()
			withdraw := func(old int, _ bool) (int, error) {
				if old < 50 {
					return 0, errPoor
				}
				return old - 50, nil
			}
			keep := func(int, bool) (int, error) { return 0, lockstep.Keep }
			s.write("balance", 1)
			s.behind("balance", 100)
			if left, err := s.Update(s.ctx, "balance", withdraw); left != 50 || err != nil {
				t.Errorf("Update = %d, %v", left, err)
			}
			s.behind("balance", 7)
			if kept, err := s.Update(s.ctx, "balance", keep); kept != 7 || err != nil {
				t.Errorf("Update that keeps = %d, %v", kept, err)
			}
			if n := s.loads(func() {
				if _, err := s.Update(s.ctx, "balance", withdraw); !errors.Is(err, errPoor) {
					t.Errorf("Update = %v", err)
				}
			}); n != 1 {
				t.Errorf("%d loads to confirm a refusal", n)
			}
			s.Invalidate("balance")
			if n := s.loads(func() { _, _ = s.Update(s.ctx, "balance", withdraw) }); n != 1 {
				t.Errorf("%d loads for a refusal that comes from a load", n)
			}
		})
	}
}
