package sqlitestore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
)

// both are a key-value table and a mapped one in one database.
func both(t *testing.T) (*Store[string, string], *Table[string, justName]) {
	t.Helper()
	path := newPath(t)
	run(t, path, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT NOT NULL)", "CREATE TABLE log (line TEXT UNIQUE)")
	db := openAt(t, path)
	kv, err := OpenIn[string, string](t.Context(), db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	table, err := NewTable[string, justName](t.Context(), db, "t", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return kv, table
}

func begin(t *testing.T, db *Database) (lockstep.Txn, *sql.Tx) {
	t.Helper()
	x, err := db.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Rollback(background) })
	tx, err := lend(x)
	if err != nil {
		t.Fatal(err)
	}
	return x, tx
}

func apply[V any](t *testing.T, s lockstep.Store[string, V], x lockstep.Txn, k string, v V) {
	t.Helper()
	o, err := s.Capabilities().Apply(t.Context(), x, lockstep.ChangeSet[string, V]{Changes: []lockstep.Change[string, V]{{Key: k, Value: v}}})
	if err != nil || o.Err != nil {
		t.Fatal(err, o.Err)
	}
}

func TestOneTransactionOfTwoStoresAndTheCallersSQL(t *testing.T) {
	for _, commit := range []bool{true, false} {
		kv, table := both(t)
		x, tx := begin(t, kv.db)
		apply(t, kv, x, "a", "1")
		apply(t, table, x, "b", justName{"2"})
		if again, err := lend(x); err != nil || again != tx {
			t.Errorf("another transaction the second time, %v", err)
		}
		var name, value string
		if err := tx.QueryRow("SELECT (SELECT name FROM t WHERE id = 'b'), (SELECT value FROM lockstep WHERE key = 'a')").Scan(&name, &value); err != nil {
			t.Fatal(err)
		}
		if name != "2" || value != `"1"` {
			t.Errorf("the caller's SQL sees %q and %q", name, value)
		}
		st, err := tx.PrepareContext(t.Context(), "INSERT INTO log VALUES (?)")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Exec("line"); err != nil {
			t.Fatal(err)
		}
		if get(t, kv, "a").Exists || get(t, table, "b").Exists {
			t.Error("readers see what is not committed")
		}
		want := int64(0)
		if commit {
			want = 1
			if err := x.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
		for _, q := range []string{"SELECT count(*) FROM log", "SELECT count(*) FROM t", "SELECT count(*) FROM lockstep"} {
			if n := countIn(t, kv.db, q); n != want {
				t.Errorf("committed=%t: %s is %d, want %d", commit, q, n, want)
			}
		}
		if _, err := tx.Exec("INSERT INTO log VALUES ('late')"); err == nil {
			t.Error("the caller's SQL goes on after the end")
		}
		_, err = lend(x)
		wantError(t, err, lockstep.ErrInvalid, "over")
		put(t, kv, "after", "the lock is free")
	}
}

func TestTheCallersSQLCannotEndTheTransaction(t *testing.T) {
	kv, _ := both(t)
	x, tx := begin(t, kv.db)
	apply(t, kv, x, "a", "1")
	for _, q := range []string{"COMMIT", "end", " /* x */ ROLLBACK", "-- y\nBEGIN", "SELECT 1; COMMIT", "ROLLBACK TRANSACTION", "commit;",
		" \vCOMMIT", "/* ; */ COMMIT", "-- ;\nCOMMIT", "COMMIT/**/", "SELECT ';'; END", "SELECT 1 AS [;]; COMMIT", "ROLLBACK/* TO */", "\ufeffCOMMIT", ";COMMIT"} {
		if _, err := tx.Exec(q); !errors.Is(err, errEnds) {
			t.Errorf("%q: %v", q, err)
		}
		if _, err := tx.Prepare(q); !errors.Is(err, errEnds) {
			t.Errorf("preparing %q: %v", q, err)
		}
	}
	// A parameter's name may have a quote in it, and what follows is no string.
	for _, q := range []string{"SELECT $a('); COMMIT; --')", "SELECT :a('); COMMIT; --')", "SELECT @a::('); COMMIT; --')", "SELECT #a('); COMMIT; --')"} {
		if _, err := tx.Exec(q, sql.Named("a(')", 1), sql.Named("a::(')", 1)); !errors.Is(err, errEnds) {
			t.Errorf("%q: %v", q, err)
		}
	}
	for _, q := range []string{"SAVEPOINT a", "INSERT INTO log VALUES ('COMMIT; x')", "INSERT INTO log VALUES ('; COMMIT')",
		"SELECT 1 AS \"a; COMMIT\"", "SELECT 1 /* ; COMMIT */", "ROLLBACK TO a", "ROLLBACK/**/TO a", "ROLLBACK TRANSACTION TO SAVEPOINT a", "RELEASE a"} {
		if _, err := tx.Exec(q); err != nil {
			t.Errorf("%q: %v", q, err)
		}
	}
	if err := tx.Commit(); !errors.Is(err, errEnds) {
		t.Errorf("the caller's Commit: %v", err)
	}
	if get(t, kv, "a").Exists {
		t.Fatal("the caller has committed")
	}
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !get(t, kv, "a").Exists {
		t.Error("the transaction was not committed")
	}
}

// onInterruptMe is what the SQL function interrupt_me calls.
var onInterruptMe atomic.Pointer[context.CancelFunc]

func init() {
	sqlite.MustRegisterScalarFunction("interrupt_me", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		(*onInterruptMe.Load())()
		return int64(1), nil
	})
}

