package lockstep

import (
	"context"
	"errors"
)

// staleIfError returns the copy that may answer although its TTL is over, because its
// load has failed with err; nil where there is none.
//
// It needs no look at the gate, for the same reason as a hit: what a copy must not
// outlive takes it out of memory, and that does not ask whether its TTL is over. A
// commit replaces it before its writer is answered; a doubt, an invalidation, a lost
// watch and a replaced server remove it before anybody is told; and a load that has
// shown somebody a newer row than an expired copy, and may not fill memory, removes it
// too (Gate.Join).
//
// A second map for what has expired was rejected: each of those would have had to
// find its way there as well.
func (c *Cache[K, V]) staleIfError(ctx context.Context, key K, err error) *entry[K, V] {
	if c.options.StaleIfError == 0 || !away(ctx, err) {
		return nil
	}
	e, ok := c.memory.Get(key)
	if !ok || c.fresh(e) || c.clock.Precise() >= e.Lives.Kept {
		return nil
	}
	c.counts.staleHits.Add(1)
	c.memory.Used(e)
	if hook := c.options.Hooks.Stale; hook != nil {
		c.events.Push(func() { hook(key, err) })
	}
	return e
}

// away tells whether a load has failed because the database could not be asked, or has
// not answered in time. Somebody who has cancelled his call wants no answer.
func away(ctx context.Context, err error) bool {
	if refused(err) || errors.Is(err, ErrClosed) || errors.Is(ctx.Err(), context.Canceled) {
		return false
	}
	return errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}
