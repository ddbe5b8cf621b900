package lockstep_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep"
)

// One line to cache a function.
func ExampleFromFunc() {
	ctx := context.Background()
	calls := 0
	shout := func(_ context.Context, word string) (string, error) {
		calls++
		return strings.ToUpper(word), nil
	}
	cache, _ := lockstep.New(lockstep.FromFunc(shout), lockstep.Options[string, string]{})
	defer cache.Close(ctx)

	for range 3 {
		word, err := cache.Get(ctx, "hello")
		fmt.Println(word, err)
	}
	fmt.Println("calls:", calls)
	// Output:
	// HELLO <nil>
	// HELLO <nil>
	// HELLO <nil>
	// calls: 1
}
