package pgstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// onePool is a pool of a single connection, so that what is left in it meets the next
// to use it.
func onePool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func openIn(t testing.TB, db *pgstore.Database) *store {
	t.Helper()
	s, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "rows"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// begun begins a transaction, and applies a set to it.
func begun(t testing.TB, s *store, value string) lockstep.Txn {
	t.Helper()
	txn, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { txn.Rollback(context.Background()) })
	apply(t, s, txn, put("k", value))
	return txn
}

func apply(t testing.TB, s *store, txn lockstep.Txn, changes ...change) {
	t.Helper()
	if o, err := s.Capabilities().Apply(t.Context(), txn, set(changes...)); err != nil || o.Err != nil {
		t.Fatal(err, o.Err)
	}
}

// lent begins a transaction, applies a set to it, and borrows it.
func lent(t testing.TB, s *store, value string) (lockstep.Txn, pgx.Tx) {
	t.Helper()
	txn := begun(t, s, value)
	tx, err := pgstore.Lend(txn)
	if err != nil {
		t.Fatal(err)
	}
	return txn, tx
}

func exec(t testing.TB, tx pgx.Tx, query string, args ...any) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func lines(t testing.TB, url string) (n int) {
	t.Helper()
	c := connect(t, url)
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM log").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// notCommitted wants an error from Commit that is not unknown, and says a word.
func notCommitted(t testing.TB, err, want error, word string) {
	t.Helper()
	if !errors.Is(err, want) || errors.Is(err, lockstep.ErrUnknownOutcome) || !strings.Contains(fmt.Sprint(err), word) {
		t.Errorf("Commit: %v, want one that is %v, is not unknown, and names %q", err, want, word)
	}
}

// TestCallersSQL does everything that a pgx.Tx can, and commits it with the sets or
// rolls it back with them.
func TestCallersSQL(t *testing.T) {
	url := dbtest.Postgres(t)
	execute(t, url, "CREATE TABLE log (line text PRIMARY KEY, n int)")
	for name, db := range map[string]*pgstore.Database{
		"Pool": overPool(newPool(t, url))(t), "SQL": overSQL(newSQL(t, url))(t),
		"Simple": overPool(newPoolIn(t, url, pgx.QueryExecModeSimpleProtocol))(t),
	} {
		for _, commit := range []bool{false, true} {
			t.Run(fmt.Sprint(name, "/commit=", commit), func(t *testing.T) {
				execute(t, url, "TRUNCATE log")
				s := openIn(t, db)
				write(t, s, put("k", "before"))
				txn, tx := lent(t, s, "lent")
				ctx := t.Context()
				var value string
				if err := tx.QueryRow(ctx, "SELECT value FROM rows WHERE key = $1", "k").Scan(&value); err != nil || value != `"lent"` {
					t.Errorf("the caller's SQL sees %s, %v", value, err)
				}
				exec(t, tx, "INSERT INTO log VALUES ($1, 1)", "exec")
				exec(t, tx, "INSERT INTO log VALUES (@line, 1)", pgx.NamedArgs{"line": "named"})
				exec(t, tx, "SET LOCAL timezone = 'UTC'; INSERT INTO log VALUES ('two;'' statements', 1)")
				exec(t, tx, "SAVEPOINT a; INSERT INTO log VALUES ('undone', 1); ROLLBACK TO a")
				for _, undo := range []bool{true, false} {
					nested, err := tx.Begin(ctx)
					if err != nil {
						t.Fatal(err)
					}
					exec(t, nested, "INSERT INTO log VALUES ('nested', 1)")
					end := nested.Commit
					if undo {
						if _, err := nested.Exec(ctx, "INSERT INTO log VALUES ('nested', 1)"); err == nil {
							t.Error("a duplicate was taken")
						}
						end = nested.Rollback
					}
					if err := end(ctx); err != nil {
						t.Fatal(err)
					}
				}
				var b pgx.Batch
				b.Queue("INSERT INTO log VALUES ('batch 1', 1)")
				b.Queue("INSERT INTO log VALUES (@line, 1)", pgx.NamedArgs{"line": "batch 2"})
				if err := tx.SendBatch(ctx, &b).Close(); err != nil {
					t.Error(err)
				}
				if n, err := tx.CopyFrom(ctx, pgx.Identifier{"log"}, []string{"line", "n"}, pgx.CopyFromRows([][]any{{"copied", 1}})); n != 1 || err != nil {
					t.Errorf("CopyFrom = %d, %v", n, err)
				}
				rows, _ := tx.Query(ctx, "SELECT line FROM log ORDER BY line")
				if got, err := pgx.CollectRows(rows, pgx.RowTo[string]); len(got) != 7 || err != nil {
					t.Errorf("the log has %q, %v", got, err)
				}

				apply(t, s, txn, put("k", "after"))
				if _, err := tx.Exec(ctx, "SELECT 1"); err == nil {
					t.Error("the caller's SQL goes on beside the store's")
				}
				tx, err := pgstore.Lend(txn)
				if err != nil {
					t.Fatal(err)
				}
				exec(t, tx, "INSERT INTO log VALUES ('again', 1)")

				end, want, value := txn.Rollback, 0, "before"
				if commit {
					end, want, value = txn.Commit, 8, "after"
				}
				if err := end(ctx); err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec(ctx, "INSERT INTO log VALUES ('late', 1)"); err == nil {
					t.Error("the caller's SQL goes on after the end")
				}
				if _, err := pgstore.Lend(txn); err == nil {
					t.Error("a transaction that is over lends its SQL")
				}
				if got := lines(t, url); got != want {
					t.Errorf("%d lines, want %d", got, want)
				}
				wantRow(t, s, "k", value)
			})
		}
	}
}

// TestCallersSQLOfDatabaseSQL is the same with database/sql's type.
func TestCallersSQLOfDatabaseSQL(t *testing.T) {
	url := dbtest.Postgres(t)
	execute(t, url, "CREATE TABLE log (line text PRIMARY KEY)")
	s := openIn(t, overSQL(newSQL(t, url))(t))
	ctx := t.Context()
	for _, commit := range []bool{false, true} {
		txn := begun(t, s, "lent")
		tx, err := pgstore.LendSQL(txn)
		if err != nil {
			t.Fatal(err)
		}
		both, err := pgstore.Lend(txn)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, both, "INSERT INTO log VALUES ('pgx')")
		insert, err := tx.PrepareContext(ctx, "INSERT INTO log VALUES ($1)")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"a", "b"} {
			if _, err := insert.ExecContext(ctx, line); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO log VALUES (@line)", pgx.NamedArgs{"line": "c"}); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM log").Scan(&n); n != 4 || err != nil {
			t.Errorf("%d lines, %v", n, err)
		}
		if _, err := tx.ExecContext(ctx, "COMMIT"); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("COMMIT: %v", err)
		}
		apply(t, s, txn, put("k", "after"))
		end := txn.Rollback
		if commit {
			end = txn.Commit
		}
		if err := end(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := insert.ExecContext(ctx, "late"); err == nil {
			t.Error("a prepared statement goes on after the end")
		}
		if got, want := lines(t, url), map[bool]int{true: 4}[commit]; got != want || get(t, s, "k").Exists != commit {
			t.Errorf("commit=%t: %d lines, the row is %+v", commit, got, get(t, s, "k"))
		}
	}
	for _, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
		txn := begun(t, s, "not")
		tx, err := pgstore.LendSQL(txn)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(tx); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("the *sql.Tx's own end: %v", err)
		}
		notCommitted(t, txn.Commit(ctx), lockstep.ErrInvalid, "Transact")
	}
	wantRow(t, s, "k", "after")

	txn := begun(t, openStore(t, url), "not")
	if _, err := pgstore.LendSQL(txn); !errors.Is(err, lockstep.ErrUnsupported) {
		t.Errorf("SQLTx over a pool: %v", err)
	}
}

