package mysqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	_ "github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// A cache over a table of its own. The *sql.DB stays the program's.
func Example() {
	ctx := context.Background()
	pool, err := sql.Open("mysql", "app:secret@tcp(127.0.0.1:3306)/app")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	store, err := mysqlstore.Open[string, int](ctx, pool, mysqlstore.Options{Table: "visits"})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	visits, err := lockstep.New(store, lockstep.Options[string, int]{})
	if err != nil {
		log.Fatal(err)
	}
	defer visits.Close(ctx)
	n, err := visits.Update(ctx, "/", func(old int, _ bool) (int, error) { return old + 1, nil })
	fmt.Println(n, err)
}

// A transaction that code of the program's begins by itself takes a write through a cache.
func ExampleJoin() {
	ctx := context.Background()
	pool, err := sql.Open("mysql", "app:secret@tcp(127.0.0.1:3306)/app")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	store, err := mysqlstore.Open[string, int](ctx, pool, mysqlstore.Options{Table: "stock"})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	stock, err := lockstep.New(store, lockstep.Options[string, int]{})
	if err != nil {
		log.Fatal(err)
	}
	defer stock.Close(ctx)

	order := func(item string) error {
		tx, err := pool.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		if err != nil {
			return err
		}
		j, err := mysqlstore.Join(ctx, store.Database(), tx)
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
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (item) VALUES (?)", item); err != nil {
			return err
		}
		if _, err := s.Set(ctx, item, left.Value-1, lockstep.IfVersion(left.Version)); err != nil {
			return err
		}
		return j.Commit(ctx) // instead of tx.Commit
	}
	if err := order("lamp"); err != nil {
		log.Print(err)
	}
}
