package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/internal/demo"
)

// emptyStore is the URL of an empty database of a kind, with its password in it.
func emptyStore(t *testing.T, k kind) string {
	t.Helper()
	switch k.scheme {
	case "postgres":
		return dbtest.Postgres(t)
	case "mysql":
		return mysqlURL(t, dbtest.MariaDB(t))
	}
	return k.file(filepath.Join(t.TempDir(), "new.db"))
}

func mysqlURL(t *testing.T, dsn string) string {
	t.Helper()
	c, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "mysql", User: url.UserPassword(c.User, c.Passwd), Host: c.Addr, Path: c.DBName}).String()
}

// servers are the kinds that are no files.
func servers() (found []kind) {
	for _, k := range kinds {
		if k.file == nil {
			found = append(found, k)
		}
	}
	return found
}

// neighbour is another program in the same database.
type neighbour struct {
	t  *testing.T
	db *sql.DB
}

func neighbourOf(t *testing.T, store string) neighbour {
	t.Helper()
	driver, dsn := "pgx", store
	if rest, ok := strings.CutPrefix(store, "mysql://"); ok {
		u, err := url.Parse("mysql://" + rest)
		if err != nil {
			t.Fatal(err)
		}
		driver, dsn = "mysql", fmt.Sprintf("%s@tcp(%s)%s", u.User, u.Host, u.Path)
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1) // which is there from the beginning, for those who count goroutines
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	return neighbour{t, db}
}

func (n neighbour) exec(query string) {
	n.t.Helper()
	if _, err := n.db.Exec(query); err != nil {
		n.t.Fatalf("%s: %v", query, err)
	}
}

// tables are all that there are, with the number of their rows.
func (n neighbour) tables() []string {
	n.t.Helper()
	rows, err := n.db.Query("SELECT table_name FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema', 'mysql', 'performance_schema', 'sys')")
	if err != nil {
		n.t.Fatal(err)
	}
	defer rows.Close()
	names := []string{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			n.t.Fatal(err)
		}
		names = append(names, name)
	}
	for i, name := range names {
		var count int
		if err := n.db.QueryRow("SELECT count(*) FROM " + name).Scan(&count); err != nil {
			n.t.Fatal(err)
		}
		names[i] = fmt.Sprint(name, ": ", count)
	}
	slices.Sort(names)
	return names
}

func (n neighbour) has(want ...string) {
	n.t.Helper()
	if got := n.tables(); !slices.Equal(got, want) {
		n.t.Errorf("the database has %q, want %q", got, want)
	}
}

// silent tells that no text has the URL's password in it.
func silent(t *testing.T, store string, texts ...string) {
	t.Helper()
	u, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	password, ok := u.User.Password()
	if !ok || password == "" {
		t.Fatal("there is no password to look for")
	}
	for _, text := range texts {
		if strings.Contains(text, password) {
			t.Errorf("the password is in %q", text)
		}
	}
}

func TestDemoOnAServer(t *testing.T) {
	for _, k := range servers() {
		t.Run(k.scheme, func(t *testing.T) {
			store := emptyStore(t, k)
			n := neighbourOf(t, store)
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())

			// All of it, as people see it, in a database that nobody has used.
			stdout, stderr, status := command(t, little("--store", store)...)
			if status != 0 || stderr != "" || strings.Contains(stdout, "WRONG") || !strings.Contains(stdout, "Memory and database agree, row by row.") {
				t.Errorf("status %d, on standard error %q:\n%s", status, stderr, stdout)
			}
			silent(t, store, stdout, stderr)
			n.has()

			// As machines do, beside somebody's tables, of which one is a cache's.
			n.exec("CREATE TABLE lockstep_demo_notes (note VARCHAR(10))")
			n.exec("INSERT INTO lockstep_demo_notes VALUES ('mine')")
			at, err := parseStore(store)
			if err != nil {
				t.Fatal(err)
			}
			g, err := at.visit(t.Context(), "app_")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := g.database(false).Users(t.Context(), "app_users"); err != nil {
				t.Fatal(err)
			}
			want := n.tables()
			stdout, stderr, status = command(t, little("--json", "--store", store)...)
			var got demo.Result
			if err := json.Unmarshal([]byte(stdout), &got); err != nil || status != 0 || stderr != "" {
				t.Errorf("%v, status %d, on standard error %q", err, status, stderr)
			}
			if !got.Agrees || got.Checks == 0 || len(got.Scenes) != 7 {
				t.Errorf("the verdict is %+v", got)
			}
			silent(t, store, stdout, stderr)
			n.has(want...)
			if err := g.leave(t.Context()); err != nil {
				t.Error(err)
			}
			n.has("lockstep_demo_notes: 1")

			stdout, stderr, status = command(t, little("--tamper", "--store", store)...)
			if status != exitFailed || !strings.Contains(stdout, "WRONG") {
				t.Errorf("tampered with: status %d, on standard error %q", status, stderr)
			}
			n.has("lockstep_demo_notes: 1")
		})
	}
}

