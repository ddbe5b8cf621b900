package main

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbserver"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// opener opens a store over a new database, whose files are somewhere below dir, and leaves
// in e what is to be done at the end.
type opener func(ctx context.Context, e *ending, raw codec.Any) (store lockstep.Store[string, []byte], dir string, err error)

var stores = map[string]opener{"sqlite": openSQLite, "postgres": openPostgres, "mariadb": openMariaDB}

func storeNames() []string { return slices.Sorted(maps.Keys(stores)) }

// open opens a store of that kind. Its values are written as they are.
func (o opener) open(ctx context.Context) (store lockstep.Store[string, []byte], dir string, end func() error, err error) {
	raw, err := codec.Raw[[]byte]()
	if err != nil {
		return nil, "", nil, err
	}
	var e ending
	if store, dir, err = o(ctx, &e, raw); err != nil {
		return nil, "", nil, errors.Join(err, e.end())
	}
	return store, dir, e.end, nil
}

// ending collects what is to be done at the end, the last first.
type ending []func() error

func (e *ending) add(f func() error) { *e = append(*e, f) }

func (e *ending) end() error {
	var errs []error
	for _, f := range slices.Backward(*e) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func openSQLite(ctx context.Context, e *ending, raw codec.Any) (lockstep.Store[string, []byte], string, error) {
	dir, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "soak-")
	if err != nil {
		return nil, "", err
	}
	e.add(func() error { return os.RemoveAll(dir) })
	store, err := sqlitestore.Open[string, []byte](ctx, filepath.Join(dir, "soak.db"), sqlitestore.Options{Codec: raw})
	if err != nil {
		return nil, "", err
	}
	e.add(store.Close)
	return store, dir, nil
}

// start starts a server, which has the memory that it has in the benchmarks.
func start(ctx context.Context, e *ending, k dbserver.Kind, memory string) (url string, err error) {
	server, err := dbserver.Start(ctx, k, memory)
	if err != nil {
		return "", err
	}
	e.add(server.Close)
	return server.URL(), nil
}

func openPostgres(ctx context.Context, e *ending, raw codec.Any) (lockstep.Store[string, []byte], string, error) {
	url, err := start(ctx, e, dbserver.PostgreSQL(), "shared_buffers=512MB")
	if err != nil {
		return nil, "", err
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, "", err
	}
	e.add(func() error { pool.Close(); return nil })
	store, err := pgstore.Open[string, []byte](ctx, pool, pgstore.Options{Codec: raw})
	if err != nil {
		return nil, "", err
	}
	e.add(store.Close)
	return store, os.TempDir(), nil
}

func openMariaDB(ctx context.Context, e *ending, raw codec.Any) (lockstep.Store[string, []byte], string, error) {
	url, err := start(ctx, e, dbserver.MariaDB(), "--innodb-buffer-pool-size=512M")
	if err != nil {
		return nil, "", err
	}
	pool, err := sql.Open("mysql", url)
	if err != nil {
		return nil, "", err
	}
	e.add(pool.Close)
	store, err := mysqlstore.Open[string, []byte](ctx, pool, mysqlstore.Options{Codec: raw})
	if err != nil {
		return nil, "", err
	}
	e.add(store.Close)
	return store, os.TempDir(), nil
}
