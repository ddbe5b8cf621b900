package journal_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/journal"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// part is a row of a table that exists: its amount is not below zero, and its whole is a
// row of the table, by the end of the transaction where the database can wait for that.
type part struct {
	Amount int64  `db:"amount"`
	Whole  *int64 `db:"whole"`
}

// parts is a table of a database.
type parts struct {
	rows      lockstep.Store[int64, part]
	positions lockstep.Store[string, int64]
	db        *sql.DB
}

// eachDatabase has a table of parts in each.
func eachDatabase(t *testing.T, run func(t *testing.T, p parts)) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(t *testing.T, driver, place string) *sql.DB {
		db, err := sql.Open(driver, place)
		must(t, err)
		t.Cleanup(func() { db.Close() })
		return db
	}
	t.Run("SQLite", func(t *testing.T) {
		place := filepath.Join(t.TempDir(), "test.db")
		past := open(t, "sqlite", place)
		_, err := past.Exec(`PRAGMA journal_mode = wal; CREATE TABLE parts (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL CHECK (amount >= 0), whole INTEGER REFERENCES parts DEFERRABLE INITIALLY DEFERRED)`)
		must(t, err)
		db, err := sqlitestore.OpenDatabase(t.Context(), place, sqlitestore.DatabaseOptions{})
		must(t, err)
		t.Cleanup(func() { db.Close() })
		rows, err := sqlitestore.NewTable[int64, part](t.Context(), db, "parts", sqlitestore.TableOptions{})
		must(t, err)
		positions, err := sqlitestore.OpenIn[string, int64](t.Context(), db, sqlitestore.Options{Table: "positions"})
		must(t, err)
		run(t, parts{rows, positions, past})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		place := dbtest.Postgres(t)
		past := open(t, "pgx", place)
		_, err := past.Exec(`CREATE TABLE parts (id bigint PRIMARY KEY, amount bigint NOT NULL CHECK (amount >= 0), whole bigint REFERENCES parts DEFERRABLE INITIALLY DEFERRED)`)
		must(t, err)
		pool, err := pgxpool.New(t.Context(), place)
		must(t, err)
		t.Cleanup(pool.Close)
		db, err := pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{})
		must(t, err)
		t.Cleanup(func() { db.Close() })
		rows, err := pgstore.NewTableIn[int64, part](t.Context(), db, "parts", pgstore.TableOptions{})
		must(t, err)
		positions, err := pgstore.OpenIn[string, int64](t.Context(), db, pgstore.Options{Table: "positions"})
		must(t, err)
		run(t, parts{rows, positions, past})
	})
	t.Run("MariaDB", func(t *testing.T) {
		past := open(t, "mysql", dbtest.MariaDB(t))
		_, err := past.Exec("CREATE TABLE parts (id BIGINT PRIMARY KEY, amount BIGINT NOT NULL CHECK (amount >= 0), whole BIGINT, FOREIGN KEY (whole) REFERENCES parts (id))")
		must(t, err)
		db, err := mysqlstore.OpenDatabase(t.Context(), past, mysqlstore.DatabaseOptions{})
		must(t, err)
		t.Cleanup(func() { db.Close() })
		rows, err := mysqlstore.NewTableIn[int64, part](t.Context(), db, "parts", mysqlstore.TableOptions{})
		must(t, err)
		positions, err := mysqlstore.OpenIn[string, int64](t.Context(), db, mysqlstore.Options{Table: "positions"})
		must(t, err)
		run(t, parts{rows, positions, past})
	})
}

