package mysqlstore_test

import (
	"context"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// A temporary table that the program has left on a connection of its pool hides the
// table of that name, and what is written to it is gone with the connection.
func TestATemporaryTableInThePoolHidesNothing(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	s, err := mysqlstore.Open[string, string](t.Context(), pool, mysqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	var left [2]interface{ Close() error } // as many as a pool keeps
	for i := range left {
		conn, err := pool.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		execute(t, conn, "CREATE TEMPORARY TABLE other LIKE lockstep")
		execute(t, conn, "ALTER TABLE other RENAME lockstep")
		left[i] = conn
	}
	for _, conn := range left {
		conn.Close()
	}
	// The session that there is is in use, so that the write takes another connection.
	txn, err := s.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer txn.Rollback(context.Background())
	write(t, s, put("k", "v"))
	if got := load(t, openStore(t, dsn), "k"); got.Value != "v" {
		t.Errorf("what was committed is %+v in the table", got)
	}
}

// What a cache writes in a transaction does not go to a temporary table that the
// transaction's own SQL has made.
func TestATemporaryTableOfTheCallersSQLHidesNothing(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	dsn := dbtest.MariaDB(t)
	s := openStore(t, dsn)
	execute(t, connect(t, dsn), "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT)")
	table, err := mysqlstore.NewTableIn[string, V](t.Context(), s.Database(), "t", mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lockstep", "t", "neither"} {
		txn, err := s.Capabilities().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { txn.Rollback(context.Background()) })
		tx, ok := mysqlstore.SQL(txn)
		if !ok {
			t.Fatal("the transaction was not lent")
		}
		of, key := name, "id"
		if name != "t" {
			of, key = "lockstep", "`key`"
		}
		execute(t, tx, "Create temporary table "+name+" (PRIMARY KEY ("+key+")) AS SELECT * FROM "+of)
		o, err := s.Capabilities().Apply(t.Context(), txn, set(put("k", "v")))
		if err == nil {
			err = o.Err
		}
		if err == nil {
			o, terr := table.Capabilities().Apply(t.Context(), txn, lockstep.ChangeSet[string, V]{Changes: []lockstep.Change[string, V]{{Key: "k", Value: V{"v"}}}})
			if err = terr; err == nil {
				err = o.Err
			}
		}
		if name != "neither" {
			txn.Rollback(t.Context())
			wantParts(t, err, lockstep.ErrInvalid, "temporary", name)
			continue
		}
		if err == nil {
			err = txn.Commit(t.Context())
		}
		if err != nil || load(t, s, "k").Value != "v" || load1(t, table, "k").Value.Name != "v" {
			t.Errorf("%v, and the rows are %+v and %+v", err, load(t, s, "k"), load1(t, table, "k"))
		}
	}
}
