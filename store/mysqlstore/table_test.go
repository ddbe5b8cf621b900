package mysqlstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

type tenantKey struct {
	Tenant string
	ID     uint64
}

// TestKeysOfEveryKind: keys come back as they were, also from a scan, and differ as
// Go's == says.
func TestKeysOfEveryKind(t *testing.T) {
	db, err := mysqlstore.OpenDatabase(t.Context(), connect(t, dbtest.MariaDB(t)), mysqlstore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	keysOf(t, db, "text", []string{"", "a", "a ", "A", "a\x00", "\xff\xfe", "\x00", strings.Repeat("k", 1024)})
	keysOf(t, db, "bytes", [][2]byte{{0, 0}, {0, ' '}, {' ', 0}, {255, 254}})
	keysOf(t, db, "ints", []int64{math.MinInt64, -1, 0, 1, math.MaxInt64})
	keysOf(t, db, "unsigned", []uint64{0, 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64})
	keysOf(t, db, "floats", []float64{-math.MaxFloat64, -1.5, 0, math.SmallestNonzeroFloat64, 0.1, 0.30000000000000004, math.MaxFloat64})
	keysOf(t, db, "bools", []bool{false, true})
	keysOf(t, db, "structs", []tenantKey{{"a", 1}, {"a", math.MaxUint64}, {"A", 1}, {"\xff", 1}})

	s, err := mysqlstore.OpenIn[float64, int](t.Context(), db, mysqlstore.Options{Table: "floats"})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []float64{math.Inf(1), math.Inf(-1), math.NaN()} {
		if _, err := s.Load(t.Context(), []float64{key}); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("key %v: %v, want ErrInvalid", key, err)
		}
	}
	if _, err := mysqlstore.OpenIn[int64, int](t.Context(), db, mysqlstore.Options{Table: "floats"}); !errors.Is(err, lockstep.ErrInvalid) {
		t.Errorf("a table of another kind of keys: %v, want ErrInvalid", err)
	}
}

