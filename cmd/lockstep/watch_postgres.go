package main

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

var postgresWatch = watchKind{
	form:    postgresKind.form,
	secret:  "PGPASSWORD",
	schemes: []string{"postgres", "postgresql"},
	open:    openPostgresWatch,
}

type postgresWatched struct {
	pool *pgxpool.Pool
	db   *pgstore.Database
}

func openPostgresWatch(ctx context.Context, url string) (watchedDatabase, error) {
	parsed, err := postgresKind.parse(url)
	if err != nil {
		return nil, usagef("--store: %s", strings.TrimPrefix(err.Error(), lockstep.ErrInvalid.Error()+": "))
	}
	at := parsed.(postgresPlace)
	config, err := at.config()
	if err != nil {
		return nil, watchFault(err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// Triggers are as durable as whatever else the server keeps.
	at.opts.AllowUnsafeDurability = true
	db, err := pgstore.OpenDatabase(ctx, pool, at.opts)
	if err != nil {
		pool.Close()
		return nil, watchFault(explainPostgres(err, config))
	}
	return postgresWatched{pool, db}, nil
}

// watchFault says what is wrong with what the command line names as a usageError.
func watchFault(err error) error {
	if errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, lockstep.ErrUnsupported) {
		text := err.Error()
		for _, prefix := range []string{lockstep.ErrInvalid.Error() + ": ", "postgres: ", "mysql: "} {
			text = strings.TrimPrefix(text, prefix)
		}
		return usagef("%s", inOptions(text))
	}
	return err
}

func (w postgresWatched) script(statements []string) string {
	return "BEGIN;\n" + strings.Join(statements, ";\n") + ";\nCOMMIT;\n"
}

func (w postgresWatched) close() error {
	err := w.db.Close()
	w.pool.Close()
	return err
}

func (o watchOptions) postgres() pgstore.WatchOptions {
	return pgstore.WatchOptions{VersionColumn: o.VersionColumn, Role: o.Role}
}

func (w postgresWatched) installSQL(ctx context.Context, table string, o watchOptions) ([]string, error) {
	statements, err := w.db.WatchSQL(ctx, table, o.postgres())
	if err != nil {
		return nil, watchFault(err)
	}
	return statements, nil
}

func (w postgresWatched) install(ctx context.Context, table string, o watchOptions) error {
	if err := w.db.InstallWatch(ctx, table, o.postgres()); err != nil {
		return watchFault(err)
	}
	return nil
}

func (w postgresWatched) removeSQL(ctx context.Context, table string) ([]string, error) {
	statements, err := w.db.UnwatchSQL(ctx, table)
	if err != nil {
		return nil, watchFault(err)
	}
	return statements, nil
}

func (w postgresWatched) remove(ctx context.Context, table string) error {
	if err := w.db.RemoveWatch(ctx, table); err != nil {
		return watchFault(err)
	}
	return nil
}
