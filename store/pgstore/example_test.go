package pgstore_test

import (
	"context"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// A row of a ledger that no cache keeps is committed with the balance that one does.
func ExampleTx() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://app@localhost/app")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	store, err := pgstore.Open[string, int](ctx, pool, pgstore.Options{Table: "balances"})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	cache, err := lockstep.New(store, lockstep.Options[string, int]{})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close(ctx)

	err = lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		balances := cache.In(tx)
		balance, err := balances.Get(ctx, "ada")
		if err != nil {
			return err
		}
		sql, err := pgstore.Tx(tx)
		if err != nil {
			return err
		}
		if _, err := sql.Exec(ctx, "INSERT INTO ledger (account, amount) VALUES ($1, $2)", "ada", 10); err != nil {
			return err
		}
		return balances.Set(ctx, "ada", balance+10)
	})
	if err != nil {
		log.Fatal(err) // neither is there, unless it is ErrUnknownOutcome
	}
}

// A transaction that code of the program's begins by itself takes a write through a cache.
func ExampleJoin() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://app@localhost/app")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	db, err := pgstore.OpenDatabase(ctx, pool, pgstore.DatabaseOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := pgstore.OpenIn[string, int](ctx, db, pgstore.Options{Table: "stock"})
	if err != nil {
		log.Fatal(err)
	}
	stock, err := lockstep.New(store, lockstep.Options[string, int]{})
	if err != nil {
		log.Fatal(err)
	}
	defer stock.Close(ctx)

	order := func(item string) error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		j, err := pgstore.Join(ctx, db, tx)
		if err != nil {
			tx.Rollback(ctx)
			return err
		}
		defer j.Rollback(ctx) // of no effect after Commit
		s, err := stock.InJoined(j)
		if err != nil {
			return err
		}
		left, err := s.GetEntry(ctx, item)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO orders (item) VALUES ($1)", item); err != nil {
			return err
		}
		if _, err := s.Set(ctx, item, left.Value-1, lockstep.IfVersion(left.Version)); err != nil {
			return err
		}
		return j.Commit(ctx) // instead of tx.Commit
	}
	if err := order("lamp"); err != nil {
		log.Print(err)
	}
}
