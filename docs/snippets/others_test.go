package snippets

import (
	"context"
	"log"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

func TestInvalidate(t *testing.T) {
	ctx := t.Context()
	db := memstore.NewDatabase()
	store := memstore.New(memstore.Options[string, User]{Database: db})
	users := open(t, store, lockstep.Options[string, User]{})
	other := open(t, store, lockstep.Options[string, User]{}) // which does not know of users
	_, err := users.Set(ctx, "ada", User{Name: "Ada"})
	check(t, err)
	_, err = other.Set(ctx, "ada", User{Name: "Ada L."})
	check(t, err)
	check(t, heard(ctx, users, "ada"))
	ada, err := users.Get(ctx, "ada")
	check(t, err)
	equal(t, ada.Name, "Ada L.")

	_, err = other.Set(ctx, "ada", User{Name: "A. L."})
	check(t, err)
	check(t, audited(ctx, users))
	ada, err = users.Get(ctx, "ada")
	check(t, err)
	equal(t, ada.Name, "A. L.")
}

func heard(ctx context.Context, users *lockstep.Cache[string, User], id string) error {
	users.Invalidate(id)          // the next read asks the database
	err := users.Refresh(ctx, id) // or: ask it now
	return err
}

func audited(ctx context.Context, users *lockstep.Cache[string, User]) error {
	report, err := users.Audit(ctx)
	for _, d := range report.Differences { // each has been dropped from memory
		log.Printf("%s: memory had version %d, the table has %d", d.Key, d.Cached.Version, d.Stored.Version)
	}
	return err
}

// watchAccounts is run on the database of TestPostgreSQL.
func watchAccounts(ctx context.Context, t *testing.T, url string) {
	pool, err := pgxpool.New(ctx, url)
	check(t, err)
	defer pool.Close()
	_, err = pool.Exec(ctx, `CREATE TABLE accounts (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
		owner text NOT NULL, balance bigint NOT NULL, version bigint NOT NULL DEFAULT 0)`)
	check(t, err)
	_, err = pool.Exec(ctx, "INSERT INTO accounts (owner, balance) VALUES ('ada', 1)")
	check(t, err)
	check(t, watch(ctx, t, pool))
}

func watch(ctx context.Context, t *testing.T, pool *pgxpool.Pool) error {
	db, err := pgstore.OpenDatabase(ctx, pool, pgstore.DatabaseOptions{})
	if err != nil {
		return err
	}
	defer db.Close()
	// Once, by a migration of the schema: what lockstep watch install does.
	if err := db.InstallWatch(ctx, "accounts", pgstore.WatchOptions{VersionColumn: "version"}); err != nil {
		return err
	}
	table, err := pgstore.NewTableIn[int64, Account](ctx, db, "accounts", pgstore.TableOptions{})
	if err != nil {
		return err
	}
	told := make(chan lockstep.OutsideEvent[int64], 100)
	options := lockstep.Options[int64, Account]{
		Hooks: lockstep.Hooks[int64]{Outside: func(e lockstep.OutsideEvent[int64]) { told <- e }},
	}
	accounts, err := lockstep.New(table, options)
	if err != nil {
		return err
	}
	defer accounts.Close(ctx)
	for !accounts.Stats().Watching {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	if _, err := accounts.Get(ctx, 1); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, "UPDATE accounts SET balance = 2 WHERE id = 1"); err != nil {
		return err
	}
	for e := range told {
		if len(e.Keys) > 0 {
			break
		}
	}
	account, err := accounts.Get(ctx, 1)
	equal(t, account.Balance, 2)
	return err
}
