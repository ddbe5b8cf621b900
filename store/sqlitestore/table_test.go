package sqlitestore

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

func openTable[K comparable, V any](t *testing.T, opts TableOptions, schema ...string) *Table[K, V] {
	t.Helper()
	path := newPath(t)
	run(t, path, schema...)
	s, err := NewTable[K, V](t.Context(), openAt(t, path), "t", opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openAt(t *testing.T, path string) *Database {
	t.Helper()
	db, err := OpenDatabase(t.Context(), path, DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

type justName struct {
	Name string `db:"name"`
}

func TestTablesThatDoNotFit(t *testing.T) {
	type V struct {
		A int    `db:"a"`
		B string `db:"b"`
	}
	type pair struct {
		X string `db:"x"`
		Y int    `db:"y"`
	}
	path := newPath(t)
	run(t, path,
		"CREATE TABLE nokey (a INTEGER, b TEXT)",
		"CREATE TABLE nocase (id TEXT COLLATE NOCASE PRIMARY KEY, a INTEGER, b TEXT)",
		"CREATE TABLE rtrim (id TEXT, a INTEGER, b TEXT, PRIMARY KEY (id COLLATE RTRIM)) WITHOUT ROWID",
		"CREATE TABLE numkey (id NUMERIC PRIMARY KEY, a INTEGER, b TEXT)",
		"CREATE TABLE intkey (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)",
		"CREATE TABLE bloby (id BLOB PRIMARY KEY, a INTEGER, b TEXT)",
		"CREATE TABLE two (x TEXT, y INTEGER, a INTEGER, b TEXT, PRIMARY KEY (x, y))",
		"CREATE TABLE wrong (id TEXT PRIMARY KEY, a TEXT, c NOT NULL)",
		"CREATE TABLE good (id TEXT PRIMARY KEY, a INTEGER, b TEXT)",
		"CREATE VIEW seen AS SELECT * FROM good",
		"CREATE VIRTUAL TABLE search USING fts5(b)",
	)
	db := openAt(t, path)
	refuse := func(err error, parts ...string) {
		t.Helper()
		wantError(t, err, lockstep.ErrInvalid, parts...)
	}
	refuse(tableError[string, V](db, "missing"), "no table missing")
	refuse(tableError[string, V](db, "nokey"), "no primary key")
	refuse(tableError[string, V](db, "nocase"), "id", "NOCASE")
	refuse(tableError[string, V](db, "rtrim"), "id", "RTRIM")
	refuse(tableError[string, V](db, "numkey"), "id", "NUMERIC")
	refuse(tableError[string, V](db, "intkey"), "id", "INTEGER")
	refuse(tableError[int, V](db, "good"), "id", "TEXT")
	refuse(tableError[string, V](db, "bloby"), "id", "BLOB")
	refuse(tableError[string, V](db, "two"), "2 columns")
	refuse(tableError[string, V](db, "seen"), "view")
	refuse(tableError[string, V](db, "search"), "virtual")
	refuse(tableError[time.Time, V](db, "good"), "time.Time")
	refuse(tableError[bool, V](db, "good"), "bool")
	refuse(tableError[string, int](db, "good"), "not a struct")
	refuse(tableError[string, struct{ A int }](db, "good"), "no field")
	refuse(tableError[pair, V](db, "good"), "id", "X")
	refuse(tableError[struct {
		X string `db:"x"`
		Y int
	}, V](db, "two"), "Y is part of the key and not mapped")
	refuse(tableError[string, V](nil, "good"), "nil")
	// Everything at once.
	refuse(tableError[string, struct {
		A int       `db:"a"`
		B string    `db:"b"`
		C string    `db:"c,nonsense"`
		D chan int  `db:"a"`
		E time.Time `db:"e,unix"`
	}](db, "wrong"),
		"A: column a: its TEXT column", "B: there is no column b", "nonsense",
		"E: there is no column e", "c is NOT NULL without a default")
	refuse(tableError[string, struct {
		A int `db:"a,version"`
		B int `db:"b,version"`
	}](db, "good"), "both the version", "column b: its TEXT column")
	refuse(tableError[string, struct {
		A int32 `db:"a,version"`
	}](db, "good"), "64 bits")
	_, err := NewTable[string, V](t.Context(), db, "good", TableOptions{VersionColumn: "a"})
	refuse(err, "a", "mapped to a field already")
	_, err = NewTable[string, V](t.Context(), db, "good", TableOptions{VersionColumn: "nothing"})
	refuse(err, "no column nothing")

	if err := tableError[pair, V](db, "two"); err != nil {
		t.Error(err)
	}
	if err := tableError[[3]byte, V](db, "bloby"); err != nil {
		t.Error(err)
	}
	if err := tableError[int64, V](db, "INTKEY"); err != nil {
		t.Error(err)
	}
}

func tableError[K comparable, V any](db *Database, table string) error {
	_, err := NewTable[K, V](context.Background(), db, table, TableOptions{})
	return err
}

// What the database makes of a row is what the commit gives back: defaults,
// generated columns, triggers.
func TestGeneratedValuesAreReadBack(t *testing.T) {
	type V struct {
		Name    string    `db:"name"`
		Upper   string    `db:"upper"`
		Made    time.Time `db:"made,readonly"`
		Touched int       `db:"touched,readonly"`
	}
	s := openTable[int64, V](t, TableOptions{}, `CREATE TABLE t (
			id INTEGER PRIMARY KEY, name TEXT NOT NULL, upper TEXT GENERATED ALWAYS AS (upper(name)) STORED,
			made TEXT NOT NULL DEFAULT '2020-02-02 02:02:02', touched INTEGER NOT NULL DEFAULT 0, hidden TEXT DEFAULT 'kept')`,
		`CREATE TRIGGER touch AFTER UPDATE OF name ON t BEGIN UPDATE t SET touched = touched + 1, name = trim(new.name) WHERE id = new.id; END`)
	want := V{Name: "ada", Upper: "ADA", Made: time.Date(2020, 2, 2, 2, 2, 2, 0, time.UTC)}
	if r := put(t, s, 1, V{Name: "ada", Upper: "ignored", Touched: 9}); r.Value != want {
		t.Errorf("inserted: %+v, want %+v", r.Value, want)
	}
	run(t, s.Database().Path(), "UPDATE t SET hidden = 'set by another'")
	want.Name, want.Upper, want.Touched = "bob", "BOB", 1
	if r := put(t, s, 1, V{Name: " bob "}); r.Value != want || r.Value != get(t, s, 1).Value {
		t.Errorf("updated: %+v, want %+v, Load has %+v", r.Value, want, get(t, s, 1).Value)
	}
	if n := countIn(t, s.db, "SELECT count(*) FROM t WHERE hidden = 'set by another'"); n != 1 {
		t.Error("a column without a field was written")
	}
}

func countIn(t *testing.T, db *Database, query string) (n int64) {
	t.Helper()
	if err := db.read(t.Context(), func(c *conn) (err error) { n, err = c.integer(query); return err }); err != nil {
		t.Fatal(err)
	}
	return n
}

// A set that the schema refuses fails alone, and says why.
func TestTheSchemaRefusesOneSet(t *testing.T) {
	type V struct {
		Email  *string `db:"email"`
		Age    int     `db:"age"`
		Parent *int64  `db:"parent"`
	}
	s := openTable[int64, V](t, TableOptions{},
		`CREATE TABLE t (id INTEGER PRIMARY KEY, email TEXT UNIQUE ON CONFLICT REPLACE, age INTEGER CHECK (age >= 0),
			parent INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)`,
		`CREATE TRIGGER no13 BEFORE INSERT ON t WHEN new.age = 13 BEGIN SELECT RAISE(IGNORE); END`,
		`CREATE TRIGGER no14 BEFORE INSERT ON t WHEN new.age = 14 BEGIN SELECT RAISE(ROLLBACK, 'not fourteen'); END`,
		`CREATE TRIGGER no15 BEFORE INSERT ON t WHEN new.age = 15 BEGIN SELECT RAISE(ABORT, 'not fifteen'); END`)
	a, b, orphan, first := "a@x", "b@x", int64(99), int64(1)
	put(t, s, 1, V{Email: &a, Age: 1})
	set := func(k int64, v V) lockstep.ChangeSet[int64, V] {
		return lockstep.ChangeSet[int64, V]{Changes: []lockstep.Change[int64, V]{{Key: k, Value: v}}}
	}
	both := set(20, V{Age: 1})
	both.Changes = append(both.Changes, set(21, V{Age: -1}).Changes...)
	for _, refused := range []struct {
		set  lockstep.ChangeSet[int64, V]
		part string
	}{
		{set(2, V{Email: &a}), "UNIQUE constraint failed: t.email"},
		{set(2, V{Age: -1}), "CHECK constraint failed"},
		{set(2, V{Parent: &orphan}), "FOREIGN KEY"},
		{set(2, V{Age: 13}), "ignored"},
		{set(2, V{Age: 14}), "not fourteen"},
		{set(2, V{Age: 15}), "not fifteen"},
		{both, "CHECK"},
	} {
		t.Run(refused.part, func(t *testing.T) {
			for _, before := range []int{0, 1} {
				for _, after := range []int{0, 1} {
					var batch []lockstep.ChangeSet[int64, V]
					if before == 1 {
						batch = append(batch, set(30, V{Age: 5, Email: &b}))
					}
					batch = append(batch, refused.set)
					if after == 1 {
						batch = append(batch, set(31, V{Age: 6, Parent: &first}))
					}
					outcomes, err := s.Commit(t.Context(), batch)
					if err != nil {
						t.Fatal(err)
					}
					wantError(t, outcomes[before].Err, lockstep.ErrInvalid, refused.part)
					for i, o := range outcomes {
						if i != before && o.Err != nil {
							t.Errorf("set %d shares the fate of set %d: %v", i, before, o.Err)
						}
					}
					if n := countIn(t, s.db, "SELECT count(*) FROM t"); n != int64(1+before+after) {
						t.Errorf("%d rows, want %d", n, 1+before+after)
					}
					if r := get(t, s, 1); r.Value.Email == nil || *r.Value.Email != a {
						t.Errorf("another row was hit: %+v", r)
					}
					if _, err := s.Commit(t.Context(), []lockstep.ChangeSet[int64, V]{
						{Changes: []lockstep.Change[int64, V]{{Key: 30, Delete: true}, {Key: 31, Delete: true}}},
					}); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
	// A key that a foreign row needs.
	put(t, s, 3, V{Parent: &first})
	_, err := commitOne(s, lockstep.Change[int64, V]{Key: 1, Delete: true})
	wantError(t, err, lockstep.ErrInvalid, "FOREIGN KEY")
}

func TestCompositeKeys(t *testing.T) {
	type K struct {
		Tenant string `db:"tenant"`
		ID     int64  `db:"id"`
	}
	type V struct {
		ID   int64  `db:"id"`
		Name string `db:"name"`
	}
	s := openTable[K, V](t, TableOptions{}, "CREATE TABLE t (id INTEGER, name TEXT, tenant TEXT, PRIMARY KEY (tenant, id)) WITHOUT ROWID")
	var keys []K
	for i := range 40 {
		k := K{[]string{"a", "b"}[i%2], int64(i / 2)}
		keys = append(keys, k)
		if r := put(t, s, k, V{Name: fmt.Sprint(k)}); r.Value.ID != k.ID {
			t.Errorf("the key's field is %d, want %d", r.Value.ID, k.ID)
		}
	}
	rows, err := s.Load(t.Context(), append(keys, K{"a", 1000}))
	if err != nil || len(rows) != len(keys) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for k, r := range rows {
		if r.Value.Name != fmt.Sprint(k) {
			t.Errorf("key %v holds %+v", k, r.Value)
		}
	}
	var seen []K
	for cursor := any(nil); ; {
		page, err := s.scan(t.Context(), cursor, 7)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, page.Keys...)
		if cursor = page.Next; cursor == nil {
			break
		}
	}
	if len(seen) != len(keys) {
		t.Errorf("the scan has %d keys, want %d", len(seen), len(keys))
	}
	_, err = commitOne(s, lockstep.Change[K, V]{Key: K{"a", 1}, Value: V{ID: 2}})
	wantError(t, err, lockstep.ErrInvalid, "V.ID is 2")
	_, err = s.scan(t.Context(), "a", 7)
	wantError(t, err, lockstep.ErrInvalid, "cursor")
}

func TestReadOnlyTable(t *testing.T) {
	s := openTable[string, justName](t, TableOptions{ReadOnly: true},
		"CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, must TEXT NOT NULL)", "INSERT INTO t VALUES ('k', 'v', 'm')")
	if r := get(t, s, "k"); r.Value.Name != "v" {
		t.Errorf("%+v", r)
	}
	if caps := s.Capabilities(); !caps.ReadOnly || caps.Begin != nil {
		t.Errorf("%+v", caps)
	}
	_, err := commitOne(s, lockstep.Change[string, justName]{Key: "k"})
	wantError(t, err, lockstep.ErrUnsupported, "ReadOnly")
}

// A row that no value can be made of is an error for its own key, which says where
// to look; the sets that share its batch are committed, and so is a write of it.
func TestAnUnreadableRowFailsItsBatch(t *testing.T) {
	type V struct {
		N     int   `db:"n"`
		Price money `db:"price,readonly"` // its Scan panics at NULL
	}
	s := openTable[string, V](t, TableOptions{}, "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER, price TEXT DEFAULT '1.50')",
		"CREATE TRIGGER free AFTER UPDATE ON t WHEN new.n = 0 BEGIN UPDATE t SET price = NULL WHERE id = new.id; END")
	set := func(k string, n int) lockstep.ChangeSet[string, V] {
		return lockstep.ChangeSet[string, V]{Changes: []lockstep.Change[string, V]{{Key: k, Value: V{N: n}}}}
	}
	read := put(t, s, "bad", V{N: 1}).Value
	for column, spoil := range map[string]string{
		"n":     "UPDATE t SET n = 'many' WHERE id = 'bad'",
		"price": "UPDATE t SET price = NULL WHERE id = 'bad'",
	} {
		t.Run(column, func(t *testing.T) {
			put(t, s, "bad", V{N: 1})
			run(t, s.db.path, "UPDATE t SET price = '1.50'", spoil)
			unreadable := func() {
				t.Helper()
				_, err := s.Load(t.Context(), []string{"bad"})
				wantError(t, err, lockstep.ErrInvalid, "table t", "key bad", "column "+column)
				_, err = s.scan(t.Context(), nil, 10)
				wantError(t, err, lockstep.ErrInvalid, "table t", "key bad", "column "+column)
			}
			unreadable()
			outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{
				set("before", 1), {Checks: []lockstep.Check[string]{{Key: "bad", Value: read}}}, set("after", 2),
			})
			if err != nil || outcomes[0].Err != nil || outcomes[2].Err != nil {
				t.Fatalf("%v, %v", outcomes, err)
			}
			wantError(t, outcomes[1].Err, lockstep.ErrConflict, "bad")
			if get(t, s, "after").Value.N != 2 {
				t.Error("what shared the batch is not there")
			}
			unreadable()
		})
	}
	run(t, s.db.path, "UPDATE t SET price = '1.50', n = 1")
	// The write itself makes the row unreadable.
	outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, V]{set("before", 3), set("bad", 0), set("after", 3)})
	if err != nil || outcomes[0].Err != nil || outcomes[1].Err != nil || outcomes[2].Err != nil {
		t.Fatalf("%v, %v", outcomes, err)
	}
	if outcomes[1].Rows != nil {
		t.Errorf("rows of what cannot be read: %+v", outcomes[1].Rows)
	}
	if r := get(t, s, "after"); r.Value.N != 3 || outcomes[2].Rows[0] != r {
		t.Errorf("the neighbour is %+v, and was %+v", r, outcomes[2].Rows)
	}
	_, err = s.Load(t.Context(), []string{"bad"})
	wantError(t, err, lockstep.ErrInvalid, "key bad", "column price")
	if _, err := commitOne(s, lockstep.Change[string, V]{Key: "bad", Delete: true}); err != nil {
		t.Errorf("deleting it: %v", err)
	}
}

// A version that is no number is not 0, and does not keep DeleteAll from the others.
func TestAnUnreadableVersionIsTakenForNone(t *testing.T) {
	s := openTable[string, justName](t, TableOptions{VersionColumn: "v"}, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, v INTEGER)")
	first := put(t, s, "good", justName{"x"})
	put(t, s, "bad", justName{"x"})
	run(t, s.db.path, "UPDATE t SET v = 'one' WHERE id = 'bad'")
	_, err := s.Load(t.Context(), []string{"bad"})
	wantError(t, err, lockstep.ErrInvalid, "table t", "key bad", "column v", "version")
	outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, justName]{{DeleteAll: true}})
	if err != nil || outcomes[0].Err != nil {
		t.Fatalf("DeleteAll: %v, %v", outcomes, err)
	}
	if r := put(t, s, "good", justName{"x"}); r.Version <= first.Version {
		t.Errorf("version %d after %d", r.Version, first.Version)
	}
}

// Versions of a mapped table grow across a deletion, although nothing keeps them.
func TestTableVersionsGrow(t *testing.T) {
	type V struct {
		Name    string `db:"name"`
		Version int64  `db:"version,version"`
	}
	s := openTable[string, V](t, TableOptions{}, "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT, version INTEGER)",
		"INSERT INTO t VALUES ('old', 'from before the column', NULL)")
	if r := get(t, s, "old"); r.Version != 0 || !r.Exists {
		t.Errorf("a row without a version is %+v", r)
	}
	var last lockstep.Version
	ahead := time.Now().Add(time.Hour).UnixMicro()
	for range 3 {
		r := put(t, s, "k", V{Name: "v", Version: 5})
		if r.Version <= last || r.Value.Version != int64(r.Version) {
			t.Errorf("after version %d: %+v", last, r)
		}
		run(t, s.Database().Path(), fmt.Sprintf("UPDATE t SET version = max(version, %d)", ahead))
		o, err := commitOne(s, lockstep.Change[string, V]{Key: "k", Delete: true})
		if err != nil || int64(o.Rows[0].Version) <= ahead {
			t.Errorf("the deletion has %+v, %v", o, err)
		}
		last = o.Rows[0].Version
	}
}

func TestOddNames(t *testing.T) {
	type V struct {
		A string `db:"or\"der"`
		B string `db:"select"`
	}
	path := newPath(t)
	run(t, path, `CREATE TABLE "my ""table; --" ("key" TEXT PRIMARY KEY, "or""der" TEXT, "select" TEXT)`)
	s, err := NewTable[string, V](t.Context(), openAt(t, path), `my "table; --`, TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r := put(t, s, "k", V{"1", "2"}); r.Value != (V{"1", "2"}) {
		t.Errorf("%+v", r)
	}
	kv := openStore[string, string](t, newPath(t), Options{Table: strings.Repeat(`"; `, 3)})
	put(t, kv, "k", "v")
}

type octet uint8

func TestAnArrayOfANamedByteTypeDoesNotPanic(t *testing.T) {
	type V struct {
		A [2]octet  `db:"a"`
		P *[2]octet `db:"p"`
		S []octet   `db:"s"`
	}
	s := openTable[[2]octet, V](t, TableOptions{}, "CREATE TABLE t (id BLOB PRIMARY KEY, a BLOB, p BLOB, s BLOB)")
	want := V{A: [2]octet{1, 2}, P: &[2]octet{3, 4}, S: []octet{5}}
	for _, k := range [][2]octet{{}, {7, 8}} {
		put(t, s, k, want)
		if r := get(t, s, k); !reflect.DeepEqual(r.Value, want) {
			t.Errorf("%v: %+v", k, r)
		}
	}
	if page, err := s.scan(t.Context(), nil, 10); err != nil || len(page.Keys) != 2 || page.Keys[1] != [2]octet{7, 8} {
		t.Errorf("%v, %v", page.Keys, err)
	}
}
