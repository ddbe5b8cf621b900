package textbook

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// flight is a load that readers share.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// Get returns the value from memory, or else from the database.
//
// FAULT 21: that there is no row is not remembered.
func (c *Cache[K, V]) Get(ctx context.Context, k K) (V, error) {
	var none V
	start := time.Now()
	// FAULT 4: a hit takes the write lock, because it notes when it was.
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return none, lockstep.ErrClosed
	}
	if e, ok := c.entries[k]; ok && !c.expired(e) {
		e.accessed = time.Now()
		c.stats.hits++
		c.stats.readTime += time.Since(start)
		v := e.value
		c.mu.Unlock()
		return v, nil
	}
	c.stats.misses++
	c.mu.Unlock()

	v, err := c.load(ctx, k)
	c.mu.Lock()
	c.stats.readTime += time.Since(start)
	c.mu.Unlock()
	return v, err
}

// load reads the row and keeps it; readers who come meanwhile wait for it.
func (c *Cache[K, V]) load(ctx context.Context, k K) (V, error) {
	c.flightMu.Lock()
	if f, ok := c.flights[k]; ok {
		c.flightMu.Unlock()
		// FAULT 2: that load may have read the row before a write that this
		// reader already knows to be acknowledged.
		select {
		case <-f.done:
			return f.value, f.err
		case <-c.killed:
			return f.value, errKilled
		}
	}
	f := &flight[V]{done: make(chan struct{})}
	c.flights[k] = f
	c.flightMu.Unlock()

	// FAULT 14: a panic in here skips the rest, so that nobody ever closes done
	// and this key is waited for until the process ends.
	f.value, f.err = c.read(ctx, k)
	if f.err == nil {
		// FAULT 1, FAULT 16: since the row was read, it may have been written or
		// invalidated; what is put here is then the old one.
		c.mu.Lock()
		c.putLocked(k, f.value)
		c.mu.Unlock()
	}
	c.flightMu.Lock()
	delete(c.flights, k)
	c.flightMu.Unlock()
	close(f.done)
	return f.value, f.err
}

func (c *Cache[K, V]) read(ctx context.Context, k K) (V, error) {
	rows, err := c.store.Load(ctx, []K{k})
	if err == nil && !rows[k].Exists {
		err = lockstep.ErrNotFound
	}
	return rows[k].Value, err
}

// GetMany returns those of the keys that exist, one Get after the other.
func (c *Cache[K, V]) GetMany(ctx context.Context, keys []K) (map[K]V, error) {
	found := make(map[K]V)
	for _, k := range keys {
		v, err := c.Get(ctx, k)
		switch {
		case err == nil:
			found[k] = v
		case !errors.Is(err, lockstep.ErrNotFound):
			return found, err
		}
	}
	return found, nil
}

// Exists tells whether Get would find the key.
func (c *Cache[K, V]) Exists(ctx context.Context, k K) (bool, error) {
	_, err := c.Get(ctx, k)
	if errors.Is(err, lockstep.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
