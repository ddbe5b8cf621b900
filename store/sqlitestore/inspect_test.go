package sqlitestore

import (
	"database/sql"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Where the column and the index of the primary key collate differently, the
// index keeps rows apart that WHERE takes for one.
func TestAWriteDoesNotHitRowsThatTheColumnsCollationTakesForEqual(t *testing.T) {
	path := newPath(t)
	run(t, path,
		"CREATE TABLE nocase (id TEXT COLLATE NOCASE NOT NULL, name TEXT, PRIMARY KEY (id COLLATE BINARY))",
		"CREATE TABLE rtrim (a INTEGER, b TEXT COLLATE RTRIM, name TEXT, PRIMARY KEY (a, b COLLATE BINARY)) WITHOUT ROWID",
		"CREATE TABLE plain (id TEXT COLLATE BINARY PRIMARY KEY, name TEXT)")
	type pair struct {
		A int    `db:"a"`
		B string `db:"b"`
	}
	db := openAt(t, path)
	wantError(t, tableError[string, justName](db, "nocase"), lockstep.ErrInvalid, "key column id", "collation of the column")
	wantError(t, tableError[pair, justName](db, "rtrim"), lockstep.ErrInvalid, "key column b", "collation of the column")
	if err := tableError[string, justName](db, "plain"); err != nil {
		t.Error(err)
	}
}

// ANY keeps values as they are in a STRICT table only.
func TestAColumnOfAnyTypeDoesNotTurnTextIntoNumbers(t *testing.T) {
	path := newPath(t)
	run(t, path, "CREATE TABLE loose (id INTEGER PRIMARY KEY, name ANY)", "CREATE TABLE strict (id INTEGER PRIMARY KEY, name any) STRICT")
	db := openAt(t, path)
	wantError(t, tableError[int64, justName](db, "loose"), lockstep.ErrInvalid, "column name", "NUMERIC")
	s, err := NewTable[int64, justName](t.Context(), db, "strict", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, 1, justName{"007"})
	if r := get(t, s, 1); r.Value.Name != "007" {
		t.Errorf("007 reads as %q", r.Value.Name)
	}
}

// A STRICT table would refuse each write.
func TestAFieldThatAStrictColumnRefusesIsNotMapped(t *testing.T) {
	type wrong struct {
		S string            `db:"s"`
		B []byte            `db:"b"`
		A *[2]byte          `db:"a"`
		F sql.Null[float64] `db:"f"`
		J map[string]int    `db:"j,json"`
		T time.Time         `db:"t"`
	}
	type right struct {
		S string            `db:"s"`
		B []byte            `db:"b"`
		A *[2]byte          `db:"a"`
		F sql.Null[float64] `db:"f"`
		J map[string]int    `db:"j,json"`
		T time.Time         `db:"t"`
		U time.Time         `db:"u,unixnano"`
		O bool              `db:"o"`
		M money             `db:"m"`
		X []byte            `db:"x"`
	}
	path := newPath(t)
	run(t, path, "CREATE TABLE wrong (id INTEGER PRIMARY KEY, s BLOB, b INTEGER, a TEXT, f INTEGER, j BLOB, t BLOB) STRICT",
		"CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, b TEXT, a BLOB, f REAL, j TEXT, t ANY, u INT, o INTEGER, m TEXT, x ANY) STRICT")
	db := openAt(t, path)
	wantError(t, tableError[int64, wrong](db, "wrong"), lockstep.ErrInvalid, "STRICT",
		"S: column s", "B: column b", "A: column a", "F: column f", "J: column j", "T: column t")
	s, err := NewTable[int64, right](t.Context(), db, "t", TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v := right{S: "s", B: []byte("b"), A: &[2]byte{1, 2}, F: sql.Null[float64]{V: 2, Valid: true}, J: map[string]int{"j": 1},
		T: time.Unix(0, 0).UTC(), U: time.Unix(1, 0).UTC(), O: true, M: money{100}, X: []byte("x")}
	put(t, s, 1, v)
	if r := get(t, s, 1); !reflect.DeepEqual(r.Value, v) {
		t.Errorf("%+v, want %+v", r.Value, v)
	}
}

// SQLite folds the case of ASCII alone.
func TestNamesBeyondASCIIThatDifferInCaseAreTwoColumns(t *testing.T) {
	type V struct {
		Small  string `db:"é"`
		Large  string `db:"É"`
		Kelvin string `db:"k"`
	}
	s := openTable[string, V](t, TableOptions{}, `CREATE TABLE t (ID TEXT PRIMARY KEY, "É" TEXT, "é" TEXT, "K" TEXT, K TEXT)`)
	want := V{Small: "small", Large: "large", Kelvin: "not a unit"}
	put(t, s, "a", want)
	if r := get(t, s, "a"); r.Value != want {
		t.Errorf("%+v", r.Value)
	}
	if n := countIn(t, s.db, `SELECT count(*) FROM t WHERE "é" = 'small' AND "É" = 'large' AND K = 'not a unit'`); n != 1 {
		t.Error("they are in other columns")
	}
}

// Rounded to a float32, the key of one row would be another's, or nobody's.
func TestScanDoesNotYieldAKeyThatLoadDoesNotFind(t *testing.T) {
	s := openTable[float32, justName](t, TableOptions{}, "CREATE TABLE t (id REAL PRIMARY KEY, name TEXT)")
	put(t, s, 0.1, justName{"ours"})
	put(t, s, float32(math.Inf(1)), justName{"ours"})
	page, err := s.scan(t.Context(), nil, 10)
	if err != nil || len(page.Keys) != 2 || page.Keys[0] != 0.1 {
		t.Errorf("%v, %v", page.Keys, err)
	}
	run(t, s.db.path, "INSERT INTO t VALUES (0.1, 'of another program')")
	_, err = s.scan(t.Context(), nil, 10)
	wantError(t, err, lockstep.ErrInvalid, "table t", "key column id", "0.1", "float32")
}
