package bench

import (
	"context"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// BenchmarkLoneWrite is what the cache takes for a write that is alone, before a store that
// answers at once: all but the database. Its rows are those of BenchmarkWrite.
func BenchmarkLoneWrite(b *testing.B) {
	cache, err := lockstep.New(&noDatabase{}, lockstep.Options[string, []byte]{MaxEntries: 2 * writeRows})
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close(context.Background())
	value := make([]byte, writeBytes)
	set := func(i int) {
		if _, err := cache.Set(b.Context(), writeKeys()[i*7919%writeRows], value); err != nil {
			b.Fatal(err)
		}
	}
	for i := range writeRows {
		set(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		set(i)
	}
}

// noDatabase keeps nothing. Its commits are run on their callers' goroutines, as those of
// PostgreSQL and MariaDB are.
type noDatabase struct{ version lockstep.Version }

func (s *noDatabase) Capabilities() lockstep.Capabilities[string, []byte] {
	return lockstep.Capabilities[string, []byte]{Versions: true, Atomic: true, Interruptible: true,
		Settle: func(context.Context, error) (lockstep.Settlement[[]byte], error) {
			return lockstep.Settlement[[]byte]{}, lockstep.ErrUnsupported
		}}
}

func (s *noDatabase) Load(context.Context, []string) (map[string]lockstep.Row[[]byte], error) {
	return nil, nil
}

func (s *noDatabase) Commit(_ context.Context, sets []lockstep.ChangeSet[string, []byte]) ([]lockstep.Outcome[[]byte], error) {
	outcomes := make([]lockstep.Outcome[[]byte], len(sets))
	for i, set := range sets {
		for _, c := range set.Changes {
			s.version++
			outcomes[i].Rows = append(outcomes[i].Rows, lockstep.Row[[]byte]{Value: c.Value, Version: s.version, Exists: true})
		}
	}
	return outcomes, nil
}
