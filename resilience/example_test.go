package resilience_test

import (
	"context"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resilience"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// A cache over a database that may be away for a few seconds.
func ExampleRetry() {
	ctx := context.Background()
	store := memstore.New(memstore.Options[string, int]{})

	patient, err := resilience.Retry(store, resilience.RetryPolicy{
		MaxAttempts: 20,
		MaxElapsed:  5 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	cache, err := lockstep.New(patient, lockstep.Options[string, int]{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close(ctx)

	if _, err := cache.Set(ctx, "apples", 12); err != nil {
		fmt.Println(err)
		return
	}
	stats := cache.Stats()
	fmt.Println(stats.Committed, "written,", stats.Retries, "retries")
	// Output: 1 written, 0 retries
}

// All the parts with their defaults, and what they have done.
func ExampleProtect() {
	ctx := context.Background()
	store := memstore.New(memstore.Options[string, int]{})

	protected, err := resilience.Protect(store, resilience.Policy{
		Limit: resilience.LimitPolicy{MaxCalls: 20}, // as many as the pool has connections
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	cache, err := lockstep.New(protected, lockstep.Options[string, int]{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cache.Close(ctx)

	if _, err := cache.Set(ctx, "apples", 12); err != nil {
		fmt.Println(err)
		return
	}
	stats := cache.Stats()
	fmt.Println("writes:", stats.WriteBreaker, "- reads:", stats.ReadBreaker, "- cut off:", stats.Timeouts)
	// Output: writes: closed - reads: closed - cut off: 0
}

// The tables of one database share what there is of it.
func ExampleProtectWith() {
	ctx := context.Background()
	guard, err := resilience.NewGuard(resilience.Policy{
		Limit: resilience.LimitPolicy{MaxCalls: 20}, // as many as the pool of both has connections
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var caches []*lockstep.Cache[string, int]
	for range 2 {
		store, err := resilience.ProtectWith(memstore.New(memstore.Options[string, int]{}), guard)
		if err != nil {
			fmt.Println(err)
			return
		}
		cache, err := lockstep.New(store, lockstep.Options[string, int]{})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer cache.Close(ctx)
		caches = append(caches, cache)
	}
	apples, pears := caches[0], caches[1]
	if _, err := apples.Set(ctx, "crates", 12); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("calls:", apples.Stats().Attempts, "and", pears.Stats().Attempts)
	// Output: calls: 1 and 0
}
