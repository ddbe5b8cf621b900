package lockstep

import (
	"context"
	"math"
	"sync"
	"time"
)

// Refresh-ahead: a copy that is read near the end of its time is loaded anew while it
// still answers (Options.RefreshAhead). The load is one as any other, in the gate: it may
// fill memory if nothing has happened to the key meanwhile, readers who miss may share it,
// and what defeats a load defeats it. Its own waiter is the cache, and leaves at the end
// of the copy's time: a load that hangs would otherwise go on for ever, with every reader
// who comes waiting for it.
//
// Copies that come due while loads of that kind are under way wait for the next one, and
// are loaded together, as writes are committed: after a Warm, all of memory comes due at
// once.

const (
	aheadLoads = 4  // under way at once
	aheadKeys  = 64 // of one load
	aheadDue   = aheadLoads * aheadKeys

	// aheadSteps is in how many steps a copy's window is counted, aheadPause for how many
	// it is left alone after a load that failed.
	aheadSteps = 64
	aheadPause = aheadSteps / 8
	// aheadTaken is an entry's Ahead while it is due, or loaded.
	aheadTaken = math.MaxUint32
)

// ahead are the copies that are due.
type ahead[K comparable, V any] struct {
	mu    sync.Mutex
	due   []dueCopy[K, V] // guarded by mu, as what follows
	loads int
}

// dueCopy is a copy that has come due.
type dueCopy[K comparable, V any] struct {
	e *entry[K, V]
	// reader has found it so; a load has its context's values, as it has after a miss.
	reader context.Context
	// untried is the entry's Ahead, if nothing comes of it.
	untried uint32
}

// window is how long before its deadline the copy may be loaded anew: in the second half
// of its time at the earliest, and never for an end that is the row's own.
func (c *Cache[K, V]) window(e *entry[K, V]) time.Duration {
	lives := e.Lives
	if lives.Deadline == 0 || lives.Deadline == lives.End {
		return 0
	}
	return min(c.options.RefreshAhead, time.Duration(lives.Deadline-e.Created)/2)
}

// aheadStep is the step of its window in which the copy is; below zero before that.
func (c *Cache[K, V]) aheadStep(e *entry[K, V], window time.Duration) int64 {
	from := e.Lives.Deadline - int64(window)
	if c.clock.NowNano() < from-int64(2*time.Second) {
		return -1 // the coarse hand is a second behind, and costs nothing
	}
	now := c.clock.Precise()
	if now < from {
		return -1
	}
	return (now - from) / int64(max(1, window/aheadSteps))
}

// lookAhead is for a copy that has answered. It makes it due if that is so, and never
// waits.
func (c *Cache[K, V]) lookAhead(ctx context.Context, e *entry[K, V]) {
	window := c.window(e)
	if window <= 0 {
		return
	}
	from := e.Ahead.Load()
	if from == aheadTaken || c.aheadStep(e, window) < int64(from) || !e.Ahead.CompareAndSwap(from, aheadTaken) {
		return
	}
	if !c.makeDue(dueCopy[K, V]{e: e, reader: ctx, untried: from}) {
		e.Ahead.Store(from) // the next reader's
	}
}

// makeDue returns false where there is no place.
func (c *Cache[K, V]) makeDue(d dueCopy[K, V]) bool {
	a := &c.ahead
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.due) == aheadDue {
		return false
	}
	a.due = append(a.due, d)
	if a.loads < aheadLoads {
		a.loads++
		go c.loadAhead()
	}
	return true
}

// take returns some of what is due. With none, the caller has one of the loads no more.
func (a *ahead[K, V]) take() []dueCopy[K, V] {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.due), aheadKeys)
	if n == 0 {
		a.due = nil
		a.loads--
		return nil
	}
	taken := a.due[:n:n]
	a.due = a.due[n:]
	return taken
}

// loadAhead loads what is due until nothing is.
func (c *Cache[K, V]) loadAhead() {
	for due := c.ahead.take(); due != nil; due = c.ahead.take() {
		c.loadDue(due)
	}
}

func (c *Cache[K, V]) loadDue(due []dueCopy[K, V]) {
	var flights []*flight[K, V]
	returned := false
	defer func() {
		if !returned { // the store has ended this goroutine
			go c.loadAhead()
		}
	}()
	for _, d := range due {
		f, leave := c.joinAhead(d)
		if f == nil {
			continue
		}
		flights = append(flights, f)
		defer func() {
			<-f.Done() // of a goroutine that has ended, the rest is loaded by another one
			leave()
			c.aheadEnded(d.e, f)
		}()
	}
	if len(flights) > 0 {
		c.flyHere(due[0].reader, flights)
	}
	returned = true
}

// joinAhead returns a flight that is to be run for the copy, and that leave is to be
// called for; or nil, where the copy is not what memory has any more, or something is
// under way on its key, which will bring a newer one.
func (c *Cache[K, V]) joinAhead(d dueCopy[K, V]) (f *flight[K, V], leave func()) {
	key := d.e.Key
	if e, ok := c.held(key); !ok || e != d.e || !c.fresh(e) {
		return nil, nil
	}
	if !c.gate.IfIdle(key, func() {}) {
		d.e.Ahead.Store(d.untried)
		return nil, nil
	}
	f, start, _ := c.gate.Join(key, func(e *entry[K, V]) bool { return e != d.e })
	if f == nil {
		return nil, nil
	}
	if !start { // since the look above
		c.gate.Leave(f, nil)
		d.e.Ahead.Store(d.untried)
		return nil, nil
	}
	late := time.AfterFunc(time.Duration(d.e.Lives.Deadline-c.clock.Precise()), func() {
		c.gate.Leave(f, context.DeadlineExceeded)
	})
	return f, func() {
		if late.Stop() {
			c.gate.Leave(f, nil)
		}
	}
}

// aheadEnded is for a flight that has landed.
func (c *Cache[K, V]) aheadEnded(e *entry[K, V], f *flight[K, V]) {
	c.counts.aheads.Add(1)
	if _, err := f.Result(); err != nil {
		c.counts.aheadErrors.Add(1)
		e.Ahead.Store(uint32(c.aheadStep(e, c.window(e)) + aheadPause))
	}
}
