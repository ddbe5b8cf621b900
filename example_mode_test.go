package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// A log of measurements is written all the time, and few of its rows are ever read: they
// do not take places in memory before somebody asks for them.
func ExampleMode_writeAround() {
	ctx := context.Background()
	store := memstore.New(memstore.Options[string, int]{})
	cache, _ := lockstep.New(store, lockstep.Options[string, int]{Mode: lockstep.WriteAround})
	defer cache.Close(ctx)

	cache.Set(ctx, "12:00", 21)
	cache.Set(ctx, "12:01", 22)
	fmt.Println("in memory:", cache.Stats().Entries)
	value, err := cache.Get(ctx, "12:01")
	fmt.Println(value, err)
	fmt.Println("in memory:", cache.Stats().Entries)
	// Output:
	// in memory: 0
	// 22 <nil>
	// in memory: 1
}

// A second program over a table reads it, and cannot write it by mistake.
func ExampleMode_readOnly() {
	ctx := context.Background()
	store := memstore.New(memstore.Options[string, int]{})
	writer, _ := lockstep.New(store, lockstep.Options[string, int]{})
	defer writer.Close(ctx)
	reader, _ := lockstep.New(store, lockstep.Options[string, int]{Mode: lockstep.ReadOnly, TTL: time.Minute})
	defer reader.Close(ctx)

	writer.Set(ctx, "answer", 42)
	value, err := reader.Get(ctx, "answer")
	fmt.Println(value, err)
	_, err = reader.Set(ctx, "answer", 41)
	fmt.Println(errors.Is(err, lockstep.ErrUnsupported))
	// Output:
	// 42 <nil>
	// true
}

// A program that reads and writes its database by itself, and keeps a cache in step.
func ExampleCache_GetWith() {
	ctx := context.Background()
	cache, _ := lockstep.New(lockstep.ByHand[string, string](), lockstep.Options[string, string]{
		Mode: lockstep.CacheAside, TTL: time.Minute,
	})
	defer cache.Close(ctx)

	var database sync.Map // stands for one
	name := func(ctx context.Context, id string) (string, error) {
		return cache.GetWith(ctx, id, func(context.Context) (string, error) {
			fmt.Println("asks the database for", id)
			value, ok := database.Load(id)
			if !ok {
				return "", lockstep.ErrNotFound
			}
			return value.(string), nil
		})
	}
	rename := func(ctx context.Context, id, name string) error {
		return cache.WriteWith(ctx, []string{id}, func(context.Context) error {
			database.Store(id, name)
			return nil
		})
	}

	fmt.Println(rename(ctx, "u1", "Ada"))
	for range 2 {
		fmt.Println(name(ctx, "u1"))
	}
	fmt.Println(rename(ctx, "u1", "Countess Lovelace"))
	fmt.Println(name(ctx, "u1"))
	// Output:
	// <nil>
	// asks the database for u1
	// Ada <nil>
	// Ada <nil>
	// <nil>
	// asks the database for u1
	// Countess Lovelace <nil>
}

// A price list whose rows somebody else changes: memory answers for a minute, and what is
// read all the time is loaded anew before that is over, so that nobody waits for it.
func ExampleOptions_refreshAhead() {
	ctx := context.Background()
	prices := lockstep.FromFunc(func(_ context.Context, article string) (int, error) { return len(article), nil })
	cache, err := lockstep.New(prices, lockstep.Options[string, int]{
		TTL:          time.Minute,
		RefreshAhead: 10 * time.Second,
	})
	if err != nil {
		panic(err)
	}
	defer cache.Close(ctx)
	fmt.Println(cache.Get(ctx, "apples"))
	// Output:
	// 6 <nil>
}
