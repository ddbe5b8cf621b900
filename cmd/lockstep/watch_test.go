package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// The URL has no password, which PGPASSWORD has, and the SQL that is shown can be
// executed by hand.
func TestWatchShowsInstallsAndRemoves(t *testing.T) {
	text := dbtest.Postgres(t)
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	t.Setenv("PGPASSWORD", password)
	u.User = url.User(u.User.Username())
	c, err := pgx.Connect(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	triggers := func() (n int) {
		t.Helper()
		if err := c.QueryRow(t.Context(), `SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'lockstep%'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := c.Exec(t.Context(), `CREATE TABLE users (id int PRIMARY KEY, version bigint)`); err != nil {
		t.Fatal(err)
	}
	watch := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, status := command(t, append([]string{"watch"}, args...)...)
		if status != want {
			t.Errorf("%v: status %d, want %d\n%s\n%s", args, status, want, stdout, stderr)
		}
		if strings.Contains(stdout+stderr, password) {
			t.Errorf("%v: the password is printed\n%s\n%s", args, stdout, stderr)
		}
		return stdout, stderr
	}
	on := []string{"--store", u.String(), "users"}
	shown, _ := watch(0, append([]string{"show", "--version-column", "version"}, on...)...)
	if triggers() != 0 || !strings.Contains(shown, "CREATE TRIGGER") {
		t.Errorf("shown:\n%s", shown)
	}
	printed, stderr := watch(exitUsage, append([]string{"install", "--version-column", "version"}, on...)...)
	if triggers() != 0 || printed != shown || !strings.Contains(stderr, "--yes") {
		t.Errorf("install without --yes: %s\n%s", stderr, printed)
	}
	watch(0, append([]string{"install", "--yes"}, on...)...)
	if triggers() == 0 {
		t.Error("install --yes has installed nothing")
	}
	watch(exitUsage, append([]string{"remove"}, on...)...)
	if triggers() == 0 {
		t.Error("remove without --yes has removed something")
	}
	watch(0, append([]string{"remove", "--yes"}, on...)...)
	if triggers() != 0 {
		t.Error("remove --yes has left triggers")
	}
	if _, err := c.Exec(t.Context(), shown); err != nil {
		t.Errorf("the SQL that is shown does not work by hand: %v", err)
	}

	for _, c := range []struct {
		args  []string
		names string
	}{
		{[]string{"show", "--store", u.String(), "nowhere"}, "nowhere"},
		{[]string{"show", "--store", text + "&sslmode=no", "users"}, "--store"},
		{[]string{"show", "--store", "postgres://u:" + password + "@%zz/db", "users"}, "--store"},
		{[]string{"show", "--store", "sqlite:app.db", "users"}, "sqlite"},
		{[]string{"show", "--store", "", "users"}, "--store"},
		{[]string{"show", "--store", u.String()}, "table"},
		{[]string{"install", "--store", u.String(), "--version-column", "none", "users"}, "none"},
	} {
		if _, stderr := watch(exitUsage, c.args...); !strings.Contains(stderr, c.names) {
			t.Errorf("%v: %s", c.args, stderr)
		}
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGPASSWORD", "wrong")
	watch(0, "show", "--store", u.String()+"&"+passwordFile+"="+file, "users")
	if _, stderr := watch(exitUsage, "show", "--store", u.String(), "users"); !strings.Contains(stderr, "the user or the password") {
		t.Error(stderr)
	}
	u.Host = "127.0.0.1:1"
	if _, stderr := watch(exitFailed, "show", "--store", u.String(), "users"); !strings.HasPrefix(stderr, "lockstep: unavailable: no server answers at 127.0.0.1:1: ") {
		t.Error(stderr)
	}
}