func TestDemoOnAServerThatIsCutShortCleansUp(t *testing.T) {
	for _, k := range servers() {
		store := emptyStore(t, k)
		n := neighbourOf(t, store)
		for _, headline := range []string{"1  Write", "4  Group", "The comparison"} {
			t.Run(k.scheme+"/"+headline, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				reason := errors.New("the reason why")
				out := &reader{until: headline, then: func() error { cancel(reason); return nil }}
				var stderr strings.Builder
				status := run(ctx, little("--store", store), out, &stderr)
				if status != exitFailed || !strings.Contains(stderr.String(), reason.Error()) {
					t.Errorf("status %d, on standard error %q", status, stderr.String())
				}
				n.has()
			})
		}
	}
}

// Behind PgBouncer the option pooled is asked for, and the demo takes away what that
// brings, too.
func TestDemoBehindAPooler(t *testing.T) {
	direct := dbtest.Postgres(t)
	store := dbtest.PgBouncer(t, direct).URL()
	n := neighbourOf(t, direct)
	for _, mode := range []string{"", "&pooled=false"} {
		_, stderr, status := command(t, "demo", "--store", store+mode)
		if status == 0 || !strings.Contains(stderr, "pooler") || !strings.Contains(stderr, "the option pooled=true") || strings.Contains(stderr, "DatabaseOptions") {
			t.Errorf("status %d, %q", status, stderr)
		}
		silent(t, store, stderr)
		n.has()
	}
	_, stderr, status := command(t, "demo", "--store", store+"&pooled=perhaps")
	if status != exitUsage || !strings.Contains(stderr, `the option pooled: "perhaps"`) {
		t.Errorf("status %d, %q", status, stderr)
	}

	store += "&pooled=true"
	stdout, stderr, status := command(t, little("--store", store)...)
	if status != 0 || stderr != "" || strings.Contains(stdout, "WRONG") {
		t.Errorf("status %d, on standard error %q:\n%s", status, stderr, stdout)
	}
	silent(t, store, stdout, stderr)
	n.has()

	// Beside a program that commits by lanes of its own.
	at, err := parseStore(store)
	if err != nil {
		t.Fatal(err)
	}
	first, err := at.visit(t.Context(), "first_")
	if err != nil {
		t.Fatal(err)
	}
	second, err := at.visit(t.Context(), "second_")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []guest{first, second} {
		users, err := g.database(false).Users(t.Context(), map[guest]string{first: "first_users", second: "second_users"}[g])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := users.Commit(t.Context(), []lockstep.ChangeSet[string, demo.User]{{Changes: []lockstep.Change[string, demo.User]{{Key: "k"}}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.leave(t.Context()); err != nil {
		t.Error(err)
	}
	n.has("lockstep_lanes: 2", "lockstep_tables: 1", "second_users: 1")
	n.exec("DELETE FROM lockstep_lanes WHERE node = (SELECT min(node) FROM lockstep_lanes)")
	if err := second.leave(t.Context()); err != nil {
		t.Error(err)
	}
	n.has()
}

// A watch is shown and removed behind a pooler, and not installed; looking leaves nothing
// behind.
func TestWatchBehindAPooler(t *testing.T) {
	direct := dbtest.Postgres(t)
	store := dbtest.PgBouncer(t, direct).URL()
	n := neighbourOf(t, direct)
	n.exec("CREATE TABLE users (id int PRIMARY KEY)")
	watch := func(want int, says string, args ...string) {
		t.Helper()
		stdout, stderr, status := command(t, append([]string{"watch"}, args...)...)
		if status != want || !strings.Contains(stdout+stderr, says) || strings.Contains(stderr, "DatabaseOptions") {
			t.Errorf("%v: status %d, want %d, and %q\n%s\n%s", args, status, want, says, stdout, stderr)
		}
		silent(t, store, stdout, stderr)
	}
	watch(exitUsage, "the option pooled=true", "show", "--store", store, "users")
	pooled := store + "&pooled=true"
	watch(0, "CREATE TRIGGER", "show", "--store", pooled, "users")
	watch(exitUsage, "by way of a pooler", "install", "--yes", "--store", pooled, "users")
	n.has("users: 0")
	watch(0, "done", "install", "--yes", "--store", direct, "users")
	watch(0, "done", "remove", "--yes", "--store", pooled, "users")
	n.has("users: 0")
}
