package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

type User struct {
	Name   string `json:"name"`
	Visits int    `json:"visits"`
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	store, err := sqlitestore.Open[string, User](ctx, "app.db", sqlitestore.Options{})
	if err != nil {
		return err
	}
	defer store.Close()

	cache, err := lockstep.New(store, lockstep.Options[string, User]{TTL: time.Hour})
	if err != nil {
		return err
	}
	defer cache.Close(context.WithoutCancel(ctx)) // before store.Close; waits for the writes under way

	_, err = cache.Get(ctx, "ada")
	switch {
	case errors.Is(err, lockstep.ErrNotFound):
		if _, err := cache.Set(ctx, "ada", User{Name: "Ada"}); err != nil {
			return err // not committed, or not known to be
		}
	case err != nil:
		return err // the database could not be asked
	}

	user, err := cache.Update(ctx, "ada", func(u User, exists bool) (User, error) {
		u.Visits++
		return u, nil
	})
	if err != nil {
		return err
	}
	fmt.Println(user.Name, "has been here:", user.Visits)

	for range 1000 {
		if _, err := cache.Get(ctx, "ada"); err != nil { // from memory
			return err
		}
	}
	stats := cache.Stats()
	fmt.Printf("loads: %d, hits: %d, commits: %d\n", stats.Loads, stats.Hits, stats.Committed)
	return nil
}
