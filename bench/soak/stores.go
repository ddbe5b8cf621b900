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

// open opens a store over a new database, whose files are somewhere below dir.
type open func(ctx context.Context) (store lockstep.Store[string, []byte], dir string, end func() error, err error)

var stores = map[string]open{"sqlite": openSQLite, "postgres": openPostgres, "mariadb": openMariaDB}

func storeNames() []string { return slices.Sorted(maps.Keys(stores)) }

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

func openSQLite(ctx context.Context) (_ lockstep.Store[string, []byte], dir string, _ func() error, err error) {
	var e ending
	defer func() {
		if err != nil {
			err = errors.Join(err, e.end())
		}
	}()
	raw, err := codec.Raw[[]byte]()
	if err != nil {
		return nil, "", nil, err
	}
	if dir, err = os.MkdirTemp(os.Getenv("BENCH_DIR"), "soak-"); err != nil {
		return nil, "", nil, err
	}
	e.add(func() error { return os.RemoveAll(dir) })
	store, err := sqlitestore.Open[string, []byte](ctx, filepath.Join(dir, "soak.db"), sqlitestore.Options{Codec: raw})
	if err != nil {
		return nil, "", nil, err
	}
	e.add(store.Close)
	return store, dir, e.end, nil
}

// A server has the memory that it has in the benchmarks.
func openPostgres(ctx context.Context) (_ lockstep.Store[string, []byte], dir string, _ func() error, err error) {
	var e ending
	defer func() {
		if err != nil {
			err = errors.Join(err, e.end())
		}
	}()
	raw, err := codec.Raw[[]byte]()
	if err != nil {
		return nil, "", nil, err
	}
	server, err := dbserver.Start(ctx, dbserver.PostgreSQL(), "shared_buffers=512MB")
	if err != nil {
		return nil, "", nil, err
	}
	e.add(server.Close)
	pool, err := pgxpool.New(ctx, server.URL())
	if err != nil {
		return nil, "", nil, err
	}
	e.add(func() error { pool.Close(); return nil })
	store, err := pgstore.Open[string, []byte](ctx, pool, pgstore.Options{Codec: raw})
	if err != nil {
		return nil, "", nil, err
	}
	e.add(store.Close)
	return store, os.TempDir(), e.end, nil
}

func openMariaDB(ctx context.Context) (_ lockstep.Store[string, []byte], dir string, _ func() error, err error) {
	var e ending
	defer func() {
		if err != nil {
			err = errors.Join(err, e.end())
		}
	}()
	raw, err := codec.Raw[[]byte]()
	if err != nil {
		return nil, "", nil, err
	}
	server, err := dbserver.Start(ctx, dbserver.MariaDB(), "--innodb-buffer-pool-size=512M")
	if err != nil {
		return nil, "", nil, err
	}
	e.add(server.Close)
	pool, err := sql.Open("mysql", server.URL())
	if err != nil {
		return nil, "", nil, err
	}
	e.add(pool.Close)
	store, err := mysqlstore.Open[string, []byte](ctx, pool, mysqlstore.Options{Codec: raw})
	if err != nil {
		return nil, "", nil, err
	}
	e.add(store.Close)
	return store, os.TempDir(), e.end, nil
}
