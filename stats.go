package lockstep

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/internal/latency"
)

// Stats is a snapshot of what a cache has done since New. Counters only grow;
// each is exact, but they are read one after the other, so sums over several
// may be off by what happened meanwhile.
type Stats struct {
	// Hits were answered from memory, NegativeHits among them: the ones that
	// memory answered with "no such row". Misses went to the database.
	Hits, NegativeHits, Misses uint64
	// StaleHits are the misses that were answered with a copy whose TTL was over,
	// because the load failed (Options.StaleIfError).
	StaleHits uint64
	// RefreshesAhead are the copies that were loaded anew before their TTL was over, or were
	// to be (Options.RefreshAhead), RefreshAheadErrors those of these loads that failed.
	// They are no misses, and Loads counts their calls.
	RefreshesAhead, RefreshAheadErrors uint64
	// HitRate is Hits / (Hits + Misses), and 0 before the first read.
	HitRate float64

	// Loads are calls of Store.Load on behalf of readers, LoadErrors those that
	// failed, and JoinedLoads the reads that waited for one which they did not start.
	Loads, LoadErrors, JoinedLoads uint64

	// Writes are the changes that were committed, Deletes the deletions among
	// them.
	Writes, Deletes uint64

	// The outcomes of what was asked of the database, a write or the validation of
	// what a transaction has read. Each counts once under Committed, Refused,
	// Conflicts, Unavailable, Abandoned or Unknown; an unknown one counts again
	// under Settled when it is no longer unknown. A call of Update or Transact that
	// ran again counts a conflict for each time before the last.
	Committed   uint64
	Refused     uint64 // not applied: invalid, or refused by the database
	Conflicts   uint64 // not applied: the row was not what the write expected
	Unavailable uint64 // not applied: the database, or a place in the queue, could not be had; or the cache was closed
	Abandoned   uint64 // not applied: the caller's context ended first, or the program rolled a joined transaction back
	Unknown     uint64 // in Mode CacheAside, functions of WriteWith that have failed; they are never settled
	Settled     uint64
	// InDoubt is the number of writes whose outcome is unknown right now.
	InDoubt int

	// Transactions are calls of Transact that committed, and Reruns how often
	// Transact and Update ran their function again because a row had changed that
	// it had read, whether the database found that out or memory. A transaction of
	// several caches counts in one of them, the one that was opened first. One that the
	// program began counts in the cache that joined it first (InJoined), once.
	Transactions, Reruns uint64

	// Batches are calls of Store.Commit; RowsPerBatch is the mean number of
	// changes in one.
	Batches uint64
	// Blocked are sets that their batch left out, because somebody else held a row of
	// theirs locked, and which were then committed alone.
	Blocked      uint64
	RowsPerBatch float64
	// QueueLength is the number of writes that wait for a commit right now.
	QueueLength int

	// Of Mode WriteBehind, and zero in every other. DirtyWrites are changes of rows that
	// were acknowledged and are not in the database right now, DirtyBytes their size, and
	// DirtyAge how long the oldest of them has waited: the lag of the database. Flushes
	// are the transactions that brought some there, FlushedRows the rows in them, and
	// CoalescedWrites the changes whose row a later one changed in the same flush.
	// FlushRetries are attempts of a flush that failed, RejectedWrites the acknowledged
	// changes that the database does not have, and WritesThrough the calls that found no
	// room and waited for the database. An acknowledged write counts among the
	// outcomes when it is known which is its own.
	DirtyWrites                                 int
	DirtyBytes                                  int64
	DirtyAge                                    time.Duration
	Flushes, FlushedRows, CoalescedWrites       uint64
	FlushRetries, RejectedWrites, WritesThrough uint64

	// Evictions made room, Expirations ended a copy's or a row's lifetime.
	Evictions, Expirations uint64
	// Entries, Bytes and Maximum describe memory right now; Bytes may be a moment
	// behind the writes and loads that were last. It is 0 without MaxBytes; Maximum is
	// MaxEntries or MaxBytes, whichever is set.
	Entries, Bytes, Maximum uint64

	// Watching tells whether the table is watched for changes of others; WatchLosses
	// counts how often that was lost, and OutsideChanges what was told. Without
	// Capabilities.Watch all are zero.
	Watching                    bool
	WatchLosses, OutsideChanges uint64

	// Replacements counts how often the store has found its server to be another than
	// before, and memory was emptied.
	Replacements uint64

	// HooksDropped counts events that were not delivered because the hooks were
	// too slow to take them.
	HooksDropped uint64

	// AuditedEntries and AuditDifferences add up what Audit, and Options.AuditInterval,
	// have compared and found.
	AuditedEntries, AuditDifferences uint64

	// Attempts are calls of the store that retries around it have made, the first ones
	// among them; Retries are attempts after the first; RetryFailures are operations that
	// failed after their last attempt, and RetriesDenied those of them that were not
	// tried again, or not once more, because the budget for retries was spent. A
	// retrying store around the store counts them; without one all are 0.
	Attempts, Retries, RetryFailures, RetriesDenied uint64

	// ReadBreaker and WriteBreaker are the states of the circuits of a breaker around
	// the store, BreakerChanges how often they have changed, and BreakerRefusals the
	// calls that an open one has refused. Without a breaker all are zero.
	ReadBreaker, WriteBreaker       BreakerState
	BreakerChanges, BreakerRefusals uint64

	// LimitWaits are the calls that a limit around the store has made wait for a place,
	// LimitRefusals those of them that got none. Without a limit both are 0.
	LimitWaits, LimitRefusals uint64

	// Timeouts are the calls that a time-out around the store has cut off. What became
	// of them is counted with the loads and the writes.
	Timeouts uint64

	// LoadLatency is measured around Store.Load, CommitLatency around
	// Store.Commit, or from the beginning to the commit of a transaction of several
	// caches, QueueWait from the call to the start of its commit, and
	// WriteLatency from the call to its answer.
	LoadLatency, CommitLatency, QueueWait, WriteLatency Latency
}

