package pgstore_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
)

// mapTable makes a schema, and maps its table t.
func mapTable[K comparable, V any](t testing.TB, url string, opts pgstore.TableOptions, schema ...string) *pgstore.Table[K, V] {
	t.Helper()
	c := connect(t, url)
	for _, s := range schema {
		run(t, c, s)
	}
	table, err := pgstore.NewTableIn[K, V](t.Context(), openPool(t, url), "t", opts)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// change1 is what becomes of a set of one change, alone.
func change1[K comparable, V any](t testing.TB, s *pgstore.Table[K, V], c lockstep.Change[K, V]) lockstep.Outcome[V] {
	t.Helper()
	out, err := s.Commit(t.Context(), []lockstep.ChangeSet[K, V]{{Changes: []lockstep.Change[K, V]{c}}})
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// store1 writes a row, which has to be accepted and to read as the commit said.
func store1[K comparable, V any](t testing.TB, s *pgstore.Table[K, V], k K, v V) lockstep.Row[V] {
	t.Helper()
	o := change1(t, s, lockstep.Change[K, V]{Key: k, Value: v})
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	if r := load1(t, s, k); !reflect.DeepEqual(r, o.Rows[0]) {
		t.Errorf("the commit of %v returned %+v, and Load %+v", k, o.Rows[0], r)
	}
	return o.Rows[0]
}

func load1[K comparable, V any](t testing.TB, s *pgstore.Table[K, V], k K) lockstep.Row[V] {
	t.Helper()
	rows, err := s.Load(t.Context(), []K{k})
	if err != nil {
		t.Fatal(err)
	}
	return rows[k]
}

func wantParts(t testing.TB, err, is error, parts ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("the error is %v, want one that is %v", err, is)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}

// What the database makes of a row is what the commit gives back: identities,
// defaults, generated columns, rounding, triggers before and after; and a column
// without a field is never written.
func TestWhatTheDatabaseMakesOfARowIsReadBack(t *testing.T) {
	type V struct {
		Name    string    `db:"name"`
		Price   float64   `db:"price"`
		Upper   string    `db:"upper"`
		Made    time.Time `db:"made,readonly"`
		Touched int       `db:"touched,readonly"`
		After   int       `db:"after,readonly"`
	}
	url := dbtest.Postgres(t)
	s := mapTable[int64, V](t, url, pgstore.TableOptions{},
		`CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, price numeric(6,2), upper text GENERATED ALWAYS AS (upper(name)) STORED,
			made timestamptz NOT NULL DEFAULT '2020-01-01Z', touched int NOT NULL DEFAULT 0, after int NOT NULL DEFAULT 0, hidden text DEFAULT 'untouched')`,
		`CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END'`,
		`CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION touch()`,
		`CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE t SET after = after + 1 WHERE id = NEW.id; RETURN NULL; END'`,
		`CREATE TRIGGER count AFTER INSERT OR UPDATE ON t FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION tally()`)
	want := V{Name: "ann", Price: 1.24, Upper: "ANN", Made: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), After: 1}
	if r := store1(t, s, 7, V{Name: "ann", Price: 1.235, Upper: "ignored", Touched: 9}); r.Value != want {
		t.Errorf("inserted: %+v, want %+v", r.Value, want)
	}
	run(t, connect(t, url), "UPDATE t SET hidden = 'set by another'")
	want.Name, want.Upper, want.Price, want.Touched, want.After = "bob", "BOB", 2, 2, 3
	if r := store1(t, s, 7, V{Name: "bob", Price: 2}); r.Value != want {
		t.Errorf("updated: %+v, want %+v", r.Value, want)
	}
	await(t, url, "SELECT hidden = 'set by another' FROM t")
}

// A set that the schema refuses fails alone, says why, and touches no other row.
func TestTheSchemaRefusesOneSet(t *testing.T) {
	type V struct {
		Email  *string `db:"email"`
		Code   *string `db:"code"`
		Age    int     `db:"age"`
		Parent *int64  `db:"parent"`
	}
	url := dbtest.Postgres(t)
	s := mapTable[int64, V](t, url, pgstore.TableOptions{},
		`CREATE TABLE t (id int8 PRIMARY KEY, email text UNIQUE, code text UNIQUE DEFERRABLE INITIALLY DEFERRED, age smallint CHECK (age >= 0),
			parent int8 REFERENCES t DEFERRABLE INITIALLY DEFERRED)`,
		`CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.age = 13 THEN RETURN NULL; END IF;
			IF NEW.age = 14 THEN RAISE EXCEPTION 'not fourteen'; END IF;
			IF NEW.age = 15 THEN RAISE EXCEPTION 'not fifteen' USING ERRCODE = 'LS015'; END IF;
			RETURN NEW; END $$`,
		`CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION judge()`)
	a, orphan, first := "a", int64(99), int64(1)
	store1(t, s, 1, V{Email: &a, Code: &a, Age: 1})
	type set = lockstep.ChangeSet[int64, V]
	one := func(k int64, v V) set {
		return set{Changes: []lockstep.Change[int64, V]{{Key: k, Value: v}}}
	}
	both := one(20, V{Age: 1})
	both.Changes = append(both.Changes, one(21, V{Age: -1}).Changes...)
	for _, refused := range []struct {
		name string
		set  set
		part string
	}{
		{"Unique", one(2, V{Email: &a}), "t_email_key"},
		{"DeferredUnique", one(2, V{Code: &a}), "t_code_key"},
		{"Check", one(2, V{Age: -1}), "key 2: ERROR: new row for relation \"t\" violates check constraint"},
		{"DeferredForeignKey", one(2, V{Parent: &orphan}), "foreign key"},
		{"Ignored", one(2, V{Age: 13}), "a trigger has ignored"},
		{"IgnoredUpdate", one(1, V{Age: 13}), "a trigger has ignored"},
		{"Raised", one(2, V{Age: 14}), "not fourteen"},
		{"RaisedWithACode", one(2, V{Age: 15}), "not fifteen"},
		{"OneOfTwo", both, "check constraint"},
	} {
		t.Run(refused.name, func(t *testing.T) {
			for _, before := range []int{0, 1} {
				for _, after := range []int{0, 1} {
					var batch []set
					if before == 1 {
						batch = append(batch, one(30, V{Age: 5}))
					}
					batch = append(batch, refused.set)
					if after == 1 {
						batch = append(batch, one(31, V{Age: 6, Parent: &first}))
					}
					out, err := s.Commit(t.Context(), batch)
					if err != nil {
						t.Fatal(err)
					}
					wantParts(t, out[before].Err, lockstep.ErrInvalid, "table public.t", refused.part)
					for i, o := range out {
						if i != before && (o.Err != nil || len(o.Rows) != 1 || !o.Rows[0].Exists) {
							t.Errorf("set %d shares the fate of set %d: %+v", i, before, o)
						}
					}
					await(t, url, fmt.Sprintf("SELECT count(*) = %d AND bool_or(id = 1 AND email = 'a' AND code = 'a' AND age = 1) FROM t", 1+before+after))
					run(t, connect(t, url), "DELETE FROM t WHERE id > 1")
				}
			}
		})
	}
	store1(t, s, 3, V{Parent: &first})
	o := change1(t, s, lockstep.Change[int64, V]{Key: 1, Delete: true})
	wantParts(t, o.Err, lockstep.ErrInvalid, "key 1", "foreign key")

	// In a transaction of the caller's, too, and a deferred constraint when it ends.
	caps := s.Capabilities()
	for part, v := range map[string]V{"t_email_key": {Email: &a}, "t_code_key": {Code: &a}} {
		x, err := caps.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o, err := caps.Apply(t.Context(), x, one(4, v))
		if err == nil {
			err = o.Err
		}
		if err == nil {
			err = x.Commit(t.Context())
		}
		wantParts(t, err, lockstep.ErrInvalid, part)
		if err := x.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if r := load1(t, s, 4); r.Exists {
		t.Errorf("it was written: %+v", r)
	}
}

// A value that another unique index forbids is refused, and the row that has it stays
// as it is: the row of the key decides whether to insert or to update.
func TestAnUpsertDoesNotTouchAnotherRow(t *testing.T) {
	type V struct {
		Email string `db:"email"`
		Name  string `db:"name"`
	}
	url := dbtest.Postgres(t)
	s := mapTable[string, V](t, url, pgstore.TableOptions{}, `CREATE TABLE t (id text PRIMARY KEY, email text UNIQUE, name text)`)
	store1(t, s, "a", V{"a@x", "ann"})
	for _, batch := range [][]string{{"b"}, {"c", "b", "d"}} {
		var sets []lockstep.ChangeSet[string, V]
		for _, k := range batch {
			v := V{k + "@x", k}
			if k == "b" {
				v.Email = "a@x"
			}
			sets = append(sets, lockstep.ChangeSet[string, V]{Changes: []lockstep.Change[string, V]{{Key: k, Value: v}}})
		}
		out, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range batch {
			if (out[i].Err != nil) != (k == "b") {
				t.Errorf("set of %s: %+v", k, out[i])
			}
		}
		if r := load1(t, s, "a"); r.Value != (V{"a@x", "ann"}) {
			t.Errorf("the other row is %+v", r)
		}
	}
}

func TestCompositeKeys(t *testing.T) {
	type K struct {
		Tenant string   `db:"tenant"`
		ID     int32    `db:"id"`
		Shard  [16]byte `db:"shard"`
	}
	type V struct {
		ID   int64  `db:"id"`
		Name string `db:"name"`
	}
	url := dbtest.Postgres(t)
	s := mapTable[K, V](t, url, pgstore.TableOptions{}, `CREATE TABLE t (id smallint, shard uuid, name text, tenant varchar(9), PRIMARY KEY (tenant, id, shard))`)
	var keys []K
	var sets []lockstep.ChangeSet[K, V]
	for i := range 40 {
		k := K{[]string{"a", "b"}[i%2], int32(i/2) - 10, [16]byte{byte(i)}}
		keys = append(keys, k)
		sets = append(sets, lockstep.ChangeSet[K, V]{Changes: []lockstep.Change[K, V]{{Key: k, Value: V{Name: fmt.Sprint(k)}}}})
	}
	if _, err := s.Commit(t.Context(), sets); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Load(t.Context(), append(keys, K{Tenant: "a", ID: 1000}))
	if err != nil || len(rows) != len(keys) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for k, r := range rows {
		if r.Value.Name != fmt.Sprint(k) || r.Value.ID != int64(k.ID) {
			t.Errorf("key %v holds %+v", k, r.Value)
		}
	}
	seen := map[K]bool{}
	pages := 0
	for cursor := any(nil); ; pages++ {
		page, err := s.Capabilities().Scan(t.Context(), cursor, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Keys {
			seen[k] = true
		}
		if cursor = page.Next; cursor == nil {
			break
		}
	}
	if len(seen) != len(keys) || pages != 5 {
		t.Errorf("the scan has %d keys in %d pages, want %d", len(seen), pages+1, len(keys))
	}
	_, err = s.Capabilities().Scan(t.Context(), "a", 7)
	wantParts(t, err, lockstep.ErrInvalid, "cursor", "public.t")
	if o := change1(t, s, lockstep.Change[K, V]{Key: keys[0], Delete: true}); o.Err != nil || !o.Existed[0] {
		t.Errorf("%+v", o)
	}
	if r := load1(t, s, keys[0]); r.Exists {
		t.Errorf("%+v", r)
	}
}

func TestATableIsOpenedWithItsName(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	url := dbtest.Postgres(t)
	c := connect(t, url)
	for _, query := range []string{`CREATE SCHEMA app`, `CREATE TABLE app."Users" (id int PRIMARY KEY, name text, must text NOT NULL)`,
		`INSERT INTO app."Users" VALUES (1, 'ann', 'm')`, `CREATE UNLOGGED TABLE quick (id int PRIMARY KEY, name text)`} {
		run(t, c, query)
	}
	pool := newPool(t, url)
	s, err := pgstore.NewTable[int, V](t.Context(), pool, `app."Users"`, pgstore.TableOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if r := load1(t, s, 1); r.Value.Name != "ann" {
		t.Errorf("%+v", r)
	}
	if caps := s.Capabilities(); !caps.ReadOnly || caps.Begin != nil || caps.Versions {
		t.Errorf("%+v", caps)
	}
	_, err = s.Commit(t.Context(), nil)
	wantParts(t, err, lockstep.ErrUnsupported, "ReadOnly", "app.Users")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	_, err = s.Load(t.Context(), []int{1})
	wantError(t, err, lockstep.ErrClosed)

	db := openPool(t, url)
	if _, err := pgstore.OpenIn[int, string](t.Context(), db, pgstore.Options{Table: "own"}); err != nil {
		t.Fatal(err)
	}
	for name, parts := range map[string][]string{
		"quick": {"unlogged"}, "own": {"key-value table", "OpenIn"}, `app."Users"`: {"column must is NOT NULL"}, "users": {"no such table"},
		"app.Users": {"no such table"}, "a b": {"no table's name"},
	} {
		_, err := pgstore.NewTableIn[int, V](t.Context(), db, name, pgstore.TableOptions{})
		wantParts(t, err, lockstep.ErrInvalid, parts...)
	}
	unsafe, err := pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{AllowUnsafeDurability: true})
	if err != nil {
		t.Fatal(err)
	}
	defer unsafe.Close()
	if _, err := pgstore.NewTableIn[int, V](t.Context(), unsafe, "quick", pgstore.TableOptions{}); err != nil {
		t.Error(err)
	}
	_, err = pgstore.NewTableIn[int, V](t.Context(), nil, "quick", pgstore.TableOptions{})
	wantParts(t, err, lockstep.ErrInvalid, "nil")
}

// Versions of a mapped table grow across a deletion, although nothing keeps them.
func TestTableVersionsGrow(t *testing.T) {
	type V struct {
		Name    string `db:"name"`
		Version int64  `db:"version,version"`
	}
	url := dbtest.Postgres(t)
	s := mapTable[string, V](t, url, pgstore.TableOptions{}, `CREATE TABLE t (id text PRIMARY KEY, name text, version bigint)`,
		`INSERT INTO t VALUES ('old', 'from before the column', NULL)`)
	if r := load1(t, s, "old"); r.Version != 0 || !r.Exists {
		t.Errorf("a row without a version is %+v", r)
	}
	c := connect(t, url)
	last := lockstep.Version(0)
	ahead := time.Now().Add(time.Hour).UnixMicro()
	for range 3 {
		r := store1(t, s, "k", V{Name: "v", Version: 5})
		if r.Version <= last || r.Value.Version != int64(r.Version) {
			t.Errorf("after version %d: %+v", last, r)
		}
		run(t, c, "UPDATE t SET version = greatest(version, $1::int8)", ahead)
		o := change1(t, s, lockstep.Change[string, V]{Key: "k", Delete: true})
		if o.Err != nil || int64(o.Rows[0].Version) <= ahead {
			t.Errorf("the deletion has %+v", o)
		}
		last = o.Rows[0].Version
	}
	r := store1(t, s, "k", V{Name: "v"})
	out, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{{DeleteAll: true}})
	if err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	if again := store1(t, s, "k", V{}); again.Version <= r.Version {
		t.Errorf("version %d after %d and DeleteAll", again.Version, r.Version)
	}
	run(t, c, "UPDATE t SET version = 9223372036854775807")
	o := change1(t, s, lockstep.Change[string, V]{Key: "k", Value: V{}})
	wantParts(t, o.Err, lockstep.ErrInvalid, "key k", "last")
}

// A row that no value can be made of is an error for its own key, which can be
// written and deleted.
func TestAnUnreadableRowSparesItsNeighbours(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	url := dbtest.Postgres(t)
	s := mapTable[string, V](t, url, pgstore.TableOptions{}, `CREATE TABLE t (id text PRIMARY KEY, n int)`)
	c := connect(t, url)
	store1(t, s, "bad", V{1})
	run(t, c, "UPDATE t SET n = NULL")
	_, err := s.Load(t.Context(), []string{"bad"})
	wantParts(t, err, lockstep.ErrInvalid, "table public.t", "key bad", "column n", "NULL")
	_, err = s.Capabilities().Scan(t.Context(), nil, 10)
	wantParts(t, err, lockstep.ErrInvalid, "table public.t", "key bad", "column n")
	type set = lockstep.ChangeSet[string, V]
	out, err := s.Commit(t.Context(), []set{
		{Changes: []lockstep.Change[string, V]{{Key: "before", Value: V{1}}}},
		{Checks: []lockstep.Check[string]{{Key: "bad", Value: V{1}}}},
		{Changes: []lockstep.Change[string, V]{{Key: "after", Value: V{2}}}},
	})
	if err != nil || out[0].Err != nil || out[2].Err != nil {
		t.Fatal(out, err)
	}
	wantError(t, out[1].Err, lockstep.ErrConflict)
	store1(t, s, "bad", V{3})
	run(t, c, "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := NULL; RETURN NEW; END'")
	run(t, c, "CREATE TRIGGER spoil BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.n = 0) EXECUTE FUNCTION spoil()")
	if o := change1(t, s, lockstep.Change[string, V]{Key: "bad", Value: V{0}}); o.Err != nil || o.Rows != nil {
		t.Errorf("rows of what cannot be read: %+v", o)
	}
	if o := change1(t, s, lockstep.Change[string, V]{Key: "bad", Delete: true}); o.Err != nil || !o.Existed[0] {
		t.Errorf("%+v", o)
	}
}

// A key that its type does not have is refused, and the others of its batch are not.
func TestAKeyThatItsTypeDoesNotHave(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	url := dbtest.Postgres(t)
	s := mapTable[string, V](t, url, pgstore.TableOptions{}, `CREATE TYPE mood AS ENUM ('sad', 'happy')`, `CREATE TABLE t (id mood PRIMARY KEY, n int)`)
	type set = lockstep.ChangeSet[string, V]
	one := func(k string) set { return set{Changes: []lockstep.Change[string, V]{{Key: k, Value: V{1}}}} }
	out, err := s.Commit(t.Context(), []set{one("sad"), one("odd"), one("happy")})
	if err != nil || out[0].Err != nil || out[2].Err != nil {
		t.Fatal(out, err)
	}
	wantParts(t, out[1].Err, lockstep.ErrInvalid, "public.t", "odd")
	_, err = s.Load(t.Context(), []string{"sad", "odd"})
	wantParts(t, err, lockstep.ErrInvalid, "public.t", "odd")
	if rows, err := s.Load(t.Context(), []string{"sad", "happy"}); err != nil || len(rows) != 2 {
		t.Errorf("%v, %v", rows, err)
	}
}
