package lockstep_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
)

// tally adds up what the histories met. A kind of event that never happened was
// not tested.
type tally struct {
	mu      sync.Mutex
	seeds   int
	ops     int
	checks  time.Duration
	slowest time.Duration
	counts  map[string]int
}

func (n *tally) add(h *history.History, took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seeds++
	n.ops += len(h.Ops)
	n.checks += took
	n.slowest = max(n.slowest, took)
	if n.counts == nil {
		n.counts = make(map[string]int)
	}
	for what, count := range h.Counts {
		n.counts[what] += count
	}
}

func (n *tally) report(t *testing.T, seeds int, took time.Duration) {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(n.counts)) {
		fmt.Fprintf(&b, "\n%8d %s", n.counts[what], what)
	}
	t.Logf("%d seeds in %v, %.0f a second; %d operations checked in %v, the slowest history in %v%s",
		n.seeds, took.Round(time.Millisecond), float64(n.seeds)/took.Seconds(),
		n.ops, n.checks.Round(time.Millisecond), n.slowest.Round(time.Millisecond), b.String())
	if n.seeds < seeds || seeds < 500 {
		return // a part of the test
	}
	for what, count := range n.counts {
		if count == 0 {
			t.Errorf("%s: not once in %d seeds", what, n.seeds)
		}
	}
}

// count adds what the cache and the store have counted.
func count(h *history.History, s lockstep.Stats, t *table) {
	f := t.Counts()
	for what, n := range map[string]int{
		"cache: hits":               int(s.Hits),
		"cache: negative hits":      int(s.NegativeHits),
		"cache: misses":             int(s.Misses),
		"cache: joined loads":       int(s.JoinedLoads),
		"cache: loads ahead":        int(s.RefreshesAhead),
		"cache: failed ahead":       int(s.RefreshAheadErrors),
		"cache: evictions":          int(s.Evictions),
		"cache: expirations":        int(s.Expirations),
		"cache: batches":            int(s.Batches),
		"cache: transactions":       int(s.Transactions),
		"cache: copies audited":     int(s.AuditedEntries),
		"around: retries":           int(s.Retries),
		"around: retries in vain":   int(s.RetryFailures),
		"around: circuits changed":  int(s.BreakerChanges),
		"around: calls refused":     int(s.BreakerRefusals),
		"around: no place":          int(s.LimitRefusals),
		"around: time-outs":         int(s.Timeouts),
		"store: failures":           f.Failures,
		"store: refusals":           f.Refusals,
		"store: hangs":              f.Hangs,
		"store: panics":             f.Panics,
		"store: requests lost":      f.LostRequests,
		"store: replies lost":       f.LostReplies,
		"store: replies lost, late": f.Late,
		"store: deaf to deadlines":  int(t.deafened.Load()),
	} {
		h.Counts[what] += n
	}
}
