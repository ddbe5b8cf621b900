package pgstore_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/storetest"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// opened remembers where a store's rows are.
type opened struct {
	*pgstore.Store[string, storetest.Doc]
	db    *pgstore.Database
	table string
}

func TestContract(t *testing.T) {
	for _, c := range []struct {
		name   string
		open   func(t testing.TB, url string) *pgstore.Database
		values codec.Codec[storetest.Doc]
	}{
		{"Pool/json", openPool, codec.JSON[storetest.Doc]()},
		{"Pool/cbor", openPool, codec.CBOR[storetest.Doc]()},
		{"SQL/json", openSQL, codec.JSON[storetest.Doc]()},
		{"SQL/cbor", openSQL, codec.CBOR[storetest.Doc]()},
		// The caller's pool may be set to another of pgx's ways to run a statement; these
		// two differ most from its default.
		{"Exec/json", openMode(pgx.QueryExecModeExec), codec.JSON[storetest.Doc]()},
		{"Simple/cbor", openMode(pgx.QueryExecModeSimpleProtocol), codec.CBOR[storetest.Doc]()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			contract(t, c.open, c.values)
		})
	}
}

func contract(t *testing.T, openDatabase func(t testing.TB, url string) *pgstore.Database, c codec.Codec[storetest.Doc]) {
	in := func(t testing.TB, db *pgstore.Database, table string) storetest.Store {
		s, err := pgstore.OpenIn[string, storetest.Doc](t.Context(), db, pgstore.Options{Table: table, Codec: c})
		if err != nil {
			t.Fatal(err)
		}
		return opened{s, db, table}
	}
	url := dbtest.Postgres(t)
	tables := 0
	table := func() string { tables++; return fmt.Sprint("docs", tables) }
	open := func(t testing.TB) storetest.Store { return in(t, openDatabase(t, url), table()) }
	storetest.Run(t, storetest.Harness{
		Open: open,
		Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
			o := old.(opened)
			if err := o.db.Close(); err != nil {
				t.Fatal(err)
			}
			return in(t, openDatabase(t, url), o.table)
		},
		OpenTwo: func(t testing.TB) (a, b storetest.Store) {
			db := openDatabase(t, url)
			return in(t, db, table()), in(t, db, table())
		},
		// It loses replies of its own accord, whatever the server does.
		OpenUnreliable: func(t testing.TB) storetest.Store {
			return storetest.Inject(open(t), fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
		},
		// A table of our own refuses nothing: of several writes of one row in a batch it
		// sees the last.
		Lacks: []storetest.Feature{storetest.Refusals},
	})
}

func openPool(t testing.TB, url string) *pgstore.Database {
	t.Helper()
	return openDatabase(t, newPool(t, url))
}

func openMode(mode pgx.QueryExecMode) func(t testing.TB, url string) *pgstore.Database {
	return func(t testing.TB, url string) *pgstore.Database {
		t.Helper()
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		config.ConnConfig.DefaultQueryExecMode = mode
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return openDatabase(t, pool)
	}
}

func openDatabase(t testing.TB, pool *pgxpool.Pool) *pgstore.Database {
	t.Helper()
	db, err := pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func newPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func openSQL(t testing.TB, url string) *pgstore.Database {
	t.Helper()
	sqlDB, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	sqlDB.SetMaxOpenConns(8)
	sqlDB.SetMaxIdleConns(8)
	t.Cleanup(func() { sqlDB.Close() })
	db, err := pgstore.OpenDatabaseSQL(t.Context(), sqlDB, pgstore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func execute(t testing.TB, url, query string, args ...any) {
	t.Helper()
	pool := newPool(t, url)
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
