package main

import (
	"strings"
	"testing"
)

// command runs lockstep and returns what it printed and its exit status.
func command(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, err strings.Builder
	status = run(t.Context(), args, &out, &err)
	return out.String(), err.String(), status
}

func TestHelpNamesEveryVerbAndSucceeds(t *testing.T) {
	stdout, stderr, status := command(t, "--help")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, on standard error %q", status, stderr)
	}
	for _, verb := range []string{"demo", "version"} {
		if !strings.Contains(stdout, verb) {
			t.Errorf("the help does not name %q:\n%s", verb, stdout)
		}
	}
}

func TestCommandLineThatCannotBeUnderstood(t *testing.T) {
	for _, c := range []struct {
		args  []string
		names string // what the message must name
	}{
		{nil, "version"},
		{[]string{"verzion"}, "verzion"},
		{[]string{"version", "now"}, "now"},
		{[]string{"version", "--yaml"}, "--yaml"},
	} {
		stdout, stderr, status := command(t, c.args...)
		if status != exitUsage {
			t.Errorf("lockstep %v: status %d, want %d", c.args, status, exitUsage)
		}
		if stdout != "" {
			t.Errorf("lockstep %v: printed %q on standard output", c.args, stdout)
		}
		if !strings.Contains(stderr, c.names) || !strings.Contains(stderr, "lockstep --help") {
			t.Errorf("lockstep %v: the message does not help: %q", c.args, stderr)
		}
	}
}
