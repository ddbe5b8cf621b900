package demo

import (
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep/internal/text"
)

// money is an amount of cents.
func money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%s.%02d", sign, text.Count(cents/100), cents%100)
}

// ratio is a/b, and 0 where b is.
func ratio[N ~int64 | ~float64](a, b N) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// Latency is what a number of operations have taken.
type Latency struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
}

// latencyOf sorts the durations, and returns their quantiles.
func latencyOf(durations []time.Duration) Latency {
	n := len(durations)
	if n == 0 {
		return Latency{}
	}
	slices.Sort(durations)
	at := func(q float64) time.Duration { return durations[int(q*float64(n-1))] }
	return Latency{Count: n, P50: at(0.50), P99: at(0.99)}
}
