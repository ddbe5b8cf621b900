package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// TestCallersSQLLeavesNothingInTheSession: a pool of one connection, over which
// somebody else looks for what was left.
func TestCallersSQLLeavesNothingInTheSession(t *testing.T) {
	url := dbtest.Postgres(t)
	pool := onePool(t, url)
	s := openIn(t, overPool(pool)(t))
	execute(t, url, "CREATE PROCEDURE sets() LANGUAGE plpgsql AS 'BEGIN SET application_name = ''left''; END'")
	pid := func() (pid uint32) {
		t.Helper()
		// A session that was closed is over when its server's process has noticed.
		await(t, url, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')")
		err := pool.QueryRow(t.Context(), `SELECT pg_backend_pid() WHERE current_setting('application_name') <> 'left' AND NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'left')
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
		"UPDATE pg_catalog.pg_settings SET setting = 'left' WHERE name = 'application_name'": false,
		`SELECT U&"set\005fconfig"('application_name', 'left', false)`:                       false,
		"SET LOCAL search_path = 'pg_temp'; CREATE TABLE left_table (a int)":                 false,
		"SELECT 1 INTO TEMPORARY left_table":                                                 false, "CALL sets()": false, "DO $$ BEGIN SET application_name = 'left'; END $$": false,
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
