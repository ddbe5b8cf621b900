package resilience

import (
	"context"
	"testing"
)

// instant answers every commit at once, so that what is measured is the wrapper.
type instant struct{ *script }

var instantOutcomes = make([]outcome, 1)

func (instant) Commit(context.Context, []changeSet) ([]outcome, error) { return instantOutcomes, nil }

func BenchmarkCommitThatSucceeds(b *testing.B) {
	store, err := Retry(instant{}, RetryPolicy{})
	if err != nil {
		b.Fatal(err)
	}
	sets := make([]changeSet, 1)
	b.ReportAllocs()
	for b.Loop() {
		store.Commit(b.Context(), sets)
	}
}
