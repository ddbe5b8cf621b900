package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/server"
)

// written writes a file of the test's own, and returns its path.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parsed is serve's settings as a command line, the environment and a file have them.
func parsed(t *testing.T, args ...string) serveVerb {
	t.Helper()
	var v verbs
	if _, err := parser(context.Background(), &v, new(strings.Builder), new(strings.Builder), nil).Parse(append([]string{"serve"}, args...)); err != nil {
		t.Fatal(err)
	}
	return v.Serve
}

func TestSettingsComeFromFlagsThenEnvironmentThenFile(t *testing.T) {
	path := written(t, "# a comment\n\n  max-clients=1\nidle-timeout = 10m\nmax-value\t=\t1MiB\nttl = 3s\nredis = 127.0.0.1:1\nredis = 127.0.0.1:2,127.0.0.1:3\nkeys-table = a = b\ntable = u=a\ntable = v=c,read-only\n")
	t.Setenv("LOCKSTEP_MAX_CLIENTS", "2")
	t.Setenv("LOCKSTEP_TTL", "2s")
	v := parsed(t, "--config", path, "--ttl", "1s")
	if v.MaxClients != 2 || v.TTL != time.Second || v.IdleTimeout != 10*time.Minute || v.MaxValue != 1<<20 || fmt.Sprint(v.Redis) != "[127.0.0.1:1 127.0.0.1:2 127.0.0.1:3]" || v.KeysTable != "a = b" || fmt.Sprint(v.Table) != "[{u a false } {v c true }]" || v.Drain != 30*time.Second {
		t.Errorf("%+v", v)
	}
	t.Setenv("LOCKSTEP_CONFIG", path)
	if v := parsed(t); v.MaxClients != 2 || v.MaxValue != 1<<20 {
		t.Errorf("%+v", v)
	}
	if v := parsed(t, "--config", written(t, "")); v.MaxClients != 2 || v.MaxValue != 0 {
		t.Errorf("%+v", v)
	}
}

// TestWrongSettingsAreNamed: file, line and field, or the variable; a password is not said.
func TestWrongSettingsAreNamed(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"max-clients", ":1: it must be NAME = VALUE"},
		{"\n= 5", ":2: it must be NAME = VALUE"},
		{"#\nmax-clients = x", `:2: max-clients: "x" is no number`},
		{"max-clients = 0", `:1: max-clients: "0" is no number`},
		{"max-clients =", ":1: max-clients: it has no value"},
		{"max-clients = 1\nmax-clients = 2", ":2: max-clients: it is on line 1 already"},
		{"max-value = 1XB", `:1: max-value: "1XB" is no number of bytes`},
		{"idle-timeout = 5", ":1: idle-timeout: "},
		{"ttl = -1s", "--ttl -1s: it must not be negative"},
		{"refresh-ahead = -1s", "--refresh-ahead -1s: it must not be negative"},
		{"refresh-ahead = 1s", "--refresh-ahead 1s: it must be at most half of --ttl, which is 0s"},
		{"ttl = 10s\nrefresh-ahead = 6s", "--refresh-ahead 6s: it must be at most half of --ttl, which is 10s"},
		{"maxclients = 1", `:1: "maxclients": there is no such setting`},
		{"config = x", ":1: config: a file cannot name another one"},
		{"redis = 127.0.0.1:0\nredis = nowhere", "--redis nowhere: it must be HOST:PORT"},
		{"store = ", ":1: store: it has no value"},
		{"store = postgres://u:pass#word@h/d", "--store postgres://…"},
		{"max-clients = x://u:pass#word@h/d", ":1: max-clients: "},
		{"x://u:pass#word@h/d = 1", "there is no such setting"},
		{"help = true", "there is no such setting"},
	} {
		stdout, stderr, status := command(t, "serve", "--config", written(t, c.text))
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "pass#word") {
			t.Errorf("%q: status %d, %q; want %q", c.text, status, stderr, c.want)
		}
	}
	_, stderr, status := command(t, "serve", "--config", "/nowhere")
	if status != exitUsage || !strings.Contains(stderr, "--config: open /nowhere") {
		t.Errorf("%q", stderr)
	}
	t.Setenv("LOCKSTEP_MAX_CLIENTS", "x")
	if _, stderr, status := command(t, "serve"); status != exitUsage || !strings.Contains(stderr, `LOCKSTEP_MAX_CLIENTS: "x" is no number`) {
		t.Errorf("%q", stderr)
	}
	t.Setenv("LOCKSTEP_MAX_CLIENTS", "1")
	for _, args := range [][]string{{"--store", "postgres://u:pass#word@h/d"}, {"--store=postgres://u:secret@127.0.0.1:1/d"}} {
		_, stderr, status := command(t, append([]string{"serve"}, args...)...)
		if status != exitUsage || !strings.Contains(stderr, "--store postgres://") || strings.Contains(stderr, "pass#word") || strings.Contains(stderr, "secret") {
			t.Errorf("%q", stderr)
		}
	}
}

