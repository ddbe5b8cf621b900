package mysqlstore_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// What the database makes of a row is what the commit gives back: defaults, generated
// columns, rounding, triggers; and a column without a field is never written.
func TestWhatTheDatabaseMakesOfARowIsReadBack(t *testing.T) {
	type V struct {
		Name    string    `db:"name"`
		Price   string    `db:"price"`
		Upper   string    `db:"upper"`
		Double  int       `db:"doubled"`
		Made    time.Time `db:"made,readonly"`
		Touched int       `db:"touched,readonly"`
	}
	dsn := dbtest.MariaDB(t)
	s := mapTable[int64, V](t, dsn, mysqlstore.TableOptions{},
		`CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20), price DECIMAL(6,2), upper VARCHAR(20) AS (UPPER(name)) STORED, doubled INT AS (touched * 2) VIRTUAL,
			made TIMESTAMP NOT NULL DEFAULT '2020-01-01', touched INT NOT NULL DEFAULT 0, hidden VARCHAR(20) NOT NULL DEFAULT 'untouched')`,
		`CREATE TRIGGER trim BEFORE INSERT ON t FOR EACH ROW SET NEW.name = TRIM(NEW.name)`,
		`CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW SET NEW.touched = OLD.touched + 1`)
	pool := connect(t, dsn)
	want := V{Name: "ann", Price: "1.24", Upper: "ANN", Made: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, id := range []int64{7, 0, -1} {
		if r := store1(t, s, id, V{Name: " ann ", Price: "1.235", Upper: "ignored", Touched: 9}); r.Value != want {
			t.Errorf("inserted %d: %+v, want %+v", id, r.Value, want)
		}
	}
	execute(t, pool, "UPDATE t SET hidden = 'set by another', touched = 0")
	want.Name, want.Upper, want.Price, want.Touched, want.Double = "bob", "BOB", "2.00", 2, 4
	execute(t, pool, "UPDATE t SET touched = 0")
	if r := store1(t, s, 0, V{Name: "bob", Price: "2"}); r.Value.Name != want.Name || r.Value.Upper != want.Upper || r.Value.Price != want.Price || r.Value.Double != 2*r.Value.Touched || r.Value.Touched == 0 {
		t.Errorf("updated: %+v, want %+v", r.Value, want)
	}
	waitFor(t, pool, 3, "SELECT COUNT(*) FROM t WHERE hidden = 'set by another' AND id IN (7, 0, -1)")
}

// A set that the schema refuses fails alone, says why, and touches no other row.
func TestTheSchemaRefusesOneSet(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		type V struct {
			Email  *string `db:"email"`
			Age    int     `db:"age"`
			Parent *int64  `db:"parent"`
		}
		dsn := dbtest.MariaDB(t)
		s := mapAs[int64, V](t, dsn, mysql, mysqlstore.TableOptions{},
			`CREATE TABLE t (id BIGINT PRIMARY KEY, email VARCHAR(20) UNIQUE, age SMALLINT, parent BIGINT, FOREIGN KEY up (parent) REFERENCES t (id), CONSTRAINT grown CHECK (age >= 0))`,
			`CREATE TRIGGER judge BEFORE INSERT ON t FOR EACH ROW BEGIN
				IF NEW.age = 14 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not fourteen'; END IF;
				IF NEW.age = 15 THEN SET NEW.id = NEW.id + 1000; END IF; END`,
			`CREATE TRIGGER judges BEFORE UPDATE ON t FOR EACH ROW BEGIN IF NEW.age = 16 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not sixteen'; END IF; END`)
		pool := connect(t, dsn)
		a, orphan, first := "a", int64(99), int64(1)
		store1(t, s, 1, V{Email: &a, Age: 1})
		type set = lockstep.ChangeSet[int64, V]
		one := func(k int64, v V) set {
			return set{Changes: []lockstep.Change[int64, V]{{Key: k, Value: v}}}
		}
		both := one(20, V{Age: 1})
		both.Changes = append(both.Changes, one(21, V{Age: -1}).Changes...)
		for name, refused := range map[string]struct {
			set  set
			part string
		}{
			"Unique":        {one(2, V{Email: &a}), "email"},
			"Check":         {one(2, V{Age: -1}), "grown"},
			"CheckOfUpdate": {one(1, V{Age: -1}), "grown"},
			"ForeignKey":    {one(2, V{Parent: &orphan}), "key 2: Error 1452"},
			"Raised":        {one(2, V{Age: 14}), "not fourteen"},
			"RaisedUpdate":  {one(1, V{Age: 16}), "not sixteen"},
			"AnotherKey":    {one(2, V{Age: 15}), "another key"},
			"OneOfTwo":      {both, "grown"},
		} {
			for around := range 4 {
				var batch []set
				at := around & 1
				if at == 1 {
					batch = append(batch, one(30, V{Age: 5}))
				}
				batch = append(batch, refused.set)
				if around&2 != 0 {
					batch = append(batch, one(31, V{Age: 6, Parent: &first}), set{Changes: []lockstep.Change[int64, V]{{Key: 30, Delete: true}}})
				}
				out, err := s.Commit(t.Context(), batch)
				if err != nil {
					t.Fatal(name, err)
				}
				wantParts(t, out[at].Err, lockstep.ErrInvalid, "t: ", refused.part)
				for i, o := range out {
					if i != at && o.Err != nil {
						t.Errorf("%s: set %d shares the fate of set %d: %+v", name, i, at, o)
					}
				}
				rows := at
				if around&2 != 0 {
					rows = 1
				}
				waitFor(t, pool, 1+rows, "SELECT COUNT(*) FROM t")
				waitFor(t, pool, 1, "SELECT COUNT(*) FROM t WHERE id = 1 AND email = 'a' AND age = 1")
				execute(t, pool, "DELETE FROM t WHERE id > 1")
			}
		}
		store1(t, s, 3, V{Parent: &first})
		o := change1(t, s, lockstep.Change[int64, V]{Key: 1, Delete: true})
		wantParts(t, o.Err, lockstep.ErrInvalid, "t: key 1: ", "foreign key")

		// In a transaction of several caches, too.
		caps := s.Capabilities()
		x, err := caps.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o, err = caps.Apply(t.Context(), x, one(4, V{Email: &a}))
		if err != nil {
			t.Fatal(err)
		}
		wantParts(t, o.Err, lockstep.ErrInvalid, "email")
		if err := x.Commit(t.Context()); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("the commit of a refused set: %v", err)
		}
		if r := load1(t, s, 4); r.Exists {
			t.Errorf("it was written: %+v", r)
		}
	})
}

