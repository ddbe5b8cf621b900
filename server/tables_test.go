package server

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	sqlrows "github.com/lockstep-cache/lockstep/store/rows"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// engine is a database with tables of its own, and what opens them.
type engine struct {
	name string
	sql  *sql.DB // as another program has it
	keys func() lockstep.Store[string, Value]
	open func(table string, readOnly bool) (TableStore, error)
}

// engines starts each database. The tables are made by schema, once.
func engines(t *testing.T, schema func(name string) []string, test func(t *testing.T, e engine)) {
	raw, err := codec.Raw[Value]()
	if err != nil {
		t.Fatal(err)
	}
	prepare := func(t *testing.T, name, driver, source string) *sql.DB {
		db, err := sql.Open(driver, source)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		for _, text := range schema(name) {
			if _, err := db.Exec(text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		return db
	}
	must := func(t *testing.T, err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	t.Run("SQLite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "app.db")
		e := engine{name: "SQLite", sql: prepare(t, "SQLite", "sqlite", path)}
		db, err := sqlitestore.OpenDatabase(t.Context(), path, sqlitestore.DatabaseOptions{AllowUnsafeDurability: true})
		must(t, err)
		t.Cleanup(func() { db.Close() })
		e.keys = func() lockstep.Store[string, Value] {
			s, err := sqlitestore.OpenIn[string, Value](t.Context(), db, sqlitestore.Options{Codec: raw})
			must(t, err)
			return s
		}
		e.open = func(table string, readOnly bool) (TableStore, error) {
			return sqlitestore.NewTable[sqlrows.Key, sqlrows.Row](t.Context(), db, table, sqlitestore.TableOptions{ReadOnly: readOnly})
		}
		test(t, e)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		url := dbtest.Postgres(t)
		e := engine{name: "PostgreSQL", sql: prepare(t, "PostgreSQL", "pgx", url)}
		pool, err := pgxpool.New(t.Context(), url)
		must(t, err)
		t.Cleanup(pool.Close)
		db, err := pgstore.OpenDatabase(t.Context(), pool, pgstore.DatabaseOptions{})
		must(t, err)
		t.Cleanup(func() { db.Close() })
		e.keys = func() lockstep.Store[string, Value] {
			s, err := pgstore.OpenIn[string, Value](t.Context(), db, pgstore.Options{Codec: raw})
			must(t, err)
			return s
		}
		e.open = func(table string, readOnly bool) (TableStore, error) {
			return pgstore.NewTableIn[sqlrows.Key, sqlrows.Row](t.Context(), db, table, pgstore.TableOptions{ReadOnly: readOnly})
		}
		test(t, e)
	})
	t.Run("MariaDB", func(t *testing.T) {
		dsn := dbtest.MariaDB(t)
		e := engine{name: "MariaDB", sql: prepare(t, "MariaDB", "mysql", dsn)}
		pool, err := sql.Open("mysql", dsn)
		must(t, err)
		t.Cleanup(func() { pool.Close() })
		db, err := mysqlstore.OpenDatabase(t.Context(), pool, mysqlstore.DatabaseOptions{})
		must(t, err)
		t.Cleanup(func() { db.Close() })
		e.keys = func() lockstep.Store[string, Value] {
			s, err := mysqlstore.OpenIn[string, Value](t.Context(), db, mysqlstore.Options{Codec: raw})
			must(t, err)
			return s
		}
		e.open = func(table string, readOnly bool) (TableStore, error) {
			return mysqlstore.NewTableIn[sqlrows.Key, sqlrows.Row](t.Context(), db, table, mysqlstore.TableOptions{ReadOnly: readOnly})
		}
		test(t, e)
	})
}

// users is a table as a program might have it, with a version and without.
func usersSchema(name string) []string {
	integer, double, boolean, text := "BIGINT", "DOUBLE PRECISION", "BOOLEAN", "VARCHAR(20)"
	collate := ""
	switch name {
	case "SQLite":
		integer = "INTEGER"
	case "MariaDB":
		collate = " COLLATE utf8mb4_nopad_bin"
	}
	return []string{
		fmt.Sprintf("CREATE TABLE users (id %s NOT NULL PRIMARY KEY, name %s NOT NULL, age %[1]s, score %[3]s, admin %[4]s, price DECIMAL(10,2), kind %[2]s DEFAULT 'plain', version %[1]s NOT NULL)", integer, text, double, boolean),
		fmt.Sprintf("CREATE TABLE parts (tenant %[2]s%[3]s NOT NULL, place %[1]s NOT NULL, n %[1]s, PRIMARY KEY (tenant, place))", integer, text, collate),
		fmt.Sprintf("CREATE TABLE fixed (id %s NOT NULL PRIMARY KEY, name %s NOT NULL)", integer, text),
		"INSERT INTO fixed (id, name) VALUES (1, 'Ann'), (2, 'Bob')",
		"INSERT INTO users (id, name, age, version) VALUES (1, 'Ann', 41, 5), (2, 'Bob', NULL, 5)",
		"INSERT INTO parts (tenant, place, n) VALUES ('a:b', 5, 7)",
	}
}

func serveTables(t *testing.T, e engine) (addr string) {
	users, err := e.open("users", false)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := e.open("parts", false)
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := e.open("fixed", true)
	if err != nil {
		t.Fatal(err)
	}
	_, addr = start(t, Options{Store: e.keys(), Tables: []Table{{Name: "users", Store: users}, {Name: "parts", Store: parts}, {Name: "fixed", Store: fixed}}})
	return addr
}

// shown is a reply as redis-cli might print it, on one line.
func shown(t *testing.T, p *peer, request string) string {
	t.Helper()
	p.send(request + "\r\n")
	v, err := p.replies.Decode()
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	if v.IsNull() {
		return "nil"
	}
	if v.Elems == nil {
		return v.Text
	}
	var all []string
	for _, e := range v.Elems {
		if e.IsNull() {
			e.Text = "nil"
		}
		all = append(all, e.Text)
		for _, inner := range e.Elems {
			all = append(all, inner.Text)
		}
	}
	return strings.Join(all, " ")
}

// TestTablesAreHashes, on each database: what is asked, and what comes back, as a pattern where
// there is a star in it.
func TestTablesAreHashes(t *testing.T) {
	engines(t, usersSchema, func(t *testing.T, e engine) {
		p := dial(t, serveTables(t, e))
		for _, c := range [][2]string{
			{"HGETALL users:1", "id 1 name Ann age 41 kind plain version 5"},
			{"HGET users:1 name", "Ann"}, {"HGET users:2 age", "nil"}, {"HGET users:1 nosuch", "nil"}, {"HMGET users:1 name age score", "Ann 41 nil"},
			{"HKEYS users:2", "id name kind version"}, {"HVALS users:2", "2 Bob plain 5"}, {"HLEN users:1", "5"}, {"HEXISTS users:1 score", "0"}, {"HEXISTS users:1 age", "1"}, {"HSTRLEN users:1 name", "3"},
			{"HGETALL users:99", ""}, {"HLEN users:99", "0"}, {"EXISTS users:1 users:2 users:99 users:1", "3"}, {"TYPE users:1", "hash"}, {"TYPE users:99", "none"}, {"TTL users:1", "-1"}, {"TOUCH users:1", "1"},
			{"HSCAN users:2 0", "0  id 2 name Bob kind plain version 5"}, {"OBJECT ENCODING users:1", "listpack"}, {"HRANDFIELD users:1 5", "id name age kind version"},
			// Writing.
			{"HSET users:1 age 42 score 0.5", "1"}, {"HGET users:1 age", "42"}, {"HSET users:1 admin 1", "1"}, {"HGET users:1 admin", "1"}, {"HMSET users:1 admin 0 price 12.5", "OK"}, {"HMGET users:1 admin price", "0 12.5*"},
			{"HSETNX users:1 age 7", "0"}, {"HSETNX users:2 age 7", "1"}, {"HINCRBY users:2 age 3", "10"}, {"HINCRBY users:2 age -20", "-10"}, {"HINCRBYFLOAT users:1 score 0.25", "0.75"}, {"HINCRBYFLOAT users:1 price 0.25", "12.75"}, {"HINCRBYFLOAT users:1 age 1", "43"},
			{"HDEL users:1 age score", "2"}, {"HMGET users:1 age score name", "nil nil Ann"}, {"HDEL users:1 age", "0"}, {"HSET users:1 id 1 age 5", "1"},
			{"HSET users:3 name Cid", "1"}, {"HMGET users:3 id name kind age", "3 Cid plain nil"}, {"DEL users:3", "1"}, {"DEL users:3", "0"}, {"EXISTS users:3", "0"}, {"HSET users:4 name D id 4", "2"}, {"UNLINK users:4 users:5 plain", "1"},
			// The other table, by a key of two columns, and without a version.
			{`HGETALL 'parts:a\:b:5'`, "tenant a:b place 5 n 7"}, {`HINCRBY 'parts:a\:b:5' n 5`, "12"}, {"HSET parts:x:1 n 3", "1"}, {"HDEL parts:x:1 n", "1"}, {"HGETALL parts:x:1", "tenant x place 1"}, {"HSET parts:x:2 n 1", "1"}, {"DEL parts:x:1 parts:x:2", "2"},
			// What is refused.
			{"HSET users:1 age x", "ERR write not applied: *column age takes a whole number, and not \"x\"*"}, {"HSET users:1 nosuch 1", "ERR invalid: table users has no column \"nosuch\""}, {"HSET users:1 version 7", "ERR invalid: table users: column version is not written by clients*"},
			{"HSET users:1 id 2", "ERR write not applied: *id is 2, and column id is part of the key"}, {"HDEL users:1 id", "ERR invalid: table users: column id is part of the primary key"}, {"HDEL users:1 name", "ERR invalid: table users: column name is NOT NULL, and takes text"},
			{"HINCRBY users:1 name 1", "ERR invalid: table users: column name takes text, to which nothing can be added"}, {"HINCRBYFLOAT users:1 age 0.5", "ERR write not applied: *column age takes a whole number*"}, {"HINCRBY users:1 id 1", "ERR *part of the primary key"},
			{"HINCRBYFLOAT users:1 name 1", "ERR *nothing can be added"}, {"HSET users:9 age 1", "ERR write not applied: *column name is NOT NULL, and takes text"}, {"HSET users:x name y", "ERR *column id takes a whole number*"}, {"HGETALL users:01", "ERR *column id takes a whole number*"}, {"HGET parts:a n", "ERR *the key has 1 parts*"},
			{"HSET users:1 age", "ERR wrong number of arguments for 'hset' command"},
			{"GET users:1", "WRONGTYPE Operation against *"}, {"STRLEN users:1", "WRONGTYPE *"}, {"MGET users:1 plain", "nil nil"}, {"SET users:1 x", "WRONGTYPE the keys users:… are rows of a table, which are hashes"}, {"SET users:99 x", "WRONGTYPE *"}, {"GETSET users:1 x", "WRONGTYPE *"}, {"INCR users:1", "WRONGTYPE *"}, {"APPEND users:1 x", "WRONGTYPE *"},
			{"MSET plain 1 users:1 x", "WRONGTYPE *"}, {"MSETNX plain 1 users:77 x", "WRONGTYPE *"}, {"GETDEL users:1", "WRONGTYPE *"}, {"SETRANGE users:1 0 x", "WRONGTYPE *"}, {"GETEX users:1 EX 5", "WRONGTYPE *"}, {"EXISTS plain", "0"},
			{"EXPIRE users:1 10", "ERR the keys users:… are rows of a table, which have no end of their own"}, {"PEXPIREAT users:1 1", "ERR *no end*"}, {"PERSIST users:1", "ERR *no end*"}, {"RENAME users:1 x", "ERR *which RENAME does not touch"}, {"RENAME plain users:9", "ERR *RENAME*"}, {"RENAMENX users:1 x", "ERR *"}, {"COPY users:1 x", "ERR *COPY*"},
			{"HSET fixed:1 age 5", "ERR table fixed is read-only here"}, {"DEL fixed:1", "ERR table fixed is read-only here"}, {"EXPIRE fixed:1 5", "ERR table fixed is read-only here"}, {"HGET fixed:1 name", "Ann"}, {"DEL plain fixed:1", "ERR table fixed*"},
			// Keys beside them, and what is about all keys.
			{"SET plain 1", "OK"}, {"SET users 2", "OK"}, {"SET nosuch:1 3", "OK"}, {"MGET plain users nosuch:1 users:1", "1 2 3 nil"}, {"EXISTS plain users:1 parts:x:9", "2"}, {"DBSIZE", "3"}, {"HSET h f v", "1"},
			{"SCAN 0 COUNT 100 TYPE nosuch", "*"}, {"KEYS users:*", "users:1 users:2"}, {"FLUSHALL", "OK"}, {"DBSIZE", "0"}, {"KEYS *", `users:1 users:2 parts:a\:b:5 fixed:1 fixed:2`}, {"HGET users:2 name", "Bob"}, {"FLUSHDB", "OK"}, {"EXISTS users:1", "1"},
		} {
			got := shown(t, p, c[0])
			ok := got == c[1] || strings.Contains(c[1], "*") && glob([]byte(c[1]), []byte(got), false)
			if !ok {
				t.Errorf("%s: %q; want %q", c[0], got, c[1])
			}
		}
		// What has been written is in the table, and the version has grown.
		var name string
		var age, version, others int
		if err := e.sql.QueryRow("SELECT name, age, version, (SELECT count(*) FROM users WHERE id NOT IN (1, 2)) FROM users WHERE id = 1").Scan(&name, &age, &version, &others); err != nil || name != "Ann" || age != 5 || version <= 5 || others != 0 {
			t.Errorf("%s, %d, %d, %d, %v", name, age, version, others, err)
		}
	})
}

// TestAScanGoesOnWithTables when it is over with the keys.
func TestAScanGoesOnWithTables(t *testing.T) {
	engines(t, usersSchema, func(t *testing.T, e engine) {
		p := dial(t, serveTables(t, e))
		want := []string{"fixed:1", "fixed:2", "parts:a\\:b:5", "users:1", "users:2"}
		for i := range 5 {
			p.ask(fmt.Sprintf("SET k%d v", i), "+OK\r\n")
			want = append(want, fmt.Sprint("k", i))
		}
		slices.Sort(want)
		for _, options := range []string{"COUNT 1", "COUNT 2", "COUNT 100", "COUNT 1 TYPE hash"} {
			var found []string
			for cursor := "0"; ; {
				_, _ = io.WriteString(p, "SCAN "+cursor+" "+options+"\r\n")
				v, err := p.replies.Decode()
				if err != nil || len(v.Elems) != 2 {
					t.Fatalf("%s, %v", v, err)
				}
				for _, key := range v.Elems[1].Elems {
					found = append(found, key.Text)
				}
				if cursor = v.Elems[0].Text; cursor == "0" {
					break
				}
			}
			slices.Sort(found)
			expect := want
			if strings.Contains(options, "TYPE") {
				expect = slices.DeleteFunc(slices.Clone(want), func(key string) bool { return !strings.Contains(key, ":") })
			}
			if !slices.Equal(found, expect) {
				t.Errorf("SCAN %s: %q", options, found)
			}
		}
	})
}

// TestIncrementsOfAColumnLoseNone, by many connections to two servers, with a version and
// without one.
func TestIncrementsOfAColumnLoseNone(t *testing.T) {
	const conns, each = 4, 5
	engines(t, usersSchema, func(t *testing.T, e engine) {
		addrs := [2]string{serveTables(t, e), serveTables(t, e)}
		var all sync.WaitGroup
		for i := range conns {
			p := dial(t, addrs[i%2])
			all.Go(func() {
				for range each {
					_, _ = io.WriteString(p, "HINCRBY users:1 age 1\r\nHINCRBY 'parts:a\\:b:5' n 1\r\n")
					for range 2 {
						if v, err := p.replies.Decode(); err != nil || v.Kind != ':' {
							t.Errorf("%s, %v", v, err)
						}
					}
				}
			})
		}
		all.Wait()
		var age, n int
		if err := e.sql.QueryRow("SELECT age, (SELECT n FROM parts) FROM users WHERE id = 1").Scan(&age, &n); err != nil || age != 41+conns*each || n != 7+conns*each {
			t.Errorf("%d, %d, %v", age, n, err)
		}
	})
}

// TestTransactionsOverKeysAndTables: an EXEC is one, and WATCH notices what others do to a
// row, with a version and without one.
func TestTransactionsOverKeysAndTables(t *testing.T) {
	engines(t, usersSchema, func(t *testing.T, e engine) {
		addr := serveTables(t, e)
		p, other := dial(t, addr), dial(t, addr)
		run := func(requests, want string) {
			t.Helper()
			var got []string
			for request := range strings.SplitSeq(requests, "; ") {
				from := p
				if rest, others := strings.CutPrefix(request, "other "); others {
					from, request = other, rest
				}
				got = append(got, shown(t, from, request))
			}
			if got := strings.Join(got, "; "); got != want && !(strings.Contains(want, "*") && glob([]byte(want), []byte(got), false)) {
				t.Errorf("%s:\n%s; want\n%s", requests, got, want)
			}
		}
		run(`MULTI; HSET users:1 age 50; SET k v; HINCRBY 'parts:a\:b:5' n 1; HGET users:1 age; GET users:1; EXPIRE users:1 5; DEL users:2; EXEC`,
			"OK; QUEUED; QUEUED; QUEUED; QUEUED; QUEUED; QUEUED; QUEUED; 0 OK 8 50 "+wrongType+" ERR the keys users:… are rows of a table, which have no end of their own 1")
		run("HGET users:1 age; EXISTS users:2; GET k", "50; 0; v")
		for _, key := range []string{"users:1", "'parts:a\\:b:5'"} {
			column := "age"
			if strings.Contains(key, "parts") {
				column = "n"
			}
			run(fmt.Sprintf("WATCH %s; other HINCRBY %[1]s %s 1; MULTI; SET k w; EXEC; GET k", key, column), fmt.Sprintf("OK; %s; OK; QUEUED; nil; v", map[string]string{"age": "51", "n": "9"}[column]))
			run(fmt.Sprintf("WATCH %s; HGET %[1]s %s; MULTI; HINCRBY %[1]s %[2]s 1; EXEC", key, column), fmt.Sprintf("OK; %s; OK; QUEUED; %s", map[string]string{"age": "51", "n": "9"}[column], map[string]string{"age": "52", "n": "10"}[column]))
		}
		run("WATCH users:77; other HSET users:77 name x; MULTI; SET k w; EXEC", "OK; 1; OK; QUEUED; nil")
		run("MULTI; HSET users:1 age 60; SET k w; HSET users:1 age x; EXEC; HGET users:1 age; GET k", `OK; QUEUED; QUEUED; QUEUED; 0 OK ERR invalid: *: key 1: column age takes a whole number, and not "x"; 60; w`)
	})
}

// TestRowsOfTablesAreTracked: whoever has read one is told before it is written, by whatever
// command.
func TestRowsOfTablesAreTracked(t *testing.T) {
	engines(t, usersSchema, func(t *testing.T, e engine) {
		addr := serveTables(t, e)
		reader, all, writer := dial(t, addr), dial(t, addr), dial(t, addr)
		reader.hello("")
		all.hello("BCAST PREFIX users:")
		for _, c := range []struct{ requests, reply string }{
			{"HSET users:1 age 1", ":0\r\n"},
			{"HDEL users:1 age", ":1\r\n"},
			{"HINCRBY users:1 age 5", ":5\r\n"},
			{"HSET users:1 age x", ""}, // refused, which nobody knows beforehand
			{"MULTI\r\nHSET users:1 age 7\r\nSET k v\r\nEXEC", "+OK\r\n +QUEUED\r\n +QUEUED\r\n *2\r\n:0\r\n+OK\r\n"},
			{"DEL users:1 k", ":2\r\n"},
			{"HSET users:1 name Ann", ":1\r\n"},
			{"DEL users:1", ":1\r\n"},
		} {
			reader.send("HGETALL users:1\r\n")
			if _, err := reader.replies.Decode(); err != nil {
				t.Fatal(err)
			}
			writer.send(c.requests + "\r\n")
			for want := range strings.SplitSeq(c.reply, " ") {
				v, err := writer.replies.Decode()
				if got := string(v.AppendTo(nil)); err != nil || want != "" && got != want {
					t.Fatalf("%s: %q, %v; want %q", c.requests, got, err, want)
				}
			}
			reader.want(invalidated("users:1"))
			all.want(invalidated("users:1"))
			reader.ask("PING", "+PONG\r\n")
			all.ask("PING", "+PONG\r\n")
		}
	})
}

// injected is a table whose commits can be held.
type injected struct {
	*fault.Store[sqlrows.Key, sqlrows.Row]
	table TableStore
}

func (i injected) Columns() []sqlrows.Column { return i.table.Columns() }

// TestPipelinedWritesOfRowsShareCommits, as those of keys do.
func TestPipelinedWritesOfRowsShareCommits(t *testing.T) {
	const writes = 60
	db, err := sqlitestore.OpenDatabase(t.Context(), filepath.Join(t.TempDir(), "t.db"), sqlitestore.DatabaseOptions{AllowUnsafeDurability: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	plain, err := sql.Open("sqlite", db.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Exec("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)"); err != nil {
		t.Fatal(err)
	}
	table, err := sqlitestore.NewTable[sqlrows.Key, sqlrows.Row](t.Context(), db, "t", sqlitestore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	store := fault.Inject[sqlrows.Key, sqlrows.Row](table, fault.Script{}, 1)
	pending := make(chan struct{}, 2*writes)
	_, addr := start(t, Options{Store: openStore(t), Tables: []Table{{Name: "t", Store: injected{store, table}, Cache: lockstep.Options[sqlrows.Key, sqlrows.Row]{
		Hooks: lockstep.Hooks[sqlrows.Key]{Pending: func(lockstep.WriteEvent[sqlrows.Key]) { pending <- struct{}{} }},
	}}}})
	p := dial(t, addr)
	large := strings.Repeat("x", 60<<10) // so that there is room for the others together
	p.ask("ECHO "+large, "$61440\r\n"+large+"\r\n")
	first := store.Block(fault.BeforeCommit)
	defer first.Pass()
	var in strings.Builder
	for i := range writes {
		fmt.Fprintf(&in, "HINCRBY t:%d n 5\r\n", i)
	}
	p.send(in.String())
	for range writes {
		<-pending
	}
	first.Pass()
	for range writes {
		p.want(":5\r\n")
	}
	if n := store.Counts().Commits; n > writes/10 {
		t.Errorf("%d writes took %d commits", writes, n)
	}
}

func TestTablesThatCannotBeServed(t *testing.T) {
	keys := openStore(t)
	path := filepath.Join(t.TempDir(), "t.db")
	db, err := sqlitestore.OpenDatabase(t.Context(), path, sqlitestore.DatabaseOptions{AllowUnsafeDurability: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	plain, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Exec("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)"); err != nil {
		t.Fatal(err)
	}
	good, err := sqlitestore.NewTable[sqlrows.Key, sqlrows.Row](t.Context(), db, "t", sqlitestore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for want, all := range map[string][]Table{
		"must not be empty": {{Store: good}}, "nor have a colon": {{Name: "a:b", Store: good}}, "it is there twice": {{Name: "a", Store: good}, {Name: "a", Store: good}}, "it has no Store": {{Name: "a"}},
		"its Cache: its Mode is WriteBehind": {{Name: "a", Store: good, Cache: lockstep.Options[sqlrows.Key, sqlrows.Row]{Mode: lockstep.WriteBehind}}},
		"StaleIfError":                       {{Name: "a", Store: good, Cache: lockstep.Options[sqlrows.Key, sqlrows.Row]{StaleIfError: 1}}}, "Options.Tables need": nil,
	} {
		o := Options{Store: keys, Tables: all}
		if all == nil {
			o = Options{Tables: []Table{{Name: "a", Store: good}}}
		}
		s, err := New(o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
		if s != nil {
			_ = s.Shutdown(context.Background())
		}
	}
	// Another database: each table by itself, and not in one transaction.
	_, addr := start(t, Options{Store: keys, Tables: []Table{{Name: "t", Store: good}}})
	p := dial(t, addr)
	p.ask("HSET t:1 name x", ":1\r\n")
	p.ask("SET k v", "+OK\r\n")
	if got := shown(t, p, "DEL k t:1"); !strings.HasPrefix(got, "ERR ") {
		t.Error(got)
	}
	p.ask("EXISTS k t:1", ":2\r\n")
}

// TestOneTableIsNotServedTwice, by whatever name it was opened.
func TestOneTableIsNotServedTwice(t *testing.T) {
	engines(t, func(string) []string {
		return []string{"CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, n INTEGER)"}
	}, func(t *testing.T, e engine) {
		other := map[string]string{"SQLite": `USERS`, "PostgreSQL": `public."users"`, "MariaDB": "`users`"}[e.name]
		first, err := e.open("users", false)
		if err != nil {
			t.Fatal(err)
		}
		second, err := e.open(other, true)
		if err != nil {
			t.Fatal(err)
		}
		_, err = New(Options{Store: e.keys(), Tables: []Table{{Name: "a", Store: first}, {Name: "b", Store: second}}})
		if want := `server: Options.Tables: table "b": its Store is over the table that is served as a:…`; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	})
	rows := overseenTable{overseen[sqlrows.Key, sqlrows.Row]{Store: memstore.New(memstore.Options[sqlrows.Key, sqlrows.Row]{})}}
	if _, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), Tables: []Table{{Name: "a", Store: rows}, {Name: "b", Store: rows}}}); err == nil || !strings.Contains(err.Error(), "served as a:…") {
		t.Error(err)
	}
}

// TestOperatorsHearOfTables in INFO, in the metrics, and from LOCKSTEP.STATUS and LOCKSTEP.AUDIT.
func TestOperatorsHearOfTables(t *testing.T) {
	rows := memstore.New(memstore.Options[sqlrows.Key, sqlrows.Row]{})
	keys := memstore.New(memstore.Options[string, Value]{})
	s, addr := start(t, Options{Store: keys, Tables: []Table{{Name: "a\n", Store: overseenTable{overseen[sqlrows.Key, sqlrows.Row]{Store: memstore.New(memstore.Options[sqlrows.Key, sqlrows.Row]{})}}}, {Name: "t", Store: idTable{rows}}}})
	p := dial(t, addr)
	p.exchange("SET k 1", "GET k", "GET k", "HGET t:1 id", "HGET t:1 id", "HGET t:2 id")

	v := p.exchange("LOCKSTEP.STATUS")
	table := field(t, field(t, v, "tables"), "t")
	for of, want := range map[*resp.Value][2]string{&v: {"2", "1"}, &table: {"1", "2"}} {
		if hits, entries := field(t, *of, "hits").Text, field(t, *of, "entries").Text; hits != want[0] || entries != want[1] {
			t.Errorf("%s hits, %s entries in %s; want %s", hits, entries, of, want)
		}
	}

	info := infoOf(s, "lockstep", "stats", "keyspace")
	if got := info["lockstep_table_t"]; !strings.HasPrefix(got, "hits=1,negative_hits=1,misses=2,hit_rate=0.33,loads=2,") {
		t.Errorf("INFO has %q", got)
	}
	if info["lockstep_table_a_"] == "" || info["lockstep_hits"] != "2" || info["keyspace_hits"] != "3" || info["db0"] != "keys=1,expires=0,avg_ttl=0" {
		t.Errorf("INFO has %v", info)
	}

	var text strings.Builder
	if err := s.WriteMetrics(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"lockstep_cache_hits_total 2", `lockstep_cache_hits_total{table="t"} 1`, `lockstep_writes_total{outcome="committed"} 1`, `lockstep_writes_total{table="t",outcome="committed"} 0`, `lockstep_load_duration_seconds_count{table="t"} 2`, `lockstep_cache_hits_total{table="a\n"} 0`} {
		if !strings.Contains(text.String(), "\n"+line+"\n") {
			t.Errorf("the metrics have no %s", line)
		}
	}

	if _, err := rows.Commit(t.Context(), []lockstep.ChangeSet[sqlrows.Key, sqlrows.Row]{{Changes: []lockstep.Change[sqlrows.Key, sqlrows.Row]{{Key: "1", Value: "h2:id,1:1,"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Commit(t.Context(), []lockstep.ChangeSet[string, Value]{{Changes: []lockstep.Change[string, Value]{{Key: "k", Value: NewString("2")}}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ request, entries, differences, example string }{
		{"LOCKSTEP.AUDIT ''", "1", "1", "k"}, {"LOCKSTEP.AUDIT t", "2", "1", "t:1"}, {"LOCKSTEP.AUDIT", "", "0", ""},
	} {
		v := p.exchange(c.request)
		if entries, n := field(t, v, "entries").Text, field(t, v, "differences").Text; c.entries != "" && entries != c.entries || n != c.differences {
			t.Errorf("%s: %s", c.request, v)
		}
		if examples := field(t, v, "examples").Elems; len(examples) > 0 && examples[0].Elems[0].Text != c.example {
			t.Errorf("%s: %s", c.request, v)
		}
	}
	p.ask("LOCKSTEP.AUDIT x", "-ERR no table is served as 'x'\r\n")
	p.ask("LOCKSTEP.AUDIT t x", "-ERR wrong number of arguments for 'lockstep.audit' command\r\n")
	p.ask("HGET t:1 id", "$1\r\n1\r\n")
}

// idTable is a table of one column.
type idTable struct {
	lockstep.Store[sqlrows.Key, sqlrows.Row]
}

func (idTable) Columns() []sqlrows.Column { return []sqlrows.Column{{Name: "id", KeyPlace: 1}} }
