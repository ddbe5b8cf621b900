package snippets

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// User is what the pages' caches keep.
type User struct {
	Name   string `json:"name"`
	Visits int    `json:"visits"`
}

// makeAccounts makes the table of Account as another program would have done.
func makeAccounts(t *testing.T, db *sqlitestore.Database) {
	t.Helper()
	execute(t, db, `CREATE TABLE accounts (
		id      INTEGER PRIMARY KEY,
		owner   TEXT    NOT NULL,
		balance INTEGER NOT NULL CHECK (balance >= 0),
		version INTEGER NOT NULL DEFAULT 0,
		opened  TEXT    NOT NULL DEFAULT CURRENT_DATE
	)`)
}

// execute has another program execute a statement.
func execute(t *testing.T, db *sqlitestore.Database, statement string) {
	t.Helper()
	other, err := sql.Open("sqlite", db.Path())
	check(t, err)
	defer other.Close()
	_, err = other.ExecContext(t.Context(), statement)
	check(t, err)
}

// database is a new SQLite file.
func database(t *testing.T) *sqlitestore.Database {
	t.Helper()
	db, err := sqlitestore.OpenDatabase(t.Context(), filepath.Join(t.TempDir(), "app.db"), sqlitestore.DatabaseOptions{})
	check(t, err)
	t.Cleanup(func() { check(t, db.Close()) })
	return db
}

// cached is a cache over a table of db.
func cached[V any](t *testing.T, db *sqlitestore.Database, table string, options lockstep.Options[string, V]) *lockstep.Cache[string, V] {
	t.Helper()
	store, err := sqlitestore.OpenIn[string, V](t.Context(), db, sqlitestore.Options{Table: table})
	check(t, err)
	return open(t, store, options)
}

// open is a cache over a store.
func open[K comparable, V any](t *testing.T, store lockstep.Store[K, V], options lockstep.Options[K, V]) *lockstep.Cache[K, V] {
	t.Helper()
	cache, err := lockstep.New(store, options)
	check(t, err)
	t.Cleanup(func() { check(t, cache.Close(context.WithoutCancel(t.Context()))) })
	return cache
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
