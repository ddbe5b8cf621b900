package snippets

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

func greet(ctx context.Context, users *lockstep.Cache[string, User], id string) (string, error) {
	user, err := users.Get(ctx, id)
	switch {
	case errors.Is(err, lockstep.ErrNotFound):
		return "who are you?", nil // there is no such row, which is an answer
	case err != nil:
		return "", err // the database could not be asked, or ctx ended first
	}
	return "hello " + user.Name, nil
}

func visitsOf(ctx context.Context, users *lockstep.Cache[string, User], ids []string) (int, error) {
	found, err := users.GetMany(ctx, ids)
	if err != nil {
		return 0, err // found has those that could be read all the same
	}
	sum := 0
	for _, user := range found { // ids without a row are not in it
		sum += user.Visits
	}
	return sum, nil
}

func greetInTime(ctx context.Context, users *lockstep.Cache[string, User], id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	return greet(ctx, users, id)
}

func names(ctx context.Context, users *lockstep.Cache[string, User]) (names []string, err error) {
	for entry, err := range users.Scan(ctx) {
		if err != nil {
			return nil, err
		}
		names = append(names, entry.Value.Name)
	}
	return names, nil
}

func printAll(ctx context.Context, users *lockstep.Cache[string, User]) error {
	var cursor any
	for {
		page, err := users.ScanPage(ctx, cursor, 100)
		if err != nil {
			return err
		}
		for i, id := range page.Keys {
			fmt.Println(id, page.Rows[i].Value.Name)
		}
		if page.Next == nil {
			return nil
		}
		cursor = page.Next // a page may be empty and have a Next
	}
}

func TestReads(t *testing.T) {
	ctx := t.Context()
	users := cached(t, database(t), "users", lockstep.Options[string, User]{TTL: time.Hour})
	check(t, users.SetMany(ctx, map[string]User{"ada": {Name: "Ada", Visits: 1}, "bob": {Name: "Bob", Visits: 2}}))

	for id, want := range map[string]string{"ada": "hello Ada", "nobody": "who are you?"} {
		got, err := greet(ctx, users, id)
		check(t, err)
		equal(t, got, want)
		got, err = greetInTime(ctx, users, id)
		check(t, err)
		equal(t, got, want)
	}
	sum, err := visitsOf(ctx, users, []string{"ada", "bob", "nobody"})
	check(t, err)
	equal(t, sum, 3)
	all, err := names(ctx, users)
	check(t, err)
	equal(t, strings.Join(all, " "), "Ada Bob")
	check(t, printAll(ctx, users))

	check(t, entryAndPeek(ctx, users))
	check(t, warmed(ctx, users))

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := greet(ended, users, "somebody else"); !errors.Is(err, context.Canceled) {
		t.Errorf("a miss whose context has ended: %v", err)
	}
	_, err = greet(ended, users, "ada")
	check(t, err) // a hit does not look at it
}

func entryAndPeek(ctx context.Context, users *lockstep.Cache[string, User]) error {
	entry, err := users.GetEntry(ctx, "ada")
	if err != nil {
		return err
	}
	fmt.Println(entry.Value.Name, "version", entry.Version)
	fmt.Println("in memory since", entry.CreatedAt, "and for", entry.TTL, "more")

	if user, ok := users.Peek("ada"); ok { // no I/O, not counted; false also for an absent row
		fmt.Println(user.Name)
	}
	exists, err := users.Exists(ctx, "ada") // costs what Get costs
	if err == nil && !exists {
		return errors.New("ada is not there")
	}
	return err
}

func warmed(ctx context.Context, users *lockstep.Cache[string, User]) error {
	n, err := users.Warm(ctx, lockstep.WarmOptions{
		Progress: func(rows int) { log.Println(rows, "rows in memory") },
	})
	if err == nil && n != 2 {
		return fmt.Errorf("%d rows", n)
	}
	return err
}

func TestLoadFunction(t *testing.T) {
	ctx := t.Context()
	calls := 0
	lookup := func(_ context.Context, host string) (string, error) {
		calls++
		if host == "localhost" {
			return "127.0.0.1", nil
		}
		return "", lockstep.ErrNotFound
	}

	addresses, err := lockstep.New(lockstep.FromFunc(lookup), lockstep.Options[string, string]{TTL: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer addresses.Close(ctx)
	address, err := addresses.Get(ctx, "localhost") // lookup is called once a minute at most, however many ask
	check(t, err)
	equal(t, address, "127.0.0.1")
	for range 2 {
		_, err = addresses.Get(ctx, "elsewhere")
		equal(t, errors.Is(err, lockstep.ErrNotFound), true)
	}
	equal(t, calls, 2)
	_, err = addresses.Set(ctx, "localhost", "::1")
	equal(t, errors.Is(err, lockstep.ErrUnsupported), true)
}
