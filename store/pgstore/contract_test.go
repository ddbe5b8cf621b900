package pgstore_test

import (
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
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
	url := dbtest.Postgres(t)
	for _, c := range []struct {
		name   string
		open   func(t testing.TB) *pgstore.Database
		values codec.Codec[storetest.Doc]
	}{
		{"Pool/json", overPool(newPool(t, url)), codec.JSON[storetest.Doc]()},
		{"SQL/cbor", overSQL(newSQL(t, url)), codec.CBOR[storetest.Doc]()},
		// The caller's pool may be set to another of pgx's ways to run a statement; exec,
		// without which there is no pooler, and simple differ most from its default.
		{"Pooled/json", overPooled(newPool(t, pooledURL(t, url))), codec.JSON[storetest.Doc]()},
		{"Simple/cbor", overPool(newPoolIn(t, url, pgx.QueryExecModeSimpleProtocol)), codec.CBOR[storetest.Doc]()},
	} {
		t.Run(c.name, func(t *testing.T) { contract(t, c.open, c.values, false) })
	}
	t.Run("Watched/json", func(t *testing.T) { contract(t, overPool(newPool(t, url)), codec.JSON[storetest.Doc](), true) })
}

var tables atomic.Int64

func contract(t *testing.T, openDatabase func(t testing.TB) *pgstore.Database, c codec.Codec[storetest.Doc], watched bool) {
	in := func(t testing.TB, db *pgstore.Database, table string) storetest.Store {
		s, err := pgstore.OpenIn[string, storetest.Doc](t.Context(), db, pgstore.Options{Table: table, Codec: c})
		if err == nil && watched && s.Capabilities().Watch == nil {
			install(t, db, table, pgstore.WatchOptions{})
			s, err = pgstore.OpenIn[string, storetest.Doc](t.Context(), db, pgstore.Options{Table: table, Codec: c})
		}
		if err != nil {
			t.Fatal(err)
		}
		return opened{s, db, table}
	}
	table := func() string { return fmt.Sprint("docs", tables.Add(1)) }
	open := func(t testing.TB) storetest.Store { return in(t, openDatabase(t), table()) }
	storetest.Run(t, storetest.Harness{
		Open: open,
		Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
			o := old.(opened)
			if err := o.db.Close(); err != nil {
				t.Fatal(err)
			}
			return in(t, openDatabase(t), o.table)
		},
		OpenTwo: func(t testing.TB) (a, b storetest.Store) {
			db := openDatabase(t)
			return in(t, db, table()), in(t, db, table())
		},
		// It loses replies of its own accord, whatever the server does.
		OpenUnreliable: func(t testing.TB) storetest.Store {
			return storetest.Inject(open(t), fault.MustParse("commit 20%: lose request; commit 25%: lose reply; commit 30%: lose reply, late"), 1)
		},
		// A table of our own refuses nothing: of several writes of one row in a batch it
		// sees the last.
		Lacks: []storetest.Feature{storetest.Refusals, storetest.Inserts},
	})
}

func overPool(pool *pgxpool.Pool) func(t testing.TB) *pgstore.Database {
	return func(t testing.TB) *pgstore.Database {
		t.Helper()
		return mustOpen(t)(pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{}))
	}
}

func overSQL(db *sql.DB) func(t testing.TB) *pgstore.Database {
	return func(t testing.TB) *pgstore.Database {
		t.Helper()
		return mustOpen(t)(pgstore.OpenDatabaseSQL(t.Context(), db, pgstore.DatabaseOptions{}))
	}
}

func mustOpen(t testing.TB) func(db *pgstore.Database, err error) *pgstore.Database {
	return func(db *pgstore.Database, err error) *pgstore.Database {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	}
}

func openPool(t testing.TB, url string) *pgstore.Database {
	t.Helper()
	return overPool(newPool(t, url))(t)
}

func newPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	return newPoolIn(t, url, pgx.QueryExecModeCacheStatement)
}

func newPoolIn(t testing.TB, url string, mode pgx.QueryExecMode) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(url, "default_query_exec_mode") {
		config.ConnConfig.DefaultQueryExecMode = mode
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newSQL(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	// What database/sql keeps idle by itself, two, would be opened and closed all the
	// time.
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
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
