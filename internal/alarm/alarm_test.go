package alarm

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type ringer func()

func (r ringer) Ring() { r() }

// TestEachAtItsEnd: calls that overlap, and one that comes while the timer still stands
// where an ended one's limit was, each go off at their own end.
func TestEachAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a := New(10 * time.Second)
		var mu sync.Mutex
		var rung []time.Duration
		note := ringer(func() {
			mu.Lock()
			defer mu.Unlock()
			rung = append(rung, time.Since(start))
		})
		var stopped, late Call
		a.Set(&stopped, ringer(func() { t.Error("a call that was stopped goes off") }))
		time.Sleep(3 * time.Second)
		a.Set(new(Call), note) // ends at 13 s
		a.Stop(&stopped)
		a.Stop(&stopped)
		time.Sleep(2 * time.Second)
		a.Set(&late, note)     // would end at 15 s
		a.Set(new(Call), note) // likewise
		time.Sleep(9 * time.Second)
		a.Stop(&late)
		time.Sleep(7 * time.Second) // 21 s: nothing is left, and no timer is set
		a.Set(new(Call), note)      // 31 s
		time.Sleep(time.Minute)
		synctest.Wait()
		a.Stop(&late)
		if want := []time.Duration{13 * time.Second, 15 * time.Second, 31 * time.Second}; !slices.Equal(rung, want) {
			t.Errorf("they went off after %v, want %v", rung, want)
		}
		if a.first != nil || a.last != nil || a.armed {
			t.Errorf("left behind: first %v, last %v, armed %v", a.first, a.last, a.armed)
		}
	})
}

// TestARingerMaySetAndStop: it is told with no lock held.
func TestARingerMaySetAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(time.Second)
		again := make(chan time.Duration, 1)
		start := time.Now()
		var its Call
		a.Set(&its, ringer(func() {
			a.Stop(&its)
			a.Set(&its, ringer(func() { again <- time.Since(start) }))
		}))
		if took := <-again; took != 2*time.Second {
			t.Errorf("the second went off after %v", took)
		}
	})
}

// TestTake: who takes them has all that are set, in their order, and none goes off.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(time.Second)
		var taken []int
		var calls [4]Call
		for i := range calls {
			a.Set(&calls[i], ringer(func() { taken = append(taken, i) }))
		}
		a.Stop(&calls[1])
		for _, r := range a.Take() {
			r.Ring()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if want := []int{0, 2, 3}; !slices.Equal(taken, want) {
			t.Errorf("taken: %v, want %v", taken, want)
		}
		if len(a.Take()) > 0 {
			t.Error("some are left")
		}
	})
}

// TestMany: goroutines set and stop at once; those that are not stopped go off, once.
func TestMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(time.Second)
		var calls sync.WaitGroup
		var mu sync.Mutex
		rung := 0
		count := ringer(func() {
			mu.Lock()
			defer mu.Unlock()
			rung++
		})
		for i := range 100 {
			calls.Go(func() {
				for j := range 100 {
					c := new(Call)
					a.Set(c, count)
					if (i+j)%10 != 0 {
						a.Stop(c)
					}
				}
			})
		}
		calls.Wait()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if rung != 1000 {
			t.Errorf("%d went off, want 1000", rung)
		}
	})
}
