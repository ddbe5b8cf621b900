package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// TestPasswordsOfServers gives the right and a wrong one in each way that there is.
func TestPasswordsOfServers(t *testing.T) {
	for _, k := range servers() {
		t.Run(k.scheme, func(t *testing.T) {
			store := emptyStore(t, k)
			u, err := url.Parse(store)
			if err != nil {
				t.Fatal(err)
			}
			right, _ := u.User.Password()
			const wrong = "no!such%secret"
			variable := map[string]string{"postgres": "PGPASSWORD", "mysql": "MYSQL_PWD"}[k.scheme]
			file := func(password string) string {
				path := filepath.Join(t.TempDir(), "password")
				if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			with := func(user *url.Userinfo, password string) string {
				v := *u
				v.User = user
				if password != "" {
					q := v.Query()
					q.Set(passwordFile, file(password))
					v.RawQuery = q.Encode()
				}
				return v.String()
			}
			name := u.User.Username()
			try := func(how, store, environment string, status int) {
				t.Helper()
				t.Setenv(variable, environment)
				at, err := parseStore(store)
				if err != nil {
					t.Errorf("%s: %v", how, err)
					return
				}
				g, err := at.visit(t.Context(), "try_")
				if err == nil {
					err = g.leave(t.Context())
				}
				if (err == nil) != (status == 0) {
					t.Errorf("%s: %v", how, err)
				}
				if err != nil {
					silent(t, with(url.UserPassword(name, wrong), ""), err.Error())
					if !strings.Contains(err.Error(), "the user or the password") || !strings.Contains(err.Error(), u.Host) {
						t.Errorf("%s: the error is %v", how, err)
					}
				}
			}
			try("in the URL", store, wrong, 0)
			try("in the environment", with(url.User(name), ""), right, 0)
			try("in a file", with(url.User(name), right), wrong, 0)
			try("wrong in the URL", with(url.UserPassword(name, wrong), ""), right, exitUsage)
			try("wrong in the environment", with(url.User(name), ""), wrong, exitUsage)
			try("wrong in a file", with(url.User(name), wrong), right, exitUsage)
			try("none", with(url.User(name), ""), "", exitUsage)
			if k.scheme == "postgres" {
				line := strings.Join([]string{u.Hostname(), u.Port(), "*", name, right}, ":")
				t.Setenv("PGPASSFILE", file(line))
				try("in PGPASSFILE", with(url.User(name), ""), "", 0)
			}
		})
	}
}

func TestDemoRefusesAServerItCannotPlayOn(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	type refusal struct {
		store  string
		status int
		names  string
	}
	var all []refusal
	for _, k := range servers() {
		store := emptyStore(t, k)
		u, err := url.Parse(store)
		if err != nil {
			t.Fatal(err)
		}
		change := func(f func(u *url.URL)) string {
			v := *u
			f(&v)
			return v.String()
		}
		option := func(o string) string { return change(func(u *url.URL) { u.RawQuery = o }) }
		start := k.scheme + "://app:s3cret"
		all = append(all,
			refusal{change(func(u *url.URL) { u.Host = "127.0.0.1:1" }), exitFailed, "no server answers at 127.0.0.1:1: "},
			refusal{change(func(u *url.URL) { u.Path = "/nowhere" }), exitUsage, `the database: the server at ` + u.Host + ` has none called "nowhere"`},
			refusal{change(func(u *url.URL) { u.User = url.UserPassword("nobody", "s3cret") }), exitUsage, "the user or the password"},
			refusal{option("colour=red"), exitUsage, "unknown option colour; there are password-file, "},
			refusal{option("allow-unsafe-durability=perhaps"), exitUsage, `the option allow-unsafe-durability: "perhaps" is neither`},
			refusal{option("password=s3cret"), exitUsage, "the option password-file"},
			refusal{option(passwordFile + "=" + empty), exitUsage, "and the option password-file"},
			refusal{option("a=1&a=2&allow-unsafe-durability=true&allow-unsafe-durability=true"), exitUsage, "unknown option a"},
			refusal{k.scheme + "://app@" + u.Host + "/app?password-file=" + empty, exitUsage, "must have one line"},
			refusal{k.scheme + "://app@" + u.Host + "/app?password-file=" + empty + ".not", exitUsage, "the option password-file: open "},
			refusal{start + "/rest@localhost/app", exitUsage, "/ is %2F"},
			refusal{start + "#rest@localhost/app", exitUsage, "# is %23"},
			refusal{start + "?rest@localhost/app", exitUsage, "? is %3F"},
			refusal{start + "%zz@localhost/app", exitUsage, "the user or the password has a character"},
			refusal{start + "@local host/app", exitUsage, "the host, or its port"},
			refusal{start + "@localhost:port/app", exitUsage, "the host, or its port"},
			refusal{start, exitUsage, "an @ stands before the host"},
			refusal{start + "@localhost/a%zz", exitUsage, "the database or an option has a %"},
			refusal{start + "@localhost/a/b", exitUsage, "is not a name"},
			refusal{k.scheme + ":app:s3cret@localhost/app", exitUsage, "must begin with " + k.scheme + "://"},
			refusal{"x" + start + "@localhost/app", exitUsage, "no kind of store"},
		)
	}
	all = append(all,
		refusal{"mysql://app:s3cret@localhost", exitUsage, "the database: there is none"},
		refusal{"mysql://localhost/app", exitUsage, "the user: there is none"},
		refusal{"mysql://app:s3cret@localhost/app?tls=maybe", exitUsage, "the option tls"},
		refusal{"postgres://app:s3cret@localhost/app?sslmode=maybe", exitUsage, "sslmode"},
		refusal{"postgres://app:s3cret@localhost/app?connect_timeout=soon", exitUsage, "connect_timeout"},
		refusal{"app:s3cret@tcp(localhost:3306)/app", exitUsage, "no kind of store"},
		refusal{"host=localhost password=s3cret", exitUsage, "not a URL"},
	)
	for _, c := range all {
		stdout, stderr, status := command(t, "demo", "--store", c.store)
		if status != c.status || stdout != "" || !strings.Contains(stderr, c.names) {
			t.Errorf("--store %s: status %d, want %d; %q should name %q", c.store, status, c.status, stderr, c.names)
		}
		secrets := []string{"s3cret"}
		if u, err := url.Parse(c.store); err == nil {
			if password, ok := u.User.Password(); ok {
				secrets = append(secrets, password)
			}
		}
		for _, secret := range secrets {
			if strings.Contains(stderr, secret) {
				t.Errorf("--store %s: the password is in %q", c.store, stderr)
			}
		}
	}
	for _, args := range [][]string{
		{"demo", "postgres://app:s3cret@localhost/app"}, {"postgres://app:s3cret@localhost/app"}, {"demo", "app:s3cret@tcp(localhost)/app"},
		{"demo", "--stor=mysql://app:s3cret@localhost/app"}, {"demo", "--scale", "mysql://app:s3cret@localhost/app"},
		{"demo", "--json=mysql://app:s3cret@localhost/app"},
	} {
		if _, stderr, status := command(t, args...); status != exitUsage || strings.Contains(stderr, "s3cret") {
			t.Errorf("%v: status %d, %q", args, status, stderr)
		}
	}
}

// TestASettingThatIsUnsafe is refused by name, and accepted by option.
func TestASettingThatIsUnsafe(t *testing.T) {
	pg := dbtest.StartPostgres(t, "synchronous_commit=off").URL()
	maria := mysqlURL(t, dbtest.StartMariaDB(t, "--innodb-flush-log-at-trx-commit=2").URL())
	for store, c := range map[string]struct{ setting, accepted string }{
		pg: {"synchronous_commit", pg + "&allow-unsafe-durability=true"}, maria: {"innodb_flush_log_at_trx_commit", maria + "?allow-unsafe-durability=true"},
	} {
		_, stderr, status := command(t, "demo", "--store", store)
		if status != exitUsage || !strings.Contains(stderr, c.setting) || !strings.Contains(stderr, "the option allow-unsafe-durability=true accepts") {
			t.Errorf("status %d, %q does not name %s, and the option", status, stderr, c.setting)
		}
		silent(t, store, stderr)
		at, err := parseStore(c.accepted)
		if err != nil {
			t.Fatal(err)
		}
		g, err := at.visit(t.Context(), "unsafe_")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.leave(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// FuzzServerURL holds that no password is printed, whatever the URL around it is like,
// and that what is escaped as it should be comes back.
func FuzzServerURL(f *testing.F) {
	for _, before := range []string{"postgres://app", "mysql://", "mysql://a@b", "postgres://h?password-file=", "postgres://h/db", "postgresql:", "sqlserver://app", ""} {
		for _, middle := range []string{"", "@", "/", "?", "#", "%", "%zz", ":", " ", "1/", "]"} {
			f.Add(before, middle, "localhost:1/app?sslmode=disable")
		}
	}
	const first, last = "zEcReT", "tErCeZ"
	f.Fuzz(func(t *testing.T, before, middle, after string) {
		if strings.Contains(before+middle+after, first) || strings.Contains(before+middle+after, last) {
			return
		}
		password := first + middle + last
		text := before + ":" + password + "@" + after
		u, err := parseStore(text)
		shown := u.text
		if err != nil {
			shown += err.Error()
		} else if s, ok := u.at.(interface{ String() string }); ok {
			shown += s.String()
		}
		if u.kind.secret != "" || err != nil && u.kind.scheme != "sqlite" {
			if strings.Contains(shown, first) || strings.Contains(shown, last) {
				t.Errorf("%q: %q has a part of the password", text, shown)
			}
		}
		if strings.ContainsRune(before+after, 0) || strings.Contains(after, "/") || after == "" || before == "" {
			return
		}
		// As a URL's path it might keep an @, which here has to be escaped.
		database := strings.ReplaceAll(url.QueryEscape(after), "+", "%20")
		escaped := "mysql://" + url.UserPassword(before, password).String() + "@[::1]:3306/" + database
		s, err := parseServerURL("mysql", escaped, mysqlOptions)
		if err != nil {
			t.Fatalf("%s: %v", escaped, err)
		}
		if s.user != before || s.password == nil || *s.password != password || s.host != "::1" || s.port != "3306" || s.database != after || len(s.options) > 0 {
			t.Errorf("%s: read as %+v, with the password %v", escaped, s, s.password)
		}
	})
}
