package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
)

type node struct {
	Parent *string `db:"parent"`
	Name   string  `db:"name"`
}

// cached puts a cache over a table, and ends the test by comparing the two.
func cached[K comparable, V any](t *testing.T, db *Database, table string) *lockstep.Cache[K, V] {
	t.Helper()
	s, err := NewTable[K, V](t.Context(), db, table, TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cachetest.Open(t, s, lockstep.Options[K, V]{})
}

func openSchema(t *testing.T, schema ...string) *Database {
	t.Helper()
	path := newPath(t)
	run(t, path, schema...)
	return openAt(t, path)
}

// see reads a key, so that memory holds it.
func see[K comparable, V any](t *testing.T, c *lockstep.Cache[K, V], keys ...K) {
	t.Helper()
	for _, k := range keys {
		if _, err := c.Get(t.Context(), k); err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			t.Fatal(err)
		}
	}
}

// wantRows compares what readers are told exists.
func wantRows[K comparable, V any](t *testing.T, c *lockstep.Cache[K, V], exists bool, keys ...K) {
	t.Helper()
	for _, k := range keys {
		if ok, err := c.Exists(t.Context(), k); err != nil || ok != exists {
			t.Errorf("key %v exists: %t, %v", k, ok, err)
		}
	}
}

// The rows that a foreign key of the same table deletes were still in memory.
func TestACascadeInsideATableLeavesItsRowsInMemory(t *testing.T) {
	for _, key := range []string{"id TEXT PRIMARY KEY", "id TEXT PRIMARY KEY NOT NULL, made TEXT GENERATED ALWAYS AS (upper(name))"} {
		for action, want := range map[string]string{"CASCADE": "ON DELETE CASCADE", "SET NULL": "ON DELETE SET NULL"} {
			t.Run(action, func(t *testing.T) {
				options := ""
				if len(key) > 20 {
					options = " WITHOUT ROWID"
				}
				db := openSchema(t, fmt.Sprintf("CREATE TABLE nodes (name TEXT, parent TEXT REFERENCES nodes ON DELETE %s, %s)%s", action, key, options))
				c := cached[string, node](t, db, "nodes")
				set := func(k, parent string) {
					n := node{Name: k}
					if parent != "" {
						n.Parent = &parent
					}
					if _, err := c.Set(t.Context(), k, n); err != nil {
						t.Fatal(err)
					}
				}
				set("root", "")
				set("a", "root")
				set("b", "root")
				see(t, c, "root", "a", "b")
				_, err := c.Delete(t.Context(), "root")
				wantError(t, err, lockstep.ErrInvalid, "table nodes", "parent REFERENCES nodes "+want, "same transaction")
				wantError(t, c.DeleteMany(t.Context(), []string{"root", "a"}), lockstep.ErrInvalid, "key b")
				wantRows(t, c, true, "root", "a", "b")
				// Nothing is refused that names all of them, in any order.
				if err := c.DeleteMany(t.Context(), []string{"root", "a", "b"}); err != nil {
					t.Error(err)
				}
				wantRows(t, c, false, "root", "a", "b")
				set("root", "")
				set("a", "root")
				if err := c.DeleteAll(t.Context()); err != nil {
					t.Error(err)
				}
				wantRows(t, c, false, "root", "a")
			})
		}
	}
}

