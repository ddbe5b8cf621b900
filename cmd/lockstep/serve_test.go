package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// TestServe: the real redis-cli finds after a restart what was set before, and the end of
// the context, which SIGTERM is, ends the server with status 0.
func TestServe(t *testing.T) {
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Fatalf("%v: make test installs it, as a part of redis-server", err)
	}
	store := "sqlite:" + filepath.Join(t.TempDir(), "keys.db") + "?allow-unsafe-durability=true"
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("pass word\r\nnot this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(try func(ask func(args ...string) string)) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		r, w := io.Pipe()
		var stderr strings.Builder
		ended := make(chan int, 1)
		go func() {
			status := run(ctx, []string{"serve", "--store", store, "--redis", "127.0.0.1:0", "--password-file", secret}, w, &stderr)
			w.CloseWithError(errors.New(stderr.String()))
			ended <- status
		}()
		line, err := bufio.NewReader(r).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(line, " on 127.0.0.1:")
		port, _, ok := strings.Cut(rest, ",")
		if !ok || strings.Contains(line, "pass word") {
			t.Fatalf("%q", line)
		}
		try(func(args ...string) string {
			c := exec.Command(cli, append([]string{"-p", port}, args...)...)
			c.Env = append(os.Environ(), "REDISCLI_AUTH=pass word")
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("redis-cli %v: %v: %s", args, err, out)
			}
			return strings.TrimSuffix(string(out), "\n")
		})
		stop()
		if status := <-ended; status != 0 {
			t.Errorf("status %d: %s", status, stderr.String())
		}
	}
	serve(func(ask func(args ...string) string) {
		for _, c := range []struct{ request, want string }{
			{"set greeting hello", "OK"},
			{"incr n", "1"},
			{"hset h f v", "1"},
			{"lpush h f v", "ERR unknown command 'lpush', with args beginning with: 'h' 'f' 'v' "},
		} {
			if got := ask(strings.Fields(c.request)...); strings.TrimSpace(got) != strings.TrimSpace(c.want) {
				t.Errorf("%s: %q, want %q", c.request, got, c.want)
			}
		}
	})
	serve(func(ask func(args ...string) string) {
		if got := ask("get", "greeting"); got != "hello" {
			t.Errorf("after a restart: %q", got)
		}
		if got := ask("-3", "incr", "n"); got != "2" {
			t.Errorf("after a restart: %q", got)
		}
	})
}

func TestServeRefuses(t *testing.T) {
	t.Setenv(passwordVariable, "")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\nx"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"--redis 0.0.0.0:0", "no password"},
		{"--redis :0", "no password"},
		{"--redis example.org:0", "no password"},
		{"--redis 6379", "HOST:PORT"},
		{"--redis 127.0.0.1:0,0.0.0.0:0", "0.0.0.0:0: others can reach"},
		{"--redis 0.0.0.0:0 --users " + written(t, "ann "+hello+"\nbob nopass"), "no password"},
		{"--users " + written(t, "ann secret"), "file:1: user ann"},
		{"--users " + written(t, "ann "+hello) + " --password-file x", "exclude"},
		{"--max-entries 5 --max-bytes 1MiB", "exclude"},
		{"--max-clients 0", "max-clients"},
		{"--drain -5s", "--drain"},
		{"--http 9121", "--http 9121: it must be HOST:PORT"},
		{"--leave 1s", "--leave is for --http"},
		{"--keys-table=", "--keys-table names no table"},
		{"--password-file " + empty, "first line"},
		{"--password-file " + empty + "x", "--password-file"},
		{"--store nosuch:x", "--store"},
	} {
		stdout, stderr, status := command(t, append([]string{"serve", "--store", "sqlite:" + filepath.Join(t.TempDir(), "keys.db")}, strings.Fields(c.args)...)...)
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: status %d, %q, %q; want %q", c.args, status, stdout, stderr, c.want)
		}
	}
}

// serving is lockstep serve, run beside a test until it ends.
type serving struct {
	addrs  []string // in the order of the flags, that of HTTP last
	end    func()
	stop   func() (status int)
	stderr *log
}

var servedOn = regexp.MustCompile(`(127\.0\.0\.1|\[::1\]):\d+`)

