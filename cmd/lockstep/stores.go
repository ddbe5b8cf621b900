package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// storeURL is what --store says. This file is the one place that knows which
// kinds of store there are.
type storeURL struct {
	text   string
	sqlite sqlitestore.URL
}

// parseStore reads a --store URL and opens nothing. Its error is a usageError.
func parseStore(text string) (storeURL, error) {
	u := storeURL{text: text}
	scheme, _, ok := strings.Cut(text, ":")
	var err error
	switch {
	case !ok:
		return u, usagef("--store %s is not a URL; a database file is sqlite:%s", text, text)
	case scheme == "sqlite":
		u.sqlite, err = sqlitestore.ParseURL(text)
	default:
		return u, usagef("--store %s: there is no kind of store called %q; there is sqlite:PATH", text, scheme)
	}
	return u, u.error(err)
}

// database is an open database of whatever kind.
type database interface{ Close() error }

// open opens the database. An error about the file that the URL names is a
// usageError.
func (u storeURL) open(ctx context.Context) (database, error) {
	db, err := sqlitestore.OpenDatabase(ctx, u.sqlite.Path, u.sqlite.Database)
	if err != nil {
		return nil, u.error(err)
	}
	return db, nil
}

// error says which store an error is about. What is invalid is the command line's
// fault, and anything else the moment's.
func (u storeURL) error(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lockstep.ErrInvalid):
		return usagef("--store %s: %s", u.text, strings.TrimPrefix(err.Error(), lockstep.ErrInvalid.Error()+": "))
	}
	return fmt.Errorf("--store %s: %w", u.text, err)
}

// openTable opens a key-value table of the database, and makes it if it is
// missing.
func openTable[K comparable, V any](ctx context.Context, db database, table string) (lockstep.Store[K, V], error) {
	switch db := db.(type) {
	case *sqlitestore.Database:
		return sqlitestore.OpenIn[K, V](ctx, db, sqlitestore.Options{Table: table})
	}
	panic(fmt.Sprintf("a database of type %T", db))
}
