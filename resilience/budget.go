package resilience

import (
	"math"
	"sync/atomic"
)

// Defaults of RetryBudget.
const (
	DefaultReserve    = 1000
	DefaultPerSuccess = 0.1
)

// RetryBudget bounds the retries of all calls together, as MaxAttempts bounds those of
// one. While few calls fail each of them is tried again; when nearly all of them do,
// retries would multiply what a database in trouble is asked for. It is a bucket of
// retries, as in gRPC's retry throttling (proposal A6): each retry takes one out, each
// call that succeeds puts a part of one back. Time puts nothing back: first attempts
// are always made, and their success shows that the database is there again.
//
// The zero value lets about a hundred callers wait out a short outage, and adds a tenth to
// what the database is asked for in one that lasts.
type RetryBudget struct {
	// Reserve is how many retries the bucket holds, and holds at first. Zero means
	// DefaultReserve.
	Reserve int

	// PerSuccess is the part of a retry that a success puts back, above 0 and up to
	// 1. Zero means DefaultPerSuccess.
	PerSuccess float64
}

const mostReserve = 1_000_000_000

// aRetry is one retry in the bucket's units.
const aRetry = 1_000_000

// bucket is what a budget has left. It takes no lock: successes are frequent.
type bucket struct {
	full, perSuccess int64
	left             atomic.Int64
}

func newBucket(b RetryBudget) *bucket {
	k := &bucket{full: int64(b.Reserve) * aRetry, perSuccess: max(1, int64(math.Round(b.PerSuccess*aRetry)))}
	k.left.Store(k.full)
	return k
}

// take takes a retry out, if there is a whole one.
func (k *bucket) take() bool {
	for {
		left := k.left.Load()
		if left < aRetry {
			return false
		}
		if k.left.CompareAndSwap(left, left-aRetry) {
			return true
		}
	}
}

// succeeded puts back what a success is worth.
func (k *bucket) succeeded() { k.put(k.perSuccess) }

func (k *bucket) put(n int64) {
	for {
		left := k.left.Load()
		if left == k.full {
			return // the rule, which writes nothing that others read
		}
		if k.left.CompareAndSwap(left, min(k.full, left+n)) {
			return
		}
	}
}
