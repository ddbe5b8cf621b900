package mysqlstore_test

import (
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// Rows of a mapped table that a trigger or a foreign key's action would change, and
// that the set does not name, are in some cache's memory perhaps.
func TestRowsThatOthersWouldChangeAreNotChangedUnseen(t *testing.T) {
	type V struct {
		Parent *int `db:"parent"`
		N      int  `db:"n"`
	}
	type set = lockstep.ChangeSet[int, V]
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	for _, query := range []string{
		`CREATE TABLE parents (id INT PRIMARY KEY, parent INT, n INT, UNIQUE KEY (n), FOREIGN KEY up (parent) REFERENCES parents (id) ON DELETE CASCADE)`,
		`CREATE TABLE middle (id INT PRIMARY KEY, FOREIGN KEY mid (id) REFERENCES parents (id) ON DELETE CASCADE)`,
		`CREATE TABLE children (id INT PRIMARY KEY, parent INT, n INT, FOREIGN KEY down (parent) REFERENCES middle (id) ON DELETE SET NULL)`,
		`CREATE TABLE followers (id INT PRIMARY KEY, parent INT, n INT, FOREIGN KEY follows (n) REFERENCES parents (n) ON UPDATE CASCADE)`,
		`CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, parents INT)`,
		`CREATE PROCEDURE bump() BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION UPDATE parents SET n = n; UPDATE log, parents SET log.parents = 1; END`,
		`CREATE TRIGGER note AFTER INSERT ON children FOR EACH ROW INSERT INTO log (parents) SELECT n FROM parents`,
		"CREATE TRIGGER more AFTER UPDATE ON children FOR EACH ROW BEGIN /* UPDATE parents */ INSERT INTO log (parents) VALUES (1); IF NEW.n = 13 THEN CALL bump(); END IF; END",
		`INSERT INTO parents VALUES (1, NULL, 1), (2, 1, 2), (3, NULL, 3), (4, NULL, 4), (5, 5, 5)`,
		`INSERT INTO middle VALUES (3), (4)`, `INSERT INTO children VALUES (30, 3, 0)`, `INSERT INTO followers VALUES (40, 0, 4)`,
	} {
		execute(t, pool, query)
	}
	db := openDatabase(t, dsn)
	table := func(name string) *mysqlstore.Table[int, V] {
		t.Helper()
		s, err := mysqlstore.NewTableIn[int, V](t.Context(), db, name, mysqlstore.TableOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	parents := table("parents")
	remove := func(ids ...int) (s set) {
		for _, id := range ids {
			s.Changes = append(s.Changes, lockstep.Change[int, V]{Key: id, Delete: true})
		}
		return s
	}
	put := func(id, n int) set { return set{Changes: []lockstep.Change[int, V]{{Key: id, Value: V{N: n}}}} }
	commit := func(s *mysqlstore.Table[int, V], sets ...set) []lockstep.Outcome[V] {
		t.Helper()
		out, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// Its own rows, alone and beside others.
	out := commit(parents, put(6, 40), remove(1), put(3, 30))
	wantParts(t, out[1].Err, lockstep.ErrInvalid, ".parents", "foreign key")
	if out[0].Err != nil || out[2].Err != nil || !load1(t, parents, 2).Exists {
		t.Errorf("%+v", out)
	}
	if out := commit(parents, remove(5)); out[0].Err != nil {
		t.Errorf("a row that depends on itself alone: %v", out[0].Err)
	}
	// A table that nobody has mapped is nobody's concern.
	if out := commit(parents, remove(3), put(4, 44)); out[0].Err != nil || out[1].Err != nil {
		t.Error(out[0].Err, out[1].Err)
	}
	execute(t, pool, `INSERT INTO parents VALUES (3, NULL, 3)`)
	execute(t, pool, `INSERT INTO middle VALUES (3)`)
	execute(t, pool, `UPDATE children SET parent = 3`)

	children := table("children")
	wantParts(t, commit(parents, remove(3))[0].Err, lockstep.ErrInvalid, ".children")
	if r := load1(t, children, 30); r.Value.Parent == nil {
		t.Error("the child was changed")
	}
	wantParts(t, commit(parents, set{DeleteAll: true})[0].Err, lockstep.ErrInvalid, ".children")
	followers := table("followers")
	wantParts(t, commit(parents, put(4, 45))[0].Err, lockstep.ErrInvalid, ".followers")
	if out := commit(parents, put(4, 44)); out[0].Err != nil {
		t.Errorf("what is referred to stays the same: %v", out[0].Err)
	}
	if r := load1(t, followers, 40); r.Value.N != 44 {
		t.Errorf("the follower is %+v", r)
	}
	// The trigger of insertions writes what nobody has mapped, and the other one calls
	// what writes a table that is.
	out = commit(children, put(31, 1), put(30, 2), put(33, 3))
	wantParts(t, out[1].Err, lockstep.ErrInvalid, ".parents", "trigger more")
	if out[0].Err != nil || out[2].Err != nil || !load1(t, children, 33).Exists || load1(t, children, 30).Value.N != 0 {
		t.Errorf("%+v", out)
	}
	// In one transaction, the children first.
	x, err := parents.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Rollback(t.Context())
	if o, err := children.Capabilities().Apply(t.Context(), x, remove(30)); err != nil || o.Err != nil {
		t.Fatal(o.Err, err)
	}
	if o, err := parents.Capabilities().Apply(t.Context(), x, remove(3)); err != nil || o.Err != nil {
		t.Fatal(o.Err, err)
	}
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := commit(parents, remove(1, 2)); out[0].Err != nil {
		t.Errorf("all that would be changed is named: %v", out[0].Err)
	}
	if out := commit(followers, remove(40)); out[0].Err != nil {
		t.Error(out[0].Err)
	}
	execute(t, pool, `INSERT INTO parents VALUES (1, NULL, 1), (2, 1, 2)`)
	if out := commit(parents, set{DeleteAll: true}); out[0].Err != nil {
		t.Error(out[0].Err)
	}
	waitFor(t, pool, 0, "SELECT COUNT(*) FROM parents")
}
