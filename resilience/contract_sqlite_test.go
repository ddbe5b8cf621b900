package resilience_test

import (
	"path/filepath"
	"testing"

	"github.com/lockstep-cache/lockstep/store/sqlitestore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// All the parts together, around a database with files and locks.
func TestContractOnSQLite(t *testing.T) {
	protected := func(t testing.TB, inner storetest.Store) storetest.Store {
		store, err := protecting(inner)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	open := func(t testing.TB, db *sqlitestore.Database, table string) storetest.Store {
		s, err := sqlitestore.OpenIn[string, storetest.Doc](t.Context(), db, sqlitestore.Options{Table: table})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	// No test here loses its power, and a sync for each commit is most of the time.
	file := func(t testing.TB) *sqlitestore.Database {
		db, err := sqlitestore.OpenDatabase(t.Context(), filepath.Join(t.TempDir(), "app.db"), sqlitestore.DatabaseOptions{AllowUnsafeDurability: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		return db
	}
	storetest.Run(t, storetest.Harness{
		Open: func(t testing.TB) storetest.Store { return protected(t, open(t, file(t), "docs")) },
		OpenTwo: func(t testing.TB) (a, b storetest.Store) {
			db := file(t)
			return protected(t, open(t, db, "a")), protected(t, open(t, db, "b"))
		},
		OpenUnreliable: func(t testing.TB) storetest.Store {
			return protected(t, storetest.Inject(open(t, file(t), "docs"),
				fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1))
		},
		Lacks: []storetest.Feature{storetest.Restart, storetest.Refusals, storetest.Inserts},
	})
}