func TestPasswordOfTheDatabaseIsNotOnTheCommandLine(t *testing.T) {
	_, stderr, status := command(t, "serve", "--store", "postgres://u:secret@127.0.0.1:1/d")
	if status != exitUsage || !strings.Contains(stderr, "PGPASSWORD") || !strings.Contains(stderr, "LOCKSTEP_STORE") || strings.Contains(stderr, "secret") {
		t.Errorf("%d %q", status, stderr)
	}
	t.Setenv("LOCKSTEP_STORE", "postgres://u:secret@127.0.0.1:1/d")
	_, stderr, status = command(t, "serve")
	if status != exitFailed || strings.Contains(stderr, "secret") { // nobody is there
		t.Errorf("%d %q", status, stderr)
	}
}

const hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // SHA-256 of hello

func TestUsersOfAFile(t *testing.T) {
	all, err := parseUsers("f", []byte("# people\ndefault nopass read-only\r\n\n  ann  "+hello+" "+strings.ToUpper(hello)+"\nbob read-only "+hello))
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	hash := server.HashPassword("hello")
	if u := all["default"]; !u.NoPassword || !u.ReadOnly {
		t.Error(u)
	}
	if u := all["ann"]; u.ReadOnly || len(u.Passwords) != 2 || u.Passwords[0] != hash || u.Passwords[1] != hash {
		t.Error(u)
	}
	if u := all["bob"]; !u.ReadOnly || len(u.Passwords) != 1 {
		t.Error(u)
	}
	for _, c := range []struct{ text, want string }{
		{"", "f: there is no user"},
		{"\nann", "f:2: user ann: it has no password"},
		{"ann read-only", "f:1: user ann: it has no password"},
		{"ann secret", "f:1: user ann: word 2 is none of"},
		{"ann " + hello[1:], "f:1: user ann: word 2 is none of"},
		{"ann nopass " + hello, "f:1: user ann: it has a password and nopass"},
		{"ann nopass\nann nopass", "f:2: user ann: it is there twice"},
		{"\xff nopass", `f:1: user "\xff": a name`},
	} {
		_, err := parseUsers("f", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), hello[1:]) {
			t.Errorf("%q: %v; want %s", c.text, err, c.want)
		}
	}
}

