package textbook

import (
	"context"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// queued is a write that waits for its batch.
type queued[K comparable, V any] struct {
	ctx    context.Context
	key    K
	value  V
	result chan queuedResult
}

type queuedResult struct {
	version lockstep.Version
	err     error
}

// enqueue adds a write to the queue and waits for its result.
//
// FAULT 7: a write that is alone waits for the timer as well, as nobody else
// will fill its batch.
//
// FAULT 19: it waits for nothing but the result; a context that ends does not
// let the caller go, and a Close that stops the timer leaves it here.
func (c *Cache[K, V]) enqueue(ctx context.Context, k K, v V) (lockstep.Version, error) {
	w := &queued[K, V]{ctx: ctx, key: k, value: v, result: make(chan queuedResult, 1)}
	c.queueMu.Lock()
	c.queue = append(c.queue, w)
	switch len(c.queue) {
	case c.options.BatchSize:
		go c.flush()
	case 1:
		c.timer = time.AfterFunc(c.options.BatchDelay, c.flush)
	}
	c.queueMu.Unlock()

	select {
	case r := <-w.result:
		return r.version, r.err
	case <-c.killed:
		return 0, errKilled
	}
}

// flush writes out the queue.
//
// FAULT 7: one by one, each a transaction of its own, and all of them under the
// first caller's context: when that one leaves, the others fail.
func (c *Cache[K, V]) flush() {
	c.queueMu.Lock()
	batch := c.queue
	c.queue = nil
	if c.timer != nil {
		c.timer.Stop()
	}
	c.queueMu.Unlock()
	if len(batch) == 0 {
		return
	}

	ctx := batch[0].ctx
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.batches++
	for _, w := range batch {
		var r queuedResult
		r.err = c.commitLocked(ctx, lockstep.Change[K, V]{Key: w.key, Value: w.value})
		if r.err == nil {
			c.stats.batched++
			r.version = c.putUnboundedLocked(w.key, w.value) // FAULT 18
		}
		w.result <- r
	}
}
