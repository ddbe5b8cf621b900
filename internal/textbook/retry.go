package textbook

import (
	"context"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// setWithRetry writes the value, again and again until it succeeds.
//
// FAULT 9: it sleeps without looking at the context, and everybody who failed
// at the same moment comes back at the same moment.
//
// FAULT 20: it does not ask what the error was. One that will never pass is
// tried as often as one that will, and a write that was committed and lost its
// reply is made a second time, over whatever others have written since.
//
// FAULT 6: an entry that took a retry is a new one, at version 1.
func (c *Cache[K, V]) setWithRetry(ctx context.Context, k K, v V) (lockstep.Version, error) {
	delay := c.options.RetryDelay
	for attempt := 0; ; attempt++ {
		c.mu.Lock()
		err := c.commitLocked(ctx, lockstep.Change[K, V]{Key: k, Value: v})
		if err == nil {
			if attempt > 0 {
				delete(c.entries, k) // FAULT 6
			}
			version := c.putUnboundedLocked(k, v) // FAULT 18
			c.mu.Unlock()
			return version, nil
		}
		if attempt == c.options.MaxRetries {
			c.stats.retryFailures++
			c.mu.Unlock()
			return 0, err
		}
		c.stats.retries++
		c.mu.Unlock()
		time.Sleep(delay) // FAULT 9
		delay *= 2
	}
}
