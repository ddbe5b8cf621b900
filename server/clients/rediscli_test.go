package clients

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// cli makes redis-cli ready to run with what it reads from its input.
func (p *process) cli(ctx context.Context, input string, args ...string) *exec.Cmd {
	p.t.Helper()
	path, err := exec.LookPath("redis-cli")
	if err != nil {
		p.t.Fatalf("%v: make test installs it, as a part of redis-server", err)
	}
	c := exec.CommandContext(ctx, path, append([]string{"-p", p.port()}, args...)...)
	c.Env = append(os.Environ(), "REDISCLI_AUTH="+password, "HOME="+p.t.TempDir()) // it keeps a history there
	c.Stdin = strings.NewReader(input)
	return c
}

// statLine has what memory holds, keys that it knows to be absent included, and so on.
var statLine = regexp.MustCompile(`^100\d +[\d.]+M +1 +0 +\d+ \(\+\d+\)`)

func TestRedisCLI(t *testing.T) {
	p := serve(t)
	ctx := limited(t)
	prints := func(input string, args ...string) string {
		t.Helper()
		out, err := p.cli(ctx, input, args...).CombinedOutput()
		if err != nil {
			t.Errorf("redis-cli %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	wants := func(what, got string, all ...string) {
		t.Helper()
		for _, want := range all {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, in which there is no %q", what, got, want)
			}
		}
	}

	var sets strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&sets, "SET k%03d %s\r\n", i, strings.Repeat("x", 1+i%7))
	}
	sets.WriteString("HSET h a 1 b 2 c 3\r\nINCR h\r\n")
	out, err := p.cli(ctx, sets.String(), "--pipe").CombinedOutput()
	if wants("--pipe", string(out), "errors: 1, replies: 1002", "WRONGTYPE"); err == nil {
		t.Error("--pipe does not notice the error")
	}

	keys := strings.Fields(prints("", "--scan", "--pattern", "k1*"))
	if slices.Sort(keys); len(keys) != 100 || keys[0] != "k100" {
		t.Errorf("--scan finds %d", len(keys))
	}
	wants("--bigkeys", prints("", "--bigkeys"), "Sampled 1001 keys in the keyspace!", `Biggest   hash found '"h"' has 3 fields`, "1000 strings with 3997 bytes")
	wants("--memkeys", prints("", "--memkeys"), "Sampled 1001 keys in the keyspace!", `Biggest   hash found '"h"' has`)

	for _, version := range []string{"-2", "-3"} {
		t.Run("RESP"+version[1:], func(t *testing.T) {
			// What it prints of HELP it has from COMMAND DOCS.
			wants("a session", prints("SET a 1\nGET a\nHGET h c\nHELP GETEX\n", version), "OK\n1\n3\n", "GETEX", "summary:", "since:\x1b[0m 6.2.0")
			wants("an error", prints("", version, "LPUSH", "l", "v"), "ERR unknown command 'LPUSH'")
			wants("a transaction", prints("MULTI\nINCR n\nGET n\nEXEC\nDEL n\n", version), "OK\nQUEUED\nQUEUED\n1\n1\n1\n")
			wants("--json", prints("", version, "--json", "HGETALL", "h"), map[string]string{"-2": `["a","1","b","2","c","3"]`, "-3": `{"a":"1","b":"2","c":"3"}`}[version])
		})
	}
	wants("tracking", prints("CLIENT TRACKING ON\nGET a\nSET a 2\nPING\nGET a\n", "-3", "--no-raw", "--show-pushes", "yes"),
		"OK\n", "\"1\"\n", "-> invalidate: 'a'\n", "\"2\"\n")

	// --stat goes on until it is ended; its first lines come when there are many.
	reading, enough := context.WithCancel(ctx)
	stat := p.cli(reading, "", "--stat", "-i", "0.001")
	pipe, err := stat.StdoutPipe()
	ok(t, err)
	ok(t, stat.Start())
	lines := bufio.NewScanner(pipe)
	for i := 0; i < 3 && lines.Scan(); i++ {
		if line := lines.Text(); i == 2 && !statLine.MatchString(line) {
			t.Errorf("--stat: %q", line)
		}
	}
	ok(t, lines.Err())
	enough()
	_ = stat.Wait() // it was killed
}