// So were those of another table, under a cache of its own.
func TestACascadeIntoAnotherTableLeavesItsRowsInMemory(t *testing.T) {
	type order struct {
		User *int64 `db:"user"`
	}
	db := openSchema(t, "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
		"CREATE TABLE orders (id INTEGER PRIMARY KEY, user INTEGER REFERENCES Users ON DELETE CASCADE)",
		"CREATE TABLE notes (id INTEGER PRIMARY KEY, about TEXT REFERENCES users (name) ON UPDATE CASCADE)",
		"CREATE TABLE log (user INTEGER REFERENCES users ON DELETE SET NULL)",
		"INSERT INTO users VALUES (1, 'ada'), (2, 'bob'), (3, 'cyd')", "INSERT INTO orders VALUES (7, 1)",
		"INSERT INTO notes VALUES (8, 'cyd')", "INSERT INTO log VALUES (1), (2)")
	users := cached[int64, justName](t, db, "users")
	// A table that nobody has mapped is nobody's concern.
	if _, err := users.Delete(t.Context(), 2); err != nil {
		t.Error(err)
	}
	orders := cached[int64, order](t, db, "orders")
	notes := cached[int64, struct {
		About string `db:"about"`
	}](t, db, "NOTES")
	see(t, users, 1)
	see(t, orders, 7)
	see(t, notes, 8)
	_, err := users.Delete(t.Context(), 1)
	wantError(t, err, lockstep.ErrInvalid, "table users", "key 7 of table orders", "user REFERENCES Users ON DELETE CASCADE", "same transaction")
	_, err = users.Set(t.Context(), 3, justName{"eve"})
	wantError(t, err, lockstep.ErrInvalid, "key 8 of table notes", "about REFERENCES users ON UPDATE CASCADE")
	if name, err := users.Get(t.Context(), 3); err != nil || name.Name != "cyd" {
		t.Errorf("%v, %v", name, err)
	}
	wantRows(t, orders, true, 7)
	both := func(f func(ctx context.Context, tx *lockstep.Tx) error) error {
		return lockstep.Transact(t.Context(), f)
	}
	err = both(func(ctx context.Context, tx *lockstep.Tx) error {
		return errors.Join(users.In(tx).Delete(ctx, 1), notes.In(tx).Delete(ctx, 8))
	})
	wantError(t, err, lockstep.ErrInvalid, "key 7 of table orders", "same transaction")
	wantRows(t, users, true, 1)
	wantRows(t, orders, true, 7)
	wantRows(t, notes, true, 8)
	// The remedy, whichever cache is named first.
	err = both(func(ctx context.Context, tx *lockstep.Tx) error {
		return errors.Join(users.In(tx).Delete(ctx, 1), orders.In(tx).Delete(ctx, 7))
	})
	if err != nil {
		t.Error(err)
	}
	run(t, db.path, "INSERT INTO users VALUES (4, 'dot')", "INSERT INTO orders VALUES (9, 4)")
	see(t, orders, 9)
	err = both(func(ctx context.Context, tx *lockstep.Tx) error {
		return errors.Join(orders.In(tx).Delete(ctx, 9), users.In(tx).Delete(ctx, 4))
	})
	if err != nil {
		t.Error(err)
	}
	wantRows(t, orders, false, 9)
	wantRows(t, orders, false, 7)
	wantRows(t, users, false, 1)
}

