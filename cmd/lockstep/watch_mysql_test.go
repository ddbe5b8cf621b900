package main

import (
	"database/sql"
	"os"
	program "os/exec"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// As on PostgreSQL; what is shown goes into the mariadb program as it is.
func TestWatchShowsInstallsAndRemovesOnMariaDB(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	c, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	password := c.Passwd
	t.Setenv("MYSQL_PWD", password)
	url := "mysql://" + c.User + "@" + c.Addr + "/" + c.DBName
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	triggers := func() (n int) {
		t.Helper()
		if err := db.QueryRow("SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := db.Exec("CREATE TABLE users (`a//b` INT PRIMARY KEY, version BIGINT)"); err != nil {
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
	byHand := func(script string) {
		t.Helper()
		host, port, _ := strings.Cut(c.Addr, ":")
		cmd := program.CommandContext(t.Context(), "mariadb", "--no-defaults", "--protocol=tcp", "-h", host, "-P", port, "-u", c.User, c.DBName)
		cmd.Env, cmd.Stdin = os.Environ(), strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("the SQL that is shown does not work by hand: %v\n%s\n%s", err, out, script)
		}
	}
	on := []string{"--store", url, "users"}
	shown, _ := watch(0, append([]string{"show", "--version-column", "version"}, on...)...)
	if triggers() != 0 || !strings.Contains(shown, "CREATE TRIGGER") {
		t.Errorf("shown:\n%s", shown)
	}
	printed, stderr := watch(exitUsage, append([]string{"install", "--version-column", "version"}, on...)...)
	if triggers() != 0 || printed != shown || !strings.Contains(stderr, "--yes") {
		t.Errorf("install without --yes: %s\n%s", stderr, printed)
	}
	watch(0, append([]string{"install", "--yes"}, on...)...)
	if triggers() != 3 {
		t.Error("install --yes has installed nothing")
	}
	removing, _ := watch(exitUsage, append([]string{"remove"}, on...)...)
	if triggers() != 3 {
		t.Error("remove without --yes has removed something")
	}
	watch(0, append([]string{"remove", "--yes"}, on...)...)
	if triggers() != 0 {
		t.Error("remove --yes has left triggers")
	}
	byHand(shown)
	if triggers() != 3 {
		t.Error("by hand nothing was installed")
	}
	watch(0, append([]string{"install", "--yes"}, on...)...) // what is there is replaced
	byHand(removing)
	if triggers() != 0 {
		t.Error("by hand nothing was removed")
	}

	for _, c := range []struct {
		args  []string
		names string
	}{
		{[]string{"show", "--store", url, "nowhere"}, "nowhere"},
		{[]string{"show", "--store", "mysql://u:" + password + "@%zz/db", "users"}, "--store"},
		{[]string{"show", "--store", "mysql://u@h", "users"}, "--store: the database"},
		{[]string{"install", "--store", strings.Replace(url, "mysql:", "mariadb:", 1), "--version-column", "none", "users"}, "none"},
	} {
		if _, stderr := watch(exitUsage, c.args...); !strings.Contains(stderr, c.names) {
			t.Errorf("%v: %s", c.args, stderr)
		}
	}
	if _, stderr := watch(exitFailed, "show", "--store", "mysql://u@127.0.0.1:1/d", "users"); !strings.Contains(stderr, "127.0.0.1:1") {
		t.Error(stderr)
	}
}
