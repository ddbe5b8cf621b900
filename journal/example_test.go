package journal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/journal"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// A counter in a file of SQLite's, which is written behind: acknowledged when the journal
// has it.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	db, err := sqlitestore.OpenDatabase(ctx, filepath.Join(dir, "app.db"), sqlitestore.DatabaseOptions{})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	counters, err := sqlitestore.OpenIn[string, int](ctx, db, sqlitestore.Options{Table: "counters"})
	if err != nil {
		panic(err)
	}
	positions, err := sqlitestore.OpenIn[string, int64](ctx, db, sqlitestore.Options{Table: "journal_positions"})
	if err != nil {
		panic(err)
	}

	kept, err := journal.Open(ctx, filepath.Join(dir, "journal"), journal.Options[string, int]{Positions: positions})
	if err != nil {
		panic(err)
	}
	defer kept.Close()
	cache, err := lockstep.New(counters, lockstep.Options[string, int]{
		Mode:   lockstep.WriteBehind,
		Behind: lockstep.Behind[string, int]{Journal: kept},
	})
	if err != nil {
		panic(err)
	}
	for n := range 100 {
		if _, err := cache.Set(ctx, "visits", n+1); err != nil { // on the disk
			panic(err)
		}
	}
	if err := cache.Close(ctx); err != nil { // in the database
		panic(err)
	}
	rows, err := counters.Load(ctx, []string{"visits"})
	fmt.Println(rows["visits"].Value, err)
	// Output: 100 <nil>
}
