package snippets

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

func onPostgreSQL(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url) // postgres://app@localhost:5432/app
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := pgstore.Open[string, User](ctx, pool, pgstore.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	return visit(ctx, store)
}

func onMariaDB(ctx context.Context, dsn string) error {
	pool, err := sql.Open("mysql", dsn) // app@tcp(localhost:3306)/app
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := mysqlstore.Open[string, User](ctx, pool, mysqlstore.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	return visit(ctx, store)
}

// visit is the rest of the program.
func visit(ctx context.Context, store lockstep.Store[string, User]) error {
	cache, err := lockstep.New(store, lockstep.Options[string, User]{})
	if err != nil {
		return err
	}
	defer cache.Close(ctx)
	_, err = cache.Set(ctx, "ada", User{Name: "Ada"})
	return err
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	url := dbtest.Postgres(t)
	check(t, onPostgreSQL(t.Context(), url))
	watchAccounts(t.Context(), t, url)
}

// Compiled only: another server would have to be started for it, and what it does is what
// the tests of store/mysqlstore do.
var _ = onMariaDB
