package demo

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// rehearsal is a stage with a database of its own.
func rehearsal(t *testing.T) (*stage, *strings.Builder) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "demo.db")
	db, err := sqlitestore.OpenDatabase(t.Context(), path, sqlitestore.DatabaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dsn := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: "_txlock=immediate&_pragma=busy_timeout(10000)"}
	plain, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	out := new(strings.Builder)
	s := &stage{page: page{out: out, unwanted: wanted}, plain: plain, result: &Result{}}
	s.options.Database.Prefix = "rehearsal_"
	s.options.Database.SQL = SQL{
		Rows: func(table string, keys int) string {
			query := "SELECT key, value, version, expires_at FROM " + table
			if keys > 0 {
				query += " WHERE key IN (?" + strings.Repeat(", ?", keys-1) + ")"
			}
			return query
		},
		Overwrite: func(table string, countUp bool) string {
			version := "version"
			if countUp {
				version += " + 1"
			}
			return "UPDATE " + table + " SET value = ?, version = " + version + " WHERE key = ?"
		},
	}
	s.options.Database.Users = func(ctx context.Context, table string) (Store[User], error) {
		return sqlitestore.OpenIn[string, User](ctx, db, sqlitestore.Options{Table: table})
	}
	t.Cleanup(func() {
		// t's context has ended by now.
		if err := s.close(context.Background()); err != nil {
			t.Error(err)
		}
		plain.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, out
}

func TestComparison(t *testing.T) {
	const inMemory, onlyStored, deleted = "user:00001", "user:00009", "user:00003"
	type users = *table[User]
	for _, c := range []struct {
		name string
		// spoil makes memory and database differ.
		spoil       func(t *testing.T, s *stage, users users, exec func(query string, args ...any))
		differences int
		says        string
	}{
		{"nothing", func(*testing.T, *stage, users, func(string, ...any)) {}, 0, ""},
		{"a value changed, and its version", func(t *testing.T, s *stage, users users, _ func(string, ...any)) {
			if err := users.overwrite(t.Context(), s, inMemory, userRow(2), true); err != nil {
				t.Fatal(err)
			}
		}, 1, inMemory},
		{"a value changed alone", func(t *testing.T, s *stage, users users, _ func(string, ...any)) {
			if err := users.overwrite(t.Context(), s, inMemory, userRow(2), false); err != nil {
				t.Fatal(err)
			}
		}, 1, inMemory},
		{"a version changed alone", func(_ *testing.T, _ *stage, _ users, exec func(string, ...any)) {
			exec("UPDATE rehearsal_users SET version = version - 1 WHERE key = ?", inMemory)
		}, 1, inMemory},
		{"a row removed", func(_ *testing.T, _ *stage, _ users, exec func(string, ...any)) {
			exec("DELETE FROM rehearsal_users WHERE key = ?", inMemory)
		}, 1, inMemory},
		{"a row made that memory knows to be absent", func(_ *testing.T, _ *stage, _ users, exec func(string, ...any)) {
			exec("UPDATE rehearsal_users SET value = ?, deleted = 0, version = version + 1 WHERE key = ?", `{"name":"Eve"}`, deleted)
		}, 1, deleted},
		{"a row that Scan does not see", func(_ *testing.T, _ *stage, _ users, exec func(string, ...any)) {
			exec("UPDATE rehearsal_users SET deleted = 1 WHERE key = ?", onlyStored)
		}, 1, "Scan yields"},
		{"two rows changed", func(_ *testing.T, _ *stage, _ users, exec func(string, ...any)) {
			exec("UPDATE rehearsal_users SET value = ? WHERE key IN (?, ?)", `{"name":"Eve"}`, inMemory, "user:00002")
		}, 2, "Eve"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, out := rehearsal(t)
			ctx := t.Context()
			users, err := openTable(ctx, s, recipe[User]{name: "users", open: s.options.Database.Users})
			if err != nil {
				t.Fatal(err)
			}
			if err := users.fill(ctx, 10, userKey, userRow); err != nil {
				t.Fatal(err)
			}
			if _, err := users.cache.Delete(ctx, deleted); err != nil {
				t.Fatal(err)
			}
			users.cache.Invalidate(onlyStored)
			c.spoil(t, s, users, func(query string, args ...any) {
				if _, err := s.plain.ExecContext(ctx, query, args...); err != nil {
					t.Fatal(err)
				}
			})
			if err := s.compare(ctx); err != nil {
				t.Fatal(err)
			}
			s.verdict()
			r := s.result
			if r.Differences != c.differences || r.Agrees != (c.differences == 0) {
				t.Errorf("%d differences, want %d: %+v", r.Differences, c.differences, *r.Comparison[0])
			}
			if got := strings.Join(r.Comparison[0].Differences, "\n"); !strings.Contains(got, c.says) {
				t.Errorf("%q is not in %q", c.says, got)
			}
			if agrees := strings.Contains(out.String(), "Memory and database agree"); agrees != r.Agrees {
				t.Errorf("the verdict reads:\n%s", out.String())
			}
		})
	}
}

