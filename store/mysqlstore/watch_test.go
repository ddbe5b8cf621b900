package mysqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	program "os/exec"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

// person is a row of the tables that the tests of watching map.
type person struct {
	Name string `db:"name"`
	N    int64  `db:"n"`
}

type versioned struct {
	Name    string `db:"name"`
	N       int64  `db:"n"`
	Version int64  `db:"version,version"`
}

const people = "(id INT PRIMARY KEY, name VARCHAR(20) NOT NULL, n BIGINT NOT NULL, version BIGINT NOT NULL DEFAULT 1)"

// watchDatabase looks for changes often, so that tests need not wait.
func watchDatabase(t testing.TB, pool *sql.DB) *mysqlstore.Database {
	t.Helper()
	db, err := mysqlstore.OpenDatabase(t.Context(), pool, mysqlstore.DatabaseOptions{WatchInterval: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func openPeople[V any](t testing.TB, db *mysqlstore.Database, table string) *mysqlstore.Table[int, V] {
	t.Helper()
	s, err := mysqlstore.NewTableIn[int, V](t.Context(), db, table, mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func install(t testing.TB, db *mysqlstore.Database, table string, opts mysqlstore.WatchOptions) {
	t.Helper()
	if err := db.InstallWatch(t.Context(), table, opts); err != nil {
		t.Fatal(err)
	}
}

// watchedCache is a cache that watches its table, and does so already.
func watchedCache[K comparable, V any](t testing.TB, s lockstep.Store[K, V]) *lockstep.Cache[K, V] {
	t.Helper()
	if s.Capabilities().Watch == nil {
		t.Fatal("the store does not watch its table")
	}
	cache := cachetest.Open(t, s, lockstep.Options[K, V]{})
	eventually(t, "the cache watches its table", func() bool { return cache.Stats().Watching })
	return cache
}

// eventually waits for what another process brings about.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	const patience = 30 * time.Second
	for end := time.Now().Add(patience); !is(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v it is still not so that %s", patience, what)
		}
	}
}

// warm has the cache hold a row.
func warm[K comparable, V comparable](t testing.TB, cache *lockstep.Cache[K, V], key K, want V) {
	t.Helper()
	eventually(t, fmt.Sprintf("memory has key %v", key), func() bool {
		got, err := cache.Get(t.Context(), key)
		if err != nil || got != want {
			t.Fatalf("key %v is %v, %v, want %v", key, got, err, want)
		}
		_, ok := cache.Peek(key)
		return ok
	})
}

func gone[K comparable, V any](t testing.TB, cache *lockstep.Cache[K, V], key K) {
	t.Helper()
	eventually(t, fmt.Sprintf("key %v has left memory", key), func() bool {
		_, ok := cache.Peek(key)
		return !ok
	})
}

// told waits until a key is what the table has.
func told[K comparable, V comparable](t testing.TB, cache *lockstep.Cache[K, V], key K, want V) {
	t.Helper()
	eventually(t, fmt.Sprintf("key %v is %v", key, want), func() bool {
		got, err := cache.Get(t.Context(), key)
		return err == nil && got == want
	})
}

// absent has the cache hold that there is no row.
func absent[K comparable, V any](t testing.TB, cache *lockstep.Cache[K, V], key K) {
	t.Helper()
	eventually(t, fmt.Sprintf("memory has that there is no key %v", key), func() bool {
		there, err := cache.Exists(t.Context(), key)
		if err != nil || there {
			t.Fatalf("key %v exists: %t, %v", key, there, err)
		}
		before := cache.Stats().Loads
		if _, err := cache.Exists(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		return cache.Stats().Loads == before
	})
}

// client runs the real program.
func client(t testing.TB, dsn, statements string) {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := program.CommandContext(t.Context(), "mariadb", "--no-defaults", "--protocol=tcp", "-h", host, "-P", port, "-u", cfg.User, cfg.DBName, "-e", statements)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+cfg.Passwd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mariadb -e %q: %v\n%s", statements, err, out)
	}
}

func TestARowThatTheClientChangesLeavesMemory(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	db := watchDatabase(t, pool)
	execute(t, pool, "CREATE TABLE people "+people)
	execute(t, pool, "INSERT INTO people SELECT seq, 'old', seq, 1 FROM "+mysqlstore.Numbers(1, 9))
	if openPeople[person](t, db, "people").Capabilities().Watch != nil {
		t.Error("a table without triggers is watched")
	}
	install(t, db, "people", mysqlstore.WatchOptions{VersionColumn: "version"})
	t.Run("WithoutVersion", func(t *testing.T) {
		cache := watchedCache(t, openPeople[person](t, db, "people"))
		warm(t, cache, 1, person{"old", 1})
		warm(t, cache, 2, person{"old", 2})
		client(t, dsn, "UPDATE people SET name = 'new' WHERE id = 1")
		gone(t, cache, 1)
		warm(t, cache, 1, person{"new", 1})
		if _, ok := cache.Peek(2); !ok {
			t.Error("a row that nobody has changed has left memory")
		}
		client(t, dsn, "DELETE FROM people WHERE id = 2")
		gone(t, cache, 2)
		absent(t, cache, 2)
		client(t, dsn, "INSERT INTO people VALUES (2, 'back', 2, 1)")
		told(t, cache, 2, person{"back", 2})
	})
	t.Run("WithVersion", func(t *testing.T) {
		cache := watchedCache(t, openPeople[versioned](t, db, "people"))
		// A hand that edits rows leaves the version as it is.
		warm(t, cache, 3, versioned{"old", 3, 1})
		client(t, dsn, "UPDATE people SET name = 'new' WHERE id = 3")
		gone(t, cache, 3)
		warm(t, cache, 3, versioned{"new", 3, 1})
		// It sets it back, too.
		if _, err := cache.Set(t.Context(), 3, versioned{Name: "ours", N: 3}); err != nil {
			t.Fatal(err)
		}
		client(t, dsn, "UPDATE people SET version = 1 WHERE id = 3")
		gone(t, cache, 3)
		warm(t, cache, 3, versioned{"ours", 3, 1})
		// A row that is made again begins anew.
		if _, err := cache.Delete(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		absent(t, cache, 4)
		client(t, dsn, "INSERT INTO people VALUES (4, 'again', 4, 1)")
		told(t, cache, 4, versioned{"again", 4, 1})
	})
	t.Run("KeyValue", func(t *testing.T) {
		key := "k\\:\xff"
		open := func() *mysqlstore.Store[string, string] {
			s, err := mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{Table: "kept"})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		open()
		install(t, db, "kept", mysqlstore.WatchOptions{})
		cache := watchedCache(t, open())
		version, err := cache.Set(t.Context(), key, "old")
		if err != nil {
			t.Fatal(err)
		}
		warm(t, cache, key, "old")
		client(t, dsn, "UPDATE kept SET value = '\"new\"'")
		gone(t, cache, key)
		warm(t, cache, key, "new")
		client(t, dsn, fmt.Sprintf("UPDATE kept SET value = '\"newer\"', version = %d", version-1))
		gone(t, cache, key)
		warm(t, cache, key, "newer")
		client(t, dsn, "DELETE FROM kept")
		gone(t, cache, key)
	})
	t.Run("ReadOnly", func(t *testing.T) {
		s, err := mysqlstore.NewTableIn[int, person](t.Context(), db, "people", mysqlstore.TableOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		cache := watchedCache(t, s)
		warm(t, cache, 5, person{"old", 5})
		client(t, dsn, "UPDATE people SET n = 6 WHERE id = 5")
		told(t, cache, 5, person{"old", 6})
	})
}

func TestWhatElseChangesRowsIsTold(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	db := watchDatabase(t, pool)
	execute(t, pool, "CREATE TABLE people "+people)
	execute(t, pool, "CREATE TABLE parts (id INT PRIMARY KEY)")
	execute(t, pool, "INSERT INTO parts VALUES (120)")
	execute(t, pool, "INSERT INTO people SELECT seq, 'old', seq, 1 FROM "+mysqlstore.Numbers(1, 99))
	// The triggers of others stay, before ours and behind.
	execute(t, pool, "CREATE TRIGGER first AFTER UPDATE ON people FOR EACH ROW SET @first = 1")
	install(t, db, "people", mysqlstore.WatchOptions{})
	execute(t, pool, "CREATE TRIGGER second AFTER UPDATE ON people FOR EACH ROW FOLLOWS first SET @second = 1")
	execute(t, pool, "CREATE TRIGGER third AFTER UPDATE ON people FOR EACH ROW SET @third = 1")
	cache := watchedCache(t, openPeople[person](t, db, "people"))
	for name, change := range map[string]struct {
		statement string
		keys      []int
	}{
		"AKeyThatIsChanged": {"UPDATE people SET id = 200 WHERE id = 20", []int{20, 200}},
		"Upsert":            {"INSERT INTO people VALUES (30, 'old', 0, 1) ON DUPLICATE KEY UPDATE n = people.n + 1", []int{30}},
		"Replace":           {"REPLACE INTO people VALUES (40, 'other', 0, 1)", []int{40}},
		"SeveralTables":     {"UPDATE people, parts SET people.n = 0, parts.id = parts.id + 1 WHERE people.id = 50", []int{50}},
		"DeletesOfSeveral":  {"DELETE people FROM people JOIN parts WHERE people.id = 60", []int{60}},
		"InsertSelect":      {"INSERT INTO people SELECT 120, 'selected', 1, 1", []int{120}},
		"SeveralAtOnce":     {"UPDATE people SET n = n + 1 WHERE id BETWEEN 70 AND 75", []int{70, 71, 72, 73, 74, 75}},
		"AnExchangeOfKeys":  {"UPDATE people SET id = 900 WHERE id = 80; UPDATE people SET id = 80 WHERE id = 81; UPDATE people SET id = 81 WHERE id = 900", []int{80, 81, 900}},
		"LockedTables":      {"LOCK TABLES people WRITE; UPDATE people SET n = 0 WHERE id = 90; UNLOCK TABLES", []int{90}},
		"XA":                {"XA START 'x'; UPDATE people SET n = 0 WHERE id = 91; XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'", []int{91}},
		"OwnSettings":       {"SET sql_mode = 'ANSI,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES', NAMES latin1, innodb_lock_wait_timeout = 1; SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE; UPDATE people SET n = 0 WHERE id = 92", []int{92}},
		"AWriterOfTheirOwn": {"SET @lockstep_writer = REPEAT('x', 40); UPDATE people SET n = 0 WHERE id = 93", []int{93}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, key := range change.keys {
				if there, err := cache.Exists(t.Context(), key); err != nil {
					t.Fatal(err)
				} else if !there {
					absent(t, cache, key)
				}
			}
			warm(t, cache, 1, person{"old", 1})
			client(t, dsn, change.statement)
			for _, key := range change.keys {
				row := person{}
				err := pool.QueryRow("SELECT name, n FROM people WHERE id = ?", key).Scan(&row.Name, &row.N)
				there := err == nil
				eventually(t, fmt.Sprintf("key %d is what the table has", key), func() bool {
					got, err := cache.Get(t.Context(), key)
					return there && err == nil && got == row || !there && errors.Is(err, lockstep.ErrNotFound)
				})
			}
			if _, ok := cache.Peek(1); !ok {
				t.Error("a row that nobody has changed has left memory")
			}
		})
	}
	t.Run("AlterTable", func(t *testing.T) {
		warm(t, cache, 2, person{"old", 2})
		losses := cache.Stats().WatchLosses
		client(t, dsn, "DO SLEEP(1); ALTER TABLE people MODIFY n INT NOT NULL") // tables have the second of their making
		eventually(t, "the watch began anew", func() bool { return cache.Stats().WatchLosses > losses && cache.Stats().Watching })
		warm(t, cache, 2, person{"old", 2})
		client(t, dsn, "UPDATE people SET n = 7 WHERE id = 2")
		told(t, cache, 2, person{"old", 7})
	})
}

// A cache is not told of its own changes, of whatever kind they are, so that what it
// has written stays in memory. It is told of all others, of those of another cache of
// the same process too.
func TestAChangeOfOurOwnIsNotTold(t *testing.T) {
	dialects(t, func(t *testing.T, asMySQL bool) {
		dsn := dbtest.MariaDB(t)
		pool := connect(t, dsn)
		db := watchDatabase(t, pool)
		if asMySQL {
			mysqlstore.AsMySQL(db)
		}
		execute(t, pool, "CREATE TABLE people "+people)
		execute(t, pool, "CREATE TABLE plain (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) NOT NULL, n BIGINT NOT NULL)")
		install(t, db, "people", mysqlstore.WatchOptions{VersionColumn: "version"})
		install(t, db, "plain", mysqlstore.WatchOptions{})
		kept := func() lockstep.Store[int, person] {
			s, err := mysqlstore.OpenIn[int, person](t.Context(), db, mysqlstore.Options{Table: "kept"})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		kept()
		install(t, db, "kept", mysqlstore.WatchOptions{})
		t.Run("KeyValue", func(t *testing.T) {
			ownChanges(t, kept(), kept(), func(n int64) person { return person{"ours", n} })
		})
		t.Run("WithVersion", func(t *testing.T) {
			ownChanges(t, openPeople[versioned](t, db, "people"), openPeople[versioned](t, db, "people"),
				func(n int64) versioned { return versioned{Name: "ours", N: n} })
		})
		t.Run("WithoutVersion", func(t *testing.T) {
			ownChanges(t, openPeople[person](t, db, "plain"), openPeople[person](t, db, "plain"), func(n int64) person { return person{"ours", n} })
		})
		t.Run("Inserts", func(t *testing.T) {
			cache := watchedCache(t, openPeople[person](t, db, "plain"))
			key, _, err := cache.Insert(t.Context(), person{"new", 1})
			if err != nil {
				t.Fatal(err)
			}
			warm(t, cache, key, person{"new", 1})
			if n := cache.Stats().Loads; n != 0 {
				t.Errorf("what was inserted was loaded %d times", n)
			}
			client(t, dsn, fmt.Sprintf("UPDATE plain SET n = 2 WHERE id = %d", key))
			told(t, cache, key, person{"new", 2})
		})
	})
}

func ownChanges[V comparable](t *testing.T, s, other lockstep.Store[int, V], value func(n int64) V) {
	cache, another := watchedCache(t, s), watchedCache(t, other)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(cache.Set(ctx, 1, value(1)))
	if s.Capabilities().Versions {
		must(cache.Set(ctx, 2, value(2), lockstep.IfAbsent()))
	} else {
		must(cache.Set(ctx, 2, value(2)))
	}
	must(cache.Set(ctx, 1, value(3)))
	must(cache.Update(ctx, 2, func(V, bool) (V, error) { return value(4), nil }))
	must(cache.Delete(ctx, 1))
	must(cache.Delete(ctx, 1))
	must(cache.Set(ctx, 1, value(5)))
	must(nil, cache.SetMany(ctx, map[int]V{3: value(6), 4: value(7)}))
	must(nil, lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		c := cache.In(tx)
		if _, err := c.Get(ctx, 2); err != nil {
			return err
		}
		return errors.Join(c.Set(ctx, 5, value(8)), c.Delete(ctx, 3))
	}))
	for _, key := range []int{1, 2, 4, 5} {
		if _, ok := cache.Peek(key); !ok {
			t.Errorf("key %d, which the cache has written, has left memory", key)
		}
	}
	// One of two caches, by Begin and Apply.
	must(nil, lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
		return errors.Join(cache.In(tx).Set(ctx, 6, value(6)), another.In(tx).Set(ctx, 7, value(7)))
	}))
	must(another.Set(ctx, 9, value(9)))
	warm(t, cache, 9, got(t, another, 9))
	must(another.Set(ctx, 9, value(10)))
	told(t, cache, 9, got(t, another, 9))
	// Of 7, twice of 9 and twice of 10. They are told in order: the last one comes behind
	// any that ought not to be told.
	must(another.Set(ctx, 10, value(11)))
	must(another.Set(ctx, 10, value(12)))
	eventually(t, "all changes have been told", func() bool { return cache.Stats().OutsideChanges >= 5 })
	if n := cache.Stats().OutsideChanges; n != 5 {
		t.Errorf("the cache was told of %d changes, and five were made by others", n)
	}
}

func got[V any](t testing.TB, cache *lockstep.Cache[int, V], key int) V {
	t.Helper()
	v, err := cache.Get(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Keys of each type and name come back as what they were.
func TestKeysOfWatchedTables(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	db := watchDatabase(t, pool)
	watchedKey[string](t, db, pool, dsn, "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE "+mysqlstore.Nopad(t), "", "a", "a ", "A", "3:abc", "日本\x00", `\'"`)
	watchedKey[string](t, db, pool, dsn, "VARBINARY(3072)", "", "a", "a ", "\x00\xff", string(make([]byte, 3072)))
	if !mysqlstore.OnMySQL(t) {
		watchedKey[string](t, db, pool, dsn, "UUID", "01234567-89ab-1def-8123-456789abcdef")
		watchedKey[[16]byte](t, db, pool, dsn, "UUID", [16]byte{1, 2, 255})
	}
	watchedKey[[3]byte](t, db, pool, dsn, "BINARY(3)", [3]byte{0, '\\', 255}, [3]byte{1, 0, 0})
	watchedKey[int16](t, db, pool, dsn, "SMALLINT", -32768, 0, 7)
	watchedKey[uint64](t, db, pool, dsn, "BIGINT UNSIGNED", 0, 1<<63, 1<<64-1)
	watchedKey[uint32](t, db, pool, dsn, "INT(9) ZEROFILL", 5)
	watchedKey[float64](t, db, pool, dsn, "DOUBLE", 0.1, -1e300, 5e-324, 0.1+0.2e-16, 1.7976931348623157e308, 123456789.12345679)
	type pair struct {
		Tenant string `db:"tenant"`
		ID     int64  `db:"number"`
	}
	watchedKeyOf(t, db, pool, dsn, "tenant VARBINARY(20), number BIGINT, n INT NOT NULL, PRIMARY KEY (number, tenant)",
		pair{"a", 1}, pair{"1:1", -1}, pair{"", 0}, pair{"\x001", 11})
}

func watchedKey[K comparable](t *testing.T, db *mysqlstore.Database, pool *sql.DB, dsn, column string, keys ...K) {
	watchedKeyOf(t, db, pool, dsn, "`the Key` "+column+" PRIMARY KEY, n INT NOT NULL", keys...)
}

var manyKeys int

func watchedKeyOf[K comparable](t *testing.T, db *mysqlstore.Database, pool *sql.DB, dsn, columns string, keys ...K) {
	t.Run(columns, func(t *testing.T) {
		type V struct {
			N int `db:"n"`
		}
		manyKeys++
		table := fmt.Sprintf("`Odd ''name'' of %d, and longer than fits beside a prefix$`", manyKeys)
		execute(t, pool, "CREATE TABLE "+table+" ("+columns+")")
		install(t, db, table, mysqlstore.WatchOptions{})
		s, err := mysqlstore.NewTableIn[K, V](t.Context(), db, table, mysqlstore.TableOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cache := watchedCache(t, s)
		for _, key := range keys {
			if _, err := cache.Set(t.Context(), key, V{1}); err != nil {
				t.Fatal(err)
			}
			warm(t, cache, key, V{1})
		}
		// Settings of the session that change a text.
		client(t, dsn, "SET NAMES latin1, div_precision_increment = 0, sql_mode = 'ANSI,PAD_CHAR_TO_FULL_LENGTH'; UPDATE "+table+" SET n = 2")
		for _, key := range keys {
			told(t, cache, key, V{2})
			warm(t, cache, key, V{2})
		}
		execute(t, pool, "DELETE FROM "+table)
		for _, key := range keys {
			gone(t, cache, key)
		}
	})
}

func TestWatchesThatAreRefused(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	db := watchDatabase(t, pool)
	for _, query := range []string{
		"CREATE TABLE nokey (id INT)", "CREATE TABLE times (at DATETIME PRIMARY KEY)", "CREATE VIEW seen AS SELECT 1 AS id",
		"CREATE TABLE folded (id VARCHAR(9) COLLATE utf8mb4_general_ci PRIMARY KEY)",
		"CREATE TABLE parents (id INT PRIMARY KEY)", "CREATE TABLE fine (id INT PRIMARY KEY, v INT, parent INT)",
		"CREATE TABLE cascaded (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE)",
		"CREATE TABLE keyed (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES parents (id) ON UPDATE CASCADE)",
		"CREATE TABLE nulled (id INT PRIMARY KEY, n INT NOT NULL, parent INT, FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE SET NULL)",
	} {
		execute(t, pool, query)
	}
	for _, c := range []struct {
		table, version string
		want           error
		word           string
	}{
		{"nokey", "", lockstep.ErrInvalid, "primary key"},
		{"times", "", lockstep.ErrInvalid, "datetime"},
		{"seen", "", lockstep.ErrInvalid, "view"},
		{"nowhere", "", lockstep.ErrInvalid, "no such table"},
		{"folded", "", lockstep.ErrInvalid, "utf8mb4_general_ci"},
		{"cascaded", "", lockstep.ErrUnsupported, "ON DELETE CASCADE of a row of parents"},
		{"keyed", "", lockstep.ErrUnsupported, "ON UPDATE CASCADE of a row of parents"},
		{"fine", "v", lockstep.ErrInvalid, "bigint"},
		{"fine", "none", lockstep.ErrInvalid, "none"},
	} {
		refuses(t, db.InstallWatch(t.Context(), c.table, mysqlstore.WatchOptions{VersionColumn: c.version}), c.want, c.table, c.word)
	}
	refuses(t, db.InstallWatch(t.Context(), "fine", mysqlstore.WatchOptions{Role: "@"}), lockstep.ErrInvalid, "Role")
	refuses(t, db.RemoveWatch(t.Context(), "fine"), lockstep.ErrInvalid, "fine", "not watched")
	refuses(t, db.RemoveWatch(t.Context(), "nowhere"), lockstep.ErrInvalid, "nowhere", "no such table")
	_, err := mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{Table: "lockstep_changes"})
	refuses(t, err, lockstep.ErrInvalid, "reserved")
	refuses(t, openErr(t, pool, mysqlstore.DatabaseOptions{WatchInterval: -1}), lockstep.ErrInvalid, "WatchInterval")

	openStore(t, dsn)
	refuses(t, db.InstallWatch(t.Context(), "lockstep", mysqlstore.WatchOptions{VersionColumn: "version"}), lockstep.ErrInvalid, "lockstep", "has its own")
	execute(t, pool, "CREATE TRIGGER theirs AFTER INSERT ON lockstep FOR EACH ROW SET @x = 1")
	install(t, db, "lockstep", mysqlstore.WatchOptions{})
	_, err = mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{})
	refuses(t, err, lockstep.ErrInvalid, "theirs", "none but those of a watch")
	execute(t, pool, "DROP TRIGGER theirs")
	execute(t, pool, "DROP TRIGGER lockstep_watch_delete_lockstep")
	_, err = mysqlstore.OpenIn[string, string](t.Context(), db, mysqlstore.Options{})
	refuses(t, err, lockstep.ErrInvalid, "not whole", "lockstep_watch_delete_lockstep")

	// A column that an action sets may be in no field, and then nothing is lost.
	install(t, db, "nulled", mysqlstore.WatchOptions{})
	type all struct {
		N      int  `db:"n"`
		Parent *int `db:"parent"`
	}
	_, err = mysqlstore.NewTableIn[int, all](t.Context(), db, "nulled", mysqlstore.TableOptions{})
	refuses(t, err, lockstep.ErrUnsupported, "nulled", "ON DELETE SET NULL", "parents")
	type some struct {
		N int `db:"n"`
	}
	if _, err := mysqlstore.NewTableIn[int, some](t.Context(), db, "nulled", mysqlstore.TableOptions{}); err != nil {
		t.Error(err)
	}
	// One that is made later is found at open.
	install(t, db, "fine", mysqlstore.WatchOptions{})
	execute(t, pool, "ALTER TABLE fine ADD CONSTRAINT late FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE")
	type fine struct {
		V *int `db:"v"`
	}
	_, err = mysqlstore.NewTableIn[int, fine](t.Context(), db, "fine", mysqlstore.TableOptions{})
	refuses(t, err, lockstep.ErrUnsupported, "fine", "late", "ON DELETE CASCADE")
}

// Whoever may write the table need have no privilege on the log; whoever watches it is
// told what is lacking, and WatchOptions.Role gives it.
func TestPrivilegesOfAWatchedTable(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	db := watchDatabase(t, pool)
	execute(t, pool, "CREATE TABLE people "+people)
	execute(t, pool, "INSERT INTO people VALUES (1, 'old', 0, 1)")
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	user := cfg.DBName + "_app"
	execute(t, pool, "CREATE USER "+user+" IDENTIFIED BY 'secret'")
	t.Cleanup(func() { pool.Exec("DROP USER " + user) })
	execute(t, pool, "GRANT SELECT, INSERT, UPDATE, DELETE ON people TO "+user)
	install(t, db, "people", mysqlstore.WatchOptions{})
	cfg.User, cfg.Passwd = user, "secret"
	theirs := watchDatabase(t, connect(t, cfg.FormatDSN()))
	client(t, cfg.FormatDSN(), "UPDATE people SET n = 1")
	for _, privilege := range []string{"SELECT ON lockstep_watched", "TRIGGER ON people", "SELECT, INSERT ON lockstep_changes"} {
		execute(t, pool, "GRANT "+privilege+" TO "+user)
		_, err := mysqlstore.NewTableIn[int, person](t.Context(), theirs, "people", mysqlstore.TableOptions{})
		refuses(t, err, lockstep.ErrInvalid, "people", "not whole", "the user lacks")
	}
	install(t, db, "people", mysqlstore.WatchOptions{Role: user})
	cache := watchedCache(t, openPeople[person](t, theirs, "people"))
	warm(t, cache, 1, person{"old", 1})
	client(t, cfg.FormatDSN(), "UPDATE people SET n = 2")
	told(t, cache, 1, person{"old", 2})
}

// A pool that is limited has room for the watchers' sessions, or the store says so.
func TestWatchersOfAPoolThatIsLimited(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	execute(t, pool, "CREATE TABLE people "+people)
	execute(t, pool, "INSERT INTO people VALUES (1, 'old', 0, 1)")
	install(t, watchDatabase(t, pool), "people", mysqlstore.WatchOptions{})
	few := connect(t, dsn)
	few.SetMaxOpenConns(5)
	db := watchDatabase(t, few)
	for range 2 {
		cache := watchedCache(t, openPeople[person](t, db, "people"))
		if _, err := cache.Set(t.Context(), 1, person{"old", 1}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := mysqlstore.NewTableIn[int, person](t.Context(), db, "people", mysqlstore.TableOptions{})
	refuses(t, err, lockstep.ErrInvalid, "5", "SetMaxOpenConns", "3")
}
