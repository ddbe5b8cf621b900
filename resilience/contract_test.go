package resilience_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/bits"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// A store with all the parts around it is the store that it was. They are tested
// together, and not once more each: the suite takes its time.
func TestContract(t *testing.T) { storetest.Run(t, harness(protecting, bare)) }

// With retries around it, a store that fails every other call in passing keeps
// the contract of one that never fails.
func TestContractOverPassingFailures(t *testing.T) {
	storetest.Run(t, harness(protecting, func(inner storetest.Store) storetest.Store { return &stumbling{Store: inner} }))
}

// protecting has one place, which is enough where nothing keeps it. Its breaker never
// opens: the suite brings about more failures than any database, and wants to see each.
func protecting(inner storetest.Store) (storetest.Store, error) {
	return resilience.Protect(inner, resilience.Policy{
		Retry:   resilience.RetryPolicy{MaxDelay: time.Microsecond, Budget: resilience.RetryBudget{PerSuccess: 1}},
		Limit:   resilience.LimitPolicy{MaxCalls: 1},
		Breaker: resilience.BreakerPolicy{Failures: 1_000_000},
	})
}

func bare(inner storetest.Store) storetest.Store { return inner }

func harness(part func(storetest.Store) (storetest.Store, error), inside func(storetest.Store) storetest.Store) storetest.Harness {
	surround := func(t testing.TB, inner storetest.Store) storetest.Store {
		store, err := part(inner)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	open := func(t testing.TB, db *memstore.Database) storetest.Store {
		return surround(t, inside(memstore.New(memstore.Options[string, storetest.Doc]{Database: db, NewKey: rand.Text})))
	}
	return storetest.Harness{
		Bubble: true,
		Open:   func(t testing.TB) storetest.Store { return open(t, nil) },
		OpenTwo: func(t testing.TB) (a, b storetest.Store) {
			db := memstore.NewDatabase()
			return open(t, db), open(t, db)
		},
		OpenUnreliable: func(t testing.TB) storetest.Store {
			faulty := storetest.Inject(inside(memstore.New(memstore.Options[string, storetest.Doc]{NewKey: rand.Text})),
				fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
			return surround(t, faulty)
		},
		Lacks: []storetest.Feature{storetest.Restart, storetest.Refusals},
	}
}

// stumbling fails half of the calls that may be tried again, before they reach the
// store: by the Thue-Morse sequence, so that of two callers who come in turns neither
// meets all of the failures, as with every other call.
type stumbling struct {
	storetest.Store
	calls atomic.Uint64
}

func (s *stumbling) stumble() error {
	if n := s.calls.Add(1); bits.OnesCount64(n)%2 == 1 {
		return fmt.Errorf("call %d: %w", n, lockstep.ErrUnavailable)
	}
	return nil
}

func (s *stumbling) Load(ctx context.Context, keys []string) (map[string]lockstep.Row[storetest.Doc], error) {
	if err := s.stumble(); err != nil {
		return nil, err
	}
	return s.Store.Load(ctx, keys)
}

func (s *stumbling) Commit(ctx context.Context, sets []lockstep.ChangeSet[string, storetest.Doc]) ([]lockstep.Outcome[storetest.Doc], error) {
	if err := s.stumble(); err != nil {
		return nil, err
	}
	return s.Store.Commit(ctx, sets)
}

func (s *stumbling) Capabilities() lockstep.Capabilities[string, storetest.Doc] {
	c := s.Store.Capabilities()
	begin, scan := c.Begin, c.Scan
	c.Begin = func(ctx context.Context) (lockstep.Txn, error) {
		if err := s.stumble(); err != nil {
			return nil, err
		}
		return begin(ctx)
	}
	c.Scan = func(ctx context.Context, cursor any, limit int) (lockstep.Page[string, storetest.Doc], error) {
		if err := s.stumble(); err != nil {
			return lockstep.Page[string, storetest.Doc]{}, err
		}
		return scan(ctx, cursor, limit)
	}
	return c
}
