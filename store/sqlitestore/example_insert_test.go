package sqlitestore_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// A row whose key the database gives.
func ExampleTable_insert() {
	ctx := context.Background()
	path, remove := bank()
	defer remove()

	db, err := sqlitestore.OpenDatabase(ctx, path, sqlitestore.DatabaseOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	table, err := sqlitestore.NewTable[int64, Account](ctx, db, "accounts", sqlitestore.TableOptions{})
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := lockstep.New(table, lockstep.Options[int64, Account]{})
	if err != nil {
		log.Fatal(err)
	}
	defer accounts.Close(ctx)

	_, err = accounts.Get(ctx, 3)
	fmt.Println(errors.Is(err, lockstep.ErrNotFound))

	id, _, err := accounts.Insert(ctx, Account{Owner: "eve", Balance: 5})
	if err != nil {
		log.Fatal(err) // a *WriteError: not applied, or unknown
	}
	eve, err := accounts.Get(ctx, id) // from memory
	fmt.Println(id, eve.Owner, err)

	_, _, err = accounts.Insert(ctx, Account{Owner: "mallory", Balance: -5})
	fmt.Println(errors.Is(err, lockstep.ErrInvalid)) // CHECK (balance >= 0)

	// Output:
	// true
	// 3 eve <nil>
	// true
}