// BreakerState is what a circuit breaker does with the calls of a store. The greater
// of two is the worse.
type BreakerState uint8

const (
	// BreakerNone: there is no breaker.
	BreakerNone BreakerState = iota
	// BreakerClosed: calls reach the database.
	BreakerClosed
	// BreakerHalfOpen: a few calls do, as probes; the others are refused.
	BreakerHalfOpen
	// BreakerOpen: calls are refused.
	BreakerOpen
)

func (s BreakerState) String() string {
	switch s {
	case BreakerNone:
		return "none"
	case BreakerClosed:
		return "closed"
	case BreakerHalfOpen:
		return "half-open"
	case BreakerOpen:
		return "open"
	}
	return fmt.Sprintf("BreakerState(%d)", uint8(s))
}

// Latency is a distribution of durations. Each quantile is the upper edge of a
// bucket at most 7 % wide; all are 0 before the first measurement.
type Latency struct {
	Count                    uint64
	Mean                     time.Duration
	P50, P90, P99, P999, Max time.Duration
}

// counters is what a cache counts. Those that a hit touches are striped: one
// shared word would cost more than the rest of the hit.
type counters struct {
	hits, negativeHits, misses latency.Counter

	staleHits                                           atomic.Uint64
	aheads, aheadErrors                                 atomic.Uint64
	loads, loadErrors, joinedLoads                      atomic.Uint64
	writes, deletes                                     atomic.Uint64
	committed, refused, conflicts                       atomic.Uint64
	unavailable, abandoned                              atomic.Uint64
	unknown, settled                                    atomic.Uint64
	inDoubt                                             atomic.Int64
	transactions, reruns                                atomic.Uint64
	batches, batchedRows, blocked                       atomic.Uint64
	evictions, expirations                              atomic.Uint64
	audited, differences                                atomic.Uint64
	watchLosses, outsideChanges, replacements           atomic.Uint64
	watching                                            atomic.Bool
	loadLatency, commitLatency, queueWait, writeLatency latency.Histogram
}

