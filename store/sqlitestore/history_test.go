package sqlitestore_test

import (
	"fmt"
	"testing"

	"github.com/lockstep-cache/lockstep/store/internal/histories"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

var historyHarness = histories.Harness{
	Calls: 400,
	Place: func(t testing.TB, tables int) string { return fmt.Sprint(tables, " ", newFile(t)) },
	Connect: func(t testing.TB, place string) (stores []histories.Store) {
		var tables int
		var path string
		if _, err := fmt.Sscan(place, &tables, &path); err != nil {
			t.Fatal(err)
		}
		db := openDatabase(t, path)
		for i := range tables {
			s, err := sqlitestore.OpenIn[int, int64](t.Context(), db, sqlitestore.Options{Table: fmt.Sprint("rows", i)})
			if err != nil {
				t.Fatal(err)
			}
			stores = append(stores, s)
		}
		return stores
	},
}

func TestHistories(t *testing.T) { historyHarness.Run(t, 4) }

func TestHistoriesOfTwoPrograms(t *testing.T) { historyHarness.RunShared(t, 4) }

func TestHistoriesOfTwoProcesses(t *testing.T) { historyHarness.RunProcesses(t, 3) }
