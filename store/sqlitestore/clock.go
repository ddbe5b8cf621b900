package sqlitestore

import "sync/atomic"

// clock gives the versions of new rows: µs since 1970, and always more than any
// version of a row that was purged.
//
// A version is max(version+1, clock). While the tombstone is there, version+1
// keeps it growing whatever the clock does; after the purge, a day later, only
// the floor is left of it, one number a table: the highest version purged. It is
// read when the table is opened, and raised by this process's own purges. What it
// does not see is a purge by another process, in a table that both have open,
// followed by a clock that steps back by more than a day; that is accepted.
type clock struct{ floor atomic.Int64 }

func (c *clock) raise(floor int64) {
	for {
		old := c.floor.Load()
		if old >= floor || c.floor.CompareAndSwap(old, floor) {
			return
		}
	}
}

func (c *clock) read() int64 { return max(now().UnixMicro(), c.floor.Load()+1) }
