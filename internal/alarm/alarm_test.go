package alarm

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestEachAtItsEnd: calls that overlap, and one that comes while the timer still stands
// where an ended one's limit was, each go off at their own end.
func TestEachAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a := New(10 * time.Second)
		var mu sync.Mutex
		var rung []time.Duration
		note := func() {
			mu.Lock()
			defer mu.Unlock()
			rung = append(rung, time.Since(start))
		}
		stop := a.Set(func() { t.Error("a call that was stopped goes off") })
		time.Sleep(3 * time.Second)
		a.Set(note) // ends at 13 s
		stop()
		stop()
		time.Sleep(2 * time.Second)
		late := a.Set(note) // would end at 15 s
		a.Set(note)         // likewise
		time.Sleep(9 * time.Second)
		late()
		time.Sleep(7 * time.Second) // 21 s: nothing is left, and no timer is set
		a.Set(note)                 // 31 s
		time.Sleep(time.Minute)
		synctest.Wait()
		late()
		if want := []time.Duration{13 * time.Second, 15 * time.Second, 31 * time.Second}; !slices.Equal(rung, want) {
			t.Errorf("they went off after %v, want %v", rung, want)
		}
		if a.first != nil || a.last != nil || a.armed {
			t.Errorf("left behind: first %v, last %v, armed %v", a.first, a.last, a.armed)
		}
	})
}

// TestAFunctionMaySetAndStop: they are called with no lock held.
func TestAFunctionMaySetAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(time.Second)
		again := make(chan time.Duration, 1)
		start := time.Now()
		its := make(chan func(), 1)
		its <- a.Set(func() {
			(<-its)()
			a.Set(func() { again <- time.Since(start) })
		})
		if took := <-again; took != 2*time.Second {
			t.Errorf("the second went off after %v", took)
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
		for i := range 100 {
			calls.Go(func() {
				for j := range 100 {
					stop := a.Set(func() {
						mu.Lock()
						defer mu.Unlock()
						rung++
					})
					if (i+j)%10 != 0 {
						stop()
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