func FuzzUsers(f *testing.F) {
	f.Add([]byte("default nopass\nann read-only " + hello))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseUsers("f", text)
		if (err == nil) != (len(all) > 0) {
			t.Errorf("%v, %v", all, err)
		}
		for name, u := range all {
			if name == "" || u.NoPassword == (len(u.Passwords) > 0) {
				t.Errorf("%q: %v", name, u)
			}
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add("max-clients = 5\n# x\nredis = a:1\nredis = b:2")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var v verbs
		_, err := parser(context.Background(), &v, new(strings.Builder), new(strings.Builder), nil).Parse([]string{"serve", "--config", path})
		if err != nil && !strings.Contains(err.Error(), path+":") && !strings.Contains(err.Error(), "--") {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func TestHashPassword(t *testing.T) {
	defer func() { standardInput = os.Stdin }()
	standardInput = strings.NewReader("hello\r\nnot this")
	stdout, stderr, status := command(t, "hash-password", "--user", "ann", "--read-only")
	if status != 0 || stderr != "" || stdout != "ann "+hello+" read-only\n" {
		t.Errorf("%d %q %q", status, stdout, stderr)
	}
	if all, err := parseUsers("f", []byte(stdout)); err != nil || !all["ann"].ReadOnly {
		t.Error(all, err)
	}
	standardInput = strings.NewReader("\nhello")
	if _, stderr, status := command(t, "hash-password"); status != exitUsage || !strings.Contains(stderr, "no password") {
		t.Errorf("%d %q", status, stderr)
	}
	if _, stderr, status := command(t, "hash-password", "--user", "a b"); status != exitUsage || !strings.Contains(stderr, "--user") {
		t.Errorf("%d %q", status, stderr)
	}
	stdout, stderr, status = command(t, "hash-password", "--generate")
	hash := server.HashPassword(strings.TrimSpace(stderr))
	if status != 0 || len(stderr) != 65 || stdout != fmt.Sprintf("default %x\n", hash[:]) {
		t.Errorf("%d %q %q", status, stdout, stderr)
	}
}

// log is what is logged, by many goroutines.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestFilesAreReadAgain: when they change; what is wrong changes nothing, and is said once.
func TestFilesAreReadAgain(t *testing.T) {
	a, b := written(t, "1"), written(t, "1")
	loads := make(chan string, 10)
	var l log
	r := newReloads(slog.New(slog.NewTextHandler(&l, nil)), []watched{{what: "pair", paths: []string{a, b}, longest: 10, load: func(texts [][]byte) error {
		text := string(bytes.Join(texts, []byte("+")))
		loads <- text
		if strings.Contains(text, "x") {
			return fmt.Errorf("no x")
		}
		return nil
	}}})
	look := func(asked bool, want string) {
		t.Helper()
		r.look(asked)
		got := "nothing"
		select {
		case got = <-loads:
		default:
		}
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look(false, "1+1")
	look(false, "nothing")
	look(true, "1+1")
	write(b, "2")
	look(false, "1+2")
	write(a, "x")
	look(false, "x+2")
	look(false, "nothing")
	if got := strings.Count(l.String(), "no x"); got != 1 {
		t.Errorf("%d times: %s", got, l.String())
	}
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	look(false, "nothing")
	look(false, "nothing")
	if got := strings.Count(l.String(), "no such file"); got != 1 {
		t.Errorf("%d times: %s", got, l.String())
	}
	write(a, "12345678901")
	look(false, "nothing")
	if !strings.Contains(l.String(), "more than 10 bytes") {
		t.Error(l.String())
	}
	write(a, "3")
	look(false, "3+2")
}

// TestMisspeltVariablesAreNoticed, and those that Kubernetes makes are not taken for some.
func TestMisspeltVariablesAreNoticed(t *testing.T) {
	for _, name := range []string{"LOCKSTEP_MAX_CLIENT", "LOCKSTEP_maxclients", "LOCKSTEP_MAX_CLIENTS", "LOCKSTEP_REDIS_PASSWORD", "LOCKSTEP_PORT", "LOCKSTEP_SERVICE_HOST", "LOCKSTEP_SERVICE_PORT", "LOCKSTEP_SERVICE_PORT_REDIS",
		"LOCKSTEP_PORT_6379_TCP", "LOCKSTEP_PORT_6379_TCP_ADDR", "LOCKSTEP_SUPPORT", "OTHER_MAX_CLIENT"} {
		t.Setenv(name, "5")
	}
	var names []string
	for _, name := range parsed(t).strays {
		if !strings.HasPrefix(name, "LOCKSTEP_TEST_") {
			names = append(names, name)
		}
	}
	if want := []string{"LOCKSTEP_MAX_CLIENT", "LOCKSTEP_SUPPORT", "LOCKSTEP_maxclients"}; !slices.Equal(names, want) {
		t.Errorf("%q; want %q", names, want)
	}
	t.Setenv("LOCKSTEP_STORE", "sqlite:"+filepath.Join(t.TempDir(), "keys.db"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr strings.Builder
	_ = run(ctx, []string{"serve", "--redis", "127.0.0.1:0"}, new(strings.Builder), &stderr)
	if !strings.Contains(stderr.String(), "variable=LOCKSTEP_MAX_CLIENT\n") || strings.Contains(stderr.String(), "SERVICE") {
		t.Errorf("it says %q", stderr.String())
	}
}
