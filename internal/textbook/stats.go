package textbook

import "time"

// counters are guarded by Cache.mu.
type counters struct {
	hits, misses           uint64
	writes, writeErrors    uint64
	conflicts              uint64
	retries, retryFailures uint64
	batches, batched       uint64
	evictions, scanned     uint64
	readTime, writeTime    time.Duration
}

// Stats is what the cache tells about itself.
type Stats struct {
	Hits, Misses           uint64
	Writes, WriteErrors    uint64
	Conflicts              uint64
	Retries, RetryFailures uint64
	Batches                uint64
	Evictions              uint64
	// Scanned is the number of entries that evictions have looked at.
	Scanned uint64
	Entries int

	// FAULT 22: each of these is a quotient, NaN as long as nothing was counted;
	// and an average tells nothing of the slowest.
	HitRate              float64
	WritesPerBatch       float64
	AverageReadSeconds   float64
	AverageWriteSeconds  float64
	AverageEvictionScans float64
}

// Stats returns the statistics.
func (c *Cache[K, V]) Stats() Stats {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.stats
	reads := float64(s.hits + s.misses)
	return Stats{
		Hits: s.hits, Misses: s.misses,
		Writes: s.writes, WriteErrors: s.writeErrors,
		Conflicts: s.conflicts,
		Retries:   s.retries, RetryFailures: s.retryFailures,
		Batches:   s.batches,
		Evictions: s.evictions, Scanned: s.scanned,
		Entries: len(c.entries),

		HitRate:              float64(s.hits) / reads,
		WritesPerBatch:       float64(s.batched) / float64(s.batches),
		AverageReadSeconds:   s.readTime.Seconds() / reads,
		AverageWriteSeconds:  s.writeTime.Seconds() / float64(s.writes),
		AverageEvictionScans: float64(s.scanned) / float64(s.evictions),
	}
}
