package mysqlstore

import (
	"hash/fnv"
	"math"
	"sync/atomic"
	"time"
)

// clockSQL is the database's clock in µs since 1970, at the moment when it is
// evaluated. The session's time zone is UTC. UNIX_TIMESTAMP would end in 2038 on
// MariaDB 10.11.
const clockSQL = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6))"

// serverClock is what this process knows of the database's clock: a moment that it
// has passed.
type serverClock struct{ last atomic.Pointer[clockReading] }

type clockReading struct {
	micros int64
	at     time.Time
}

func (c *serverClock) read(micros int64) {
	c.last.Store(&clockReading{micros, time.Now()})
}

// least is a little less than the database's clock shows now. Nothing depends on
// that; it only makes versions close to the clock.
func (c *serverClock) least() int64 {
	r := c.last.Load()
	if r == nil {
		return 0
	}
	elapsed := time.Since(r.at)
	return r.micros + (elapsed - elapsed/10_000 - time.Millisecond).Microseconds()
}

// tableClock bounds the versions of a table's new rows from below.
//
// A version is max(version+1, the database's clock in µs, least). While the
// tombstone is there, version+1 keeps it growing whatever the clock does; after the
// purge, a day later, only the floor is left of it, one number a table: the highest
// version purged. It is read when the table is opened, and raised by this process's
// own purges. What it does not see is a purge by another process, in a table that
// both have open, followed by a clock that steps back by more than a day; that is
// accepted.
//
// Least is also above every version that this process has been told of: a statement
// whose reply was lost, and with it the version that it gave, is known not to be
// applied if the row's version is lower.
type tableClock struct {
	server *serverClock
	floor  atomic.Int64
	seen   atomic.Int64
}

// removals are the highest versions that deletions of this process have given, by a
// hash of the key: a mapped table keeps no tombstones. An insertion whose row was not
// there when the clock was read may come after an insertion and a deletion of others;
// it looks here once its row is locked, which no deletion is between then and its
// commit. Two keys of one hash cost a retry now and then.
//
// Of another process's deletions there is only the clock, which the INSERT itself reads.
// A statement that has read it, and then sleeps or waits until another process's
// insertion and deletion of the same key are over, gives a version below theirs; that
// is accepted.
type removals [256]atomic.Int64

func (r *removals) of(text string) *atomic.Int64 {
	h := fnv.New32a()
	h.Write([]byte(text))
	return &r[h.Sum32()%uint32(len(r))]
}

func (c *tableClock) raise(floor int64) { raise(&c.floor, floor) }

// ahead is how far a version may be ahead of the clock and still push the versions
// of other rows. One that is further ahead, after a clock that was set back, say,
// would take them all along, up to the last number there is.
const ahead = int64(time.Minute / time.Microsecond)

func (c *tableClock) saw(version int64) {
	if version < c.server.least()+ahead {
		raise(&c.seen, version)
	}
}

func raise(a *atomic.Int64, to int64) {
	for {
		old := a.Load()
		if old >= to || a.CompareAndSwap(old, to) {
			return
		}
	}
}

// least is math.MaxInt64 when there are no versions left.
func (c *tableClock) least() int64 {
	return max(c.server.least(), 1+c.seen.Load(), 1+min(c.floor.Load(), math.MaxInt64-1))
}
