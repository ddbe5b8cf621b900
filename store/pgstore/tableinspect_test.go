package pgstore

import (
	"context"
	"database/sql"
	"math"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

type justName struct {
	Name string `db:"name"`
}

func tableError[K comparable, V any](t *testing.T, c *pgx.Conn, table string, opts mapping.Options) error {
	t.Helper()
	s, err := inspectTable(t.Context(), c, table)
	if err != nil {
		return err
	}
	_, err = mapTo[K, V](s, opts)
	return err
}

func TestTablesThatDoNotFit(t *testing.T) {
	c := connect(t,
		`CREATE EXTENSION citext`,
		`CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
		`CREATE TABLE nokey (name text)`,
		`CREATE TABLE uniquekey (id text UNIQUE, name text)`,
		`CREATE TABLE folds (id citext PRIMARY KEY, name text)`,
		`CREATE TABLE pads (id char(9) PRIMARY KEY, name text)`,
		`CREATE TABLE caseless (id text COLLATE caseless PRIMARY KEY, name text)`,
		`CREATE TABLE good (id text COLLATE "en-x-icu" PRIMARY KEY, name text)`,
		`CREATE TABLE numbered (id integer PRIMARY KEY, name text)`,
		`CREATE TABLE price (id numeric PRIMARY KEY, name text)`,
		`CREATE TABLE doubled (id double precision PRIMARY KEY, name text)`,
		`CREATE TABLE two (a text, b int, name text, PRIMARY KEY (b, a) INCLUDE (name))`,
		`CREATE TABLE late (id text PRIMARY KEY DEFERRABLE, name text)`,
		`CREATE TABLE computed (a int, id int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY, name text)`,
		`CREATE TABLE parent (id text PRIMARY KEY, name text)`,
		`CREATE TABLE child (more int) INHERITS (parent)`,
		`CREATE TABLE ruled (id text PRIMARY KEY, name text)`,
		`CREATE RULE keep AS ON DELETE TO ruled DO INSTEAD NOTHING`,
		`CREATE TEMPORARY TABLE passing (id text PRIMARY KEY, name text)`,
		`CREATE VIEW seen AS SELECT * FROM good`,
		`CREATE MATERIALIZED VIEW stored AS SELECT * FROM good`,
		`CREATE SEQUENCE counter`,
		`CREATE TABLE split (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)`,
		`CREATE TABLE split1 PARTITION OF split FOR VALUES FROM (0) TO (10)`,
		`CREATE FOREIGN DATA WRAPPER nowhere`, `CREATE SERVER far FOREIGN DATA WRAPPER nowhere`,
		`CREATE TABLE wide (id int, name text) PARTITION BY RANGE (id)`,
		`CREATE FOREIGN TABLE wide1 PARTITION OF wide FOR VALUES FROM (0) TO (10) SERVER far`,
		`CREATE FOREIGN TABLE away (id int, name text) SERVER far`,
	)
	refuse := func(err error, parts ...string) {
		t.Helper()
		wantError(t, err, lockstep.ErrInvalid, append(parts, "postgres")...)
	}
	none := mapping.Options{}
	refuse(tableError[string, justName](t, c, "missing", none), "table missing", "no such table")
	refuse(tableError[string, justName](t, c, "Two words", none), "no table's name", "double quotes")
	refuse(tableError[string, justName](t, c, "a.b.c", none), "no table's name")
	refuse(tableError[string, justName](t, c, "nokey", none), "no primary key")
	refuse(tableError[string, justName](t, c, "uniquekey", none), "no primary key")
	refuse(tableError[string, justName](t, c, "folds", none), "key column id", "citext")
	refuse(tableError[string, justName](t, c, "pads", none), "key column id", "char(n)")
	refuse(tableError[string, justName](t, c, "caseless", none), "key column id", "collation caseless")
	refuse(tableError[string, justName](t, c, "numbered", none), "key column id", "string", "int4")
	refuse(tableError[string, justName](t, c, "price", none), "key column id", "numeric")
	refuse(tableError[float32, justName](t, c, "doubled", none), "key column id", "float32", "float8")
	refuse(tableError[time.Time, justName](t, c, "good", none), "key column id", "time.Time")
	refuse(tableError[bool, justName](t, c, "good", none), "key column id", "bool")
	refuse(tableError[string, justName](t, c, "two", none), "2 columns")
	refuse(tableError[string, justName](t, c, "late", none), "DEFERRABLE")
	refuse(tableError[int, justName](t, c, "computed", none), "key column id", "generated")
	refuse(tableError[string, justName](t, c, "parent", none), "child inherits")
	refuse(tableError[string, justName](t, c, "ruled", none), "rule keep")
	refuse(tableError[string, justName](t, c, "passing", none), "temporary")
	refuse(tableError[string, justName](t, c, "seen", none), "view")
	refuse(tableError[string, justName](t, c, "stored", none), "view")
	refuse(tableError[string, justName](t, c, "counter", none), "no table")
	refuse(tableError[int, justName](t, c, "away", none), "foreign table")
	refuse(tableError[int, justName](t, c, "wide", none), "wide1", "foreign table", "no primary key")

	type pair struct {
		A string `db:"a"`
		B int    `db:"b"`
	}
	fits := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	readOnly := mapping.Options{ReadOnly: true}
	fits(tableError[string, justName](t, c, "good", none))
	fits(tableError[string, justName](t, c, "GOOD", none))
	fits(tableError[pair, justName](t, c, "two", none))
	fits(tableError[float64, justName](t, c, "doubled", none))
	fits(tableError[int, justName](t, c, "split", none))
	fits(tableError[int, justName](t, c, "split1", none))
	fits(tableError[string, justName](t, c, "ruled", readOnly))
	fits(tableError[string, justName](t, c, "late", readOnly))
	s, m := fitted[pair, justName](t, c, "two")
	if len(m.Key) != 2 || m.Key[0].Column != "b" || s.String() != "public.two" {
		t.Errorf("%+v of %s", m.Key, s)
	}
}

func TestEverythingThatDoesNotFitIsNamedAtOnce(t *testing.T) {
	c := connect(t, `CREATE TABLE t (id uuid PRIMARY KEY, a int, b real, c numeric(18,2), d numeric, e point, f interval, g bytea[], h jsonb,
		i text NOT NULL, j int GENERATED ALWAYS AS (a) STORED, k bigint, l text[], m char(2)[], "N" int, o timestamptz, p xid8, q numeric(9,2))`)
	err := tableError[string, struct {
		A string          `db:"a"`
		B float64         `db:"b"`
		C float64         `db:"c"`
		D int             `db:"d"`
		E string          `db:"e"`
		F time.Duration   `db:"f"`
		G [][]byte        `db:"g"`
		H map[string]int  `db:"h"`
		J int             `db:"j,version"`
		K sql.Null[int]   `db:"k"`
		L []int           `db:"l"`
		M []string        `db:"m"`
		N int             `db:"n"`
		O time.Time       `db:"o,unix"`
		P uint64          `db:"p"`
		Q float32         `db:"q"`
		R **int           `db:"k"`
		S map[string]bool `db:"a,json"`
	}](t, c, "t", mapping.Options{VersionColumn: "i"})
	wantError(t, err, lockstep.ErrInvalid, "table public.t does not fit",
		"A: column a: its int4 column is not for a string", "B: column b: its float4", "C: column c", "which has 15", "D: column d", "E: column e: its type point cannot be mapped",
		"F: column f: its type interval", "G: column g: an array of bytea", "H: column h", "option json", "a version needs a bigint column",
		"cannot be a generated column", "L: column l: an element: its text column is not for a int", "M: column m: an array of bpchar",
		"N: there is no column n", "O: column o", "unit", "P: column p: its type xid8", "Q: column q", "both mapped to column k",
		"not for JSON", "VersionColumn is i", "column i is NOT NULL without a default")
}

// Names are what PostgreSQL takes them for.
func TestNamesOfTablesAndColumns(t *testing.T) {
	c := connect(t, `CREATE SCHEMA "My Schema"`, `CREATE TABLE "My Schema"."Odd "".name" ("ID" text PRIMARY KEY, "sel""ect" int, "Sel" text, "sel" text)`,
		`CREATE SCHEMA other`, `CREATE TABLE other.t (id text PRIMARY KEY, name text)`, `CREATE TABLE t (id int PRIMARY KEY, name text)`)
	type V struct {
		A int    `db:"sel\"ect"`
		B string `db:"Sel"`
		C string `db:"sel"`
	}
	s, m := fitted[string, V](t, c, `"My Schema"."Odd "".name"`)
	want := map[string]V{"k": {1, "large", "small"}}
	if err := write(t.Context(), c, s, m, want); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t.Context(), c, s, m); err != nil || got["k"] != want["k"] {
		t.Errorf("%+v, %v", got, err)
	}
	var n int
	if err := c.QueryRow(t.Context(), `SELECT count(*) FROM "My Schema"."Odd "".name" WHERE "Sel" = 'large' AND sel = 'small'`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
	fitted[string, justName](t, c, "other.t")
	fitted[int, justName](t, c, "t")
	if _, err := c.Exec(t.Context(), "SET search_path = other"); err != nil {
		t.Fatal(err)
	}
	fitted[string, justName](t, c, "t")
}

// A role that lacks privileges learns of all of them when it opens the table.
func TestPrivilegesAreLookedAtWhenATableIsOpened(t *testing.T) {
	base := dbtest.Postgres(t)
	owner := connectTo(t, base, `CREATE SCHEMA shut`, `CREATE TABLE shut.t (id int PRIMARY KEY, name text, version bigint)`,
		`CREATE TABLE part (id int PRIMARY KEY, name text, version bigint, secret text)`, `CREATE TABLE guarded (id int PRIMARY KEY, name text)`,
		`ALTER TABLE guarded ENABLE ROW LEVEL SECURITY`)
	role := "clerk_" + time.Now().Format("150405000000000")
	for _, query := range []string{"CREATE ROLE " + role + " LOGIN PASSWORD 'x'", "GRANT ALL ON guarded TO " + role,
		"GRANT SELECT (id, name, version), INSERT (id, name), UPDATE (name) ON part TO " + role} {
		if _, err := owner.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := owner.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "x")
	c := connectTo(t, u.String())
	versioned := mapping.Options{VersionColumn: "version"}
	wantError(t, tableError[int, justName](t, c, "part", versioned), lockstep.ErrInvalid, role,
		"INSERT on column version", "UPDATE on column version", "no DELETE")
	wantError(t, tableError[int, struct {
		S string `db:"secret"`
	}](t, c, "part", mapping.Options{ReadOnly: true}), lockstep.ErrInvalid, "SELECT on column secret")
	if err := tableError[int, justName](t, c, "part", mapping.Options{ReadOnly: true, VersionColumn: "version"}); err != nil {
		t.Errorf("a table that is only read: %v", err)
	}
	wantError(t, tableError[int, justName](t, c, "guarded", mapping.Options{}), lockstep.ErrInvalid, "row-level security", role)
	if err := tableError[int, justName](t, c, "shut.t", versioned); err == nil {
		t.Error("a schema without USAGE is open")
	}
	if err := tableError[int, justName](t, owner, "guarded", mapping.Options{}); err != nil {
		t.Errorf("the owner, whom no policy binds: %v", err)
	}
}

func TestKeysOfEveryType(t *testing.T) {
	c := connect(t, `CREATE TYPE mood AS ENUM ('sad', 'happy')`, `CREATE DOMAIN code AS varchar(4)`,
		`CREATE TABLE t (s text, v code, i smallint, u bigint, f real, b bytea, d uuid, ds uuid, e mood, n text,
			PRIMARY KEY (s, v, i, u, f, b, d, ds, e))`)
	type K struct {
		S  string   `db:"s"`
		V  string   `db:"v"`
		I  int      `db:"i"`
		U  uint32   `db:"u"`
		F  float32  `db:"f"`
		B  [3]byte  `db:"b"`
		D  [16]byte `db:"d"`
		DS string   `db:"ds"`
		E  string   `db:"e"`
	}
	type V struct {
		N string `db:"n"`
		I int    `db:"i"`
	}
	s, m := fitted[K, V](t, c, "t")
	k := K{"s", "code", -5, 7, 0.1, [3]byte{1, 2, 3}, [16]byte{9}, "00000000-0000-0000-0000-0000000000ab", "happy"}
	if err := write(t.Context(), c, s, m, map[K]V{k: {N: "x"}}); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t.Context(), c, s, m); err != nil || got[k] != (V{"x", -5}) {
		t.Errorf("%+v, %v", got, err)
	}
	for column, spoil := range map[string]func(k *K){
		"s": func(k *K) { k.S = "\xff" }, "v": func(k *K) { k.V = "codes" }, "i": func(k *K) { k.I = 40000 },
		"ds": func(k *K) { k.DS = "00000000-0000-0000-0000-0000000000AB" }, "f": func(k *K) { k.F = float32(math.NaN()) },
	} {
		bad := k
		spoil(&bad)
		_, err := m.BindKey(bad)
		wantError(t, err, lockstep.ErrInvalid, "column "+column)
	}
}

// What fills itself is no mistake, and is not written.
func TestColumnsThatFillThemselves(t *testing.T) {
	c := connect(t, `CREATE DOMAIN counted AS int DEFAULT 3 NOT NULL`,
		`CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, serial serial, own int GENERATED BY DEFAULT AS IDENTITY,
		always int GENERATED ALWAYS AS IDENTITY, twice int NOT NULL GENERATED ALWAYS AS (serial * 2) STORED, made timestamptz NOT NULL DEFAULT now(), n counted)`)
	type V struct {
		Serial int `db:"serial"`
		Always int `db:"always"`
		Twice  int `db:"twice"`
		Own    int `db:"own,readonly"`
	}
	s, m := fitted[int64, V](t, c, "t")
	for i, want := range []bool{true, false, false, false} {
		if m.Value[i].Written != want {
			t.Errorf("%s is written: %t", m.Value[i].Column, !want)
		}
	}
	if id := s.column("id"); id.identity != "a" || id.keyPlace != 1 {
		t.Errorf("%+v", id)
	}
}
