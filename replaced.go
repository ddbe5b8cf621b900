package lockstep

// replaced forgets everything: the store's server is not the one that memory's copies
// were read from, and may never have heard of what was written to that one. Loads and
// commits under way leave nothing in memory either, for nobody knows which of the two
// has answered them.
//
// Keeping what the new server confirms was rejected: asking it for every copy costs more
// than the misses do.
func (c *Cache[K, V]) replaced() {
	c.counts.replacements.Add(1)
	c.gate.InvalidateAll()
	// While nobody watches the table that has been told of every row, and an event without
	// Blind would say that somebody does again.
	if c.can.Watch == nil || c.counts.watching.Load() {
		c.tellOutside(OutsideEvent[K]{All: true})
	}
	c.events.Push(func() {
		c.options.Logger.Warn("lockstep: the store's server is another than before, or was started again; memory was emptied")
	})
}
