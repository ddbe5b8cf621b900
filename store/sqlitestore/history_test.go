package sqlitestore_test

import (
	"fmt"
	"testing"

	"github.com/lockstep-cache/lockstep/store/internal/histories"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

var historyHarness = histories.Harness{
	Calls: 400,
	Open: func(t testing.TB, tables int) func(t testing.TB) []histories.Store {
		path := newFile(t)
		return func(t testing.TB) (stores []histories.Store) {
			db := openDatabase(t, path)
			for i := range tables {
				s, err := sqlitestore.OpenIn[int, int64](t.Context(), db, sqlitestore.Options{Table: fmt.Sprint("rows", i)})
				if err != nil {
					t.Fatal(err)
				}
				stores = append(stores, s)
			}
			return stores
		}
	},
}

func TestHistories(t *testing.T) { historyHarness.Run(t, 4) }

func TestHistoriesOfTwoPrograms(t *testing.T) { historyHarness.RunShared(t, 4) }