func keysOf[K comparable](t *testing.T, db *mysqlstore.Database, table string, keys []K) {
	t.Helper()
	s, err := mysqlstore.OpenIn[K, int](t.Context(), db, mysqlstore.Options{Table: table})
	if err != nil {
		t.Fatal(err)
	}
	var sets []lockstep.ChangeSet[K, int]
	for i, k := range keys {
		sets = append(sets, lockstep.ChangeSet[K, int]{Changes: []lockstep.Change[K, int]{{Key: k, Value: i}}})
	}
	outcomes, err := s.Commit(t.Context(), sets)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		if o.Err != nil {
			t.Errorf("key %v: %v", keys[i], o.Err)
		}
	}
	// One by one, which goes another way.
	for i, k := range keys {
		outcomes, err := s.Commit(t.Context(), []lockstep.ChangeSet[K, int]{{Changes: []lockstep.Change[K, int]{{Key: k, Value: i, Expect: lockstep.Expect{
			Kind: lockstep.ExpectVersion, Version: outcomes[i].Rows[0].Version}}}}})
		if err != nil || outcomes[0].Err != nil {
			t.Errorf("key %v: %v, %v", k, err, outcomes)
		}
	}
	rows, err := s.Load(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	scanned := map[K]int{}
	for cursor := any(nil); ; {
		page, err := s.Capabilities().Scan(t.Context(), cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range page.Keys {
			scanned[k] = page.Rows[i].Value
		}
		if cursor = page.Next; cursor == nil {
			break
		}
	}
	for i, k := range keys {
		if rows[k].Value != i || !rows[k].Exists || scanned[k] != i {
			t.Errorf("%s: key %v holds %+v, a scan has %d, want %d", table, k, rows[k], scanned[k], i)
		}
	}
	if len(scanned) != len(keys) {
		t.Errorf("%s: %d keys make %d rows", table, len(keys), len(scanned))
	}
}

// TestRowsCanBeRead: by a person, in the database's own shell.
func TestRowsCanBeRead(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	s, err := mysqlstore.Open[tenantKey, map[string]string](t.Context(), connect(t, dsn), mysqlstore.Options{Table: "users"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Commit(t.Context(), []lockstep.ChangeSet[tenantKey, map[string]string]{{Changes: []lockstep.Change[tenantKey, map[string]string]{
		{Key: tenantKey{"acme", 7}, Value: map[string]string{"name": "Ada ☃"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	var key, name string
	var old time.Duration
	err = connect(t, dsn).QueryRow("SELECT CONVERT(`key` USING utf8mb4), JSON_VALUE(value, '$.name'), 1000 * ABS(version - 1000000 * UNIX_TIMESTAMP(NOW(6))) DIV 1 FROM users").Scan(&key, &name, &old)
	if err != nil || key != `["acme",7]` || name != "Ada ☃" || old > time.Minute {
		t.Errorf("the row is %s, %s, version %v from the clock, %v", key, name, old, err)
	}
}

func TestLimits(t *testing.T) {
	raw, err := codec.Raw[[]byte]()
	if err != nil {
		t.Fatal(err)
	}
	s, err := mysqlstore.Open[string, []byte](t.Context(), connect(t, dbtest.MariaDB(t)), mysqlstore.Options{Codec: raw})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	long := strings.Repeat("k", 1025)
	if _, err := s.Load(t.Context(), []string{long}); !errors.Is(err, lockstep.ErrTooLarge) {
		t.Errorf("a long key: %v, want ErrTooLarge", err)
	}
	commit := func(sizes ...int) error {
		var sets []lockstep.ChangeSet[string, []byte]
		for i, n := range sizes {
			sets = append(sets, lockstep.ChangeSet[string, []byte]{Changes: []lockstep.Change[string, []byte]{{Key: fmt.Sprint(i), Value: make([]byte, n)}}})
		}
		outcomes, err := s.Commit(t.Context(), sets)
		for _, o := range outcomes {
			err = errors.Join(err, o.Err)
		}
		return err
	}
	// The server takes statements of 16 MiB.
	const most = 16<<20 - 8<<10
	if err := commit(most); err != nil {
		t.Errorf("the longest value: %v", err)
	}
	if err := commit(most + 1); !errors.Is(err, lockstep.ErrTooLarge) {
		t.Errorf("a value that is longer than that: %v, want ErrTooLarge", err)
	}
	if err := commit(5<<20, 3<<20, 6<<20, 0, 3<<20, most); err != nil {
		t.Errorf("a batch that is longer than a statement can be: %v", err)
	}
	rows, err := s.Load(t.Context(), []string{"0", "3", "5"})
	if err != nil || len(rows["0"].Value) != 5<<20 || !rows["3"].Exists || len(rows["5"].Value) != most {
		t.Errorf("the rows have %d, %d and %d bytes (%v)", len(rows["0"].Value), len(rows["3"].Value), len(rows["5"].Value), err)
	}
}

// TestSweep: rows that are over become tombstones that keep their version, and
// tombstones that are a day old are purged, below the floor.
func TestSweep(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	s := openStore(t, dsn)
	past := put("over", "1")
	past.ExpiresAt = time.Now().Add(-time.Hour)
	later := put("later", "1")
	later.Lifetime = time.Hour
	write(t, s, put("stays", "1"))
	write(t, s, later)
	write(t, s, put("young", "1"))
	write(t, s, erase("young"))
	write(t, s, put("old", "1"))
	old := write(t, s, erase("old")).Rows[0].Version
	over := write(t, s, past).Rows[0].Version
	execute(t, pool, "UPDATE lockstep SET expires_at = 1 WHERE `key` = 'old'")
	execute(t, pool, "INSERT INTO lockstep VALUES ('locked', NULL, 7, 1, 1, 0)")
	tx := begin(t, pool)
	execute(t, tx, "SELECT * FROM lockstep WHERE `key` = 'locked' FOR UPDATE")
	if more, err := s.Sweep(t.Context()); err != nil || more {
		t.Fatal(more, err)
	}
	count := func(where string) (n int) {
		t.Helper()
		if err := pool.QueryRow("SELECT COUNT(*) FROM lockstep WHERE " + where).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for where, want := range map[string]int{
		"`key` IN ('stays', 'later') AND deleted = 0 AND value IS NOT NULL":                                          2,
		"`key` = 'over' AND deleted = 1 AND value IS NULL AND expires_at > 3600000000 * 23 + 1e6 * UNIX_TIMESTAMP()": 1,
		"`key` = 'young' AND deleted = 1":  1,
		"`key` = 'old'":                    0,
		"`key` = 'locked' AND deleted = 1": 1,
	} {
		if got := count(where); got != want {
			t.Errorf("%d rows with %s, want %d", got, where, want)
		}
	}
	if row := load(t, s, "over"); row.Exists || row.Version != over {
		t.Errorf("the row that is over is %+v, and had version %d", row, over)
	}
	var floor lockstep.Version
	if err := pool.QueryRow("SELECT floor FROM lockstep_tables").Scan(&floor); err != nil || floor != old {
		t.Errorf("the floor is %d (%v), and version %d was purged", floor, err, old)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	// More than fit into one sweep.
	many := strings.Repeat(",('%', NULL, 8, 1, 1, 0)", 600)
	for i := range 600 {
		many = strings.Replace(many, "%", fmt.Sprint("many", i), 1)
	}
	execute(t, pool, "INSERT INTO lockstep VALUES "+many[1:])
	for range 2 {
		if more, err := s.Sweep(t.Context()); err != nil || !more {
			t.Fatal(more, err)
		}
	}
	if more, err := s.Sweep(t.Context()); err != nil || more || count("`key` LIKE 'many%' OR `key` = 'locked'") != 0 {
		t.Error(more, err, "rows are left")
	}
}

// TestVersionsEnd: after the last version there is none, and it is an error and not
// a lower one.
func TestVersionsEnd(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	s := openStore(t, dsn)
	pool := connect(t, dsn)
	execute(t, pool, "INSERT INTO lockstep VALUES ('last', '\"0\"', ?, NULL, 0, 0), ('ahead', '\"0\"', ?, NULL, 0, 0)", int64(math.MaxInt64), int64(math.MaxInt64-10))
	load(t, s, "ahead")
	for _, sets := range [][]changeSet{
		{set(put("last", "1"))}, {set(erase("last"))}, {set(put("last", "1")), set(put("a", "1"))}, {set(put("a", "2")), set(erase("last"))},
	} {
		outcomes, err := s.Commit(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range outcomes {
			if last := sets[i].Changes[0].Key == "last"; last != errors.Is(o.Err, lockstep.ErrInvalid) || !last && o.Err != nil {
				t.Errorf("set %d: %v", i, o.Err)
			}
		}
	}
	if v := write(t, s, put("ahead", "1")).Rows[0].Version; v <= math.MaxInt64-10 {
		t.Errorf("version %d", v)
	}
	// It does not take the other rows along.
	if v := write(t, s, put("b", "1")).Rows[0].Version; v > lockstep.Version(time.Now().Add(time.Hour).UnixMicro()) {
		t.Errorf("a new row has version %d", v)
	}
	var deleted sql.NullInt64
	if err := pool.QueryRow("SELECT deleted FROM lockstep WHERE `key` = 'last'").Scan(&deleted); err != nil || deleted.Int64 != 0 {
		t.Error("the row of the last version was deleted")
	}
}
