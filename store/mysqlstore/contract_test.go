package mysqlstore_test

import (
	"database/sql"
	"testing"

	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestContractKeyValue(t *testing.T) {
	for _, c := range []codec.Codec[storetest.Doc]{codec.JSON[storetest.Doc](), codec.CBOR[storetest.Doc]()} {
		t.Run(c.Name(), func(t *testing.T) {
			contract(t, c, func(t testing.TB) string { return dbtest.MariaDB(t) })
		})
	}
}

// contract runs the suite on empty databases, whose DSNs newDSN returns.
func contract(t *testing.T, c codec.Codec[storetest.Doc], newDSN func(t testing.TB) string) {
	pools := map[storetest.Store]*sql.DB{}
	open := func(t testing.TB, pool *sql.DB, table string) storetest.Store {
		s, err := mysqlstore.Open[string, storetest.Doc](t.Context(), pool, mysqlstore.Options{Table: table, Codec: c})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		pools[s] = pool
		return s
	}
	storetest.Run(t, storetest.Harness{
		Open: func(t testing.TB) storetest.Store { return open(t, connect(t, newDSN(t)), "") },
		Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
			s := old.(*mysqlstore.Store[string, storetest.Doc])
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, pools[old], "")
		},
		OpenTwo: func(t testing.TB) (a, b storetest.Store) {
			db := openDatabase(t, newDSN(t))
			in := func(table string) storetest.Store {
				s, err := mysqlstore.OpenIn[string, storetest.Doc](t.Context(), db, mysqlstore.Options{Table: table, Codec: c})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			return in("a"), in("b")
		},
		OpenUnreliable: func(t testing.TB) storetest.Store {
			return storetest.Inject(open(t, connect(t, newDSN(t)), ""),
				fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
		},
		Lacks: []storetest.Feature{storetest.Refusals},
	})
}

// connect returns a pool that is closed when the test ends.
func connect(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

func openDatabase(t testing.TB, dsn string) *mysqlstore.Database {
	t.Helper()
	db, err := mysqlstore.OpenDatabase(t.Context(), connect(t, dsn), mysqlstore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
