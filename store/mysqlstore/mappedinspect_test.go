package mysqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

type justName struct {
	Name string `db:"name"`
}

func openDatabase(t testing.TB, dsn string) *mysqlstore.Database {
	t.Helper()
	db, err := mysqlstore.OpenDatabase(t.Context(), connect(t, dsn), mysqlstore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func tableError[K comparable, V any](t testing.TB, db *mysqlstore.Database, table string, opts mysqlstore.TableOptions) error {
	t.Helper()
	_, err := mysqlstore.NewTableIn[K, V](t.Context(), db, table, opts)
	return err
}

func TestTablesThatDoNotFit(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	for _, query := range []string{
		`CREATE TABLE nokey (name TEXT)`,
		`CREATE TABLE uniquekey (id INT UNIQUE, name TEXT)`,
		`CREATE TABLE folds (id VARCHAR(9) COLLATE utf8mb4_general_ci PRIMARY KEY, name TEXT)`,
		`CREATE TABLE padding (id VARCHAR(9) COLLATE utf8mb4_bin PRIMARY KEY, name TEXT)`,
		`CREATE TABLE latin (id VARCHAR(9) CHARACTER SET latin1 COLLATE ` + mysqlstore.Of(t, "latin1_nopad_bin", "latin1_bin") + ` PRIMARY KEY, name TEXT)`,
		`CREATE TABLE pads (id CHAR(9) COLLATE ` + mysqlstore.Nopad(t) + ` PRIMARY KEY, name TEXT)`,
		`CREATE TABLE good (id VARCHAR(9) COLLATE ` + mysqlstore.Nopad(t) + ` PRIMARY KEY, name TEXT)`,
		`CREATE TABLE bytes (id VARBINARY(9) PRIMARY KEY, name TEXT)`,
		`CREATE TABLE begins (id VARBINARY(300), name TEXT, PRIMARY KEY (id(10)))`,
		`CREATE TABLE numbered (id INT PRIMARY KEY, name TEXT)`,
		`CREATE TABLE price (id DECIMAL(9) PRIMARY KEY, name TEXT)`,
		`CREATE TABLE single (id FLOAT PRIMARY KEY, name TEXT)`,
		`CREATE TABLE doubled (id DOUBLE PRIMARY KEY, name TEXT)`,
		`CREATE TABLE moods (id ENUM('a') PRIMARY KEY, name TEXT)`,
		`CREATE TABLE two (a VARBINARY(9), b INT, name TEXT, PRIMARY KEY (b, a))`,
		`CREATE TABLE isam (id INT PRIMARY KEY, name TEXT) ENGINE=MyISAM`,
		`CREATE TABLE split (id INT PRIMARY KEY, name TEXT) PARTITION BY HASH (id) PARTITIONS 3`,
		`CREATE VIEW seen AS SELECT * FROM good`,
	} {
		execute(t, pool, query)
	}
	db := openDatabase(t, dsn)
	refuse := func(err error, parts ...string) {
		t.Helper()
		wantParts(t, err, lockstep.ErrInvalid, append(parts, "mysql")...)
	}
	none := mysqlstore.TableOptions{}
	for name, parts := range map[string][]string{
		"missing": {"missing", "no such table"}, "Two words": {"no table's name", "backquotes"}, "a.b.c": {"no table's name"}, "": {"no table's name"}, "a.": {"no table's name"},
		"`open": {"no table's name"}, "a`b`": {"no table's name"}, "nowhere.good": {"no such table"}, "nokey": {"no primary key"}, "uniquekey": {"no primary key"},
		"folds": {"key column id", "utf8mb4_general_ci", "MODIFY `id` varchar(9) CHARACTER SET utf8mb4 COLLATE " + mysqlstore.Nopad(t) + " NOT NULL"}, "padding": {"key column id", "utf8mb4_bin", "spaces"}, "latin": {"key column id", "latin1"},
		"pads": {"key column id", "char(9)", "spaces"}, "begins": {"key column id", "beginning"}, "numbered": {"key column id", "string", "int"},
		"moods": {"key column id", "enum"}, "two": {"2 columns"}, "isam": {"MyISAM", "InnoDB"}, "seen": {"view"},
	} {
		refuse(tableError[string, justName](t, db, name, none), parts...)
	}
	if !mysqlstore.OnMySQL(t) { // which has no such tables
		execute(t, pool, `CREATE TABLE kept (id INT PRIMARY KEY, name TEXT) WITH SYSTEM VERSIONING`)
		execute(t, pool, `CREATE SEQUENCE counter`)
		refuse(tableError[string, justName](t, db, "kept", none), "system-versioned")
		refuse(tableError[string, justName](t, db, "counter", none), "no table")
	}
	refuse(tableError[int, justName](t, db, "price", none), "key column id", "decimal")
	refuse(tableError[float32, justName](t, db, "single", none), "key column id", "float32")
	refuse(tableError[float64, justName](t, db, "single", none), "key column id", "rounds")
	refuse(tableError[time.Time, justName](t, db, "good", none), "key column id", "time.Time")
	refuse(tableError[bool, justName](t, db, "good", none), "key column id", "bool")
	refuse(tableError[[4]byte, justName](t, db, "good", none), "key column id", "[4]uint8")
	refuse(tableError[[10]byte, justName](t, db, "bytes", none), "key column id", "10 bytes")

	type pair struct {
		A string `db:"A"`
		B int    `db:"b"`
	}
	for _, err := range []error{
		tableError[string, justName](t, db, "good", none),
		tableError[string, justName](t, db, "bytes", none),
		tableError[[9]byte, justName](t, db, "bytes", none),
		tableError[pair, justName](t, db, "two", none),
		tableError[float64, justName](t, db, "doubled", none),
		tableError[uint8, justName](t, db, "split", none),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestEverythingThatDoesNotFitIsNamedAtOnce(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	other := mysqlstore.Of(t, "INET6", "GEOMETRY")
	execute(t, connect(t, dsn), `CREATE TABLE t (id INT PRIMARY KEY, a INT, b FLOAT, c DECIMAL(18,2), d DECIMAL(20), e POINT, f TIME, g BIT(3), h JSON,
		i TEXT NOT NULL, j INT AS (a) STORED, k BIGINT, l YEAR, m `+other+`, o DATETIME, p BIGINT UNSIGNED, q DECIMAL(9,2), r SMALLINT, s BLOB)`)
	err := tableError[string, struct {
		A string          `db:"a"`
		B float64         `db:"b"`
		C float64         `db:"c"`
		D int             `db:"d"`
		E string          `db:"e"`
		F time.Duration   `db:"f"`
		G uint8           `db:"g"`
		H map[string]int  `db:"h"`
		J int             `db:"j,version"`
		K sql.Null[int]   `db:"k"`
		L int             `db:"l"`
		M string          `db:"m"`
		N int             `db:"n"`
		O time.Time       `db:"o,unix"`
		Q float32         `db:"q"`
		R **int           `db:"k"`
		S map[string]bool `db:"a,json"`
		T bool            `db:"r"`
		U string          `db:"s"`
	}](t, openDatabase(t, dsn), "t", mysqlstore.TableOptions{VersionColumn: "i"})
	wantParts(t, err, lockstep.ErrInvalid, "t does not fit", "key column id", "string",
		"A: column a: its "+mysqlstore.Of(t, "int(11)", "int")+" column is not for a string", "B: column b: its float", "C: column c", "which has 15", "D: column d", "E: column e: its type point cannot be mapped",
		"F: column f: its type time", "G: column g: its type bit(3)", "H: column h", "option json", "a version needs a signed bigint column",
		"cannot be a generated column", "L: column l: its type year", "M: column m: its type "+strings.ToLower(other)+"",
		"N: there is no column n", "O: column o", "unit", "Q: column q", "both mapped to column k",
		"not for JSON", "T: column r: its "+mysqlstore.Of(t, "smallint(6)", "smallint")+" column is not for a bool", "U: column s: its blob", "VersionColumn is i", "column i is NOT NULL without a default")
}

// Names are what the server takes them for.
func TestNamesOfTablesAndColumns(t *testing.T) {
	dsn, other := dbtest.MariaDB(t), dbtest.MariaDB(t)
	config, err := mysql.ParseDSN(other)
	if err != nil {
		t.Fatal(err)
	}
	pool := connect(t, other)
	execute(t, pool, "CREATE TABLE `Odd ``.name` (`I D` VARBINARY(9) PRIMARY KEY, `sel``ect` INT, `Größe` TEXT)")
	execute(t, connect(t, dsn), "CREATE TABLE t (id INT PRIMARY KEY, name TEXT)")
	type V struct {
		A int    `db:"SEL\x60ect"`
		B string `db:"Größe"`
	}
	s, err := mysqlstore.NewTable[string, V](t.Context(), connect(t, dsn), fmt.Sprintf("`%s`.`Odd ``.name`", config.DBName), mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	store1(t, s, "k", V{1, "large"})
	store1(t, s, "k", V{2, "small"})
	if o := change1(t, s, lockstep.Change[string, V]{Key: "k", Delete: true}); o.Err != nil {
		t.Error(o.Err)
	}
	store1(t, s, "l", V{3, "x"})
	waitFor(t, pool, 1, "SELECT COUNT(*) FROM `Odd ``.name` WHERE `I D` = 'l' AND `sel``ect` = 3 AND `Größe` = 'x'")
	if err := tableError[int, justName](t, openDatabase(t, dsn), config.DBName+".t", mysqlstore.TableOptions{}); err == nil {
		t.Error("a table of another database")
	}
}

// A user who lacks privileges learns of all of them when the table is opened.
func TestPrivilegesAreLookedAtWhenATableIsOpened(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	owner := connect(t, dsn)
	user := "clerk" + time.Now().Format("150405000000")
	t.Cleanup(func() { owner.ExecContext(context.Background(), "DROP USER IF EXISTS "+user) })
	for _, query := range []string{
		"CREATE TABLE shut (id INT PRIMARY KEY, name TEXT)",
		"CREATE TABLE part (id INT PRIMARY KEY, name TEXT, version BIGINT, secret TEXT)",
		"CREATE TABLE seen (id INT PRIMARY KEY, name TEXT)",
		"CREATE USER " + user + " IDENTIFIED BY 'x'",
		"GRANT SELECT (id, name, version), INSERT (id, name), UPDATE (name) ON part TO " + user,
		"GRANT SELECT ON seen TO " + user,
	} {
		execute(t, owner, query)
	}
	config.User, config.Passwd = user, "x"
	db := openDatabase(t, config.FormatDSN())
	versioned := mysqlstore.TableOptions{VersionColumn: "version"}
	wantParts(t, tableError[int, justName](t, db, "part", versioned), lockstep.ErrInvalid, "INSERT on column version", "UPDATE on column version", "no DELETE")
	wantParts(t, tableError[int, struct {
		S string `db:"secret"`
	}](t, db, "part", mysqlstore.TableOptions{ReadOnly: true}), lockstep.ErrInvalid, "secret")
	if err := tableError[int, justName](t, db, "part", mysqlstore.TableOptions{ReadOnly: true, VersionColumn: "version"}); err != nil {
		t.Errorf("a table that is only read: %v", err)
	}
	wantParts(t, tableError[int, justName](t, db, "seen", mysqlstore.TableOptions{}), lockstep.ErrInvalid,
		"INSERT on column id", "INSERT on column name", "UPDATE on column name", "no DELETE")
	wantParts(t, tableError[int, justName](t, db, "shut", versioned), lockstep.ErrInvalid, "shut", "no privilege on it")
}

func TestMappedKeysOfEveryType(t *testing.T) {
	type K struct {
		S  string   `db:"s"`
		V  string   `db:"v"`
		I  int      `db:"i"`
		U  uint64   `db:"u"`
		M  uint32   `db:"m"`
		F  float64  `db:"f"`
		B  [3]byte  `db:"b"`
		D  [16]byte `db:"d"`
		DS string   `db:"ds"`
	}
	type V struct {
		N string `db:"n"`
		I int    `db:"i"`
		U uint64 `db:"u"`
	}
	s := mapTable[K, V](t, dbtest.MariaDB(t), mysqlstore.TableOptions{}, `CREATE TABLE t (s VARCHAR(20) CHARACTER SET utf8mb4 COLLATE `+mysqlstore.Nopad(t)+`, v VARBINARY(40), i SMALLINT, u BIGINT UNSIGNED,
		m MEDIUMINT UNSIGNED, f DOUBLE, b BINARY(3), `+mysqlstore.Of(t, "d UUID, ds UUID", "d BINARY(16), ds VARBINARY(36)")+`, n TEXT, PRIMARY KEY (s, v, i, u, m, f, b, d, ds))`)
	k := K{"s", "code", -5, math.MaxUint64, 7, 0.1, [3]byte{1, 2, 0}, [16]byte{9}, "00000000-0000-0000-0000-0000000000ab"}
	keys := []K{k}
	for _, change := range []func(k *K){
		func(k *K) { k.S = "S" }, func(k *K) { k.S = "s " }, func(k *K) { k.S = "" }, func(k *K) { k.S = "😀\x00" }, func(k *K) { k.S = "ß" }, func(k *K) { k.V = "code " },
		func(k *K) { k.V = "\xff'\\" }, func(k *K) { k.I = math.MaxInt16 }, func(k *K) { k.U = math.MaxUint64 - 1 }, func(k *K) { k.U = math.MaxInt64 }, func(k *K) { k.U = 0 },
		func(k *K) { k.F = 0.30000000000000004 }, func(k *K) { k.F = math.MaxFloat64 }, func(k *K) { k.F = math.SmallestNonzeroFloat64 }, func(k *K) { k.B[2] = ' ' },
		func(k *K) { k.D[0] = 10 }, func(k *K) { k.DS = "ffffffff-0000-0000-0000-0000000000ab" },
	} {
		next := k
		change(&next)
		keys = append(keys, next)
	}
	type set = lockstep.ChangeSet[K, V]
	for round := range 2 { // inserted, and then replaced together
		var sets []set
		for i, k := range keys {
			sets = append(sets, set{Changes: []lockstep.Change[K, V]{{Key: k, Value: V{N: fmt.Sprint(i, round)}}}})
		}
		out, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := s.Load(t.Context(), keys)
		if err != nil || len(rows) != len(keys) {
			t.Fatalf("%d rows for %d keys, %v", len(rows), len(keys), err)
		}
		for i, k := range keys {
			want := V{N: fmt.Sprint(i, round), I: k.I, U: k.U}
			if out[i].Err != nil || out[i].Rows[0].Value != want || rows[k].Value != want || out[i].Existed[0] != (round == 1) {
				t.Errorf("%+v: %+v, loaded %+v", k, out[i], rows[k])
			}
		}
	}
	seen := map[K]bool{}
	for cursor := any(nil); ; {
		page, err := s.Capabilities().Scan(t.Context(), cursor, 4)
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
	if len(seen) != len(keys) {
		t.Errorf("the scan has %d keys of %d", len(seen), len(keys))
	}
	for column, spoil := range map[string]func(k *K){
		"s": func(k *K) { k.S = "\xff" }, "v": func(k *K) { k.V = string(make([]byte, 41)) }, "i": func(k *K) { k.I = 40000 }, "m": func(k *K) { k.M = 1 << 24 },
		"ds": func(k *K) { k.DS = "00000000-0000-0000-0000-0000000000AB" + mysqlstore.Of(t, "", "!") }, "f": func(k *K) { k.F = math.NaN() },
	} {
		bad := k
		spoil(&bad)
		_, err := s.Load(t.Context(), []K{bad})
		wantParts(t, err, lockstep.ErrInvalid, "column "+column)
	}
	if o := change1(t, s, lockstep.Change[K, V]{Key: keys[3], Delete: true}); o.Err != nil || !o.Existed[0] || load1(t, s, keys[3]).Exists || !load1(t, s, k).Exists {
		t.Errorf("%+v", o)
	}
}
