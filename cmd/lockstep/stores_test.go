package main

import (
	"context"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/cachetest"
	"github.com/lockstep-cache/lockstep/internal/demo"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

func TestEachKindOfStoreParsesItsOwnExample(t *testing.T) {
	for _, k := range kinds {
		u, err := parseStore(k.example)
		if err != nil || u.kind.scheme != k.scheme {
			t.Errorf("%s: %v, of the kind %s", k.example, err, u.kind.scheme)
		}
	}
}

// TestOptionsOfSQLiteAreThoseThatItsURLHas fills every field of a URL, whatever
// it is called, and asks what the URL is then.
func TestOptionsOfSQLiteAreThoseThatItsURLHas(t *testing.T) {
	var full sqlitestore.URL
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				fill(v.Field(i))
			}
		case reflect.String:
			v.SetString("json")
		case reflect.Bool:
			v.SetBool(true)
		default:
			v.SetInt(1)
		}
	}
	fill(reflect.ValueOf(&full).Elem())
	_, query, _ := strings.Cut(full.String(), "?")
	given, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(slices.Concat(sqliteTableOptions, sqliteOptions)))
	if got := slices.Sorted(maps.Keys(given)); !slices.Equal(got, want) {
		t.Errorf("a URL has the options %v, and the messages name %v", got, want)
	}
}

// TestPlainSQLOfEachKindMeansWhatTheDemoTakesItFor holds each kind's statements
// against what its store reads and writes.
func TestPlainSQLOfEachKindMeansWhatTheDemoTakesItFor(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.scheme, func(t *testing.T) {
			ctx := t.Context()
			url, err := parseStore(emptyStore(t, k))
			if err != nil {
				t.Fatal(err)
			}
			g, err := url.visit(ctx, "kind_")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // after the caches have been compared
				if err := g.leave(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			})
			d := g.database(true)
			open := func(table string) *lockstep.Cache[string, demo.User] {
				store, err := d.Users(ctx, d.Prefix+table)
				if err != nil {
					t.Fatal(err)
				}
				return cachetest.Open(t, store, lockstep.Options[string, demo.User]{})
			}
			users, copied := open("users"), open("copied")
			for _, key := range []string{"it's", "gone", "kept"} {
				if _, err := users.Set(ctx, key, demo.User{Name: "Ada"}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := users.Delete(ctx, "gone"); err != nil {
				t.Fatal(err)
			}

			db, err := d.Plain(1)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			exec := func(query string, args ...any) {
				t.Helper()
				if _, err := db.ExecContext(ctx, query, args...); err != nil {
					t.Fatal(err)
				}
			}
			type row struct {
				value   string // empty for what is left of a deleted row
				version int64
			}
			read := func(table string, keys ...any) map[string]row {
				t.Helper()
				rows, err := db.QueryContext(ctx, d.SQL.Rows(d.Prefix+table, len(keys)), keys...)
				if err != nil {
					t.Fatal(err)
				}
				defer rows.Close()
				found := make(map[string]row)
				for rows.Next() {
					var key string
					var r row
					var value, end any
					if err := rows.Scan(&key, &value, &r.version, &end); err != nil {
						t.Fatal(err)
					}
					switch value := value.(type) {
					case string:
						r.value = value
					case []byte:
						r.value = string(value)
					}
					found[key] = r
				}
				return found
			}

			before := read("users")
			if len(before) != 3 || before["it's"].value == "" || before["gone"] != (row{version: before["gone"].version}) {
				t.Fatalf("the table has %v", before)
			}
			if some := read("users", "it's", "kept"); len(some) != 2 || some["it's"] != before["it's"] {
				t.Errorf("asked for two rows, it has %v", some)
			}
			exec(d.SQL.Overwrite(d.Prefix+"users", false), `{"name":"Bruno"}`, "it's")
			exec(d.SQL.Overwrite(d.Prefix+"users", true), `{"name":"Chidi"}`, "kept")
			exec(d.SQL.Upsert(d.Prefix+"users"), "new", `{"name":"Dalia"}`, 7)
			exec(d.SQL.Upsert(d.Prefix+"users"), "new", `{"name":"Emil"}`, 3)
			exec(d.SQL.Copy(d.Prefix+"copied", d.Prefix+"users"))
			users.InvalidateAll() // nobody else tells it what plain SQL has changed
			after := read("copied")
			if after["it's"].version != before["it's"].version || after["kept"].version <= before["kept"].version || after["new"].version <= 7 {
				t.Errorf("the versions went from %v to %v", before, after)
			}
			for key, name := range map[string]string{"it's": "Bruno", "kept": "Chidi", "new": "Emil"} {
				if user, err := copied.Get(ctx, key); err != nil || user.Name != name {
					t.Errorf("%s is %+v, %v, want %s", key, user, err, name)
				}
			}
			if exists, err := copied.Exists(ctx, "gone"); err != nil || exists {
				t.Errorf("a deleted row exists: %v, %v", exists, err)
			}
		})
	}
}
