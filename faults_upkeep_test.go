package lockstep_test

import (
	"fmt"
	"testing"
	"time"
)

// Eviction scans every entry; replacing an entry evicts another one.
func TestFault10Eviction(t *testing.T) {
	t.Run("scans every entry", func(t *testing.T) {
		const bound, more = 1000, 100
		finds(t, setup[int]{maxEntries: bound}, func(tr *trial[int]) error {
			for i := range bound {
				if _, err := tr.set(fmt.Sprint("k", i), i); err != nil {
					return err
				}
			}
			tr.quiet()
			before := tr.Looked()
			for i := range more {
				if _, err := tr.set(fmt.Sprint("l", i), i); err != nil {
					return err
				}
			}
			tr.quiet()
			if looked := tr.Looked() - before; looked > 2*more {
				return fmt.Errorf("%d entries were looked at for %d new ones", looked, more)
			}
			return nil
		})
	})
	t.Run("replacing an entry evicts another", func(t *testing.T) {
		finds(t, setup[int]{maxEntries: 8}, func(tr *trial[int]) error {
			keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
			for i, key := range keys {
				if _, err := tr.set(key, i); err != nil {
					return err
				}
			}
			if _, err := tr.set("a", 10, 11, 12); err != nil {
				return err
			}
			tr.quiet()
			for _, key := range keys {
				if _, ok := tr.Peek(key); !ok {
					return fmt.Errorf("%s was evicted, and nothing new had come", key)
				}
			}
			return tr.agrees(keys...)
		})
	})
}

// The clean-up goroutine never stops.
func TestFault11GoroutineAfterClose(t *testing.T) {
	finds(t, setup[int]{outside: both}, func(tr *trial[int]) error {
		_, err := tr.set("k", 1)
		if err := first(err, tr.get("k", 1), tr.Close(tr.ctx)); err != nil {
			return err
		}
		return tr.leaks()
	})
}

// The batch, retry and version paths forget the size bound.
func TestFault18SizeBound(t *testing.T) {
	const bound, writes = 16, 200
	bounded := func(t *testing.T, s setup[int], write func(tr *trial[int], key string) error) {
		s.maxEntries = bound
		finds(t, s, func(tr *trial[int]) error {
			for i := range writes {
				if err := write(tr, fmt.Sprint("k", i)); err != nil {
					return err
				}
			}
			tr.quiet()
			if entries := tr.Entries(); entries > bound {
				return fmt.Errorf("%d entries in a memory of %d", entries, bound)
			}
			return nil
		})
	}
	set := func(tr *trial[int], key string) error {
		_, err := tr.set(key, 1)
		return err
	}
	t.Run("batch", func(t *testing.T) {
		bounded(t, setup[int]{gather: time.Millisecond}, set)
	})
	t.Run("retry", func(t *testing.T) {
		bounded(t, setup[int]{retrying: true}, set)
	})
	t.Run("version", func(t *testing.T) {
		bounded(t, setup[int]{}, func(tr *trial[int], key string) error {
			_, err := tr.SetIfAbsent(tr.ctx, key, 1)
			return err
		})
	})
}

// Averages divide by zero, and hide every tail.
func TestFault22Averages(t *testing.T) {
	t.Run("of nothing", func(t *testing.T) {
		finds(t, setup[int]{}, func(tr *trial[int]) error {
			for _, rate := range tr.Rates() {
				if notANumber(rate) {
					return fmt.Errorf("a cache that has done nothing has a rate of %v", rate)
				}
			}
			return nil
		})
	})
	t.Run("hide the tail", func(t *testing.T) {
		finds(t, setup[int]{}, func(tr *trial[int]) error {
			tr.script("load 100: latency 1s")
			for i := range 100 {
				key := fmt.Sprint("k", i)
				if err := first(tr.behind(key, i), tr.get(key, i)); err != nil {
					return err
				}
			}
			if slowest := tr.SlowestRead(); slowest < time.Second {
				return fmt.Errorf("one read in a hundred took a second, and the slowest is said to be %v", slowest)
			}
			return nil
		})
	})
}