func TestComparisonShowsWhatItHasCounted(t *testing.T) {
	s, out := rehearsal(t)
	ctx := t.Context()
	users, err := openTable(ctx, s, recipe[User]{name: "users", open: s.options.Database.Users})
	if err != nil {
		t.Fatal(err)
	}
	if err := users.fill(ctx, 10, userKey, userRow); err != nil {
		t.Fatal(err)
	}
	users.cache.Invalidate(userKey(0))
	for i := range 3 {
		if _, err := users.cache.Get(ctx, userKey(100+i)); !errors.Is(err, lockstep.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if err := s.compare(ctx); err != nil {
		t.Fatal(err)
	}
	if c := s.result.Comparison[0]; c.Rows != 10 || c.Scanned != 10 || c.InMemory != 9 || c.Audited != 12 {
		t.Errorf("it has counted %+v", *c)
	}
	unwrapped := strings.Join(strings.Fields(out.String()), " ")
	for _, part := range []string{"table rows scanned in memory audited differences users 10 10 9 12 0", "Audit compares that too"} {
		if !strings.Contains(unwrapped, part) {
			t.Errorf("%q is not in it:\n%s", part, out.String())
		}
	}
}

func TestTamperingNeedsSomethingInMemory(t *testing.T) {
	s, _ := rehearsal(t)
	users, err := openTable(t.Context(), s, recipe[User]{name: "users", open: s.options.Database.Users})
	if err != nil {
		t.Fatal(err)
	}
	if err := users.fill(t.Context(), 2, userKey, userRow); err != nil {
		t.Fatal(err)
	}
	users.cache.InvalidateAll()
	s.options.Tamper = true
	if err := s.compare(t.Context()); err == nil || !strings.Contains(err.Error(), "in memory") {
		t.Errorf("the error is %v", err)
	}
}

func TestAnUnmetExpectationFailsTheDemo(t *testing.T) {
	s, out := rehearsal(t)
	scene := &Scene{Name: "x", Title: "A scene", play: func(_ context.Context, s *stage) (any, error) {
		s.expect(true, "%d is even", 2)
		s.expect(false, "%d is even", 3)
		return struct{}{}, nil
	}}
	if err := s.perform(t.Context(), 1, scene); err != nil {
		t.Fatal(err)
	}
	s.verdict()
	if r := s.result; r.Agrees || r.Checks != 2 || r.Unmet != 1 {
		t.Errorf("the verdict is %+v", r)
	}
	if !strings.Contains(out.String(), "WRONG 3 is even") || !strings.Contains(out.String(), "1 of 2 expectations") {
		t.Errorf("it reads:\n%s", out.String())
	}
}

func TestPlainReadsSeeWhatTheCacheWrote(t *testing.T) {
	s, _ := rehearsal(t)
	ctx := t.Context()
	users, err := openTable(ctx, s, recipe[User]{name: "users", open: s.options.Database.Users})
	if err != nil {
		t.Fatal(err)
	}
	version, err := users.cache.Set(ctx, "it's", userRow(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := users.cache.Set(ctx, "gone", userRow(1), lockstep.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	if _, err := users.cache.Delete(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	rows, err := readRows[User](ctx, s, users.sql)
	if err != nil {
		t.Fatal(err)
	}
	if rows["it's"] != (plainRow[User]{value: userRow(1), version: version, exists: true}) || rows["gone"].exists || len(rows) != 2 {
		t.Errorf("the table holds %v", rows)
	}
}
