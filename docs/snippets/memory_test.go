package snippets

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

type Photo struct {
	Title string
	JPEG  []byte
}

var photoOptions = lockstep.Options[string, Photo]{
	MaxBytes: 256 << 20,
	Weigher: func(id string, p Photo) uint32 {
		return uint32(len(id) + len(p.Title) + len(p.JPEG) + 200) // 200: for the entry itself; measure yours
	},
}

func nameOf(ctx context.Context, users *lockstep.Cache[string, User], id string) (name string, asOf time.Time, err error) {
	entry, err := users.GetEntry(ctx, id)
	if err != nil {
		return "", time.Time{}, err
	}
	if entry.Stale {
		log.Println("the database is away; this is what it held when it was last asked")
	}
	return entry.Value.Name, entry.CreatedAt, nil
}

type Settings struct {
	Theme  string
	Colors map[string]string
}

var settingsOptions = lockstep.Options[string, Settings]{
	Clone: func(s Settings) Settings {
		s.Colors = maps.Clone(s.Colors)
		return s
	},
}

func TestBytes(t *testing.T) {
	ctx := t.Context()
	photos := open(t, memstore.New(memstore.Options[string, Photo]{}), photoOptions)
	_, err := photos.Set(ctx, "cat", Photo{Title: "a cat", JPEG: make([]byte, 1000)})
	check(t, err)
	equal(t, photos.Stats().Maximum, 256<<20)
}

func TestClone(t *testing.T) {
	ctx := t.Context()
	settings := open(t, memstore.New(memstore.Options[string, Settings]{}), settingsOptions)
	_, err := settings.Set(ctx, "ada", Settings{Colors: map[string]string{"sky": "blue"}})
	check(t, err)
	mine, err := settings.Get(ctx, "ada")
	check(t, err)
	mine.Colors["sky"] = "grey"
	theirs, err := settings.Get(ctx, "ada")
	check(t, err)
	equal(t, theirs.Colors["sky"], "blue")
}

func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		sessions := open(t, memstore.New(memstore.Options[string, User]{}), lockstep.Options[string, User]{})
		user := User{Name: "Ada"}
		check(t, signIn(ctx, sessions, user))

		time.Sleep(29 * time.Minute)
		_, err := sessions.Get(ctx, "token")
		check(t, err)
		check(t, seen(ctx, sessions))
		time.Sleep(29 * time.Minute)
		_, err = sessions.Get(ctx, "token")
		check(t, err)
		time.Sleep(time.Minute)
		_, err = sessions.Get(ctx, "token")
		equal(t, errors.Is(err, lockstep.ErrNotFound), true)
	})
}

func signIn(ctx context.Context, sessions *lockstep.Cache[string, User], user User) error {
	_, err := sessions.Set(ctx, "token", user, lockstep.Lifetime(30*time.Minute))
	return err
}

func seen(ctx context.Context, sessions *lockstep.Cache[string, User]) error {
	_, err := sessions.Update(ctx, "token", func(user User, exists bool) (User, error) {
		if !exists {
			return user, lockstep.ErrNotFound // it was over already
		}
		user.Visits++
		return user, nil
	}, lockstep.Lifetime(30*time.Minute)) // from now on; without it, the end stays as it was
	return err
}

func TestStaleIfError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := fault.Inject(memstore.New(memstore.Options[string, User]{}), fault.MustParse("load 1..: fail"), 1)
		users, err := lockstep.New(store, lockstep.Options[string, User]{
			TTL:          time.Minute,
			StaleIfError: time.Hour,
		})
		check(t, err)
		defer users.Close(ctx)
		_, err = users.Set(ctx, "ada", User{Name: "Ada"})
		check(t, err)
		time.Sleep(2 * time.Minute)
		name, asOf, err := nameOf(ctx, users, "ada")
		check(t, err)
		equal(t, name, "Ada")
		equal(t, time.Since(asOf).Round(time.Minute), 2*time.Minute)
		_, err = users.Get(ctx, "ada")
		equal(t, errors.Is(err, lockstep.ErrUnavailable), true)
		time.Sleep(time.Hour)
		_, _, err = nameOf(ctx, users, "ada")
		equal(t, errors.Is(err, lockstep.ErrUnavailable), true)
	})
}

func TestRefreshAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := fault.Inject(memstore.New(memstore.Options[string, User]{}), fault.Script{}, 1)
		users, err := lockstep.New(store, lockstep.Options[string, User]{
			TTL:          time.Minute,
			RefreshAhead: 10 * time.Second,
		})
		check(t, err)
		defer users.Close(ctx)
		_, err = users.Set(ctx, "ada", User{Name: "Ada"})
		check(t, err)
		for range 10 {
			time.Sleep(55 * time.Second)
			_, err = users.Get(ctx, "ada")
			check(t, err)
			synctest.Wait()
		}
		equal(t, users.Stats().Misses, 0)
		equal(t, store.Counts().Loads, 10)
	})
}

func TestTTLOfOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		users := open(t, memstore.New(memstore.Options[string, User]{}), lockstep.Options[string, User]{TTL: time.Hour})
		check(t, brief(ctx, users))
		time.Sleep(time.Minute)
		_, ok := users.Peek("guest")
		equal(t, ok, false)
		_, err := users.Get(ctx, "guest") // the row is there
		check(t, err)
	})
}

func brief(ctx context.Context, users *lockstep.Cache[string, User]) error {
	_, err := users.Set(ctx, "guest", User{Name: "Guest"}, lockstep.TTL(10*time.Second))
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	return nil
}