// What the schema refuses fails alone, whether it says so in the statement or in the
// commit, with a journal and without.
func TestWhatASchemaRefusesBehind(t *testing.T) {
	eachDatabase(t, func(t *testing.T, p parts) {
		for round, journaled := range []bool{false, true} {
			t.Run(fmt.Sprintf("journal=%t", journaled), func(t *testing.T) {
				o := lockstep.Options[int64, part]{Mode: lockstep.WriteBehind, Logger: silent}
				o.Behind.MaxDelay = time.Hour
				var kept *journal.Journal[int64, part]
				if journaled {
					var err error
					kept, err = journal.Open(t.Context(), t.TempDir(), journal.Options[int64, part]{Positions: p.positions, Logger: silent})
					if err != nil {
						t.Fatal(err)
					}
					defer kept.Close()
					o.Behind.Journal = kept
				}
				cache, err := lockstep.New(p.rows, o)
				if err != nil {
					t.Fatal(err)
				}
				defer cache.Close(t.Context())
				id := func(n int64) int64 { return int64(round)*1000 + n }
				set := func(n, amount int64, whole *int64) {
					t.Helper()
					if _, err := cache.Set(t.Context(), id(n), part{amount, whole}); err != nil {
						t.Fatal(err)
					}
				}
				nobody := int64(-7)
				one := id(1)
				for n := int64(1); n <= 8; n++ {
					set(n, n, nil)
				}
				set(3, -3, nil)    // refused by the statement
				set(5, 5, &one)    // fine: row 1 is there, or comes with it
				set(6, 6, &nobody) // refused, by the commit where the constraint is deferred
				if err := cache.Flush(t.Context()); !errors.Is(err, lockstep.ErrInvalid) {
					t.Errorf("Flush: %v", err)
				}
				rejected := map[int64]bool{}
				for _, r := range cache.Rejected() {
					rejected[r.Key-id(0)] = true
				}
				if len(rejected) != 2 || !rejected[3] || !rejected[6] {
					t.Errorf("rejected: %v", cache.Rejected())
				}
				for n := int64(1); n <= 8; n++ {
					var amount int64
					err := p.db.QueryRow(fmt.Sprintf("SELECT amount FROM parts WHERE id = %d", id(n))).Scan(&amount)
					if rejected[n] && !errors.Is(err, sql.ErrNoRows) || !rejected[n] && (err != nil || amount != n) {
						t.Errorf("row %d: %d, %v", n, amount, err)
					}
					value, err := cache.Get(t.Context(), id(n))
					if rejected[n] && !errors.Is(err, lockstep.ErrNotFound) || !rejected[n] && (err != nil || value.Amount != n) {
						t.Errorf("Get(%d): %v, %v", n, value, err)
					}
				}
			})
		}
	})
}

// A row that somebody else has locked keeps the whole flush waiting: what is flushed
// beside it would be there without it.
func TestALockedRowKeepsTheFlushWaiting(t *testing.T) {
	eachDatabase(t, func(t *testing.T, p parts) {
		failed := make(chan struct{}, 100) // attempts of a flush, of which few are to be
		cache, err := lockstep.New(p.rows, lockstep.Options[int64, part]{
			Mode: lockstep.WriteBehind, CommitTimeout: 2 * time.Second, Logger: slog.New(atWarning{slog.DiscardHandler, failed}),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close(t.Context())
		set := func(n int64, amount int64) {
			t.Helper()
			if _, err := cache.Set(t.Context(), n, part{Amount: amount}); err != nil {
				t.Fatal(err)
			}
		}
		set(1, 1)
		set(2, 1)
		if err := cache.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		tx, err := p.db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.Exec("UPDATE parts SET amount = 5 WHERE id = 1"); err != nil {
			t.Fatal(err)
		}
		if err := cache.SetMany(t.Context(), map[int64]part{1: {Amount: 2}}); err != nil {
			t.Fatal(err)
		}
		set(2, 2)
		set(3, 2)
		<-failed // it was tried, and has waited for the row as long as a commit may take
		var flushed int
		if err := p.db.QueryRow("SELECT count(*) FROM parts WHERE amount = 2").Scan(&flushed); err != nil || flushed != 0 {
			t.Errorf("%d rows are there, and the one before them is not; %v", flushed, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := cache.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := p.db.QueryRow("SELECT count(*) FROM parts WHERE amount = 2").Scan(&flushed); err != nil || flushed != 3 {
			t.Errorf("%d rows are there, %v", flushed, err)
		}
	})
}

// atWarning tells of each warning that is logged.
type atWarning struct {
	slog.Handler
	told chan<- struct{}
}

func (h atWarning) Enabled(_ context.Context, level slog.Level) bool { return level == slog.LevelWarn }
func (h atWarning) Handle(context.Context, slog.Record) error {
	h.told <- struct{}{}
	return nil
}
