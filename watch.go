package lockstep

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Event is what a store's Watch has seen of changes that were made behind the
// cache: by other processes, by other programs, by hand.
type Event[K comparable] struct {
	// Changed are rows that were changed, or deleted, or made.
	Changed []Changed[K]
	// All says that any row may have changed.
	All bool
}

// Changed is a row that somebody has changed.
type Changed[K comparable] struct {
	Key K
	// Version is the one that it had afterwards; 0 where it is not known. A copy that
	// is as new stays in memory, so that a change of the cache's own, of which Watch
	// may tell too, does not cost a load.
	Version Version
}

const (
	firstWatchDelay = 50 * time.Millisecond
	lastWatchDelay  = 5 * time.Second
)

// watch keeps the store's Watch running. While it does not, memory keeps nothing,
// and every read asks the database: New has begun with that. A position that is kept
// over a loss, to go on from, was rejected: what has been read meanwhile would have
// to be doubted all the same, and an empty memory is right by itself.
func (c *Cache[K, V]) watch() {
	defer c.tasks.end()
	for delay := firstWatchDelay; ; delay = min(2*delay, lastWatchDelay) {
		// A store that breaks the contract may call from anywhere, and after the end.
		var mu sync.Mutex
		live, over := false, false
		err := aside("Watch", nil, func() error {
			return c.can.Watch(c.life, func(e Event[K]) {
				mu.Lock()
				defer mu.Unlock()
				if !live && !over {
					live = true
					c.counts.watching.Store(true)
					c.gate.ReleaseAll()
					close(*c.watchBegun.Load())
					c.tellOutside(OutsideEvent[K]{All: true})
				}
				c.outside(e)
			})
		})
		mu.Lock()
		over = true
		mu.Unlock()
		if live {
			c.gate.HoldAll()
			c.unwatched()
			c.counts.watching.Store(false) // before it is told: see replaced
			c.tellOutside(OutsideEvent[K]{All: true, Blind: true})
			delay = firstWatchDelay
		}
		if c.life.Err() != nil {
			return
		}
		if live {
			c.counts.watchLosses.Add(1)
		}
		if err == nil {
			err = errors.New("the store has stopped watching")
		}
		c.options.Logger.Warn("lockstep: nobody watches the table, so reads ask the database; will try again", "error", err, "after", delay)
		timer := time.NewTimer(delay/2 + rand.N(delay/2))
		select {
		case <-timer.C:
		case <-c.life.Done():
			timer.Stop()
			return
		}
	}
}

// unwatched says that nobody watches the table, and awaitWatch waits until somebody does.
func (c *Cache[K, V]) unwatched() {
	begun := make(chan struct{})
	c.watchBegun.Store(&begun)
}

func (c *Cache[K, V]) awaitWatch(ctx context.Context) error {
	if c.can.Watch == nil {
		return nil
	}
	select {
	case <-*c.watchBegun.Load():
		return nil
	case <-c.closing.Done():
		return ErrClosed
	case <-ctx.Done():
		return ended(ctx)
	}
}

// outside takes from memory what somebody else has changed.
func (c *Cache[K, V]) outside(e Event[K]) {
	if e.All {
		c.counts.outsideChanges.Add(1)
		c.gate.InvalidateAll()
		c.tellOutside(OutsideEvent[K]{All: true})
	}
	for _, changed := range e.Changed {
		c.counts.outsideChanges.Add(1)
		c.gate.Observe(changed.Key, func(e *entry[K, V]) bool {
			return changed.Version > 0 && c.can.Versions && Version(e.Version) >= changed.Version
		})
	}
	if len(e.Changed) > 0 {
		// Also of those that memory has as new: whoever else has a copy may have an older one.
		keys := make([]K, len(e.Changed))
		for i, changed := range e.Changed {
			keys[i] = changed.Key
		}
		c.tellOutside(OutsideEvent[K]{Keys: keys})
	}
}
