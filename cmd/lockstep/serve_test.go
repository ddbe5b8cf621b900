package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
			{"hset h f v", "ERR unknown command 'hset', with args beginning with: 'h' 'f' 'v' "},
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
