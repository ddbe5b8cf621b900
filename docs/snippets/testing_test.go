package snippets

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func testUsers(t *testing.T) *lockstep.Cache[string, User] {
	users, err := lockstep.New(memstore.New(memstore.Options[string, User]{}), lockstep.Options[string, User]{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { users.Close(context.Background()) })
	return users
}

func TestWithMemstore(t *testing.T) {
	users := testUsers(t)
	_, err := visited(t.Context(), users, "ada")
	check(t, err)
}

func TestTheSignUpWhoseReplyIsLost(t *testing.T) {
	store := fault.Inject(memstore.New(memstore.Options[string, User]{}), fault.MustParse(`
		commit 1: lose reply        # it is committed, and nobody is told
	`), 1)
	users, err := lockstep.New(store, lockstep.Options[string, User]{})
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close(t.Context())

	if err := save(t.Context(), users, "ada", User{Name: "Ada"}); err != nil { // the function under test
		t.Errorf("it was committed, and this was said of it: %v", err)
	}
}

func TestGreetingWhileTheDatabaseIsAway(t *testing.T) {
	store := fault.Inject(memstore.New(memstore.Options[string, User]{}), fault.MustParse("load *: fail"), 1)
	users, err := lockstep.New(store, lockstep.Options[string, User]{})
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close(t.Context())

	if _, err := greet(t.Context(), users, "ada"); !errors.Is(err, lockstep.ErrUnavailable) {
		t.Errorf("err is %v", err)
	}
	store.Play(fault.Script{}) // the database is back
	if _, err := greet(t.Context(), users, "ada"); err != nil {
		t.Error(err)
	}
}

func TestTheSessionThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sessions := testUsers(t)
		if _, err := sessions.Set(t.Context(), "token", User{Name: "Ada"}, lockstep.Lifetime(30*time.Minute)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute) // takes no time in the bubble
		if _, err := sessions.Get(t.Context(), "token"); !errors.Is(err, lockstep.ErrNotFound) {
			t.Errorf("err is %v", err)
		}
	})
}

func TestTheReaderBesideTheWriter(t *testing.T) {
	ctx := t.Context()
	store := fault.Inject(memstore.New(memstore.Options[string, User]{}), fault.Script{}, 1)
	users, err := lockstep.New(store, lockstep.Options[string, User]{})
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close(ctx)

	block := store.Block(fault.AfterLoad, "ada")
	defer block.Pass()
	read := make(chan error)
	go func() { _, err := users.Get(ctx, "ada"); read <- err }()
	<-block.Reached // the reader has been told by the database that there is no ada, and memory does not know it yet
	if _, err := users.Set(ctx, "ada", User{Name: "Ada"}); err != nil {
		t.Fatal(err)
	}
	block.Pass()
	<-read
	if _, err := users.Get(ctx, "ada"); err != nil {
		t.Errorf("what the reader has brought late is in memory: %v", err)
	}
}

// Compiled only: it takes seconds, and store/memstore has it among its tests.
var _ = testContract

func testContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open: func(t testing.TB) storetest.Store {
			return memstore.New(memstore.Options[string, storetest.Doc]{}) // a store of your own
		},
		OpenTwo: func(t testing.TB) (a, b storetest.Store) {
			db := memstore.NewDatabase()
			return memstore.New(memstore.Options[string, storetest.Doc]{Database: db}), memstore.New(memstore.Options[string, storetest.Doc]{Database: db})
		},
		Lacks: []storetest.Feature{storetest.Inserts, storetest.Restart, storetest.UnknownOutcomes, storetest.Refusals},
	})
}
