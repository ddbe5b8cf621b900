package snippets

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func rename(ctx context.Context, users *lockstep.Cache[string, User], id, name string) error {
	version, err := users.Set(ctx, id, User{Name: name})
	if err != nil {
		return err
	}
	log.Println(id, "is committed, as version", version)
	return nil
}

func save(ctx context.Context, users *lockstep.Cache[string, User], id string, user User) error {
	_, err := users.Set(ctx, id, user)
	var write *lockstep.WriteError
	if errors.Is(err, lockstep.ErrUnknownOutcome) && errors.As(err, &write) {
		// ctx may be what has ended. The cache finds out in the background in any case.
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		applied, _, waited := write.Wait(wait)
		switch {
		case waited != nil:
			return waited // still not known
		case applied:
			return nil
		}
		return fmt.Errorf("not saved: %w", err)
	}
	return err // nil: committed; else: not applied
}

func edit(ctx context.Context, users *lockstep.Cache[string, User], id string, seen lockstep.Version, user User) error {
	_, err := users.Set(ctx, id, user, lockstep.IfVersion(seen)) // what GetEntry has said when the form was shown
	var conflict *lockstep.ConflictError
	if errors.As(err, &conflict) {
		return fmt.Errorf("somebody else has changed it: it is version %d now, and not %d", conflict.Version, seen)
	}
	return err
}

func register(ctx context.Context, users *lockstep.Cache[string, User], id string, user User) error {
	_, err := users.Set(ctx, id, user, lockstep.IfAbsent())
	if errors.Is(err, lockstep.ErrConflict) {
		return fmt.Errorf("the name %q is taken", id)
	}
	return err
}

func visited(ctx context.Context, users *lockstep.Cache[string, User], id string) (User, error) {
	return users.Update(ctx, id, func(user User, exists bool) (User, error) {
		if !exists {
			user.Name = id
		}
		user.Visits++
		return user, nil
	})
}

var errUnknownUser = errors.New("no such user")

func reset(ctx context.Context, users *lockstep.Cache[string, User], id string) error {
	_, err := users.Update(ctx, id, func(user User, exists bool) (User, error) {
		switch {
		case !exists:
			return user, errUnknownUser // nothing is written, and Update returns this error
		case user.Visits == 0:
			return user, lockstep.Keep // nothing is written, and Update returns nil
		}
		user.Visits = 0
		return user, nil
	})
	return err
}

func TestWrites(t *testing.T) {
	ctx := t.Context()
	users := cached(t, database(t), "users", lockstep.Options[string, User]{})
	check(t, rename(ctx, users, "ada", "Ada"))

	check(t, register(ctx, users, "bob", User{Name: "Bob"}))
	if err := register(ctx, users, "bob", User{Name: "Bobby"}); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Error(err)
	}

	bob, err := users.GetEntry(ctx, "bob")
	check(t, err)
	check(t, edit(ctx, users, "bob", bob.Version, User{Name: "Robert"}))
	if err := edit(ctx, users, "bob", bob.Version, User{Name: "Rob"}); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Error(err)
	}

	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := visited(ctx, users, "eve"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	eve, err := users.Get(ctx, "eve")
	check(t, err)
	equal(t, eve, User{Name: "eve", Visits: 10})
	check(t, reset(ctx, users, "eve"))
	check(t, reset(ctx, users, "eve"))
	equal(t, errors.Is(reset(ctx, users, "nobody"), errUnknownUser), true)

	check(t, several(ctx, users))
	found, err := users.GetMany(ctx, []string{"ada", "bob", "cid"})
	check(t, err)
	equal(t, len(found), 1)
}

func several(ctx context.Context, users *lockstep.Cache[string, User]) error {
	err := users.SetMany(ctx, map[string]User{"ada": {Name: "Ada"}, "cid": {Name: "Cid"}}) // both, or neither
	if err != nil {
		return err
	}
	existed, err := users.Delete(ctx, "bob")
	if err != nil {
		return err
	}
	fmt.Println("there was a bob:", existed) // deleting an absent row is no error
	err = users.DeleteMany(ctx, []string{"cid", "nobody"})
	if !existed {
		return errors.New("there was no bob")
	}
	return err
}

func TestUnknownOutcomes(t *testing.T) {
	ctx := t.Context()
	store := fault.Inject(memstore.New(memstore.Options[string, User]{}), fault.MustParse(`
		commit 1: lose reply
		commit 2: lose request
		commit 3: fail
	`), 1)
	users := open(t, store, lockstep.Options[string, User]{})
	check(t, save(ctx, users, "ada", User{Name: "Ada"}))
	err := save(ctx, users, "ada", User{Name: "Ada L."})
	if err == nil || !strings.HasPrefix(err.Error(), "not saved") {
		t.Error(err)
	}
	ada, err := users.Get(ctx, "ada")
	check(t, err)
	equal(t, ada.Name, "Ada")
	equal(t, errors.Is(save(ctx, users, "ada", User{Name: "Ada L."}), lockstep.ErrUnavailable), true)
}

func TestInsert(t *testing.T) {
	ctx := t.Context()
	db := database(t)
	makeAccounts(t, db)
	check(t, opened(ctx, db))
}

func opened(ctx context.Context, db *sqlitestore.Database) error {
	table, err := sqlitestore.NewTable[int64, Account](ctx, db, "accounts", sqlitestore.TableOptions{})
	if err != nil {
		return err
	}
	accounts, err := lockstep.New(table, lockstep.Options[int64, Account]{})
	if err != nil {
		return err
	}
	defer accounts.Close(ctx)
	id, version, err := accounts.Insert(ctx, Account{Owner: "eve", Balance: 5})
	if err != nil {
		return err
	}
	fmt.Println("account", id, "is open, version", version)
	eve, err := accounts.Get(ctx, id)
	if err == nil && eve.Owner != "eve" {
		return fmt.Errorf("it is %+v", eve)
	}
	return err
}

func TestValidate(t *testing.T) {
	ctx := t.Context()
	store := memstore.New(memstore.Options[string, User]{})
	users, err := lockstep.New(store, lockstep.Options[string, User]{
		Validate: func(id string, user User) error {
			if user.Name == "" {
				return fmt.Errorf("user %q has no name", id)
			}
			return nil
		},
	})
	check(t, err)
	defer users.Close(ctx)
	_, err = users.Set(ctx, "ada", User{})
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), `user "ada" has no name`) {
		t.Error(err)
	}
}