func startServe(t *testing.T, args ...string) serving {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	r, w := io.Pipe()
	s := serving{stderr: new(log), end: end}
	ended := make(chan int, 1)
	if os.Getenv("LOCKSTEP_STORE") == "" {
		args = append([]string{"--store", "sqlite:" + filepath.Join(t.TempDir(), "keys.db") + "?allow-unsafe-durability=true"}, args...)
	}
	go func() {
		status := run(ctx, append([]string{"serve"}, args...), w, s.stderr)
		w.CloseWithError(io.EOF)
		ended <- status
	}()
	lines := bufio.NewReader(r)
	for range 1 + strings.Count(strings.Join(args, " "), "--http") {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("%v: %s", err, s.stderr.String())
		}
		line, _, _ = strings.Cut(line, ", over ") // a database, which has an address, too
		s.addrs = append(s.addrs, servedOn.FindAllString(line, -1)...)
	}
	s.stop = sync.OnceValue(func() int { end(); return <-ended })
	t.Cleanup(func() {
		if status := s.stop(); status != 0 {
			t.Errorf("status %d: %s", status, s.stderr.String())
		}
	})
	return s
}

// client is a connection that is asked in lines, and answers in the protocol's own words.
type client struct {
	net.Conn
	t       *testing.T
	replies *resp.Decoder
}

func connect(t *testing.T, conn net.Conn, err error) client {
	t.Helper()
	if err == nil {
		t.Cleanup(func() { conn.Close() })
		err = conn.SetDeadline(time.Now().Add(30 * time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	return client{conn, t, resp.NewDecoder(conn, resp.DecodeLimits{})}
}

func dial(t *testing.T, addr string) client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	return connect(t, conn, err)
}

func (c client) ask(request string) string {
	if _, err := io.WriteString(c, request+"\r\n"); err != nil {
		return err.Error()
	}
	v, err := c.replies.Decode()
	if err != nil {
		return err.Error()
	}
	return v.Text
}

func (c client) want(request, reply string) {
	c.t.Helper()
	if got := c.ask(request); got != reply {
		c.t.Fatalf("%s: %q, want %q", request, got, reply)
	}
}

// TestServeFollowsItsUsers on two addresses: a file that changes while connections are
// open, one that is wrong, and SIGHUP, which does not end the server.
func TestServeFollowsItsUsers(t *testing.T) {
	file := written(t, "ann "+hello+"\nbob "+hello)
	s := startServe(t, "--redis", "127.0.0.1:0,[::1]:0", "--users", file)
	if len(s.addrs) != 2 {
		t.Fatal(s.addrs)
	}
	ann, bob := dial(t, s.addrs[0]), dial(t, s.addrs[1])
	ann.want("GET x", "NOAUTH Authentication required.")
	ann.want("AUTH ann hello", "OK")
	bob.want("AUTH bob hello", "OK")
	ann.want("SET x 1", "OK")
	bob.want("GET x", "1")
	change := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Signal(syscall.SIGHUP)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	logged := func(text string) {
		t.Helper()
		for !strings.Contains(s.stderr.String(), text) {
			runtime.Gosched()
		}
	}
	change("ann secret")
	logged(file + ":1: user ann: word 2 is none of")
	bob.want("INCR x", "2")
	change("ann nopass")
	logged("takes a restart")
	change("ann " + hello + " read-only")
	logged("lockstep: read again")
	if _, err := bob.replies.Decode(); err != io.EOF {
		t.Errorf("bob is gone, and his connection is not closed: %v", err)
	}
	ann.want("INCR x", "NOPERM this user has no permissions to run the 'incr' command")
	ann.want("GET x", "2")
	if strings.Contains(s.stderr.String(), "secret") || strings.Contains(s.stderr.String(), hello) {
		t.Error(s.stderr.String())
	}
}

// TestHangupDoesNotEndTheServer, where it has nothing to read again.
func TestHangupDoesNotEndTheServer(t *testing.T) {
	s := startServe(t, "--redis", "127.0.0.1:0")
	c := dial(t, s.addrs[0])
	c.want("PING", "PONG")
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(syscall.SIGHUP)
	}
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(s.stderr.String(), "no files that could be read again") {
		runtime.Gosched()
	}
	c.want("PING", "PONG")
}

func TestUsersAndAPasswordExcludeEachOther(t *testing.T) {
	t.Setenv(passwordVariable, "secret")
	_, stderr, status := command(t, "serve", "--users", written(t, "ann "+hello))
	if status != exitUsage || !strings.Contains(stderr, passwordVariable) || strings.Contains(stderr, "secret") {
		t.Errorf("%d %q", status, stderr)
	}
}
