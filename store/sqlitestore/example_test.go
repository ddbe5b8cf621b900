package sqlitestore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// Account is a row of a table that exists. Its other columns are left alone.
type Account struct {
	Owner   string           `db:"owner"`
	Balance int64            `db:"balance"`
	Version lockstep.Version `db:"version,version"` // kept by the store; what a write has here is ignored
}

// bank makes a file with a table, as another program would have done.
func bank() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "bank")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "bank.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE accounts (
		id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0),
		version INTEGER NOT NULL DEFAULT 0, opened TEXT NOT NULL DEFAULT CURRENT_DATE);
		INSERT INTO accounts (id, owner, balance) VALUES (1, 'ada', 100), (2, 'bob', 20)`); err != nil {
		log.Fatal(err)
	}
	return path, func() { _ = os.RemoveAll(dir) }
}

// A table that exists, and a key-value table of ours beside it in one file: both
// caches take part in one transaction, because their stores share the database.
func ExampleNewTable() {
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
	own, err := sqlitestore.OpenIn[string, string](ctx, db, sqlitestore.Options{Table: "receipts"})
	if err != nil {
		log.Fatal(err)
	}
	receipts, err := lockstep.New(own, lockstep.Options[string, string]{})
	if err != nil {
		log.Fatal(err)
	}
	defer receipts.Close(ctx)

	err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		in := accounts.In(tx)
		for id, amount := range map[int64]int64{1: -30, 2: 30} {
			account, err := in.Get(ctx, id)
			if err != nil {
				return err
			}
			account.Balance += amount
			if err := in.Set(ctx, id, account); err != nil {
				return err
			}
		}
		return receipts.In(tx).Set(ctx, "transfer-1", "ada paid bob 30")
	})
	if err != nil {
		log.Fatal(err)
	}
	ada, err := accounts.Get(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := receipts.Get(ctx, "transfer-1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ada.Owner, ada.Balance, receipt)

	// The table's own rules decide.
	ada.Balance = -1
	_, err = accounts.Set(ctx, 1, ada)
	fmt.Println(err != nil)
	// Output:
	// ada 70 ada paid bob 30
	// true
}
