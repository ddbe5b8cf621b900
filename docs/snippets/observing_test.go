package snippets

import (
	"context"
	"fmt"
	"io"
	"log"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

func writeMetrics[K comparable, V any](w io.Writer, name string, cache *lockstep.Cache[K, V]) {
	s := cache.Stats()
	for _, m := range []struct {
		name  string
		value float64
	}{
		{"cache_hits_total", float64(s.Hits)},
		{"cache_misses_total", float64(s.Misses)},
		{"cache_load_errors_total", float64(s.LoadErrors)},
		{"cache_writes_committed_total", float64(s.Committed)},
		{"cache_writes_unavailable_total", float64(s.Unavailable)},
		{"cache_writes_unknown_total", float64(s.Unknown)},
		{"cache_writes_in_doubt", float64(s.InDoubt)},
		{"cache_write_queue", float64(s.QueueLength)},
		{"cache_entries", float64(s.Entries)},
		{"cache_audit_differences_total", float64(s.AuditDifferences)},
		{"cache_write_seconds_p99", s.WriteLatency.P99.Seconds()},
	} {
		fmt.Fprintf(w, "%s{cache=%q} %g\n", m.name, name, m.value)
	}
}

func TestObserving(t *testing.T) {
	ctx := t.Context()
	var lines []string
	log.SetOutput(writerFunc(func(p []byte) { lines = append(lines, string(p)) }))
	defer log.SetOutput(log.Default().Writer())

	store := memstore.New(memstore.Options[string, User]{})
	users, err := lockstep.New(store, lockstep.Options[string, User]{
		Hooks: lockstep.Hooks[string]{
			Unknown: func(e lockstep.WriteEvent[string]) { log.Printf("%s: nobody knows: %v", e.Key, e.Err) },
			Settled: func(e lockstep.WriteEvent[string]) { log.Printf("%s: applied: %t", e.Key, e.Err == nil) },
			Evict:   func(id string) { log.Printf("%s made room", id) },
		},
	})
	check(t, err)
	_, err = users.Set(ctx, "ada", User{Name: "Ada"})
	check(t, err)
	check(t, shown(ctx, users))
	var metrics strings.Builder
	writeMetrics(&metrics, "users", users)
	check(t, users.Close(ctx))
	if !strings.Contains(metrics.String(), "cache_writes_committed_total{cache=\"users\"} 1\n") {
		t.Error(metrics.String())
	}
}

func shown(ctx context.Context, users *lockstep.Cache[string, User]) error {
	if _, err := users.Get(ctx, "ada"); err != nil {
		return err
	}
	s := users.Stats()
	fmt.Printf("%.0f %% of %d reads from memory, %d writes\n", 100*s.HitRate, s.Hits+s.Misses, s.Committed)
	fmt.Println("99 % of the writes took no longer than", s.WriteLatency.P99)
	if s.HitRate != 1 {
		return fmt.Errorf("%+v", s)
	}
	return nil
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }
