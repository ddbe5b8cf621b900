package textbook

import (
	"time"

	"github.com/lockstep-cache/lockstep"
)

type entry[V any] struct {
	value    V // FAULT 17: the very value that the caller passed or will get
	version  lockstep.Version
	created  time.Time
	accessed time.Time
}

func (c *Cache[K, V]) expired(e *entry[V]) bool {
	return c.options.TTL > 0 && time.Since(e.created) > c.options.TTL
}

// putLocked stores a value within the size bound.
//
// FAULT 10: it makes room before it looks whether the key is there already, so
// that replacing an entry evicts another.
func (c *Cache[K, V]) putLocked(k K, v V) lockstep.Version {
	if c.options.MaxEntries > 0 && len(c.entries) >= c.options.MaxEntries {
		c.evictLocked()
	}
	return c.putUnboundedLocked(k, v)
}

// putUnboundedLocked is what the batch, retry and version paths call.
//
// FAULT 18: they forget the size bound.
//
// FAULT 6: the version continues from the entry in memory; without one, after
// an eviction, a reload or a deletion, it is 1.
func (c *Cache[K, V]) putUnboundedLocked(k K, v V) lockstep.Version {
	now := time.Now()
	version := lockstep.Version(1)
	if old, ok := c.entries[k]; ok {
		version = old.version + 1
	}
	c.entries[k] = &entry[V]{value: v, version: version, created: now, accessed: now}
	return version
}

// evictLocked removes the entry that was not accessed for the longest time.
//
// FAULT 10: it looks at every one to find it.
func (c *Cache[K, V]) evictLocked() {
	var oldest K
	var at time.Time
	for k, e := range c.entries {
		c.stats.scanned++
		if at.IsZero() || e.accessed.Before(at) {
			oldest, at = k, e.accessed
		}
	}
	delete(c.entries, oldest)
	c.stats.evictions++
}

func (c *Cache[K, V]) removeExpired() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.entries {
		if c.expired(e) {
			delete(c.entries, k)
		}
	}
}

// Invalidate removes the key from memory, unless a load puts it back: FAULT 16.
func (c *Cache[K, V]) Invalidate(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, k)
}

// InvalidateAll removes every key from memory.
func (c *Cache[K, V]) InvalidateAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
}

// Peek returns what memory holds.
func (c *Cache[K, V]) Peek(k K) (V, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e, ok := c.entries[k]; ok && !c.expired(e) {
		return e.value, true
	}
	var none V
	return none, false
}

// Version returns the key's version as memory counts it.
func (c *Cache[K, V]) Version(k K) (lockstep.Version, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e, ok := c.entries[k]; ok && !c.expired(e) {
		return e.version, true
	}
	return 0, false
}

// Len returns the number of entries in memory.
func (c *Cache[K, V]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}
