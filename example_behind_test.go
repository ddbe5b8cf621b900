package lockstep_test

import (
	"context"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// Counters that change much more often than they need to be in the database: a thousand
// writes become one row, and a crash loses at most a second of them.
func Example_writeBehind() {
	ctx := context.Background()
	store := memstore.New(memstore.Options[string, int]{})
	cache, err := lockstep.New(store, lockstep.Options[string, int]{
		Mode:   lockstep.WriteBehind,
		Behind: lockstep.Behind[string, int]{MaxDelay: time.Second},
	})
	if err != nil {
		panic(err)
	}
	for n := range 1000 {
		if _, err := cache.Set(ctx, "visits", n+1); err != nil { // acknowledged from memory
			panic(err)
		}
	}
	visits, _ := cache.Get(ctx, "visits")
	fmt.Println("read back:", visits)

	if err := cache.Close(ctx); err != nil { // what it could not flush would be in the error
		panic(err)
	}
	rows, _ := store.Load(ctx, []string{"visits"})
	stats := cache.Stats()
	fmt.Println("in the database:", rows["visits"].Value)
	fmt.Println("rows flushed:", stats.FlushedRows)
	// Output:
	// read back: 1000
	// in the database: 1000
	// rows flushed: 1
}
