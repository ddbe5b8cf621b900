package turn

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble gives a test a table, of which nothing may be left at the end.
func inBubble(t *testing.T, test func(t *testing.T, turns *Table)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		turns := &Table{}
		test(t, turns)
		synctest.Wait()
		if len(turns.queue) > 0 {
			t.Errorf("the table remembers %d turns", len(turns.queue))
		}
	})
}

// waiter is somebody who asks for a turn.
type waiter struct {
	given chan error // what Take returned
	leave context.CancelCauseFunc
}

func ask(t *testing.T, turns *Table, ids ...uint64) *waiter {
	ctx, leave := context.WithCancelCause(t.Context())
	w := &waiter{given: make(chan error, 1), leave: leave}
	go func() { w.given <- turns.Take(ctx, ids) }()
	synctest.Wait()
	return w
}

func (w *waiter) has() bool {
	synctest.Wait()
	select {
	case err := <-w.given:
		w.given <- err
		return err == nil
	default:
		return false
	}
}

func TestTurnsAreGivenInTheOrderInWhichTheyWereAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, turns *Table) {
		var waiters []*waiter
		for range 5 {
			waiters = append(waiters, ask(t, turns, 7))
		}
		for i := range waiters {
			for j, w := range waiters {
				if w.has() != (j <= i) {
					t.Fatalf("after %d turns, waiter %d has it: %v", i, j, w.has())
				}
			}
			turns.Give([]uint64{7})
		}
	})
}

func TestTurnsOfOtherIdsAreNotWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, turns *Table) {
		a, b := ask(t, turns, 1), ask(t, turns, 2)
		if !a.has() || !b.has() {
			t.Fatal("one waits for the other")
		}
		turns.Give([]uint64{1, 2})
	})
}

func TestLeavingTheQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, turns *Table) {
		first, leaves, last := ask(t, turns, 7), ask(t, turns, 7), ask(t, turns, 7)
		why := errors.New("had enough")
		leaves.leave(why)
		if err := <-leaves.given; err != why {
			t.Errorf("Take: %v, want %v", err, why)
		}
		if !first.has() || last.has() {
			t.Fatal("the turn was given to somebody else")
		}
		turns.Give([]uint64{7})
		if !last.has() {
			t.Fatal("the turn is lost")
		}
		turns.Give([]uint64{7})
	})
}

// Whoever leaves at the moment at which it is given the turn either has it or has
// passed it on.
func TestLeavingAtTheMomentOfBeingGiven(t *testing.T) {
	passed := 0
	for i := range 100 {
		inBubble(t, func(t *testing.T, turns *Table) {
			ask(t, turns, 7)
			leaves, next := ask(t, turns, 7), ask(t, turns, 7)
			// Both before it can run, mostly, and the first is what it hears.
			if i%2 == 0 {
				leaves.leave(nil)
				turns.Give([]uint64{7})
			} else {
				turns.Give([]uint64{7})
				leaves.leave(nil)
			}
			if err := <-leaves.given; err == nil {
				if next.has() {
					t.Fatal("two have the turn")
				}
				turns.Give([]uint64{7})
			} else {
				passed++
			}
			if !next.has() {
				t.Fatal("the turn is lost")
			}
			turns.Give([]uint64{7})
		})
	}
	if passed == 0 || passed == 100 {
		t.Errorf("%d of 100 passed the turn on: one of the two cases was never met", passed)
	}
}

func TestTakeOfSeveral(t *testing.T) {
	inBubble(t, func(t *testing.T, turns *Table) {
		three := ask(t, turns, 3)
		all := ask(t, turns, 5, 3, 1)
		if one := ask(t, turns, 1); one.has() {
			t.Fatal("a smaller id is not taken first")
		} else if five := ask(t, turns, 5); !five.has() {
			t.Fatal("a greater id is taken though a smaller one has to be waited for")
		} else if all.leave(nil); all.has() || !one.has() {
			t.Fatal("whoever leaves keeps what it has taken")
		}
		if !three.has() {
			t.Fatal("a turn was lost")
		}
		turns.Give([]uint64{1, 3, 5})
	})
}

func TestTakeDoesNotTouchItsArgument(t *testing.T) {
	var turns Table
	ids := []uint64{3, 1, 2}
	if err := turns.Take(t.Context(), ids); err != nil || !slices.Equal(ids, []uint64{3, 1, 2}) {
		t.Errorf("Take: %v, %v", ids, err)
	}
}

// Many who take several turns at once, in any order, and some of whom leave.
func TestManyAtOnce(t *testing.T) {
	const ids, takers, rounds = 6, 16, 200
	var turns Table
	var holders [ids]sync.Mutex
	round := func(i, n int) {
		wanted := []uint64{uint64(n+i) % ids, uint64(n*7+i*3+1) % ids}
		if wanted[0] == wanted[1] {
			wanted = wanted[:1]
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		leaves := n%4 == 0
		if leaves {
			time.AfterFunc(time.Microsecond, cancel)
		}
		if err := turns.Take(ctx, wanted); err != nil {
			if !leaves {
				t.Errorf("Take: %v", err)
			}
			return
		}
		for _, id := range wanted {
			if !holders[id].TryLock() {
				t.Errorf("two have the turn %d", id)
				return
			}
		}
		runtime.Gosched()
		for _, id := range wanted {
			holders[id].Unlock()
		}
		turns.Give(wanted)
	}
	var running sync.WaitGroup
	for i := range takers {
		running.Go(func() {
			for n := range rounds {
				round(i, n)
			}
		})
	}
	running.Wait()
	if len(turns.queue) > 0 {
		t.Errorf("the table remembers %d turns", len(turns.queue))
	}
}
