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
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/memstore"
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

// TestCallersSQLLeavesNothingInTheSession: a pool of one connection, over which
// somebody else looks for what was left.
func TestCallersSQLLeavesNothingInTheSession(t *testing.T) {
	url := dbtest.Postgres(t)
	pool := onePool(t, url)
	s := openIn(t, overPool(pool)(t))
	execute(t, url, "CREATE PROCEDURE sets() LANGUAGE plpgsql AS 'BEGIN SET application_name = ''left''; END'")
	pid := func() (pid uint32) {
		t.Helper()
		err := pool.QueryRow(t.Context(), `SELECT pg_backend_pid() WHERE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')
			AND current_setting('application_name') <> 'left' AND NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'left')
			AND NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'c') AND to_regclass('pg_temp.left_table') IS NULL`).Scan(&pid)
		if err != nil {
			t.Fatalf("something was left: %v", err)
		}
		return pid
	}
	for query, stays := range map[string]bool{
		"SELECT 1": true, "SET LOCAL application_name = 'left'": true, "SELECT pg_advisory_xact_lock(1)": true,
		"DECLARE c CURSOR FOR SELECT 1": true, "NOTIFY a": true,
		"SELECT pg_advisory_lock(1)": false, "SELECT pg_try_advisory_lock_shared(1)": false,
		`SELECT "pg_advisory_lock"(1)`: false, "SELECT set_config('application_name', 'left', false)": false,
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1": false, "CREATE TEMP TABLE left_table (a int)": false,
		"SELECT 1 INTO TEMPORARY left_table": false, "CALL sets()": false, "DO $$ BEGIN SET application_name = 'left'; END $$": false,
	} {
		for _, commit := range []bool{true, false} {
			before := pid()
			txn, tx := lent(t, s, "v")
			exec(t, tx, query)
			end := txn.Rollback
			if commit {
				end = txn.Commit
			}
			if err := end(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := pid(); (after == before) != stays {
				t.Errorf("%s, commit=%t: the session was %d and is %d", query, commit, before, after)
			}
		}
	}
	before := pid()
	txn, tx := lent(t, s, "v")
	if _, err := tx.Prepare(t.Context(), "left", "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	exec(t, tx, "left")
	conn := tx.Conn()
	if err := txn.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := pid(); after == before || !conn.IsClosed() {
		t.Errorf("the session was %d and is %d; its connection is closed: %t", before, after, conn.IsClosed())
	}
}

// TestSettingsThatThePromiseRestsOn are refused also where a function sets them.
func TestSettingsThatThePromiseRestsOn(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	write(t, s, put("k", "before"))
	for setting, value := range map[string]string{
		"synchronous_commit": "off", "client_encoding": "LATIN1", "transaction_read_only": "on",
	} {
		for _, query := range []string{
			fmt.Sprintf("SET LOCAL %s = %s", setting, value), fmt.Sprintf("SELECT set_config('%s', '%s', true)", setting, value),
		} {
			txn, tx := lent(t, s, "lent")
			exec(t, tx, query)
			notCommitted(t, txn.Commit(t.Context()), lockstep.ErrInvalid, setting)
			wantRow(t, s, "k", "before")
		}
	}
	// The level can be set before the first query of a transaction, of which Tx has made
	// one.
	_, tx := lent(t, s, "lent")
	if _, err := tx.Exec(t.Context(), "SET LOCAL transaction_isolation = 'serializable'"); err == nil {
		t.Error("the level was set")
	}
}

// TestWhatAbortsTheCallersSQL: the function returns nil all the same, and the error
// says why nothing was committed.
func TestWhatAbortsTheCallersSQL(t *testing.T) {
	url := dbtest.Postgres(t)
	execute(t, url, "CREATE TABLE log (line text PRIMARY KEY)")
	s := openStore(t, url)
	write(t, s, put("k", "before"))
	for _, c := range []struct {
		name string
		do   func(t *testing.T, tx pgx.Tx)
		want error
		word string
	}{
		{"Duplicate", func(t *testing.T, tx pgx.Tx) {
			exec(t, tx, "INSERT INTO log VALUES ('a')")
			tx.Exec(t.Context(), "INSERT INTO log VALUES ('a')")
			if _, err := tx.Exec(t.Context(), "SELECT 1"); err == nil {
				t.Error("a statement after the error has run")
			}
		}, lockstep.ErrInvalid, "log_pkey"},
		{"InARow", func(t *testing.T, tx pgx.Tx) {
			var n int
			if err := tx.QueryRow(t.Context(), "SELECT 1/$1::int", 0).Scan(&n); err == nil {
				t.Error("a division by zero has a row")
			}
		}, lockstep.ErrInvalid, "division by zero"},
		{"OpenRows", func(t *testing.T, tx pgx.Tx) {
			if _, err := tx.Query(t.Context(), "SELECT generate_series(1, 1000000000)"); err != nil {
				t.Error(err)
			}
		}, lockstep.ErrInvalid, "open"},
		{"OpenBatch", func(t *testing.T, tx pgx.Tx) {
			var b pgx.Batch
			b.Queue("SELECT 1")
			tx.SendBatch(t.Context(), &b)
		}, lockstep.ErrInvalid, "open"},
		{"ContextEnds", func(t *testing.T, tx pgx.Tx) {
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error, 1)
			go func() {
				_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
				failed <- err
			}()
			await(t, url, "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
			cancel()
			if err := <-failed; !errors.Is(err, context.Canceled) {
				t.Errorf("the error is %v", err)
			}
		}, lockstep.ErrUnavailable, "connection was lost"},
		{"Terminated", func(t *testing.T, tx pgx.Tx) {
			execute(t, url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'")
			if _, err := tx.Exec(t.Context(), "SELECT 1"); err == nil {
				t.Error("the session lives")
			}
		}, lockstep.ErrUnavailable, "connection was lost"},
	} {
		for _, commit := range []bool{true, false} {
			t.Run(fmt.Sprint(c.name, "/commit=", commit), func(t *testing.T) {
				txn, tx := lent(t, s, "lent")
				c.do(t, tx)
				if commit {
					notCommitted(t, txn.Commit(t.Context()), c.want, c.word)
				} else if err := txn.Rollback(t.Context()); err != nil {
					t.Error(err)
				}
				wantRow(t, s, "k", "before")
				if n := lines(t, url); n != 0 {
					t.Errorf("%d lines", n)
				}
			})
		}
	}
}

// TestDeadlockInCallersSQL: the server has chosen the transaction, which is aborted.
func TestDeadlockInCallersSQL(t *testing.T) {
	url := dbtest.Postgres(t)
	s := openStore(t, url)
	write(t, s, put("k", "before"))
	write(t, s, put("other", "0"))
	txn, tx := lent(t, s, "lent")
	exec(t, tx, "SET LOCAL deadlock_timeout = '10ms'") // and so it is this one that looks
	somebody := connect(t, url)
	run(t, somebody, "BEGIN")
	run(t, somebody, "UPDATE rows SET version = version WHERE key = 'other'")
	blocked := make(chan error, 1)
	go func() {
		_, err := somebody.Exec(context.Background(), "SET deadlock_timeout = '60s'; UPDATE rows SET version = version WHERE key = 'k'")
		blocked <- err
	}()
	await(t, url, waiting)
	if _, err := tx.Exec(t.Context(), "UPDATE rows SET version = version WHERE key = 'other'"); err == nil {
		t.Fatal("no deadlock")
	}
	if o, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", "late"))); err == nil {
		t.Errorf("a set was applied after the transaction was aborted: %+v", o)
	}
	notCommitted(t, txn.Commit(t.Context()), lockstep.ErrUnavailable, "deadlock")
	if err := <-blocked; err != nil {
		t.Error(err)
	}
	run(t, somebody, "ROLLBACK")
	wantRow(t, s, "k", "before")
}

// TestALostCommitOfTheCallersSQLIsSettled: no row of a store's tells, and the pool has
// no other session that has been there before.
func TestALostCommitOfTheCallersSQLIsSettled(t *testing.T) {
	server := dbtest.StartPostgres(t)
	url := server.URL()
	execute(t, url, "CREATE TABLE log (line text)")
	proxy, via := dbtest.Via(t, url)
	s := openIn(t, overPool(onePool(t, via))(t))
	want := 0
	for _, applied := range []bool{true, false} {
		cut := proxy.CutRequest
		if applied {
			cut = proxy.CutReply
		}
		txn, err := s.Capabilities().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tx, err := pgstore.Lend(txn)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, tx, "INSERT INTO log VALUES ('a')")
		happened := cut("COMMIT\x00")
		err = txn.Commit(t.Context())
		<-happened
		wantError(t, err, lockstep.ErrUnknownOutcome)
		got, err := txn.Settle(t.Context())
		if applied {
			want++
		}
		if n := lines(t, url); err != nil || got != applied || n != want {
			t.Errorf("settled as %t, %v, want %t; %d lines", got, err, applied, n)
		}
	}

	// After a crash an id may have been given again, and tells nothing.
	txn, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := pgstore.Lend(txn)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, tx, "INSERT INTO log VALUES ('a')")
	happened := proxy.CutReply("COMMIT\x00")
	err = txn.Commit(t.Context())
	<-happened
	wantError(t, err, lockstep.ErrUnknownOutcome)
	server.Kill()
	server.Start()
	_, err = txn.Settle(t.Context())
	wantError(t, err, lockstep.ErrUnknownOutcome)
}