func TestCallersSQLDoesNotEndTheTransaction(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	write(t, s, put("k", "before"))
	txn, tx := lent(t, s, "lent")
	for _, query := range []string{
		"COMMIT", "commit;", " /* a /* b */ */ COMMIT", "-- a\nCOMMIT AND CHAIN", "END", "ABORT", "ROLLBACK", "ROLLBACK WORK", "ROLLBACK AND CHAIN",
		"BEGIN", "START TRANSACTION", "PREPARE TRANSACTION 'a'", "SELECT 1; COMMIT", "SELECT ';'; COMMIT", `SELECT '\'; COMMIT`,
		`SELECT E'\''; COMMIT`, "SELECT E'a'\n'\\''; COMMIT; --'", `SELECT 1 AS "a;"; COMMIT`, "SELECT $$;$$; COMMIT", "SELECT $a$ $b$ $a$; COMMIT",
		"SELECT 1 AS a$b$; COMMIT; SELECT 1 AS b$b$", "SELECT 1 -- ;\n; COMMIT", "SELECT 1 /* /* */ ; */; COMMIT",
		"SET timezone = 'UTC'", "SET SESSION timezone = 'UTC'", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET LOCAL TRANSACTION READ ONLY",
		"SET ROLE lockstep", "SET SESSION AUTHORIZATION lockstep", "RESET ALL", "LISTEN a", "UNLISTEN *", "PREPARE a AS SELECT 1", "EXECUTE a",
		"DEALLOCATE ALL", "DISCARD ALL", "LOAD 'auto_explain'", "VACUUM rows", "CHECKPOINT rows",
	} {
		for _, args := range [][]any{nil, {pgx.QueryExecModeSimpleProtocol}, {pgx.NamedArgs{}}} {
			if _, err := tx.Exec(t.Context(), query, args...); !errors.Is(err, lockstep.ErrInvalid) {
				t.Errorf("Exec(%q): %v", query, err)
			}
		}
		if _, err := tx.Query(t.Context(), query); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("Query(%q): %v", query, err)
		}
		if err := tx.QueryRow(t.Context(), query).Scan(); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("QueryRow(%q): %v", query, err)
		}
		if _, err := tx.Prepare(t.Context(), "a", query); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("Prepare(%q): %v", query, err)
		}
		var b pgx.Batch
		b.Queue(query)
		if err := tx.SendBatch(t.Context(), &b).Close(); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("SendBatch(%q): %v", query, err)
		}
	}
	var b pgx.Batch
	b.BeginTx(pgx.TxOptions{BeginQuery: "SELECT 1"})
	if err := tx.SendBatch(t.Context(), &b).Close(); err == nil {
		t.Error("a batch that begins a transaction was sent")
	}
	for _, query := range []string{"SELECT 'COMMIT'", "SELECT 1; SELECT 2;", "(SELECT 1) UNION (SELECT 2)", "SELECT 1 -- ; COMMIT",
		"SELECT $a$; COMMIT; $a$", `SELECT E'\'; COMMIT; '`, "SELECT 1 /* ; COMMIT /* */ ; */", "", "SET CONSTRAINTS ALL DEFERRED",
		"SET LOCAL lock_timeout = '1s'", "DO $$ BEGIN PERFORM 1; END $$", "LOCK TABLE rows IN SHARE MODE", "CREATE TABLE made (a int)"} {
		exec(t, tx, query)
	}
	wantRow(t, s, "k", "before")
	if err := txn.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRow(t, s, "k", "lent")

	for _, end := range []func(pgx.Tx) error{
		func(tx pgx.Tx) error { return tx.Commit(t.Context()) }, func(tx pgx.Tx) error { return tx.Rollback(t.Context()) },
	} {
		txn, tx = lent(t, s, "again")
		wantError(t, end(tx), lockstep.ErrInvalid)
		notCommitted(t, txn.Commit(t.Context()), lockstep.ErrInvalid, "Transact")
		wantRow(t, s, "k", "lent")
	}
	// A procedure cannot commit what it has not begun.
	execute(t, url, "CREATE PROCEDURE ends() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'")
	txn, tx = lent(t, s, "again")
	if _, err := tx.Exec(t.Context(), "CALL ends()"); err == nil {
		t.Error("a procedure has committed")
	}
	notCommitted(t, txn.Commit(t.Context()), lockstep.ErrUnavailable, "aborted")
	wantRow(t, s, "k", "lent")
}

// TestTransactionEndedFromInside: by a way that is not seen for one, here past the
// statements that are looked at. The session knows how it ended.
func TestTransactionEndedFromInside(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openIn(t, overPool(onePool(t, url))(t))
	for _, again := range []string{"", "; BEGIN", "; BEGIN; SELECT pg_current_xact_id()"} {
		for end, want := range map[string]bool{"COMMIT": true, "ROLLBACK": false} {
			write(t, s, put("k", "before"))
			txn, _ := lent(t, s, "lent")
			if err := pgstore.RunInside(t.Context(), txn, end+again); err != nil {
				t.Fatal(err)
			}
			if o, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", "late"))); err == nil {
				t.Errorf("%s%s: a set was applied outside of a transaction: %+v", end, again, o)
			}
			err := txn.Commit(t.Context())
			if !errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("%s%s: %v, want ErrUnknownOutcome", end, again, err)
			}
			applied, err := txn.Settle(t.Context())
			if got := get(t, s, "k").Value == "lent"; err != nil || applied != want || got != want {
				t.Errorf("%s%s: settled as %t, %v; the row is there: %t", end, again, applied, err, got)
			}
		}
	}
}
