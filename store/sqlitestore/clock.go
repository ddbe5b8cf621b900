package sqlitestore

import (
	"math"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
)

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

// read is math.MaxInt64 when there are no versions left.
func (c *clock) read() int64 {
	return max(now().UnixMicro(), 1+min(c.floor.Load(), math.MaxInt64-1))
}

// clock returns the table's, which all stores over it share: a version that one of
// them has given must be below what another gives next.
func (db *Database) clock(table string) *clock {
	c, _ := db.clocks.LoadOrStore(dbtag.Fold(table), &clock{})
	return c.(*clock)
}