// mapAs is mapTable as on a server of that kind.
func mapAs[K comparable, V any](t testing.TB, dsn string, mysql bool, opts mysqlstore.TableOptions, schema ...string) *mysqlstore.Table[K, V] {
	t.Helper()
	pool := connect(t, dsn)
	for _, s := range schema {
		execute(t, pool, s)
	}
	db := openDatabase(t, dsn)
	if mysql {
		mysqlstore.AsMySQL(db)
	}
	s, err := mysqlstore.NewTableIn[K, V](t.Context(), db, "t", opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A value that another unique index forbids is refused, and the row that has it stays
// as it is: the row of the key decides whether to insert or to update.
func TestAnUpsertDoesNotTouchAnotherRow(t *testing.T) {
	type V struct {
		Email string `db:"email"`
		Name  string `db:"name"`
	}
	s := mapTable[string, V](t, dbtest.MariaDB(t), mysqlstore.TableOptions{}, `CREATE TABLE t (id VARBINARY(20) PRIMARY KEY, email VARCHAR(20) UNIQUE, name TEXT)`)
	store1(t, s, "a", V{"a@x", "ann"})
	store1(t, s, "there", V{"there@x", "there"})
	for _, batch := range [][]string{{"b"}, {"c", "b", "d"}, {"there"}, {"c", "there", "a"}} {
		var sets []lockstep.ChangeSet[string, V]
		bad := map[string]bool{"b": true, "there": true}
		for _, k := range batch {
			v := V{k + "@x", k}
			if bad[k] {
				v.Email = "A@X" // the same, for the column
			}
			if k == "a" {
				v = V{"a@x", "ann"}
			}
			sets = append(sets, lockstep.ChangeSet[string, V]{Changes: []lockstep.Change[string, V]{{Key: k, Value: v}}})
		}
		out, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range batch {
			if errors.Is(out[i].Err, lockstep.ErrInvalid) != bad[k] {
				t.Errorf("set of %s: %+v", k, out[i])
			}
		}
		if r := load1(t, s, "a"); r.Value != (V{"a@x", "ann"}) {
			t.Errorf("the other row is %+v", r)
		}
		if r := load1(t, s, "there"); r.Value != (V{"there@x", "there"}) {
			t.Errorf("the row is %+v", r)
		}
	}
}

// Batches of every size are inserted, replaced and deleted, and each row gets what was
// meant for it.
func TestBatchesOfTableRows(t *testing.T) {
	type K struct {
		Tenant string `db:"tenant"`
		ID     int32  `db:"id"`
	}
	type V struct {
		Name string  `db:"name"`
		Blob []byte  `db:"blobs"`
		N    *uint64 `db:"n"`
	}
	for _, versioned := range []string{"", "version"} {
		s := mapTable[K, V](t, dbtest.MariaDB(t), mysqlstore.TableOptions{VersionColumn: versioned},
			`CREATE TABLE t (id INT, name TEXT, tenant VARBINARY(9), blobs BLOB, n BIGINT UNSIGNED, version BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (tenant, id))`)
		for round, size := range []int{1, 2, 7, 33, 300, 300, 90} {
			var sets []lockstep.ChangeSet[K, V]
			var keys []K
			want := map[K]V{}
			for i := range size {
				k := K{fmt.Sprint("tenant", i%3), int32(i * 7)}
				n := uint64(1)<<63 + uint64(i)
				v := V{Name: fmt.Sprint(round, " of ", k, strings.Repeat("x", i)), Blob: []byte{byte(i), 0xff}, N: &n}
				if i%5 == round%5 {
					v.N, v.Blob = nil, nil
				}
				c := lockstep.Change[K, V]{Key: k, Value: v}
				if i%11 == round%11 {
					c = lockstep.Change[K, V]{Key: k, Delete: true}
				} else {
					want[k] = v
				}
				keys = append(keys, k)
				sets = append(sets, lockstep.ChangeSet[K, V]{Changes: []lockstep.Change[K, V]{c}})
			}
			out, err := s.Commit(t.Context(), sets)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := s.Load(t.Context(), keys)
			if err != nil || len(rows) != len(want) {
				t.Fatalf("%d rows, want %d, %v", len(rows), len(want), err)
			}
			for i, k := range keys {
				v, there := want[k]
				if out[i].Err != nil || there && (!reflect.DeepEqual(rows[k].Value, v) || !reflect.DeepEqual(out[i].Rows[0], rows[k])) {
					t.Fatalf("round %d: key %v: %+v, and the outcome %+v, want %+v", round, k, rows[k], out[i], v)
				}
			}
		}
		_, err := s.Capabilities().Scan(t.Context(), "a", 7)
		wantParts(t, err, lockstep.ErrInvalid, "cursor", "t")
	}
}

func TestATableIsOpenedWithItsName(t *testing.T) {
	type V struct {
		Name string `db:"name"`
	}
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	execute(t, pool, "CREATE TABLE `a b` (id INT PRIMARY KEY, name TEXT, must TEXT NOT NULL)")
	execute(t, pool, "INSERT INTO `a b` VALUES (1, 'ann', 'm')")
	s, err := mysqlstore.NewTable[int, V](t.Context(), pool, "`a b`", mysqlstore.TableOptions{ReadOnly: true})
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
	wantParts(t, err, lockstep.ErrUnsupported, "ReadOnly", "a b")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err = s.Load(t.Context(), []int{1}); !errors.Is(err, lockstep.ErrClosed) {
		t.Errorf("Load after Close: %v", err)
	}
	db := openDatabase(t, dsn)
	if _, err := mysqlstore.OpenIn[int, string](t.Context(), db, mysqlstore.Options{Table: "own"}); err != nil {
		t.Fatal(err)
	}
	wantParts(t, tableError[int, V](t, db, "own", mysqlstore.TableOptions{}), lockstep.ErrInvalid, "key-value table", "OpenIn")
	wantParts(t, tableError[int, V](t, db, "`a b`", mysqlstore.TableOptions{}), lockstep.ErrInvalid, "column must is NOT NULL")
	wantParts(t, tableError[int, V](t, nil, "t", mysqlstore.TableOptions{}), lockstep.ErrInvalid, "nil")
}

// Versions of a mapped table grow across a deletion, although nothing keeps them.
func TestTableVersionsGrow(t *testing.T) {
	type V struct {
		Name    string `db:"name"`
		Version int64  `db:"version,version"`
	}
	dsn := dbtest.MariaDB(t)
	s := mapTable[string, V](t, dsn, mysqlstore.TableOptions{}, `CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, name TEXT, version BIGINT)`,
		`INSERT INTO t VALUES ('old', 'from before the column', NULL)`)
	if r := load1(t, s, "old"); r.Version != 0 || !r.Exists {
		t.Errorf("a row without a version is %+v", r)
	}
	pool := connect(t, dsn)
	last := lockstep.Version(0)
	ahead := time.Now().Add(time.Hour).UnixMicro()
	for range 3 {
		r := store1(t, s, "k", V{Name: "v", Version: 5})
		if r.Version <= last || r.Value.Version != int64(r.Version) {
			t.Errorf("after version %d: %+v", last, r)
		}
		execute(t, pool, "UPDATE t SET version = GREATEST(version, ?)", ahead)
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
	execute(t, pool, "UPDATE t SET version = 9223372036854775807")
	o := change1(t, s, lockstep.Change[string, V]{Key: "k", Value: V{}})
	wantParts(t, o.Err, lockstep.ErrInvalid, "key k", "last")
}

// A row that no value can be made of is an error for its own key, which can be
// written and deleted.
func TestAnUnreadableRowSparesItsNeighbours(t *testing.T) {
	type V struct {
		N int `db:"n"`
	}
	dsn := dbtest.MariaDB(t)
	s := mapTable[string, V](t, dsn, mysqlstore.TableOptions{}, `CREATE TABLE t (id VARBINARY(9) PRIMARY KEY, n INT)`)
	store1(t, s, "bad", V{1})
	execute(t, connect(t, dsn), "UPDATE t SET n = NULL")
	_, err := s.Load(t.Context(), []string{"bad"})
	wantParts(t, err, lockstep.ErrInvalid, "t: key bad", "column n", "NULL")
	_, err = s.Capabilities().Scan(t.Context(), nil, 10)
	wantParts(t, err, lockstep.ErrInvalid, "t: key bad", "column n")
	type set = lockstep.ChangeSet[string, V]
	out, err := s.Commit(t.Context(), []set{
		{Changes: []lockstep.Change[string, V]{{Key: "before", Value: V{1}}}},
		{Checks: []lockstep.Check[string]{{Key: "bad", Value: V{1}}}},
		{Changes: []lockstep.Change[string, V]{{Key: "after", Value: V{2}}}},
		{Changes: []lockstep.Change[string, V]{{Key: "bad", Value: V{3}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		if errors.Is(o.Err, lockstep.ErrConflict) != (i == 1) || o.Err != nil && i != 1 {
			t.Errorf("set %d: %+v", i, o)
		}
	}
	if r := load1(t, s, "bad"); r.Value.N != 3 {
		t.Errorf("%+v", r)
	}
}
