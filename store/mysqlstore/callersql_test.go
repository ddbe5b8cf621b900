package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// lent begins a transaction, applies a set to it, and borrows its SQL.
func lent(t testing.TB, s *store, value string) (lockstep.Txn, *sql.Tx) {
	t.Helper()
	txn, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { txn.Rollback(context.Background()) })
	if o, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", value))); err != nil || o.Err != nil {
		t.Fatal(err, o.Err)
	}
	tx, ok := mysqlstore.SQL(txn)
	if !ok {
		t.Fatal("no SQL")
	}
	return txn, tx
}

func TestCallersSQL(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	s := openStore(t, dsn)
	execute(t, pool, "CREATE TABLE log (line VARCHAR(100) PRIMARY KEY)")
	count := func() (n int) {
		t.Helper()
		if err := pool.QueryRow("SELECT COUNT(*) FROM log").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, commit := range []bool{false, true} {
		txn, tx := lent(t, s, "lent")
		var value string
		if err := tx.QueryRow("SELECT value FROM lockstep WHERE `key` = ?", "k").Scan(&value); err != nil || value != `"lent"` {
			t.Errorf("the caller's SQL sees %s, %v", value, err)
		}
		execute(t, tx, "SAVEPOINT a")
		execute(t, tx, "INSERT INTO log VALUES (?)", "undone")
		execute(t, tx, "ROLLBACK TO a")
		execute(t, tx, "CREATE TEMPORARY TABLE lockstep_not AS SELECT 1")
		execute(t, tx, "INSERT INTO log VALUES (?)", "kept")
		if o, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", "after"))); err != nil || o.Err != nil {
			t.Fatal(err, o.Err)
		}
		end := txn.Rollback
		if commit {
			end = txn.Commit
		}
		if err := end(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec("INSERT INTO log VALUES ('late')"); err == nil {
			t.Error("the caller's SQL goes on after the end")
		}
		if _, ok := mysqlstore.SQL(txn); ok {
			t.Error("a transaction that is over lends its SQL")
		}
		want := map[bool]int{true: 1}[commit]
		if got := count(); got != want || load(t, s, "k").Exists != commit {
			t.Errorf("commit=%t: %d lines, want %d; the row is %+v", commit, got, want, load(t, s, "k"))
		}
	}
}

// TestCallersSQLAlone: a transaction that no store has changed commits what the
// caller has.
func TestCallersSQLAlone(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	s := openStore(t, dsn)
	execute(t, pool, "CREATE TABLE log (line VARCHAR(100))")
	txn, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, _ := mysqlstore.SQL(txn)
	execute(t, tx, "INSERT INTO log VALUES ('a')")
	if err := txn.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, pool, 1, "SELECT COUNT(*) FROM log")
}

func TestCallersSQLDoesNotEndTheTransaction(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	s := openStore(t, dsn+"?multiStatements=true")
	write(t, s, put("k", "before"))
	txn, tx := lent(t, s, "lent")
	for _, query := range []string{
		"COMMIT", "commit", " /* a */ COMMIT", "-- a\nCOMMIT", "#\nCOMMIT WORK", "ROLLBACK", "BEGIN", "START TRANSACTION",
		"SELECT 1; COMMIT", "SELECT ';'; COMMIT", "SELECT '\\''; COMMIT", "SELECT \"\\\\\"; COMMIT", "SELECT `\\`; COMMIT", "/*! COMMIT */", "SELECT 1 /*!50000 ; COMMIT */", "/*M! COMMIT */",
		"CREATE TABLE x (a INT)", "DROP TABLE lockstep", "ALTER TABLE lockstep ADD x INT", "TRUNCATE lockstep", "LOCK TABLES lockstep WRITE",
		"SET autocommit = 1", "SET @a = 1, autocommit = 1", "CALL p()", "XA START 'a'", "PREPARE a FROM 'COMMIT'", "EXECUTE a", "SELECT RELEASE_ALL_LOCKS()",
	} {
		if _, err := tx.Exec(query); err == nil {
			t.Errorf("%q was run", query)
		}
	}
	for _, query := range []string{"SELECT 'COMMIT'", "SELECT 1; SELECT 2", "(SELECT 1) UNION (SELECT 2)", "DO 1", "SELECT 1 -- ; COMMIT", ""} {
		if rows, err := tx.Query(query); err != nil && query != "" {
			t.Errorf("%q: %v", query, err)
		} else if err == nil {
			rows.Close()
		}
	}
	if got := load(t, s, "k").Value; got != "before" {
		t.Errorf("the transaction has been committed: %s", got)
	}
	if err := txn.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := load(t, s, "k").Value; got != "lent" {
		t.Errorf("the row is %s", got)
	}

	txn, tx = lent(t, s, "again")
	if err := tx.Commit(); err == nil {
		t.Error("the *sql.Tx was committed")
	}
	if err := txn.Commit(t.Context()); err == nil || errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Commit after the *sql.Tx's own: %v, want an error that is not unknown", err)
	}
	if got := load(t, s, "k").Value; got != "lent" {
		t.Errorf("the row is %s", got)
	}
}

