package memory

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := NewClock()
		defer c.Close()
		if c.Precise() <= 0 || c.NowNano() <= 0 {
			t.Errorf("the clock shows %d and %d at its start, and zero means never", c.Precise(), c.NowNano())
		}
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if got := c.Precise(); got != int64(1500*time.Millisecond)+1 {
			t.Errorf("Precise = %d", got)
		}
		if got := c.NowNano(); got != int64(time.Second)+1 {
			t.Errorf("NowNano = %d", got)
		}
		if got := c.Second(); got != 1 {
			t.Errorf("Second = %d", got)
		}
		if got := c.Time(c.Precise()); !got.Equal(start.Add(1500 * time.Millisecond)) {
			t.Errorf("Time = %v, want %v", got, start.Add(1500*time.Millisecond))
		}
		for range 100 {
			time.Sleep(333 * time.Millisecond)
			synctest.Wait()
			if behind := c.Precise() - c.NowNano(); behind < 0 || behind > int64(time.Second) {
				t.Fatalf("the coarse hand is %v behind", time.Duration(behind))
			}
		}
	})
}

func TestAClosedClockStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock()
		c.Close()
		before := c.NowNano()
		time.Sleep(time.Minute)
		if c.NowNano() != before {
			t.Error("the coarse hand moves")
		}
		if c.Precise() < int64(time.Minute) {
			t.Error("the precise one does not")
		}
	})
}