// ledger is two caches over one database, and a log that no cache keeps.
type ledger struct {
	url      string
	accounts *lockstep.Cache[string, int]
	owners   *lockstep.Cache[string, string]
}

func openLedger(t *testing.T, url string, db *pgstore.Database) ledger {
	accounts, err := pgstore.OpenIn[string, int](t.Context(), db, pgstore.Options{Table: "accounts"})
	if err != nil {
		t.Fatal(err)
	}
	owners, err := pgstore.OpenIn[string, string](t.Context(), db, pgstore.Options{Table: "owners"})
	if err != nil {
		t.Fatal(err)
	}
	execute(t, url, "CREATE TABLE log (line text NOT NULL)")
	b := ledger{url, cachetest.Open(t, accounts, lockstep.Options[string, int]{}), cachetest.Open(t, owners, lockstep.Options[string, string]{})}
	if _, err := b.accounts.Set(t.Context(), "a", 100); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTx: two caches and the program's own statements commit together, are undone
// together, and are done once when the function runs again.
func TestTx(t *testing.T) {
	type ledgerSQL func(ctx context.Context, tx *lockstep.Tx, line string) error
	native := func(ctx context.Context, tx *lockstep.Tx, line string) error {
		sql, err := pgstore.Tx(tx)
		if err == nil {
			_, err = sql.Exec(ctx, "INSERT INTO log VALUES ($1)", line)
		}
		return err
	}
	standard := func(ctx context.Context, tx *lockstep.Tx, line string) error {
		sql, err := pgstore.SQLTx(tx)
		if err == nil {
			_, err = sql.ExecContext(ctx, "INSERT INTO log VALUES ($1)", line)
		}
		return err
	}
	for name, c := range map[string]struct {
		open func(t testing.TB, url string) *pgstore.Database
		log  ledgerSQL
	}{
		"Pool": {openPool, native},
		"SQL":  {func(t testing.TB, url string) *pgstore.Database { return overSQL(newSQL(t, url))(t) }, standard},
	} {
		t.Run(name, func(t *testing.T) {
			url := dbtest.Postgres(t)
			b := openLedger(t, url, c.open(t, url))
			refused := errors.New("insufficient funds")
			withdraw := func(amount int, meanwhile func()) error {
				return lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
					accounts, owners := b.accounts.In(tx), b.owners.In(tx)
					balance, err := accounts.Get(ctx, "a")
					if err != nil {
						return err
					}
					meanwhile()
					if err := c.log(ctx, tx, fmt.Sprint(amount)); err != nil {
						return err
					}
					if balance < amount {
						return refused
					}
					return errors.Join(accounts.Set(ctx, "a", balance-amount), owners.Set(ctx, "last", fmt.Sprint(amount)))
				})
			}
			has := func(balance, logged int, last string) {
				t.Helper()
				if n := lines(t, url); n != logged {
					t.Errorf("the log has %d lines, want %d", n, logged)
				}
				if got, err := b.accounts.Get(t.Context(), "a"); got != balance || err != nil {
					t.Errorf("the account has %d, %v, want %d", got, err, balance)
				}
				if got, err := b.owners.Get(t.Context(), "last"); got != last || err != nil {
					t.Errorf("the last is %q, %v, want %q", got, err, last)
				}
			}
			if err := withdraw(30, func() {}); err != nil {
				t.Fatal(err)
			}
			has(70, 1, "30")
			if err := withdraw(80, func() {}); !errors.Is(err, refused) {
				t.Errorf("withdraw = %v", err)
			}
			has(70, 1, "30")
			runs := 0
			err := withdraw(10, func() {
				if runs++; runs == 1 {
					execute(t, url, "UPDATE accounts SET value = '50', version = version + 1 WHERE key = 'a'")
				}
			})
			if err != nil || runs != 2 {
				t.Errorf("%d runs, %v", runs, err)
			}
			has(40, 2, "10")
		})
	}
}

func TestTxIsRefused(t *testing.T) {
	url := dbtest.Postgres(t)
	b := openLedger(t, url, openPool(t, url))
	var kept *lockstep.Tx
	err := lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		kept = tx
		if _, err := pgstore.Tx(tx); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "In") {
			t.Errorf("before In: %v", err)
		}
		b.accounts.In(tx)
		if _, err := pgstore.SQLTx(tx); !errors.Is(err, lockstep.ErrUnsupported) {
			t.Errorf("SQLTx over a pool: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgstore.Tx(kept); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("when it is over: %v", err)
	}
	other := cachetest.Open(t, memstore.New(memstore.Options[string, int]{}), lockstep.Options[string, int]{})
	err = lockstep.Transact(t.Context(), func(ctx context.Context, tx *lockstep.Tx) error {
		other.In(tx)
		_, err := pgstore.Tx(tx)
		return err
	})
	if !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), "another database") {
		t.Errorf("of another store: %v", err)
	}
}
