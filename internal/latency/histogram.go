package latency

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// A duration is counted in units of 64 ns. Each power of two of units is cut
// into 16 buckets of equal width, so that a bucket is at most 1/16 of its lower
// edge; the first 16 buckets are a unit wide. This is the log-linear layout of
// HdrHistogram, which needs a shift where a logarithmic one needs a logarithm.
const (
	unitBits = 6
	cutBits  = 4
	cuts     = 1 << cutBits
	// buckets reach to the largest Duration, so that nothing is out of range.
	buckets = (63 - unitBits - cutBits + 1) * cuts
)

// Histogram is the distribution of durations. A bucket is at most 6.25 % wide,
// and below 1 µs at most 64 ns.
//
// Record costs about 5 ns and allocates nothing, Snapshot costs about 3 µs.
// Recorders on several cores share the buckets, so it is meant for what is
// measured around I/O. A Histogram is 7 KiB.
//
// The count and the mean are worked out from the buckets when they are asked
// for: a sum kept beside them would cost a second atomic addition, and 64 bits
// of nanoseconds overflow in three weeks of 10,000 waiting callers.
type Histogram struct {
	max    atomic.Int64
	bucket [buckets]atomic.Uint64
}

// Record adds one duration. A negative one, which a clock that was set back can
// measure, counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	// The maximum goes first and Snapshot reads it last, so that no snapshot
	// counts a duration above its own maximum.
	for {
		seen := h.max.Load()
		if int64(d) <= seen || h.max.CompareAndSwap(seen, int64(d)) {
			break
		}
	}
	h.bucket[bucketOf(d)].Add(1)
}

// Snapshot is what a Histogram held at one moment. Each quantile is the upper
// edge of the bucket in which it lies, or Max where that is less; Mean takes
// each duration to be in the middle of its bucket. All are 0 before the first
// Record.
type Snapshot struct {
	Count                    uint64
	Mean                     time.Duration
	P50, P90, P99, P999, Max time.Duration
}

// Snapshot returns the distribution of all durations whose Record had returned,
// and of some of those being recorded beside it.
func (h *Histogram) Snapshot() Snapshot {
	var counts [buckets]uint64
	var s Snapshot
	var sum float64
	for i := range counts {
		n := h.bucket[i].Load()
		counts[i] = n
		s.Count += n
		if n > 0 {
			low, high := edges(i)
			sum += float64(n) * (float64(low) + float64(high)) / 2
		}
	}
	if s.Count == 0 {
		return Snapshot{}
	}
	s.Max = time.Duration(h.max.Load())
	s.Mean = min(s.Max, time.Duration(sum/float64(s.Count)))
	s.P50 = quantile(&counts, s.Count, 0.50, s.Max)
	s.P90 = quantile(&counts, s.Count, 0.90, s.Max)
	s.P99 = quantile(&counts, s.Count, 0.99, s.Max)
	s.P999 = quantile(&counts, s.Count, 0.999, s.Max)
	return s
}

// Quantiles returns a duration for each of the quantiles, as Snapshot does for its own.
func (h *Histogram) Quantiles(qs []float64) []time.Duration {
	var counts [buckets]uint64
	var count uint64
	for i := range counts {
		counts[i] = h.bucket[i].Load()
		count += counts[i]
	}
	largest := time.Duration(h.max.Load())
	durations := make([]time.Duration, len(qs))
	if count == 0 {
		return durations
	}
	for i, q := range qs {
		durations[i] = quantile(&counts, count, q, largest)
	}
	return durations
}

// quantile returns the upper edge of the bucket with the ⌈q·count⌉-th smallest
// duration.
func quantile(counts *[buckets]uint64, count uint64, q float64, largest time.Duration) time.Duration {
	rank := max(1, uint64(math.Ceil(q*float64(count))))
	var below uint64
	for i, n := range counts {
		below += n
		if below >= rank {
			_, high := edges(i)
			return min(high, largest)
		}
	}
	return largest
}

// bucketOf returns the bucket of a duration that is not negative.
func bucketOf(d time.Duration) int {
	units := uint64(d) >> unitBits
	if units < cuts {
		return int(units)
	}
	shift := bits.Len64(units) - 1 - cutBits
	return shift*cuts + int(units>>shift)
}

// edges returns the smallest and the largest duration of a bucket.
func edges(bucket int) (low, high time.Duration) {
	if bucket < cuts {
		low = time.Duration(bucket) << unitBits
		return low, low + 1<<unitBits - 1
	}
	shift := bucket/cuts - 1
	low = time.Duration(cuts+bucket%cuts) << (shift + unitBits)
	return low, low + (1<<(shift+unitBits) - 1)
}
