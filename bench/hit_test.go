package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/maypok86/otter/v2"
)

// A hit is asked of entries that are all in memory, with keys of 16 bytes, a
// few of which are asked for far more often than the others.
const (
	hitEntries  = 100_000
	hitRequests = 1 << 20 // the length of the sequence of keys
)

// rowKeys returns n keys of 16 bytes.
func rowKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("user:%011d", i)
	}
	return keys
}

// hitKeys returns the keys of all entries, and the sequence in which they are
// asked for.
func hitKeys() (keys, asked []string) {
	keys = rowKeys(hitEntries)
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 1, hitEntries-1)
	asked = make([]string, hitRequests)
	for i := range asked {
		// A copy: a program's keys come from outside, and are never the very
		// string that memory holds.
		asked[i] = strings.Clone(keys[zipf.Uint64()])
	}
	return keys, asked
}

// A turn is turnHits hits by each goroutine, some 30 milliseconds. Each rival has
// warmTurns before it is measured.
const (
	turnHits  = 1 << 18
	warmTurns = 8
)

// turn makes turnHits hits with each of so many goroutines, and returns how long
// a hit took.
func turn(b *testing.B, cores int, asked []string, get func(key string) bool) time.Duration {
	var all sync.WaitGroup
	start := time.Now()
	for range cores {
		at := rand.IntN(hitRequests)
		all.Go(func() {
			for range turnHits {
				if !get(asked[at]) {
					b.Errorf("%s was a miss", asked[at])
					return
				}
				at = (at + 1) % hitRequests
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// BenchmarkHit has its rivals take short turns, both of them in one heap: what
// else the machine does is then the same for each. In runs of seconds one after
// the other, on a virtual machine with neighbours, the ratio of one pair of
// programs was between 1.0 and 2.4.
func BenchmarkHit(b *testing.B) {
	keys, asked := hitKeys()
	// Both caches are filled in one order, which is not that of popularity: keys
	// that are asked for often would lie side by side in one's heap and not in the
	// other's, and the benchmark would compare the luck of their cache lines.
	order := slices.Clone(keys)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })

	bare := otter.Must(&otter.Options[string, string]{
		// The bound is soft: with exactly as many, a few would be evicted.
		MaximumSize: hitEntries + hitEntries/10,
	})
	defer bare.StopAllGoroutines()
	for _, key := range order {
		bare.Set(key, key)
	}
	cache, err := lockstep.New(memstore.New(memstore.Options[string, string]{}), lockstep.Options[string, string]{
		MaxEntries: hitEntries + hitEntries/10,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close(b.Context())
	warm(b, cache, order)

	ctx := b.Context()
	rivals := []struct {
		name string
		get  func(key string) bool
	}{
		{"otter", func(key string) bool { _, ok := bare.GetIfPresent(key); return ok }},
		{"lockstep", func(key string) bool { _, err := cache.Get(ctx, key); return err == nil }},
	}
	for _, cores := range []int{1, 2} {
		b.Run(fmt.Sprintf("cores=%d", cores), func(b *testing.B) {
			// Set here and not around b.Run, which sets it anew for what it runs.
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
			// What both eviction policies have to learn first is not counted.
			for _, rival := range rivals {
				for range warmTurns {
					turn(b, cores, asked, rival.get)
				}
			}
			took := make([]time.Duration, len(rivals))
			turns := 0
			for b.Loop() {
				// Each is the first in every other turn.
				for i := range rivals {
					i = (i + turns) % len(rivals)
					took[i] += turn(b, cores, asked, rivals[i].get)
				}
				turns++
			}
			b.ReportMetric(0, "ns/op")
			for i, rival := range rivals {
				b.ReportMetric(float64(took[i].Nanoseconds())/float64(turns*turnHits), rival.name+":ns/hit")
			}
		})
	}
}

// warm writes a row for each key, in order, which leaves all of them in memory.
func warm(b *testing.B, cache *lockstep.Cache[string, string], keys []string) {
	for _, key := range keys {
		if _, err := cache.Set(b.Context(), key, key); err != nil {
			b.Fatal(err)
		}
	}
	// What the warming has left behind is not the hits' to collect.
	runtime.GC()
}
