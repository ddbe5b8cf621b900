package mysqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
)

type serialRow struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
	Made  string `db:"made,readonly"`
	Upper string `db:"upper,readonly"`
}

const serialTable = `CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(40) NOT NULL UNIQUE,
	made VARCHAR(9) NOT NULL DEFAULT 'today', upper VARCHAR(40) AS (UPPER(email)) STORED, version BIGINT NOT NULL DEFAULT 0)`

func insertion[K comparable, V any](v V) lockstep.ChangeSet[K, V] {
	return lockstep.ChangeSet[K, V]{Changes: []lockstep.Change[K, V]{{Insert: true, Value: v}}}
}

// AUTO_INCREMENT keys, with what the schema makes of a new row.
func TestInsertIntoASerialTable(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		for _, version := range []string{"", "version"} {
			t.Run("version="+version, func(t *testing.T) {
				// A trigger's own insertion is not the row's.
				s := mapAs[int64, serialRow](t, dbtest.MariaDB(t), mysql, mysqlstore.TableOptions{VersionColumn: version}, serialTable,
					`CREATE TABLE other (id BIGINT AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT = 500`,
					`CREATE TRIGGER marks BEFORE INSERT ON t FOR EACH ROW SET NEW.made = 'marked'`,
					`CREATE TRIGGER notes AFTER INSERT ON t FOR EACH ROW INSERT INTO other VALUES (NULL)`)
				insertsIntoASerialTable(t, s)
			})
		}
	})
}

