package lockstep_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
)

// The database commits, and its reply is lost. The caller is told that nobody
// knows, and can wait until somebody does.
func ExampleWriteError_Wait() {
	ctx := context.Background()
	script, err := storetest.ParseScript("commit 1: lose reply")
	if err != nil {
		panic(err)
	}
	store := storetest.Inject(memstore.New(memstore.Options[string, int]{}), script, 1)
	cache, _ := lockstep.New(store, lockstep.Options[string, int]{})
	defer cache.Close(ctx)

	_, err = cache.Set(ctx, "answer", 42)
	fmt.Println("unknown:", errors.Is(err, lockstep.ErrUnknownOutcome))

	var lost *lockstep.WriteError
	errors.As(err, &lost)
	applied, _, err := lost.Wait(ctx)
	fmt.Println("applied:", applied, err)
	// Output:
	// unknown: true
	// applied: true <nil>
}
