package latency

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistogramOfNothingIsZero(t *testing.T) {
	var h Histogram
	if s := h.Snapshot(); s != (Snapshot{}) {
		t.Fatalf("Snapshot() = %+v, want zeros", s)
	}
}

func TestHistogramOfOne(t *testing.T) {
	var h Histogram
	h.Record(3 * time.Millisecond)
	s := h.Snapshot()
	want := Snapshot{
		Count: 1, Mean: s.Mean, Max: 3 * time.Millisecond,
		P50: 3 * time.Millisecond, P90: 3 * time.Millisecond, P99: 3 * time.Millisecond, P999: 3 * time.Millisecond,
	}
	if s != want {
		t.Fatalf("Snapshot() = %+v, want %+v", s, want)
	}
	if off := math.Abs(float64(s.Mean)/3e6 - 1); off > 0.04 {
		t.Fatalf("mean %v of one duration of 3ms", s.Mean)
	}
}

func TestHistogramShowsTheTail(t *testing.T) {
	var h Histogram
	for range 990 {
		h.Record(time.Millisecond)
	}
	for range 10 {
		h.Record(time.Second)
	}
	s := h.Snapshot()
	if s.P99 > 1100*time.Microsecond || s.P999 != time.Second {
		t.Fatalf("p99 = %v, p999 = %v, want about 1ms and 1s", s.P99, s.P999)
	}
}

func TestHistogramTakesEveryDuration(t *testing.T) {
	var h Histogram
	h.Record(math.MinInt64)
	h.Record(-1)
	h.Record(0)
	h.Record(math.MaxInt64)
	s := h.Snapshot()
	if s.Count != 4 || s.Max != math.MaxInt64 || s.P50 != 63 || s.P999 != math.MaxInt64 || s.Mean < 0 {
		t.Fatalf("Snapshot() = %+v", s)
	}
}

func TestHistogramSnapshotsBesideRecorders(t *testing.T) {
	const recorders, records = 8, 2000
	var h Histogram
	var wg sync.WaitGroup
	for i := range recorders {
		wg.Go(func() {
			for n := range records {
				h.Record(time.Duration(n*(i+1)) * time.Microsecond)
			}
		})
	}
	var last uint64
	for range 100 {
		s := h.Snapshot()
		if s.Count < last || s.P999 > s.Max || s.Mean > s.Max {
			t.Errorf("after %d: Snapshot() = %+v", last, s)
		}
		last = s.Count
	}
	wg.Wait()
	s := h.Snapshot()
	if s.Count != recorders*records || s.Max != recorders*(records-1)*time.Microsecond {
		t.Fatalf("Snapshot() = %+v", s)
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Record(time.Millisecond) }); n != 0 {
		t.Fatalf("Record allocates %v times", n)
	}
}

func TestBucketsTileAllDurations(t *testing.T) {
	var next time.Duration
	for i := range buckets {
		low, high := edges(i)
		if low != next || high < low {
			t.Fatalf("bucket %d is [%d, %d], want it to start at %d", i, low, high, next)
		}
		if low >= time.Microsecond && float64(high-low+1) > 0.07*float64(low) {
			t.Fatalf("bucket %d, [%v, %v], is wider than 7 %%", i, low, high)
		}
		if bucketOf(low) != i || bucketOf(high) != i {
			t.Fatalf("edges of bucket %d are in buckets %d and %d", i, bucketOf(low), bucketOf(high))
		}
		next = high + 1
	}
	if next != math.MinInt64 {
		t.Fatalf("buckets end at %d, before the largest duration", next-1)
	}
}

// Each quantile is at least the exact one, and at most a bucket above it.
func TestQuantilesAreWithinABucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			magnitude := rapid.IntRange(0, 62).Draw(t, "magnitude")
			return time.Duration(rapid.Int64Range(0, 1<<magnitude).Draw(t, "duration"))
		}), 1, 300).Draw(t, "durations")
		var h Histogram
		var sum float64
		for _, d := range durations {
			h.Record(d)
			sum += float64(d)
		}
		slices.Sort(durations)
		s := h.Snapshot()
		if s.Count != uint64(len(durations)) || s.Max != durations[len(durations)-1] {
			t.Fatalf("count %d, max %v; want %d, %v", s.Count, s.Max, len(durations), durations[len(durations)-1])
		}
		for _, c := range []struct {
			q   float64
			got time.Duration
		}{{0.5, s.P50}, {0.9, s.P90}, {0.99, s.P99}, {0.999, s.P999}} {
			exact := durations[int(math.Ceil(c.q*float64(len(durations))))-1]
			if c.got < exact || float64(c.got-exact) > max(64, 0.07*float64(exact)) {
				t.Fatalf("quantile %v is %d, exactly %d", c.q, c.got, exact)
			}
		}
		mean := sum / float64(len(durations))
		if off := math.Abs(float64(s.Mean) - mean); off > 32+0.032*mean { // half of a bucket, of the narrow ones and of the others
			t.Fatalf("mean is %d, exactly %.0f", s.Mean, mean)
		}
	})
}

func BenchmarkHistogramRecord(b *testing.B) {
	var h Histogram
	var d time.Duration
	for b.Loop() {
		d += 7919
		h.Record(d & (1<<30 - 1))
	}
}

func BenchmarkHistogramRecordParallel(b *testing.B) {
	var h Histogram
	b.RunParallel(func(pb *testing.PB) {
		var d time.Duration
		for pb.Next() {
			d += 7919
			h.Record(d & (1<<30 - 1))
		}
	})
}

func BenchmarkHistogramSnapshot(b *testing.B) {
	var h Histogram
	h.Record(time.Millisecond)
	for b.Loop() {
		h.Snapshot()
	}
}
