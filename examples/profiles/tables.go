package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// Tables are the service's. No other file knows what kind of database they are in.
type Tables struct {
	profiles    lockstep.Store[string, Profile]
	preferences lockstep.Store[string, Preferences]
	security    lockstep.Store[string, Security]
	signIns     lockstep.Store[string, SignIn]

	close func() error
}

// The tables' names, on every database.
const (
	profilesTable    = "profiles_profiles"
	preferencesTable = "profiles_preferences"
	securityTable    = "profiles_security"
	signInsTable     = "profiles_sign_ins"
)

// OpenTables opens the database of a postgres:// URL, or else a SQLite file, and makes
// what is missing. All stores are of one database handle, so that their caches share
// transactions.
func OpenTables(ctx context.Context, store string) (*Tables, error) {
	switch scheme, _, isURL := strings.Cut(store, "://"); {
	case !isURL:
		return openSQLite(ctx, store)
	case scheme == "postgres" || scheme == "postgresql":
		return openPostgres(ctx, store)
	default:
		return nil, fmt.Errorf("%s:// is no database of this program: -store takes a file or a postgres:// URL", scheme)
	}
}

func openSQLite(ctx context.Context, path string) (*Tables, error) {
	db, err := sqlitestore.OpenDatabase(ctx, path, sqlitestore.DatabaseOptions{})
	if err != nil {
		return nil, err
	}
	t := &Tables{close: db.Close}
	err = errors.Join(
		sqliteTable(ctx, db, profilesTable, &t.profiles),
		sqliteTable(ctx, db, preferencesTable, &t.preferences),
		sqliteTable(ctx, db, securityTable, &t.security),
		sqliteTable(ctx, db, signInsTable, &t.signIns),
	)
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func sqliteTable[V any](ctx context.Context, db *sqlitestore.Database, name string, into *lockstep.Store[string, V]) error {
	store, err := sqlitestore.OpenIn[string, V](ctx, db, sqlitestore.Options{Table: name})
	if err != nil {
		return fmt.Errorf("table %s: %w", name, err)
	}
	*into = store
	return nil
}

func openPostgres(ctx context.Context, url string) (*Tables, error) {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, err
	}
	db, err := pgstore.OpenDatabase(ctx, pool, pgstore.DatabaseOptions{})
	if err != nil {
		pool.Close()
		return nil, err
	}
	t := &Tables{close: func() error { err := db.Close(); pool.Close(); return err }}
	err = errors.Join(
		postgresTable(ctx, db, profilesTable, &t.profiles),
		postgresTable(ctx, db, preferencesTable, &t.preferences),
		postgresTable(ctx, db, securityTable, &t.security),
		postgresTable(ctx, db, signInsTable, &t.signIns),
	)
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func postgresTable[V any](ctx context.Context, db *pgstore.Database, name string, into *lockstep.Store[string, V]) error {
	store, err := pgstore.OpenIn[string, V](ctx, db, pgstore.Options{Table: name})
	if err != nil {
		return fmt.Errorf("table %s: %w", name, err)
	}
	*into = store
	return nil
}

// Close closes the tables. The service over them is closed before.
func (t *Tables) Close() error { return t.close() }
