package lockstep_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// Two people edit one row. The second to save is told, instead of overwriting
// what the first has saved.
func ExampleIfVersion() {
	ctx := context.Background()
	cache, _ := lockstep.New(memstore.New(memstore.Options[string, User]{}), lockstep.Options[string, User]{})
	defer cache.Close(ctx)
	cache.Set(ctx, "ada", User{Name: "Ada"})

	mine, _ := cache.GetEntry(ctx, "ada")
	theirs, _ := cache.GetEntry(ctx, "ada")

	_, err := cache.Set(ctx, "ada", User{Name: "Ada Lovelace"}, lockstep.IfVersion(theirs.Version))
	fmt.Println("theirs:", err)

	_, err = cache.Set(ctx, "ada", User{Name: "Ada L."}, lockstep.IfVersion(mine.Version))
	fmt.Println("mine is a conflict:", errors.Is(err, lockstep.ErrConflict))
	// Output:
	// theirs: <nil>
	// mine is a conflict: true
}