// A set that is refused for what it does to others spares its neighbours.
func TestACascadeFailsItsBatch(t *testing.T) {
	db := openSchema(t, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, parent TEXT REFERENCES t ON DELETE CASCADE)",
		"INSERT INTO t VALUES ('root', 'r', NULL), ('leaf', 'l', 'root')")
	s, err := NewTable[string, node](t.Context(), db, "t", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, node]{
			{Changes: []lockstep.Change[string, node]{{Key: "x", Value: node{Name: "1"}}}},
			{Changes: []lockstep.Change[string, node]{{Key: "root", Delete: true}}},
			{Changes: []lockstep.Change[string, node]{{Key: "y", Value: node{Name: "2"}}}},
		})
		if err != nil || outcomes[0].Err != nil || outcomes[2].Err != nil {
			t.Fatalf("%v, %v", outcomes, err)
		}
		wantError(t, outcomes[1].Err, lockstep.ErrInvalid, "key leaf", "ON DELETE CASCADE")
	}
	if n := countIn(t, db, "SELECT count(*) FROM t"); n != 4 {
		t.Errorf("%d rows", n)
	}
	// Neither is what an earlier set of the transaction has told.
	x, _ := begin(t, db)
	apply(t, s, x, "leaf", node{Name: "new"})
	o, err := s.apply(t.Context(), x, lockstep.ChangeSet[string, node]{Changes: []lockstep.Change[string, node]{{Key: "root", Delete: true}}})
	if err != nil || o.Err != nil {
		t.Errorf("leaf has no parent any more: %v, %v", o, err)
	}
	x.Rollback(t.Context())
	root := "root"
	x, _ = begin(t, db)
	apply(t, s, x, "leaf", node{Name: "new", Parent: &root})
	o, err = s.apply(t.Context(), x, lockstep.ChangeSet[string, node]{Changes: []lockstep.Change[string, node]{{Key: "root", Delete: true}}})
	if err != nil {
		t.Error(err)
	}
	wantError(t, o.Err, lockstep.ErrInvalid, "key leaf")
	wantError(t, x.Commit(t.Context()), lockstep.ErrInvalid, "key leaf")
	// The driver cannot tell these two apart when it tells of a row.
	_, err = s.Load(t.Context(), []string{"leaf\x00"})
	wantError(t, err, lockstep.ErrInvalid, `leaf\x00`, "column id", "NUL")
}

// A trigger is held to the same: it may change the row that fires it and what no
// cache holds.
func TestATriggerChangesRowsBehindTheCache(t *testing.T) {
	db := openSchema(t, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT)", "CREATE TABLE other (id TEXT PRIMARY KEY, name TEXT)",
		"CREATE TABLE log (line TEXT)",
		"CREATE TRIGGER own AFTER UPDATE ON t BEGIN UPDATE t SET name = trim(name) WHERE id = new.id; INSERT INTO log VALUES (new.id); END",
		"CREATE TRIGGER sum AFTER INSERT ON t WHEN new.id <> 'sum' BEGIN UPDATE t SET name = name || new.name WHERE id = 'sum'; END",
		"CREATE TRIGGER moves AFTER UPDATE ON t WHEN new.name = 'move' BEGIN UPDATE t SET id = 'moved' WHERE id = new.id; END",
		"CREATE TRIGGER chain AFTER INSERT ON log WHEN new.line = 'far' BEGIN INSERT INTO other VALUES (new.line, ''); END",
		"CREATE TRIGGER kv AFTER DELETE ON t WHEN old.id = 'kv' BEGIN UPDATE lockstep SET version = 1; END")
	kv, err := OpenIn[string, string](t.Context(), db, Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, kv, "k", "v")
	c, other := cached[string, justName](t, db, "t"), cached[string, justName](t, db, "other")
	set := func(k, v string) error { _, err := c.Set(t.Context(), k, justName{v}); return err }
	for _, k := range []string{"sum", "far", "kv"} {
		run(t, db.path, "INSERT INTO t VALUES ('"+k+"', '')")
	}
	see(t, c, "sum", "far", "moved", "kv")
	see(t, other, "far")
	wantError(t, set("a", "x"), lockstep.ErrInvalid, "key sum of table t", "trigger sum", "same transaction")
	wantError(t, set("far", "x"), lockstep.ErrInvalid, "key far of table other", "trigger chain", "same transaction")
	if err := c.SetMany(t.Context(), map[string]justName{"a": {"x"}, "sum": {""}}); err != nil {
		t.Errorf("both rows in one transaction: %v", err)
	}
	if err := set("a", " trimmed "); err != nil {
		t.Errorf("its own row: %v", err)
	}
	if v, err := c.Get(t.Context(), "a"); err != nil || v.Name != "trimmed" {
		t.Errorf("%+v, %v", v, err)
	}
	wantError(t, set("a", "move"), lockstep.ErrInvalid, "key moved", "trigger moves")
	_, err = c.Delete(t.Context(), "kv")
	wantError(t, err, lockstep.ErrInvalid, "table lockstep", "trigger kv")
}
