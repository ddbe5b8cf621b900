package pgstore_test

import (
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// Rows of a mapped table that a trigger or a foreign key's action would change, and
// that the set does not name, are in some cache's memory perhaps.
func TestRowsThatOthersWouldChangeAreNotChangedUnseen(t *testing.T) {
	type V struct {
		Parent *int `db:"parent"`
		N      int  `db:"n"`
	}
	type set = lockstep.ChangeSet[int, V]
	url := dbtest.Postgres(t)
	c := connect(t, url)
	for _, query := range []string{
		`CREATE TABLE parents (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE, n int)`,
		`CREATE TABLE middle (id int PRIMARY KEY REFERENCES parents ON DELETE CASCADE)`,
		`CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES middle ON DELETE SET NULL, n int) PARTITION BY RANGE (id)`,
		`CREATE TABLE children1 PARTITION OF children FOR VALUES FROM (0) TO (100)`,
		`CREATE TABLE log (id serial, n int)`,
		`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO log (n) VALUES (NEW.n);
			IF NEW.n = 13 THEN UPDATE parents SET n = n + 1 WHERE id = 1; END IF;
			RETURN NULL; END $$`,
		`CREATE TRIGGER note AFTER INSERT OR UPDATE ON children FOR EACH ROW EXECUTE FUNCTION note()`,
		`INSERT INTO parents VALUES (1, NULL, 1), (2, 1, 2), (3, NULL, 3), (4, NULL, 4), (5, 5, 5)`,
		`INSERT INTO middle VALUES (3), (4)`, `INSERT INTO children VALUES (30, 3, 0)`,
	} {
		run(t, c, query)
	}
	db := openPool(t, url)
	parents, err := pgstore.NewTableIn[int, V](t.Context(), db, "parents", pgstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	remove := func(ids ...int) (s set) {
		for _, id := range ids {
			s.Changes = append(s.Changes, lockstep.Change[int, V]{Key: id, Delete: true})
		}
		return s
	}
	put := func(id, n int) set { return set{Changes: []lockstep.Change[int, V]{{Key: id, Value: V{N: n}}}} }
	commit := func(s *pgstore.Table[int, V], sets ...set) []lockstep.Outcome[V] {
		t.Helper()
		out, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// Its own rows, alone and beside others.
	out := commit(parents, put(4, 40), remove(1), put(3, 30))
	wantParts(t, out[1].Err, lockstep.ErrInvalid, "public.parents", "foreign key's action")
	if out[0].Err != nil || out[2].Err != nil || !load1(t, parents, 2).Exists {
		t.Errorf("%+v", out)
	}
	if out := commit(parents, remove(5)); out[0].Err != nil {
		t.Errorf("a row that depends on itself alone: %v", out[0].Err)
	}
	// A table that nobody has mapped is nobody's concern.
	if out := commit(parents, remove(3)); out[0].Err != nil {
		t.Error(out[0].Err)
	}
	run(t, c, `INSERT INTO parents VALUES (3, NULL, 3); INSERT INTO middle VALUES (3); UPDATE children SET parent = 3`)

	children, err := pgstore.NewTableIn[int, V](t.Context(), db, "children", pgstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out = commit(parents, remove(3))
	wantParts(t, out[0].Err, lockstep.ErrInvalid, "table public.parents: key 3: by a trigger, or a foreign key's action, ", "public.children", "DeleteMany")
	if strings.Contains(out[0].Err.Error(), "22P02") {
		t.Errorf("the error tells of the trick by which the statement fails: %v", out[0].Err)
	}
	if r := load1(t, children, 30); r.Value.Parent == nil {
		t.Error("the child was changed")
	}
	out = commit(children, put(31, 1), put(32, 13), put(33, 2))
	wantParts(t, out[1].Err, lockstep.ErrInvalid, "public.parents", "trigger")
	if out[0].Err != nil || out[2].Err != nil || load1(t, children, 32).Exists || load1(t, parents, 1).Value.N != 1 {
		t.Errorf("%+v", out)
	}
	// In one transaction, the children first.
	x, err := parents.Capabilities().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
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
	run(t, c, `INSERT INTO parents VALUES (1, NULL, 1), (2, 1, 2)`)
	if out := commit(parents, set{DeleteAll: true}); out[0].Err != nil {
		t.Error(out[0].Err)
	}
}
