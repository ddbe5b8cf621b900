package mysqlstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// A version that does not grow would let two writers pass who have both read the same
// row. A trigger that keeps it from growing makes the write refused, at once and alone.
func TestATriggerThatKeepsTheVersionIsRefused(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	type change = lockstep.Change[string, V]
	dsn := dbtest.MariaDB(t)
	s := mapTable[string, V](t, dsn, mysqlstore.TableOptions{VersionColumn: "version"},
		"CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT, version BIGINT NOT NULL)",
		"CREATE TRIGGER begins BEFORE INSERT ON t FOR EACH ROW IF NEW.name = 'one' THEN SET NEW.version = 1; END IF",
		`CREATE TRIGGER keeps BEFORE UPDATE ON t FOR EACH ROW
			IF NEW.name = 'kept' THEN SET NEW.version = OLD.version; ELSEIF NEW.name = 'lower' THEN SET NEW.version = OLD.version - 1;
			ELSEIF NEW.name = 'counted' THEN SET NEW.version = OLD.version + 1; END IF`)
	before := store1(t, s, "k", V{"first"})
	for _, name := range []string{"kept", "lower"} {
		o := change1(t, s, change{Key: "k", Value: V{name}})
		wantParts(t, o.Err, lockstep.ErrInvalid, "k", "version", "trigger")
	}
	if after := load1(t, s, "k"); after != before {
		t.Errorf("the row is %+v, it was %+v", after, before)
	}
	if r := store1(t, s, "k", V{"counted"}); r.Version != before.Version+1 {
		t.Errorf("the version is %d, and was %d", r.Version, before.Version)
	}

	// A new row, whose key may have had a higher one.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	out, err := s.Commit(ctx, []lockstep.ChangeSet[string, V]{
		{Changes: []change{{Key: "new", Value: V{"one"}}}}, {Changes: []change{{Key: "k", Value: V{"beside"}}}},
	})
	if err != nil || out[1].Err != nil {
		t.Fatal(err, out)
	}
	wantParts(t, out[0].Err, lockstep.ErrInvalid, "new", "version", "trigger")
}

// A trigger of a mapped table may not write to a key-value table, which a cache may hold
// as it may a mapped one.
func TestATriggerDoesNotWriteAKeyValueTable(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	dsn := dbtest.MariaDB(t)
	s, pool := openStore(t, dsn), connect(t, dsn)
	execute(t, pool, "CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT)")
	execute(t, pool, "CREATE TRIGGER clears AFTER UPDATE ON t FOR EACH ROW UPDATE lockstep SET version = version + 1, value = '0' WHERE `key` = NEW.id")
	table, err := mysqlstore.NewTableIn[string, V](t.Context(), s.Database(), "t", mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, put("k", "before"))
	store1(t, table, "k", V{"first"})
	o := change1(t, table, lockstep.Change[string, V]{Key: "k", Value: V{"second"}})
	wantParts(t, o.Err, lockstep.ErrInvalid, "clears", "lockstep")
	if got := load(t, s, "k"); got.Value != "before" {
		t.Errorf("%+v", got)
	}
}