// TestTransactionEndedFromInside: by a way that is not seen for one, here by
// somebody who has the connection's own statement. It may have been committed.
func TestTransactionEndedFromInside(t *testing.T) {
	for end, want := range map[string]bool{"COMMIT": true, "ROLLBACK": false} {
		dsn := dbtest.MariaDB(t)
		s := openStore(t, dsn)
		write(t, s, put("k", "before"))
		txn, _ := lent(t, s, "lent")
		if err := mysqlstore.RunInside(t.Context(), txn, end); err != nil {
			t.Fatal(err)
		}
		err := txn.Commit(t.Context())
		if !errors.Is(err, lockstep.ErrUnknownOutcome) {
			t.Errorf("%s: %v, want ErrUnknownOutcome", end, err)
		}
		applied, err := txn.Settle(t.Context())
		if got := load(t, s, "k").Value == "lent"; err != nil || applied != want || got != want {
			t.Errorf("%s: settled as %t, %v; the row is there: %t", end, applied, err, got)
		}
	}
}

// TestDeadlockInCallersSQL: the server has rolled back, so nothing more may run.
func TestDeadlockInCallersSQL(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	s := openStore(t, dsn)
	write(t, s, put("k", "before"), put("other", "0"))
	execute(t, pool, "CREATE TABLE log (line VARCHAR(100))")
	txn, tx := lent(t, s, "lent")
	other := begin(t, pool)
	execute(t, other, "UPDATE lockstep SET stamp = 1 WHERE `key` = 'other'")
	for i := range 50 { // who has done more is not the one to be rolled back
		execute(t, other, "INSERT INTO log VALUES (?)", i)
	}
	failed := make(chan error)
	go func() {
		_, err := tx.Exec("UPDATE lockstep SET stamp = 2 WHERE `key` = 'other'")
		failed <- err
	}()
	waitFor(t, pool, 1, mysqlstore.RowLockWaits(t))
	execute(t, other, "UPDATE lockstep SET stamp = 1 WHERE `key` = 'k'")
	if err := <-failed; err == nil {
		t.Fatal("no deadlock")
	}
	if _, err := tx.Exec("INSERT INTO log VALUES ('late')"); err == nil {
		t.Error("a statement was run after the transaction was rolled back")
	}
	if _, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", "late"))); err == nil {
		t.Error("a set was applied after the transaction was rolled back")
	}
	if err := txn.Commit(t.Context()); err == nil || errors.Is(err, lockstep.ErrUnknownOutcome) {
		t.Errorf("Commit: %v, want an error that is not unknown", err)
	}
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got := load(t, s, "k").Value; got != "before" {
		t.Errorf("the row is %s", got)
	}
}

// A server that does not answer keeps nobody who asks for his transaction longer than
// the context of the transaction lasts.
func TestATransactionIsNotLentAfterItsContext(t *testing.T) {
	proxy, via := dbtest.Via(t, dbtest.MariaDB(t))
	s := openStore(t, via)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	txn, err := s.Capabilities().Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	held, release := proxy.HoldReply("SAVEPOINT lockstep_lent")
	defer release()
	lent := make(chan bool)
	go func() {
		_, ok := mysqlstore.SQL(txn)
		lent <- ok
	}()
	<-held
	cancel()
	select {
	case ok := <-lent:
		if ok {
			t.Error("the transaction was lent, though the server has not answered")
		}
	case <-time.After(10 * time.Second):
		t.Error("the caller still waits for the server")
		release()
		<-lent
	}
	txn.Rollback(t.Context())
}
