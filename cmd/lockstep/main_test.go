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
	for _, verb := range []string{"demo", "serve", "version", "watch"} {
		if !strings.Contains(stdout, verb) {
			t.Errorf("the help does not name %q:\n%s", verb, stdout)
		}
	}
}

func TestCommandLineThatCannotBeUnderstood(t *testing.T) {
	for _, c := range []struct {
		args  []string
		names string // what the message must name
		hint  string // whose help it points to
	}{
		{nil, "demo", "lockstep"},
		{[]string{"verzion"}, "verzion", "lockstep"},
		{[]string{"--yaml"}, "--yaml", "lockstep"},
		{[]string{"version", "now"}, "now", "lockstep version"},
		{[]string{"version", "--yaml"}, "--yaml", "lockstep version"},
		{[]string{"demo", "--scal", "2"}, "--scale", "lockstep demo"},
		{[]string{"demo", "--scale", "2", "--yaml"}, "--yaml", "lockstep demo"},
		{[]string{"demo", "--store"}, "--store", "lockstep demo"},
	} {
		stdout, stderr, status := command(t, c.args...)
		if status != exitUsage {
			t.Errorf("lockstep %v: status %d, want %d", c.args, status, exitUsage)
		}
		if stdout != "" {
			t.Errorf("lockstep %v: printed %q on standard output", c.args, stdout)
		}
		if !strings.Contains(stderr, c.names) || !strings.HasSuffix(stderr, "\n"+c.hint+" --help lists what there is.\n") {
			t.Errorf("lockstep %v: the message does not help: %q", c.args, stderr)
		}
	}
}

func TestWhatPeopleTryFirstIsUnderstood(t *testing.T) {
	for _, c := range [][2][]string{
		{{"help"}, {"--help"}},
		{{"help", "demo"}, {"demo", "--help"}},
		{{"--version"}, {"version"}},
		{{"--version", "--json"}, {"version", "--json"}},
	} {
		stdout, stderr, status := command(t, c[0]...)
		want, _, _ := command(t, c[1]...)
		if status != 0 || stderr != "" || stdout != want || want == "" {
			t.Errorf("lockstep %v: status %d, printed %q and %q, want %q", c[0], status, stdout, stderr, want)
		}
	}
}
