package latency

import (
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

func TestCounterSumsWhatManyGoroutinesAdd(t *testing.T) {
	const goroutines, adds = 32, 1000
	var c Counter
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range adds {
				c.Add(3)
			}
		})
	}
	wg.Wait()
	if got, want := c.Load(), uint64(goroutines*adds*3); got != want {
		t.Fatalf("Load() = %d, want %d", got, want)
	}
}

func TestCounterNeverShrinks(t *testing.T) {
	var c Counter
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.Add(1)
				}
			}
		})
	}
	var last uint64
	for range 10_000 {
		now := c.Load()
		if now < last {
			t.Errorf("Load() went from %d to %d", last, now)
			break
		}
		last = now
	}
	close(stop)
	wg.Wait()
}

func TestCounterStripesAreCacheLinesApart(t *testing.T) {
	var c Counter
	if size := unsafe.Sizeof(c.stripe[0]); size != 64 {
		t.Fatalf("a stripe has %d bytes, want 64", size)
	}
}

// Were all goroutines on one stripe, the sums would still be right.
func TestCounterSpreadsGoroutines(t *testing.T) {
	const goroutines = 64
	var c Counter
	var added, left sync.WaitGroup
	added.Add(goroutines)
	release := make(chan struct{})
	for range goroutines {
		left.Go(func() {
			c.Add(1)
			added.Done()
			<-release // keeps the stack, so that no two goroutines share one
		})
	}
	added.Wait()
	close(release)
	left.Wait()
	used := 0
	for i := range c.stripe {
		if c.stripe[i].n.Load() > 0 {
			used++
		}
	}
	if used < stripes/4 {
		t.Fatalf("%d goroutines use %d of %d stripes", goroutines, used, stripes)
	}
}

func TestRateOfNothingIsZero(t *testing.T) {
	for _, c := range []struct {
		part, whole uint64
		want        float64
	}{{0, 0, 0}, {5, 0, 0}, {0, 5, 0}, {1, 4, 0.25}, {4, 4, 1}} {
		if got := Rate(c.part, c.whole); got != c.want {
			t.Errorf("Rate(%d, %d) = %v, want %v", c.part, c.whole, got, c.want)
		}
	}
}

func BenchmarkCounterAdd(b *testing.B) {
	var c Counter
	for b.Loop() {
		c.Add(1)
	}
}

func BenchmarkCounterAddParallel(b *testing.B) {
	var c Counter
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Add(1)
		}
	})
}

// BenchmarkAtomicAddParallel is what Counter is measured against.
func BenchmarkAtomicAddParallel(b *testing.B) {
	var c atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Add(1)
		}
	})
}

func BenchmarkCounterLoad(b *testing.B) {
	var c Counter
	for b.Loop() {
		c.Load()
	}
}
