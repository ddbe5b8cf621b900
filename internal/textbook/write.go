package textbook

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Set writes the value to the database and then to memory, and returns the
// version that memory counts. BatchSize or else MaxRetries choose another path.
func (c *Cache[K, V]) Set(ctx context.Context, k K, v V) (lockstep.Version, error) {
	if c.isClosed() {
		return 0, lockstep.ErrClosed
	}
	switch {
	case c.options.BatchSize > 0:
		return c.enqueue(ctx, k, v)
	case c.options.MaxRetries > 0:
		return c.setWithRetry(ctx, k, v)
	default:
		return c.set(ctx, k, v)
	}
}

// set is the heart of every article.
//
// FAULT 3: the lock over all keys is held while the database works.
//
// FAULT 8: an error leaves memory as it was, and if the database did commit,
// memory goes on to serve what is no longer there.
func (c *Cache[K, V]) set(ctx context.Context, k K, v V) (lockstep.Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.commitLocked(ctx, lockstep.Change[K, V]{Key: k, Value: v}); err != nil {
		return 0, err
	}
	return c.putLocked(k, v), nil
}

// commitLocked writes one change to the database.
func (c *Cache[K, V]) commitLocked(ctx context.Context, change lockstep.Change[K, V]) error {
	start := time.Now()
	defer func() { c.stats.writeTime += time.Since(start) }()
	c.stats.writes++
	_, err := c.commit(ctx, change)
	if err != nil {
		c.stats.writeErrors++
	}
	return err
}

// commit tells also whether there was a row before.
func (c *Cache[K, V]) commit(ctx context.Context, change lockstep.Change[K, V]) (existed bool, err error) {
	if prepare := c.store.Capabilities().Prepare; prepare != nil {
		if change, _, err = prepare(change); err != nil {
			return false, err
		}
	}
	outcomes, err := c.store.Commit(ctx, []lockstep.ChangeSet[K, V]{{Changes: []lockstep.Change[K, V]{change}}})
	if err != nil {
		return false, err
	}
	return len(outcomes[0].Existed) > 0 && outcomes[0].Existed[0], outcomes[0].Err
}

// SetIfVersion writes the value if the key is at the version.
//
// FAULT 5: it is memory's version that is compared, and a key that is not in
// memory has whatever version was asked for. The database is not asked.
//
// FAULT 15: between the check and the write nothing keeps another writer with
// the same version from passing the same check.
func (c *Cache[K, V]) SetIfVersion(ctx context.Context, k K, v V, version lockstep.Version) (lockstep.Version, error) {
	return c.setIf(ctx, k, v, func(e *entry[V]) bool { return e == nil || e.version == version })
}

// SetIfAbsent writes the value if the key has no row. FAULT 5, FAULT 15: if
// memory holds none, that is.
func (c *Cache[K, V]) SetIfAbsent(ctx context.Context, k K, v V) (lockstep.Version, error) {
	return c.setIf(ctx, k, v, func(e *entry[V]) bool { return e == nil })
}

func (c *Cache[K, V]) setIf(ctx context.Context, k K, v V, pass func(*entry[V]) bool) (lockstep.Version, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, lockstep.ErrClosed
	}
	e := c.entries[k]
	if !pass(e) {
		c.stats.conflicts++
		c.mu.Unlock()
		return 0, &lockstep.ConflictError{Key: k, Exists: true, Version: e.version}
	}
	c.mu.Unlock() // FAULT 15

	if _, err := c.commit(ctx, lockstep.Change[K, V]{Key: k, Value: v}); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.putUnboundedLocked(k, v), nil // FAULT 18
}

// SetMany writes the values one after the other. FAULT 7: each in a
// transaction of its own, and the ones before a failure stay written.
//
// FAULT 12: memory has the value before the database, and keeps it when the
// database refuses.
func (c *Cache[K, V]) SetMany(ctx context.Context, values map[K]V) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return lockstep.ErrClosed
	}
	for k, v := range values {
		c.putLocked(k, v)
	}
	for k, v := range values {
		if err := c.commitLocked(ctx, lockstep.Change[K, V]{Key: k, Value: v}); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes the row, and tells whether there was one.
func (c *Cache[K, V]) Delete(ctx context.Context, k K) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, lockstep.ErrClosed
	}
	existed, err := c.commit(ctx, lockstep.Change[K, V]{Key: k, Delete: true})
	if err != nil {
		return false, err // FAULT 8
	}
	delete(c.entries, k) // FAULT 6: and with it the version
	return existed, nil
}

// DeleteMany removes the rows one after the other.
func (c *Cache[K, V]) DeleteMany(ctx context.Context, keys []K) error {
	for _, k := range keys {
		if _, err := c.Delete(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// Update reads the value and writes what change makes of it.
//
// FAULT 15: what others wrote in between is overwritten.
func (c *Cache[K, V]) Update(ctx context.Context, k K, change func(old V, exists bool) (V, error)) (V, error) {
	old, err := c.Get(ctx, k)
	if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
		return old, err
	}
	v, changeErr := change(old, err == nil)
	if errors.Is(changeErr, lockstep.Keep) {
		return old, nil
	}
	if changeErr != nil {
		return old, changeErr
	}
	_, err = c.Set(ctx, k, v)
	return v, err
}
