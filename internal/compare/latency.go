package compare

import (
	"time"

	"github.com/lockstep-cache/lockstep/internal/latency"
)

// Latency is what calls have taken.
type Latency struct {
	Count uint64        `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	P999  time.Duration `json:"p999_ns"`
	Max   time.Duration `json:"max_ns"`
	// Curve has a duration for each of curveQuantiles, for the page; nil where nothing was
	// counted.
	Curve []time.Duration `json:"curve_ns,omitempty"`
}

// curveQuantiles are close together where the tail is: each has a tenth less above it
// than the one before it, down to one call in a hundred thousand.
var curveQuantiles = func() (qs []float64) {
	for above := 1.0; above > 0.00001; above *= 0.9 {
		qs = append(qs, 1-above)
	}
	return qs
}()

func latencyOf(h *latency.Histogram) Latency {
	s := h.Snapshot()
	if s.Count == 0 {
		return Latency{}
	}
	return Latency{Count: s.Count, P50: s.P50, P99: s.P99, P999: s.P999, Max: s.Max, Curve: h.Quantiles(curveQuantiles)}
}
