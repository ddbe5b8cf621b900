package resilience

import (
	"context"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// instant answers every commit at once, so that what is measured is the wrapper.
type instant struct{ *script }

var instantOutcomes = make([]outcome, 1)

func (instant) Commit(context.Context, []changeSet) ([]outcome, error) { return instantOutcomes, nil }

func BenchmarkCommitThatSucceeds(b *testing.B) {
	for _, name := range []string{"Retry", "Limit", "Breaker", "Timeout", "Protect"} {
		b.Run(name, func(b *testing.B) {
			store, err := parts[name](lockstep.Store[string, int](instant{}))
			if err != nil {
				b.Fatal(err)
			}
			sets := make([]changeSet, 1)
			b.ReportAllocs()
			for b.Loop() {
				store.Commit(b.Context(), sets)
			}
		})
	}
}
