package sqlitestore_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// A transaction that code of the program's begins by itself, without knowing of any
// cache, takes a write through one.
func ExampleJoin() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "shop.db")
	store, err := sqlitestore.Open[string, int](ctx, path, sqlitestore.Options{Table: "stock"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	stock, _ := lockstep.New(store, lockstep.Options[string, int]{})
	defer stock.Close(ctx)
	stock.Set(ctx, "lamp", 3)

	program, _ := sql.Open("sqlite", path+"?_txlock=immediate")
	defer program.Close()
	program.Exec("CREATE TABLE orders (item TEXT)")

	order := func(item string) error {
		tx, err := program.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		j, err := sqlitestore.Join(ctx, store.Database(), tx)
		if err != nil {
			tx.Rollback()
			return err
		}
		defer j.Rollback(ctx) // of no effect after Commit
		s, err := stock.InJoined(j)
		if err != nil {
			return err
		}
		left, err := s.GetEntry(ctx, item)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?)", item); err != nil {
			return err
		}
		if _, err := s.Set(ctx, item, left.Value-1, lockstep.IfVersion(left.Version)); err != nil {
			return err
		}
		return j.Commit(ctx) // instead of tx.Commit
	}
	fmt.Println(order("lamp"))
	left, _ := stock.Get(ctx, "lamp")
	var orders int
	program.QueryRow("SELECT count(*) FROM orders").Scan(&orders)
	fmt.Println(left, orders)
	// Output:
	// <nil>
	// 2 1
}
