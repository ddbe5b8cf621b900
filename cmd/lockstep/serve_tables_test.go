package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
)

func TestTableFlags(t *testing.T) {
	for text, want := range map[string]tableFlag{
		"users=public.users":        {name: "users", table: "public.users"},
		"u=a,read-only":             {name: "u", table: "a", readOnly: true},
		"u=a,read-only,version=rev": {name: "u", table: "a", readOnly: true, version: "rev"},
		"u=a,no-version,read-only":  {name: "u", table: "a", readOnly: true, version: "-"},
		`u="Odd=Name"`:              {name: "u", table: `"Odd=Name"`},
	} {
		var f tableFlag
		if err := f.UnmarshalText([]byte(text)); err != nil || f != want {
			t.Errorf("%s: %+v, %v", text, f, err)
		}
	}
	for text, want := range map[string]string{
		"": "NAME=TABLE", "users": "NAME=TABLE", "=users": "NAME=TABLE", "users=": "NAME=TABLE", "a:b=c": "no", "a b=c": "NAME=TABLE", "a=,read-only": "names no table", "a=b,readonly": `not "readonly"`,
		"a=b,read-only,read-only": "there may be", "a=b,version=": "there may be", "a=b,version=-": "there may be", "a=b,version=c,no-version": "there may be",
	} {
		var f tableFlag
		if err := f.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %s", text, f, err, want)
		}
	}
}

// TestServeTables, of each database, by the command's own flags.
func TestServeTables(t *testing.T) {
	impatient(t)
	t.Setenv(passwordVariable, "")
	file := filepath.Join(t.TempDir(), "app.db")
	pg, maria := dbtest.Postgres(t), dbtest.MariaDB(t)
	for _, c := range []struct{ name, driver, source, store, table, other string }{
		{"SQLite", "sqlite", file, "sqlite:" + file + "?allow-unsafe-durability=true", "users", "Users"},
		{"PostgreSQL", "pgx", pg, pg, "public.users", "users"},
		{"MariaDB", "mysql", maria, mysqlURL(t, maria), "users", "`users`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := sql.Open(c.driver, c.source)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, text := range []string{"CREATE TABLE users (id INT NOT NULL PRIMARY KEY, name VARCHAR(20), version BIGINT NOT NULL)", "INSERT INTO users VALUES (42, 'Ann', 7)",
				"CREATE TABLE logs (id INT NOT NULL PRIMARY KEY, name VARCHAR(20))", "INSERT INTO logs VALUES (42, 'Ann')"} {
				if _, err := db.Exec(text); err != nil {
					t.Fatal(err)
				}
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			r, w := io.Pipe()
			var stderr strings.Builder
			ended := make(chan int, 1)
			t.Setenv(variable("store"), c.store)
			go func() {
				status := run(ctx, []string{"serve", "--redis", "127.0.0.1:0", "--table", "users=" + c.table, "--table", "fixed=logs,read-only,no-version"}, w, &stderr)
				w.CloseWithError(errors.New(stderr.String()))
				ended <- status
			}()
			line, err := bufio.NewReader(r).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf(", table lockstep_keys, and %s as users:…, and logs as fixed:… (read-only).\n", c.table); !strings.HasSuffix(line, want) {
				t.Errorf("%q", line)
			}
			_, rest, _ := strings.Cut(line, " on ")
			address, _, _ := strings.Cut(rest, ",")
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			replies := resp.NewDecoder(conn, resp.DecodeLimits{})
			for _, ask := range [][2]string{{"HGET fixed:42 name", "$3\r\nAnn\r\n"}, {"HSET users:42 name Bob", ":0\r\n"}, {"HGET users:42 name", "$3\r\nBob\r\n"}, {"HSET fixed:42 name x", "-ERR table fixed is read-only here\r\n"}} {
				_, _ = io.WriteString(conn, ask[0]+"\r\n")
				if v, err := replies.Decode(); err != nil || string(v.AppendTo(nil)) != ask[1] {
					t.Errorf("%s: %s, %v", ask[0], v, err)
				}
			}
			// The table has other names, and it has this server.
			for _, more := range []struct {
				flags  []string
				status int
				says   string
			}{
				{[]string{"--table", "a=" + c.table + ",read-only", "--table", "b=" + c.other}, exitUsage, "--table b=" + c.other + ": that table is served as a already"},
				{[]string{"--table", "a=" + c.other}, exitFailed, "--table a=" + c.other + ": lockstep: unavailable: another server serves this table"},
			} {
				_, stderr, status := command(t, append([]string{"serve", "--redis", "127.0.0.1:0", "--keys-table", "others"}, more.flags...)...)
				if status != more.status || !strings.Contains(stderr, more.says) {
					t.Errorf("%s: %d, %s", more.flags, status, stderr)
				}
			}
			var name string
			var version int64
			if err := db.QueryRow("SELECT name, version FROM users").Scan(&name, &version); err != nil || name != "Bob" || version <= 7 {
				t.Errorf("%s, %d, %v", name, version, err)
			}
			stop()
			if status := <-ended; status != 0 {
				t.Errorf("status %d: %s", status, stderr.String())
			}
		})
	}
	_, stderr, status := command(t, "serve", "--store", "sqlite:"+filepath.Join(t.TempDir(), "x.db"), "--table", "users=nosuch")
	if status == 0 || !strings.Contains(stderr, "--table users=nosuch: ") || !strings.Contains(stderr, "there is no table nosuch") {
		t.Errorf("%d %s", status, stderr)
	}
	_, stderr, status = command(t, "serve", "--store", "sqlite:"+file, "--table", "a=users,read-only", "--table", "b=Users")
	if status != exitUsage || !strings.Contains(stderr, "--table b=Users: that table is served as a already") {
		t.Errorf("%d %s", status, stderr)
	}
}
