package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"; sqlitestore brings "sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// Books are the bank's tables. No other file knows what kind of database they are in.
type Books struct {
	accounts  lockstep.Store[int64, Account]
	transfers lockstep.Store[string, Transfer]
	sqlTx     func(*lockstep.Tx) (*sql.Tx, error)

	sql   *sql.DB // for statements past the caches
	close func() error
}

// OpenBooks opens the database of a postgres:// URL, or else a SQLite file, and makes
// what is missing.
func OpenBooks(ctx context.Context, store string) (*Books, error) {
	switch scheme, _, isURL := strings.Cut(store, "://"); {
	case !isURL:
		return openSQLite(ctx, store)
	case scheme == "postgres" || scheme == "postgresql":
		return openPostgres(ctx, store)
	default:
		return nil, fmt.Errorf("%s:// is no database of this program: -store takes a file or a postgres:// URL", scheme)
	}
}

// The accounts are a table as any program has it, with a rule of its own: whatever the
// program does, no balance is below zero. The trail cannot be changed afterwards. The
// table of the transfers is Lockstep's, which makes it.
const sqliteSchema = `
CREATE TABLE IF NOT EXISTS bank_accounts (
	id      INTEGER PRIMARY KEY,
	owner   TEXT    NOT NULL,
	balance INTEGER NOT NULL CHECK (balance >= 0),
	version INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS bank_trail (
	entry    INTEGER PRIMARY KEY AUTOINCREMENT,
	transfer TEXT    NOT NULL,
	account  INTEGER NOT NULL,
	amount   INTEGER NOT NULL,
	entered  TEXT    NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX IF NOT EXISTS bank_trail_account ON bank_trail (account);
CREATE TRIGGER IF NOT EXISTS bank_trail_stays BEFORE UPDATE ON bank_trail
BEGIN SELECT RAISE(ABORT, 'bank_trail is never changed'); END;
CREATE TRIGGER IF NOT EXISTS bank_trail_is_kept BEFORE DELETE ON bank_trail
BEGIN SELECT RAISE(ABORT, 'bank_trail is never changed'); END;
`

const postgresSchema = `
CREATE TABLE IF NOT EXISTS bank_accounts (
	id      bigint PRIMARY KEY,
	owner   text   NOT NULL,
	balance bigint NOT NULL CHECK (balance >= 0),
	version bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS bank_trail (
	entry    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	transfer text   NOT NULL,
	account  bigint NOT NULL,
	amount   bigint NOT NULL,
	entered  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS bank_trail_account ON bank_trail (account);
CREATE OR REPLACE FUNCTION bank_trail_stays() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'bank_trail is never changed'; END $$;
DROP TRIGGER IF EXISTS bank_trail_stays ON bank_trail;
CREATE TRIGGER bank_trail_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON bank_trail
EXECUTE FUNCTION bank_trail_stays();
`

func openSQLite(ctx context.Context, path string) (_ *Books, err error) {
	db, err := sqlitestore.OpenDatabase(ctx, path, sqlitestore.DatabaseOptions{})
	if err != nil {
		return nil, err
	}
	b := &Books{sqlTx: sqlitestore.Tx}
	b.close = func() error { return errors.Join(b.closeSQL(), db.Close()) }
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	file := url.URL{Scheme: "file", Path: filepath.ToSlash(db.Path()), RawQuery: "mode=rw&_pragma=busy_timeout(10000)"}
	if b.sql, err = sql.Open("sqlite", file.String()); err != nil {
		return nil, err
	}
	if _, err := b.sql.ExecContext(ctx, sqliteSchema); err != nil {
		return nil, fmt.Errorf("%s: the schema: %w", path, err)
	}
	// Both stores are of one database handle, so that their caches share transactions.
	if b.accounts, err = sqlitestore.NewTable[int64, Account](ctx, db, "bank_accounts", sqlitestore.TableOptions{}); err != nil {
		return nil, err
	}
	b.transfers, err = sqlitestore.OpenIn[string, Transfer](ctx, db, sqlitestore.Options{Table: "bank_transfers"})
	return b, err
}

func openPostgres(ctx context.Context, url string) (_ *Books, err error) {
	b := &Books{sqlTx: pgstore.SQLTx}
	if b.sql, err = sql.Open("pgx", url); err != nil {
		return nil, err
	}
	b.sql.SetMaxOpenConns(20)
	b.sql.SetMaxIdleConns(20)
	b.close = b.closeSQL
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if _, err := b.sql.ExecContext(ctx, postgresSchema); err != nil {
		return nil, fmt.Errorf("the schema: %w", err)
	}
	db, err := pgstore.OpenDatabaseSQL(ctx, b.sql, pgstore.DatabaseOptions{})
	if err != nil {
		return nil, err
	}
	b.close = func() error { return errors.Join(db.Close(), b.closeSQL()) }
	if b.accounts, err = pgstore.NewTableIn[int64, Account](ctx, db, "bank_accounts", pgstore.TableOptions{}); err != nil {
		return nil, err
	}
	b.transfers, err = pgstore.OpenIn[string, Transfer](ctx, db, pgstore.Options{Table: "bank_transfers"})
	return b, err
}

func (b *Books) closeSQL() error {
	if b.sql == nil {
		return nil
	}
	return b.sql.Close()
}

// Close closes the tables. The bank over them is closed before.
func (b *Books) Close() error { return b.close() }