// doubted counts a write whose caller is told that nobody knows.
func (n *counters) doubted() {
	n.unknown.Add(1)
	n.inDoubt.Add(1)
}

// outcome counts how a write call, or a transaction, ended. One that had been in
// doubt was counted as unknown already.
func (n *counters) outcome(err error, wasDoubted bool) {
	switch {
	case wasDoubted:
		n.inDoubt.Add(-1)
		if !errors.Is(err, ErrUnknownOutcome) {
			n.settled.Add(1)
		}
	case err == nil:
		n.committed.Add(1)
	case errors.Is(err, ErrUnknownOutcome):
		n.unknown.Add(1)
	case errors.Is(err, ErrConflict):
		n.conflicts.Add(1)
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrTooLarge), errors.Is(err, ErrUnsupported), errors.Is(err, ErrInTransaction):
		n.refused.Add(1)
	case errors.Is(err, errUndone), !errors.Is(err, ErrUnavailable) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		n.abandoned.Add(1)
	default:
		n.unavailable.Add(1)
	}
}

func (n *counters) applied(changes, deletes int) {
	n.writes.Add(uint64(changes))
	n.deletes.Add(uint64(deletes))
}

// Stats returns what the cache has done so far. It costs some microseconds.
func (c *Cache[K, V]) Stats() Stats {
	n := &c.counts
	s := Stats{
		Hits: n.hits.Load(), NegativeHits: n.negativeHits.Load(), Misses: n.misses.Load(),
		StaleHits:      n.staleHits.Load(),
		RefreshesAhead: n.aheads.Load(), RefreshAheadErrors: n.aheadErrors.Load(),
		Loads: n.loads.Load(), LoadErrors: n.loadErrors.Load(), JoinedLoads: n.joinedLoads.Load(),
		Writes: n.writes.Load(), Deletes: n.deletes.Load(),
		Committed: n.committed.Load(), Refused: n.refused.Load(), Conflicts: n.conflicts.Load(),
		Unavailable: n.unavailable.Load(), Abandoned: n.abandoned.Load(), Unknown: n.unknown.Load(), Settled: n.settled.Load(),
		InDoubt:      int(n.inDoubt.Load()),
		Transactions: n.transactions.Load(), Reruns: n.reruns.Load(),
		Batches: n.batches.Load(), Blocked: n.blocked.Load(),
		Evictions: n.evictions.Load(), Expirations: n.expirations.Load(),
		Watching: n.watching.Load(), WatchLosses: n.watchLosses.Load(), OutsideChanges: n.outsideChanges.Load(),
		Replacements:   n.replacements.Load(),
		HooksDropped:   c.events.Dropped(),
		AuditedEntries: n.audited.Load(), AuditDifferences: n.differences.Load(),
		LoadLatency:   distribution(&n.loadLatency),
		CommitLatency: distribution(&n.commitLatency),
		QueueWait:     distribution(&n.queueWait),
		WriteLatency:  distribution(&n.writeLatency),
		QueueLength:   c.queue.Len(),
	}
	s.HitRate = latency.Rate(s.Hits, s.Hits+s.Misses)
	s.RowsPerBatch = latency.Rate(n.batchedRows.Load(), s.Batches)
	s.Entries, s.Bytes, s.Maximum = c.memory.Size()
	if c.behind != nil {
		c.behind.report(&s)
	}
	if c.can.Report != nil {
		c.can.Report(&s)
	}
	return s
}

func distribution(h *latency.Histogram) Latency {
	s := h.Snapshot()
	return Latency{Count: s.Count, Mean: s.Mean, P50: s.P50, P90: s.P90, P99: s.P99, P999: s.P999, Max: s.Max}
}

func (c *Cache[K, V]) since(began int64) time.Duration {
	return time.Duration(c.clock.Precise() - began)
}

// sizes is how many rows the set changes, and how many of them it deletes.
func sizes[K comparable, V any](set *ChangeSet[K, V]) (changes, deletes int) {
	for i := range set.Changes {
		if set.Changes[i].Delete {
			deletes++
		}
	}
	return len(set.Changes), deletes
}
