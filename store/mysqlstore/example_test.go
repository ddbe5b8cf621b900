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