// SQLite is the judge of which statements end a transaction: whatever passes the
// check leaves it open.
func FuzzStatementsThatEndTheTransaction(f *testing.F) {
	for _, q := range []string{"COMMIT", "/* ; */ END", "SELECT ';COMMIT'", "ROLLBACK TO a", "ROLLBACK TRANSACTION TO a", "BEGIN", "SAVEPOINT a;RELEASE a;COMMIT", "EXPLAIN COMMIT",
		" \vCOMMIT", "SELECT $a('); COMMIT; --')", "SELECT $a::b(\");\nEND; --\")", "SELECT @a, [b];\ufeffROLLBACK TO c", "CREATE TRIGGER a BEFORE INSERT ON b BEGIN SELECT 1; END"} {
		f.Add(q)
	}
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	f.Fuzz(func(t *testing.T, q string) {
		// A conflict clause or a trigger may roll back, which is the connection's to
		// notice; and no input shall make files.
		upper := strings.ToUpper(q)
		if endsTransaction(q) || strings.Contains(upper, "OR ROLLBACK") || strings.Contains(upper, "RAISE") ||
			strings.Contains(upper, "ATTACH") || strings.Contains(upper, "VACUUM") {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
			t.Fatal(err)
		}
		var args []any
		for range 4 {
			// It fails, mostly; for want of an argument it shall not.
			_, err := conn.ExecContext(ctx, q, args...)
			if err == nil {
				break
			}
			_, name, _ := strings.Cut(err.Error(), "missing named argument ")
			if name, err = strconv.Unquote(name); err != nil {
				break
			}
			args = append(args, sql.Named(name, 1))
		}
		if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil && ctx.Err() == nil {
			t.Errorf("%q passed the check and has ended the transaction: %v", q, err)
		}
	})
}

// After an error that has rolled everything back, nothing else may slip into the
// database by itself.
func TestAnErrorThatEndsTheTransactionFromInside(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T, tx *sql.Tx) error{
		"Rollback": func(t *testing.T, tx *sql.Tx) error { return errors.Join(tx.Rollback(), errEnds) },
		"ConflictClause": func(t *testing.T, tx *sql.Tx) error {
			_, err := tx.Exec("INSERT OR ROLLBACK INTO log VALUES ('twice'), ('twice')")
			return err
		},
		"Interrupted": func(t *testing.T, tx *sql.Tx) error {
			// A statement whose context ends before it runs leaves the transaction as it
			// was, so this one ends its own context, and then goes on for ever.
			ctx, cancel := context.WithCancel(t.Context())
			onInterruptMe.Store(&cancel)
			_, err := tx.ExecContext(ctx, "INSERT INTO log WITH RECURSIVE n(i) AS (SELECT interrupt_me() UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			kv, _ := both(t)
			x, tx := begin(t, kv.db)
			apply(t, kv, x, "a", "1")
			if err := fail(t, tx); err == nil {
				t.Fatal("nothing failed")
			}
			if _, err := tx.Exec("INSERT INTO log VALUES ('stray')"); err == nil {
				t.Error("a statement ran after the end")
			}
			err := x.Commit(t.Context())
			if err == nil || errors.Is(err, lockstep.ErrUnknownOutcome) {
				t.Errorf("Commit: %v", err)
			}
			if n := countIn(t, kv.db, "SELECT (SELECT count(*) FROM log) + (SELECT count(*) FROM lockstep)"); n != 0 {
				t.Errorf("%d rows are left", n)
			}
			put(t, kv, "after", "the connection is sound")
		})
	}
}