func insertsIntoASerialTable(t *testing.T, s *mysqlstore.Table[int64, serialRow]) {
	cache := cachetest.Open(t, s, lockstep.Options[int64, serialRow]{})
	if _, err := cache.Get(t.Context(), 1); !errors.Is(err, lockstep.ErrNotFound) {
		t.Fatal(err)
	}
	key, version, err := cache.Insert(t.Context(), serialRow{Email: "a@x"})
	want := serialRow{ID: 1, Email: "a@x", Made: "marked", Upper: "A@X"}
	if got, ok := cache.Peek(key); err != nil || key != 1 || !ok || got != want {
		t.Fatalf("Insert = %d, %v, and memory has %+v, %t", key, err, got, ok)
	}
	if row := load1(t, s, key); row.Version != version || (version > 0) != s.Capabilities().Versions {
		t.Errorf("Insert tells version %d, and the row is %+v", version, row)
	}
	for _, refused := range []serialRow{{Email: "a@x"}, {ID: 7, Email: "b@x"}} {
		if _, _, err := cache.Insert(t.Context(), refused); !errors.Is(err, lockstep.ErrInvalid) {
			t.Errorf("%+v: %v", refused, err)
		}
	}
	// Many at once, of which some have the same email, and other writes.
	var all sync.WaitGroup
	var mu sync.Mutex
	keys := map[int64]string{}
	for i := range 30 {
		all.Go(func() {
			email := fmt.Sprint(i % 20)
			key, _, err := cache.Insert(t.Context(), serialRow{Email: email})
			if err != nil && !errors.Is(err, lockstep.ErrInvalid) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				keys[key] = email
			}
		})
		all.Go(func() {
			if _, err := cache.Set(t.Context(), -1-int64(i), serialRow{Email: fmt.Sprint("set", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(keys) != 20 {
		t.Errorf("%d of 20 rows were inserted", len(keys))
	}
	for key, email := range keys {
		if got, err := cache.Get(t.Context(), key); err != nil || got.Email != email || got.ID != key || got.Made != "marked" {
			t.Errorf("key %d = %+v, %v, want %s", key, got, err, email)
		}
	}
}

// Keys of other types, and who tells them.
func TestKeysThatTheServerGives(t *testing.T) {
	type V struct {
		N *int `db:"n"`
	}
	dsn := dbtest.MariaDB(t)
	dialects(t, func(t *testing.T, mysql bool) {
		execute(t, connect(t, dsn), "DROP TABLE IF EXISTS t")
		big := mapAs[uint64, V](t, dsn, mysql, mysqlstore.TableOptions{}, `CREATE TABLE t (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, n INT) AUTO_INCREMENT = 9223372036854775807`)
		for i := range uint64(3) {
			out, err := big.Commit(t.Context(), []lockstep.ChangeSet[uint64, V]{insertion[uint64](V{})})
			if want := math.MaxInt64 + i; err != nil || out[0].Err != nil || out[0].Keys[0] != want || !load1(t, big, want).Exists {
				t.Errorf("%v, %+v, want key %d", err, out, want)
			}
		}
		// A key that the field cannot hold is refused, and its row is not there.
		execute(t, connect(t, dsn), "DROP TABLE t")
		small := mapAs[int8, V](t, dsn, mysql, mysqlstore.TableOptions{}, `CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, n INT) AUTO_INCREMENT = 127`)
		for n, want := range []error{nil, lockstep.ErrInvalid} {
			out, err := small.Commit(t.Context(), []lockstep.ChangeSet[int8, V]{insertion[int8](V{}), {Changes: []lockstep.Change[int8, V]{{Key: int8(n)}}}})
			if err != nil || !errors.Is(out[0].Err, want) || out[1].Err != nil {
				t.Fatal(err, out)
			}
		}
		waitFor(t, connect(t, dsn), 3, "SELECT COUNT(*) FROM t")
	})
	if mysqlstore.OnMySQL(t) { // which makes a key for a table that has none
		execute(t, connect(t, dsn), "DROP TABLE t")
		execute(t, connect(t, dsn+"?sql_generate_invisible_primary_key=1"), "CREATE TABLE t (n INT)")
		made := mapTable[uint64, V](t, dsn, mysqlstore.TableOptions{})
		out, err := made.Commit(t.Context(), []lockstep.ChangeSet[uint64, V]{insertion[uint64](V{}), insertion[uint64](V{})})
		if err != nil || out[1].Err != nil || out[1].Keys[0] != uint64(2) || !load1(t, made, 2).Exists {
			t.Errorf("%v, %+v", err, out)
		}
		if o := change1(t, made, lockstep.Change[uint64, V]{Key: 2, Delete: true}); o.Err != nil || load1(t, made, 2).Exists {
			t.Errorf("%+v", o)
		}
	}
	type none struct { // nothing is written
		N *int `db:"n,readonly"`
	}
	for _, c := range []struct {
		key   string
		given bool // by MariaDB, which tells what it was
	}{
		{"id VARCHAR(40) COLLATE " + mysqlstore.Nopad(t) + " DEFAULT (uuid()) PRIMARY KEY", true},
		{mysqlstore.Of(t, "id UUID DEFAULT uuid()", "id VARBINARY(40) DEFAULT (uuid())") + " PRIMARY KEY", true},
		{"id VARBINARY(40) DEFAULT '()' PRIMARY KEY", false},
		{"id VARBINARY(40) PRIMARY KEY", false},
	} {
		dialects(t, func(t *testing.T, mysql bool) {
			execute(t, connect(t, dsn), "DROP TABLE IF EXISTS t")
			s := mapAs[string, none](t, dsn, mysql, mysqlstore.TableOptions{}, "CREATE TABLE t (n INT, "+c.key+")")
			want := c.given && !mysql
			out, err := s.Commit(t.Context(), []lockstep.ChangeSet[string, none]{insertion[string](none{}), insertion[string](none{})})
			switch {
			case err != nil || s.Capabilities().Inserts != want:
				t.Errorf("%s: inserts: %t, %v", c.key, !want, err)
			case !want:
				wantParts(t, out[0].Err, lockstep.ErrUnsupported, "primary key")
			case out[0].Err != nil || out[1].Err != nil || !load1(t, s, out[1].Keys[0].(string)).Exists || out[0].Keys[0] == out[1].Keys[0]:
				t.Errorf("%s: %+v", c.key, out)
			}
		})
	}
}

// A default gives keys that have rows, or had them: what has happened is what the order
// of the batch says.
func TestAKeyIsGivenAgain(t *testing.T) {
	type set = lockstep.ChangeSet[int64, counted]
	type change = lockstep.Change[int64, counted]
	for _, version := range []string{"", "version"} {
		s := mapTable[int64, counted](t, dbtest.MariaDB(t), mysqlstore.TableOptions{VersionColumn: version},
			"CREATE TABLE t (id BIGINT DEFAULT (ABS(2)) PRIMARY KEY, n INT, version BIGINT NOT NULL DEFAULT 0)")
		insert := insertion[int64](counted{1})
		if mysqlstore.OnMySQL(t) { // which tells no key but that of AUTO_INCREMENT
			out, err := s.Commit(t.Context(), []set{insert})
			if err != nil || !errors.Is(out[0].Err, lockstep.ErrUnsupported) {
				t.Errorf("version %q: %v, %v: an insertion whose key the server does not tell", version, out, err)
			}
			continue
		}
		remove, write := set{Changes: []change{{Key: 2, Delete: true}}}, set{Changes: []change{{Key: 2, Value: counted{7}}}}
		beside := set{Changes: []change{{Key: 9, Value: counted{9}}}}
		last := lockstep.Version(0)
		for i, c := range []struct {
			sets    []set
			there   bool // after it
			refused int
			existed []bool
		}{
			{[]set{beside, insert}, true, -1, []bool{false, false}},
			{[]set{insert, beside}, true, 0, []bool{false, true}},
			{[]set{insert}, true, 0, []bool{false}},
			{[]set{remove, insert}, true, -1, []bool{true, false}},
			{[]set{insert, remove}, false, 0, []bool{false, true}},
			{[]set{insert, remove}, false, -1, []bool{false, true}},
			{[]set{remove, insert}, true, -1, []bool{false, false}},
			{[]set{remove, insert, write, insert}, true, 3, []bool{true, false, true, false}},
			{[]set{{DeleteAll: true}, insert, {DeleteAll: true}, insert}, true, -1, []bool{false, false, false, false}},
		} {
			out, err := s.Commit(t.Context(), c.sets)
			if err != nil {
				t.Fatal(err)
			}
			for j, o := range out {
				if errors.Is(o.Err, lockstep.ErrInvalid) != (j == c.refused) || (o.Err != nil) != (j == c.refused) {
					t.Errorf("batch %d: set %d: %v", i, j, o.Err)
				}
				if o.Err != nil || c.sets[j].DeleteAll {
					continue
				}
				if o.Existed[0] != c.existed[j] {
					t.Errorf("batch %d: set %d: a row existed: %t", i, j, o.Existed[0])
				}
				if c.sets[j].Changes[0].Key == 9 || version == "" {
					continue
				}
				if o.Rows[0].Version <= last {
					t.Errorf("batch %d: set %d: version %d after %d", i, j, o.Rows[0].Version, last)
				}
				last = o.Rows[0].Version
			}
			if r := load1(t, s, 2); r.Exists != c.there {
				t.Errorf("batch %d: the row is %+v", i, r)
			}
		}
	}
}

// The reply to COMMIT, or the request, is lost on the wire. Whoever has read that there
// is no such row is not told so by memory, which Audit compares at the end.
func TestALostReplyToAnInsertionIsSettled(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	proxy, via := dbtest.Via(t, dsn)
	dialects(t, func(t *testing.T, mysql bool) {
		for _, version := range []string{"", "version"} {
			opts := mysqlstore.TableOptions{VersionColumn: version}
			execute(t, connect(t, dsn), "DROP TABLE IF EXISTS t")
			direct := mapTable[int64, serialRow](t, dsn, opts, serialTable)
			s := mapAs[int64, serialRow](t, via, mysql, opts)
			settled := make(chan int64, 1)
			cache := cachetest.Open(t, s, lockstep.Options[int64, serialRow]{Hooks: lockstep.Hooks[int64]{
				Settled: func(e lockstep.WriteEvent[int64]) { settled <- e.Key },
			}})
			for i, applied := range []bool{true, false, true} {
				last, _, err := cache.Insert(t.Context(), serialRow{Email: fmt.Sprint("warm", i)})
				if err != nil {
					t.Fatal(err)
				}
				next := last + 1
				if _, err := cache.Get(t.Context(), next); !errors.Is(err, lockstep.ErrNotFound) {
					t.Fatal(err)
				}
				cut := proxy.CutRequest
				if applied {
					cut = proxy.CutReply
				}
				happened := cut(commitSent)
				_, _, err = cache.Insert(t.Context(), serialRow{Email: fmt.Sprint("lost", i)})
				<-happened
				var w *lockstep.WriteError
				if !errors.As(err, &w) || w.Outcome != lockstep.Unknown {
					t.Fatalf("Insert = %v", err)
				}
				got, err := cache.Get(t.Context(), next) // in doubt or not
				if row := load1(t, direct, next); row.Exists != (err == nil) && applied {
					t.Errorf("the cache has %+v, %v, and the table %+v", got, err, row)
				}
				if was, _, err := w.Wait(t.Context()); was != applied || err != nil {
					t.Errorf("Wait = %t, %v, want %t", was, err, applied)
				}
				if row := load1(t, direct, next); row.Exists != applied {
					t.Errorf("the table has %+v, want that applied=%t", row, applied)
				}
				if key := <-settled; applied != (key == next) {
					t.Errorf("the settlement tells of key %d, and it is %d", key, next)
				}
				if _, err := cache.Get(t.Context(), next); (err == nil) != applied {
					t.Errorf("Get = %v", err)
				}
			}
		}
	})
}

// An uncommitted row that an insertion would collide with keeps nobody else waiting.
func TestAnInsertionThatWaitsForARow(t *testing.T) {
	dialects(t, func(t *testing.T, mysql bool) {
		dsn := dbtest.MariaDB(t)
		s := mapAs[int64, serialRow](t, dsn, mysql, mysqlstore.TableOptions{}, serialTable)
		other := begin(t, connect(t, dsn))
		execute(t, other, "INSERT INTO t (email) VALUES ('theirs')")
		theirs := insertion[int64](serialRow{Email: "theirs"})
		out, err := s.Commit(t.Context(), []lockstep.ChangeSet[int64, serialRow]{
			insertion[int64](serialRow{Email: "a"}), theirs, insertion[int64](serialRow{Email: "b"}),
		})
		if err != nil || out[0].Err != nil || out[2].Err != nil || !out[1].Blocked {
			t.Fatal(err, out)
		}
		waiting := mysqlstore.RowLockWaits(t)
		waitFor(t, connect(t, dsn), 0, waiting)
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			out, err := s.Commit(ctx, []lockstep.ChangeSet[int64, serialRow]{theirs})
			if err == nil {
				err = out[0].Err
			}
			done <- err
		}()
		waitFor(t, connect(t, dsn), 1, waiting)
		if err := other.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		waitFor(t, connect(t, dsn), 3, "SELECT COUNT(*) FROM t")
	})
}
