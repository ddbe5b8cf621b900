package memory

import (
	"sync/atomic"
	"time"
)

// Clock tells the time since its start in two ways: to the nanosecond, for
// about 25 ns, and to the second, for the price of a load. It is monotonic.
type Clock struct {
	start  time.Time
	coarse atomic.Int64
	second atomic.Uint32
	stop   chan struct{}
	done   chan struct{}
}

// NewClock starts a clock and the goroutine that advances its coarse hand.
func NewClock() *Clock {
	c := &Clock{start: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	// Zero stands for "no deadline" and "never", so the clock does not show it.
	c.coarse.Store(1)
	go c.run()
	return c
}

func (c *Clock) run() {
	defer close(c.done)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			now := c.Precise()
			c.coarse.Store(now)
			c.second.Store(uint32(now / int64(time.Second)))
		case <-c.stop:
			return
		}
	}
}

// Precise returns the nanoseconds since the start; always above zero.
func (c *Clock) Precise() int64 { return int64(time.Since(c.start)) + 1 }

// NowNano returns Precise as it was up to a second ago. The name is otter's.
func (c *Clock) NowNano() int64 { return c.coarse.Load() }

// Second returns NowNano in whole seconds.
func (c *Clock) Second() uint32 { return c.second.Load() }

// Tick is otter's; it asks for it once, to expire entries that nobody touches.
func (c *Clock) Tick(d time.Duration) <-chan time.Time { return time.Tick(d) }

// Time returns the wall time at which Precise returned, or will return, nanos.
func (c *Clock) Time(nanos int64) time.Time { return c.start.Add(time.Duration(nanos - 1)) }

// Close stops the goroutine and waits for it. The coarse hand stands still
// afterwards.
func (c *Clock) Close() {
	close(c.stop)
	<-c.done
}