// A statement that fails by itself leaves the transaction as it was.
func TestAnErrorThatLeavesTheTransaction(t *testing.T) {
	kv, _ := both(t)
	x, tx := begin(t, kv.db)
	apply(t, kv, x, "a", "1")
	for _, q := range []string{"INSERT INTO log VALUES ('x'), ('x')", "SELECT * FROM nowhere", "nonsense"} {
		if _, err := tx.Exec(q); err == nil {
			t.Errorf("%q succeeded", q)
		}
	}
	if _, err := tx.Exec("INSERT INTO log VALUES ('fine')"); err != nil {
		t.Error(err)
	}
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := countIn(t, kv.db, "SELECT count(*) FROM log"); n != 1 {
		t.Errorf("%d lines", n)
	}
}

func TestTransactionsOfOthers(t *testing.T) {
	kv, _ := both(t)
	other, _ := both(t)
	x, _ := begin(t, other.db)
	_, err := kv.apply(t.Context(), x, lockstep.ChangeSet[string, string]{})
	wantError(t, err, lockstep.ErrInvalid, kv.db.path)
	_, err = lend(nil)
	wantError(t, err, lockstep.ErrInvalid, "another database")
	if kv.Capabilities().Database == other.Capabilities().Database {
		t.Error("two databases say that they are one")
	}
}

// A set that was refused spoils the transaction, and COMMIT says why.
func TestARefusedSetSpoilsTheTransaction(t *testing.T) {
	kv, table := both(t)
	put(t, kv, "a", "old")
	x, _ := begin(t, kv.db)
	apply(t, table, x, "b", justName{"2"})
	o, err := kv.apply(t.Context(), x, lockstep.ChangeSet[string, string]{Changes: []lockstep.Change[string, string]{
		{Key: "a", Value: "new", Expect: lockstep.Expect{Kind: lockstep.ExpectAbsent}}}})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, o.Err, lockstep.ErrConflict)
	_, err = kv.apply(t.Context(), x, lockstep.ChangeSet[string, string]{})
	wantError(t, err, lockstep.ErrInvalid)
	wantError(t, x.Commit(t.Context()), lockstep.ErrConflict)
	if get(t, table, "b").Exists || get(t, kv, "a").Value != "old" {
		t.Error("part of the transaction was committed")
	}
	put(t, kv, "a", "new")
}

// A trigger that rolls back in a store's own statement leaves a connection without
// a transaction, on which the caller's next statement would be committed by itself.
func TestNothingIsCommittedByTheCallersSQLAfterASetThatRolledBack(t *testing.T) {
	_, table := both(t)
	run(t, table.db.path, "CREATE TRIGGER r BEFORE INSERT ON t WHEN new.name = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
	x, tx := begin(t, table.db)
	st, err := tx.Prepare("INSERT INTO log VALUES ('prepared')")
	if err != nil {
		t.Fatal(err)
	}
	o, err := table.apply(t.Context(), x, lockstep.ChangeSet[string, justName]{Changes: []lockstep.Change[string, justName]{{Key: "k", Value: justName{"bad"}}}})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, o.Err, lockstep.ErrInvalid, "no")
	if _, err := tx.Exec("INSERT INTO log VALUES ('paid')"); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("the caller's next statement: %v", err)
	}
	if _, err := st.Exec(); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("the caller's prepared statement: %v", err)
	}
	wantError(t, x.Commit(t.Context()), lockstep.ErrInvalid, "no")
	if n := countIn(t, table.db, "SELECT count(*) FROM log"); n != 0 {
		t.Errorf("%d statements of a transaction that was not applied were committed", n)
	}
}

// A foreign key that is deferred is a matter of COMMIT.
func TestAChildMayComeBeforeItsParentInATransaction(t *testing.T) {
	type child struct {
		Parent string `db:"parent"`
	}
	path := newPath(t)
	run(t, path, "CREATE TABLE p (id TEXT PRIMARY KEY, name TEXT)",
		"CREATE TABLE c (id TEXT PRIMARY KEY, parent TEXT REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)")
	db := openAt(t, path)
	parents, err := NewTable[string, justName](t.Context(), db, "p", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	children, err := NewTable[string, child](t.Context(), db, "c", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, parent := range []bool{false, true} {
		x, err := db.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		apply(t, children, x, "c", child{"p"})
		if parent {
			apply(t, parents, x, "p", justName{})
		}
		err = x.Commit(t.Context())
		if parent && err != nil {
			t.Errorf("with the parent: %v", err)
		}
		if !parent {
			wantError(t, err, lockstep.ErrInvalid, "FOREIGN KEY")
		}
		if get(t, children, "c").Exists != parent {
			t.Errorf("the child is there: %t", !parent)
		}
	}
}
