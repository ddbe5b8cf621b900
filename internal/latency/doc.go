// Package latency holds the instruments that a cache keeps about itself:
// a [Counter] that many cores add to at once, a [Histogram] of durations, and
// [Rate], which does not divide by zero.
//
// All of them may be used from any number of goroutines, are ready when zero,
// allocate nothing while they measure and take no lock. None may be copied
// after its first use. They are read rarely and written always, so whatever can
// be put off until they are read is.
package latency

// Rate returns part/whole, and 0 where whole is 0: the rate of nothing is
// nothing, not NaN, which would poison every sum and comparison made with it.
func Rate(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
