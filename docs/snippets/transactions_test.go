package snippets

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

var errInsufficient = errors.New("insufficient funds")

func transfer(ctx context.Context, balances *lockstep.Cache[string, int64], from, to string, amount int64) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		b := balances.In(tx)
		have, err := b.GetMany(ctx, []string{from, to}) // those that have rows
		if err != nil {
			return err
		}
		if have[from] < amount {
			return errInsufficient // nothing is written, and Transact returns it
		}
		if err := b.Set(ctx, from, have[from]-amount); err != nil {
			return err
		}
		return b.Set(ctx, to, have[to]+amount)
	})
}

type shop struct {
	stock  *lockstep.Cache[string, int]
	orders *lockstep.Cache[string, string]
}

func openShop(ctx context.Context, db *sqlitestore.Database) (*shop, error) {
	stock, err := sqlitestore.OpenIn[string, int](ctx, db, sqlitestore.Options{Table: "stock"})
	if err != nil {
		return nil, err
	}
	orders, err := sqlitestore.OpenIn[string, string](ctx, db, sqlitestore.Options{Table: "orders"})
	if err != nil {
		return nil, err
	}
	var s shop
	if s.stock, err = lockstep.New(stock, lockstep.Options[string, int]{}); err != nil {
		return nil, err
	}
	s.orders, err = lockstep.New(orders, lockstep.Options[string, string]{})
	return &s, err
}

func (s *shop) order(ctx context.Context, number, item string) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		left, err := s.stock.In(tx).Get(ctx, item)
		if err != nil {
			return err
		}
		if left == 0 {
			return errors.New("sold out")
		}
		if err := s.stock.In(tx).Set(ctx, item, left-1); err != nil {
			return err
		}
		return s.orders.In(tx).Set(ctx, number, item, lockstep.IfAbsent())
	})
}

func (s *shop) orderAndTell(ctx context.Context, number, item string) error {
	return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		if err := s.orders.In(tx).Set(ctx, number, item); err != nil {
			return err
		}
		sqlTx, err := sqlitestore.Tx(tx) // a *sql.Tx; pgstore.Tx gives a pgx.Tx
		if err != nil {
			return err
		}
		_, err = sqlTx.ExecContext(ctx, "INSERT INTO audit (who, what) VALUES (?, ?)", "ada", "order "+number)
		return err // the audit has the row if and only if there is the order
	})
}

func (s *shop) orderIn(ctx context.Context, program *sql.DB, db *sqlitestore.Database, number, item string) error {
	tx, err := program.BeginTx(ctx, nil) // program is the program's own *sql.DB, over the same file
	if err != nil {
		return err
	}
	joined, err := sqlitestore.Join(ctx, db, tx)
	if err != nil {
		tx.Rollback()
		return err
	}
	defer joined.Rollback(ctx) // does nothing after Commit
	if _, err := tx.ExecContext(ctx, "INSERT INTO audit (who, what) VALUES (?, ?)", "ada", "order "+number); err != nil {
		return err
	}
	orders, err := s.orders.InJoined(joined)
	if err != nil {
		return err
	}
	if _, err := orders.Set(ctx, number, item); err != nil {
		return err
	}
	return joined.Commit(ctx) // in the place of tx.Commit
}

func TestTransactions(t *testing.T) {
	ctx := t.Context()
	db := database(t)

	balances := cached(t, db, "balances", lockstep.Options[string, int64]{})
	check(t, balances.SetMany(ctx, map[string]int64{"ada": 100}))
	check(t, transfer(ctx, balances, "ada", "bob", 60))
	equal(t, errors.Is(transfer(ctx, balances, "ada", "bob", 60), errInsufficient), true)
	have, err := balances.GetMany(ctx, []string{"ada", "bob"})
	check(t, err)
	equal(t, fmt.Sprint(have), "map[ada:40 bob:60]")

	s, err := openShop(ctx, db)
	check(t, err)
	defer s.stock.Close(ctx)
	defer s.orders.Close(ctx)
	_, err = s.stock.Set(ctx, "lamp", 2)
	check(t, err)
	check(t, s.order(ctx, "1", "lamp"))
	equal(t, errors.Is(s.order(ctx, "1", "lamp"), lockstep.ErrConflict), true)
	check(t, s.order(ctx, "2", "lamp"))
	equal(t, s.order(ctx, "3", "lamp").Error(), "lockstep: write not applied: sold out")

	program, err := sql.Open("sqlite", db.Path()+"?_txlock=immediate")
	check(t, err)
	defer program.Close()
	_, err = program.ExecContext(ctx, "CREATE TABLE audit (who TEXT, what TEXT)")
	check(t, err)
	check(t, s.orderAndTell(ctx, "4", "lamp"))
	check(t, s.orderIn(ctx, program, db, "5", "lamp"))
	var audited int
	check(t, program.QueryRowContext(ctx, "SELECT count(*) FROM audit").Scan(&audited))
	equal(t, audited, 2)
	orders, err := s.orders.GetMany(ctx, []string{"1", "2", "3", "4", "5"})
	check(t, err)
	equal(t, len(orders), 4)
}
