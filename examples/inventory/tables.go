package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// Tables are what the shop keeps, and the price list that it reads. No other file knows
// what kind of database they are in.
type Tables struct {
	stock  lockstep.Store[string, Stock]
	orders lockstep.Store[string, Order]
	prices lockstep.Store[string, Price] // refuses writes

	// setPrice is what the other program does, past the shop.
	setPrice func(ctx context.Context, item string, price Cents) error
	close    func() error
}

// OpenTables opens the database of a postgres:// URL, or else a SQLite file, and makes
// what is missing.
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

// The price list, as the other program has it. The shop's own tables are made by Lockstep.
const (
	priceList = `CREATE TABLE IF NOT EXISTS inventory_prices (
	item  text   NOT NULL PRIMARY KEY,
	cents bigint NOT NULL CHECK (cents > 0)
)`
	setPrice = `INSERT INTO inventory_prices (item, cents) VALUES ($1, $2)
ON CONFLICT (item) DO UPDATE SET cents = excluded.cents`
)

func openSQLite(ctx context.Context, path string) (_ *Tables, err error) {
	db, err := sqlitestore.OpenDatabase(ctx, path, sqlitestore.DatabaseOptions{})
	if err != nil {
		return nil, err
	}
	t := &Tables{close: db.Close}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	file := url.URL{Scheme: "file", Path: filepath.ToSlash(db.Path()), RawQuery: "mode=rw&_pragma=busy_timeout(10000)"}
	other, err := sql.Open("sqlite", file.String())
	if err != nil {
		return nil, err
	}
	t.close = func() error { return errors.Join(other.Close(), db.Close()) }
	if _, err := other.ExecContext(ctx, priceList); err != nil {
		return nil, fmt.Errorf("%s: the price list: %w", path, err)
	}
	t.setPrice = func(ctx context.Context, item string, price Cents) error {
		_, err := other.ExecContext(ctx, setPrice, item, int64(price))
		return err
	}
	// Stock and orders are of one database handle, so that their caches share transactions.
	if t.stock, err = sqlitestore.OpenIn[string, Stock](ctx, db, sqlitestore.Options{Table: "inventory_stock"}); err != nil {
		return nil, err
	}
	if t.orders, err = sqlitestore.OpenIn[string, Order](ctx, db, sqlitestore.Options{Table: "inventory_orders"}); err != nil {
		return nil, err
	}
	t.prices, err = sqlitestore.NewTable[string, Price](ctx, db, "inventory_prices", sqlitestore.TableOptions{ReadOnly: true})
	return t, err
}

func openPostgres(ctx context.Context, url string) (_ *Tables, err error) {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, err
	}
	t := &Tables{close: func() error { pool.Close(); return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if _, err := pool.Exec(ctx, priceList); err != nil {
		return nil, fmt.Errorf("the price list: %w", err)
	}
	t.setPrice = func(ctx context.Context, item string, price Cents) error {
		_, err := pool.Exec(ctx, setPrice, item, int64(price))
		return err
	}
	db, err := pgstore.OpenDatabase(ctx, pool, pgstore.DatabaseOptions{})
	if err != nil {
		return nil, err
	}
	t.close = func() error { err := db.Close(); pool.Close(); return err }
	if t.stock, err = pgstore.OpenIn[string, Stock](ctx, db, pgstore.Options{Table: "inventory_stock"}); err != nil {
		return nil, err
	}
	if t.orders, err = pgstore.OpenIn[string, Order](ctx, db, pgstore.Options{Table: "inventory_orders"}); err != nil {
		return nil, err
	}
	t.prices, err = pgstore.NewTableIn[string, Price](ctx, db, "inventory_prices", pgstore.TableOptions{ReadOnly: true})
	return t, err
}

// Close closes the tables. The shop over them is closed before.
func (t *Tables) Close() error { return t.close() }
