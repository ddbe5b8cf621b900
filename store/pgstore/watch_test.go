package pgstore_test

import (
	"fmt"
	program "os/exec"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
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

func install(t testing.TB, db *pgstore.Database, table string, opts pgstore.WatchOptions) {
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

// told waits until a key that was absent is what the table has.
func told[K comparable, V comparable](t testing.TB, cache *lockstep.Cache[K, V], key K, want V) {
	t.Helper()
	eventually(t, fmt.Sprintf("key %v is %v", key, want), func() bool {
		got, err := cache.Get(t.Context(), key)
		return err == nil && got == want
	})
}

// psql runs the real program.
func psql(t testing.TB, url, statement string) {
	t.Helper()
	if out, err := program.CommandContext(t.Context(), "psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", statement, url).CombinedOutput(); err != nil {
		t.Fatalf("psql -c %q: %v\n%s", statement, err, out)
	}
}

func openPeople[V any](t testing.TB, db *pgstore.Database, table string) *pgstore.Table[int, V] {
	t.Helper()
	s, err := pgstore.NewTableIn[int, V](t.Context(), db, table, pgstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const people = `(id int PRIMARY KEY, name text NOT NULL, n bigint NOT NULL, version bigint NOT NULL DEFAULT 1)`

func TestARowThatPsqlChangesLeavesMemory(t *testing.T) {
	url := dbtest.Postgres(t)
	db := openPool(t, url)
	execute(t, url, `CREATE TABLE people `+people)
	execute(t, url, `INSERT INTO people SELECT i, 'old', i FROM generate_series(1, 9) AS i`)
	if openPeople[person](t, db, "people").Capabilities().Watch != nil {
		t.Error("a table without triggers is watched")
	}
	install(t, db, "people", pgstore.WatchOptions{VersionColumn: "version"})
	t.Run("WithoutVersion", func(t *testing.T) {
		cache := watchedCache(t, openPeople[person](t, db, "people"))
		warm(t, cache, 1, person{"old", 1})
		warm(t, cache, 2, person{"old", 2})
		psql(t, url, `UPDATE people SET name = 'new' WHERE id = 1`)
		gone(t, cache, 1)
		warm(t, cache, 1, person{"new", 1})
		if _, ok := cache.Peek(2); !ok {
			t.Error("a row that nobody has changed has left memory")
		}
		psql(t, url, `DELETE FROM people WHERE id = 2`)
		gone(t, cache, 2)
		absent(t, cache, 2)
		psql(t, url, `INSERT INTO people VALUES (2, 'back', 2)`)
		told(t, cache, 2, person{"back", 2})
	})
	t.Run("WithVersion", func(t *testing.T) {
		cache := watchedCache(t, openPeople[versioned](t, db, "people"))
		// A hand that edits rows leaves the version as it is.
		warm(t, cache, 3, versioned{"old", 3, 1})
		psql(t, url, `UPDATE people SET name = 'new' WHERE id = 3`)
		gone(t, cache, 3)
		warm(t, cache, 3, versioned{"new", 3, 1})
		// It sets it back, too.
		if _, err := cache.Set(t.Context(), 3, versioned{Name: "ours", N: 3}); err != nil {
			t.Fatal(err)
		}
		psql(t, url, `UPDATE people SET version = 1 WHERE id = 3`)
		gone(t, cache, 3)
		warm(t, cache, 3, versioned{"ours", 3, 1})
		// A row that is made again begins anew.
		if _, err := cache.Delete(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		absent(t, cache, 4)
		psql(t, url, `INSERT INTO people VALUES (4, 'again', 4)`)
		told(t, cache, 4, versioned{"again", 4, 1})
	})
	t.Run("KeyValue", func(t *testing.T) {
		openStore(t, url)
		install(t, db, "rows", pgstore.WatchOptions{})
		cache := watchedCache(t, openStore(t, url))
		if _, err := cache.Set(t.Context(), `k\`, "old"); err != nil {
			t.Fatal(err)
		}
		warm(t, cache, `k\`, "old")
		psql(t, url, `UPDATE rows SET value = '"new"' WHERE key = 'k\\'`)
		gone(t, cache, `k\`)
		warm(t, cache, `k\`, "new")
		psql(t, url, `DELETE FROM rows`)
		gone(t, cache, `k\`)
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

func TestWhatElseChangesRowsIsTold(t *testing.T) {
	url := dbtest.Postgres(t)
	db := openPool(t, url)
	c := connect(t, url)
	run(t, c, `CREATE TABLE parents (id int PRIMARY KEY)`)
	run(t, c, `CREATE TABLE people (id int PRIMARY KEY REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE, name text NOT NULL, n bigint NOT NULL)`)
	run(t, c, `INSERT INTO parents SELECT generate_series(1, 99)`)
	run(t, c, `INSERT INTO people SELECT i, 'old', i FROM generate_series(1, 99) AS i`)
	install(t, db, "people", pgstore.WatchOptions{})
	cache := watchedCache(t, openPeople[person](t, db, "people"))
	for name, change := range map[string]struct {
		statement string
		keys      []int
	}{
		"ACascade":           {`DELETE FROM parents WHERE id IN (10, 11)`, []int{10, 11}},
		"AKeyThatIsChanged":  {`INSERT INTO parents VALUES (200); UPDATE people SET id = 200 WHERE id = 20`, []int{20, 200}},
		"AKeyThatCascades":   {`UPDATE parents SET id = 210 WHERE id = 21`, []int{21, 210}},
		"Upsert":             {`INSERT INTO people VALUES (30, 'old', 0) ON CONFLICT (id) DO UPDATE SET n = people.n + 1`, []int{30}},
		"Copy":               {`DELETE FROM people WHERE id = 40; COPY people FROM PROGRAM 'echo 40,copied,0' (FORMAT csv)`, []int{40}},
		"Replication":        {`SET session_replication_role = replica; UPDATE people SET n = 0 WHERE id = 50; UPDATE people SET id = 510 WHERE id = 51`, []int{50, 51, 510}},
		"ReplicationDeletes": {`SET session_replication_role = replica; DELETE FROM people WHERE id = 60`, []int{60}},
		"SeveralAtOnce":      {`UPDATE people SET n = n + 1 WHERE id BETWEEN 70 AND 75`, []int{70, 71, 72, 73, 74, 75}},
		"AnExchangeOfKeys":   {`INSERT INTO parents VALUES (900); UPDATE people SET id = 900 WHERE id = 80; UPDATE people SET id = 80 WHERE id = 81; UPDATE people SET id = 81 WHERE id = 900`, []int{80, 81, 900}},
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
			psql(t, url, change.statement)
			for _, key := range change.keys {
				row := person{}
				err := c.QueryRow(t.Context(), `SELECT name, n FROM people WHERE id = $1`, key).Scan(&row.Name, &row.N)
				there := err == nil
				eventually(t, fmt.Sprintf("key %d is what the table has", key), func() bool {
					got, err := cache.Get(t.Context(), key)
					return there && err == nil && got == row || !there && err != nil
				})
			}
			if _, ok := cache.Peek(1); !ok {
				t.Error("a row that nobody has changed has left memory")
			}
		})
	}
	t.Run("Truncate", func(t *testing.T) {
		warm(t, cache, 1, person{"old", 1})
		psql(t, url, `TRUNCATE people`)
		gone(t, cache, 1)
		run(t, c, `INSERT INTO people VALUES (1, 'old', 1)`)
		warm(t, cache, 1, person{"old", 1})
		psql(t, url, `SET session_replication_role = replica; TRUNCATE people`)
		gone(t, cache, 1)
	})
}

// No trigger tells of what ALTER TABLE and ALTER TYPE make of the rows.
func TestRowsThatDDLChangesLeaveMemory(t *testing.T) {
	type V struct {
		Name string `db:"name"`
		Mood string `db:"mood"`
	}
	url := dbtest.Postgres(t)
	execute(t, url, "CREATE TYPE mood AS ENUM ('sad', 'happy')")
	execute(t, url, "CREATE TABLE people (id int PRIMARY KEY, name text, mood mood)")
	db := openPool(t, url)
	install(t, db, "people", pgstore.WatchOptions{})
	cache := watchedCache[int, V](t, openPeople[V](t, db, "people"))
	if _, err := cache.Set(t.Context(), 1, V{"a", "sad"}); err != nil {
		t.Fatal(err)
	}
	warm(t, cache, 1, V{"a", "sad"})
	psql(t, url, "ALTER TABLE people ALTER COLUMN name TYPE text USING upper(name)")
	told(t, cache, 1, V{"A", "sad"})
	eventually(t, "the watch has begun again", func() bool { return cache.Stats().Watching })
	warm(t, cache, 1, V{"A", "sad"})
	psql(t, url, "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
	told(t, cache, 1, V{"A", "blue"})
}

// Keys of each type and name come back as what they were.
func TestKeysOfWatchedTables(t *testing.T) {
	url := dbtest.Postgres(t)
	execute(t, url, `CREATE TYPE mood AS ENUM ('so so', 'it''s "fine", {\}')`)
	execute(t, url, `CREATE DOMAIN code AS varchar(20) CHECK (length(value) > 1)`)
	db := openPool(t, url)
	watchedKey[string](t, db, url, "text", "", `a,"b" {c}\`, "NULL", "日本", "$lockstep$")
	watchedKey[string](t, db, url, "mood", `it's "fine", {\}`)
	watchedKey[string](t, db, url, "code", "ab")
	watchedKey[string](t, db, url, "uuid", "01234567-89ab-cdef-0123-456789abcdef")
	watchedKey[[16]byte](t, db, url, "uuid", [16]byte{1, 2, 255})
	watchedKey[[3]byte](t, db, url, "bytea", [3]byte{0, '\\', 255})
	watchedKey[int16](t, db, url, "smallint", -32768)
	watchedKey[uint64](t, db, url, "bigint", 1<<63-1)
	watchedKey[float64](t, db, url, "double precision", 0.1, -1e300, 5e-324)
	watchedKey[float32](t, db, url, "real", 0.1, 1e-45)
}

var manyKeys int

func watchedKey[K comparable](t *testing.T, db *pgstore.Database, url, column string, keys ...K) {
	t.Run(column, func(t *testing.T) {
		type V struct {
			N int `db:"n"`
		}
		manyKeys++
		table := fmt.Sprintf(`"Odd $lockstep$ ''name' of %d, and longer than fits beside a prefix"`, manyKeys)[:60] + `"`
		execute(t, url, `CREATE TABLE `+table+` ("the Key" `+column+` PRIMARY KEY, n int NOT NULL)`)
		install(t, db, table, pgstore.WatchOptions{})
		s, err := pgstore.NewTableIn[K, V](t.Context(), db, table, pgstore.TableOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cache := watchedCache(t, s)
		for i, key := range keys {
			if _, err := cache.Set(t.Context(), key, V{1}); err != nil {
				t.Fatal(err)
			}
			warm(t, cache, key, V{1})
			// Settings of the session that change a text.
			psql(t, url, fmt.Sprintf(`SET extra_float_digits = 0; SET bytea_output = escape; SET standard_conforming_strings = off; UPDATE %s SET n = %d`, table, i+2))
			gone(t, cache, key)
			warm(t, cache, key, V{i + 2})
			if _, err := cache.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	})
}
