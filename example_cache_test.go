package lockstep_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

type User struct {
	Name   string `json:"name"`
	Visits int    `json:"visits"`
}

// A cache in front of a table in a SQLite file.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "lockstep-example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	store, err := sqlitestore.Open[string, User](ctx, filepath.Join(dir, "app.db"), sqlitestore.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()

	cache, err := lockstep.New(store, lockstep.Options[string, User]{MaxEntries: 10_000, TTL: time.Hour})
	if err != nil {
		panic(err)
	}
	defer cache.Close(ctx)

	if _, err := cache.Set(ctx, "ada", User{Name: "Ada"}); err != nil {
		panic(err) // not committed, or not known to be: see WriteError
	}
	user, err := cache.Get(ctx, "ada")
	fmt.Println(user.Name, err)

	_, err = cache.Get(ctx, "nobody")
	fmt.Println(errors.Is(err, lockstep.ErrNotFound))
	// Output:
	// Ada <nil>
	// true
}
