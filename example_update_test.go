package lockstep_test

import (
	"context"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
)

// Update reads, computes and writes, and does so again when somebody else was
// faster. No visit is lost, however many count at once.
func ExampleCache_Update() {
	ctx := context.Background()
	cache, _ := lockstep.New(memstore.New(memstore.Options[string, User]{}), lockstep.Options[string, User]{})
	defer cache.Close(ctx)

	visit := func(u User, exists bool) (User, error) {
		if !exists {
			u.Name = "Ada"
		}
		u.Visits++
		return u, nil
	}
	cache.Update(ctx, "ada", visit)
	user, err := cache.Update(ctx, "ada", visit)
	fmt.Println(user.Visits, err)

	// Keep leaves the row as it is.
	user, err = cache.Update(ctx, "ada", func(u User, exists bool) (User, error) { return u, lockstep.Keep })
	fmt.Println(user.Visits, err)
	// Output:
	// 2 <nil>
	// 2 <nil>
}
