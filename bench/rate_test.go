package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/maypok86/otter/v2"
)

// rateRequests is the length of a trace.
const rateRequests = 2_000_000

// traces are sequences of keys out of hitEntries, each with its own idea of what is
// asked for often.
var traces = []struct {
	name string
	next func(random *rand.Rand) func(i int) int
}{
	{"zipf", func(random *rand.Rand) func(int) int {
		zipf := rand.NewZipf(random, 1.01, 1, hitEntries-1)
		return func(int) int { return int(zipf.Uint64()) }
	}},
	// What is popular changes, a little with every request.
	{"drift", func(random *rand.Rand) func(int) int {
		zipf := rand.NewZipf(random, 1.01, 1, hitEntries-1)
		return func(i int) int { return (int(zipf.Uint64()) + i/100) % hitEntries }
	}},
	// Every other 100,000 requests, a reader passes over all keys beside the others.
	{"scans", func(random *rand.Rand) func(int) int {
		zipf := rand.NewZipf(random, 1.01, 1, hitEntries-1)
		return func(i int) int {
			if i%2 == 0 && i/100_000%2 == 1 {
				return i / 2 % hitEntries
			}
			return int(zipf.Uint64())
		}
	}},
}

// BenchmarkHitRate compares how often memory has what is asked for, with room for
// one row in a hundred and one in ten. Lockstep tells the eviction policy of some
// hits only; this is what that costs.
func BenchmarkHitRate(b *testing.B) {
	keys := rowKeys(hitEntries)
	for _, trace := range traces {
		for _, room := range []int{hitEntries / 100, hitEntries / 10} {
			b.Run(fmt.Sprintf("%s/room=%d", trace.name, room), func(b *testing.B) {
				ctx := b.Context()
				table := memstore.New(memstore.Options[string, string]{})
				for range b.N {
					bare := otter.Must(&otter.Options[string, string]{MaximumSize: room})
					cache, err := lockstep.New(table, lockstep.Options[string, string]{MaxEntries: room})
					if err != nil {
						b.Fatal(err)
					}
					hits := 0
					next := trace.next(rand.New(rand.NewPCG(1, 2)))
					for i := range rateRequests {
						key := keys[next(i)]
						if _, ok := bare.GetIfPresent(key); ok {
							hits++
						} else {
							bare.Set(key, key)
						}
						if _, err := cache.Exists(ctx, key); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(100*float64(hits)/rateRequests, "otter:%hits")
					b.ReportMetric(100*cache.Stats().HitRate, "lockstep:%hits")
					bare.StopAllGoroutines()
					if err := cache.Close(ctx); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
