package main

import (
	"encoding/json"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionNamesGoAndPlatform(t *testing.T) {
	stdout, stderr, status := command(t, "version")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, on standard error %q", status, stderr)
	}
	if strings.Count(stdout, "\n") != 1 {
		t.Errorf("not one line: %q", stdout)
	}
	for _, part := range []string{"lockstep ", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH} {
		if !strings.Contains(stdout, part) {
			t.Errorf("%q is not in %q", part, stdout)
		}
	}
}

func TestVersionAsJSON(t *testing.T) {
	stdout, _, status := command(t, "version", "--json")
	if status != 0 {
		t.Fatalf("status %d", status)
	}
	var got build
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	if info, _ := debug.ReadBuildInfo(); got != describe(info) {
		t.Errorf("got %+v", got)
	}
}

func TestVersionOfEachKindOfBuild(t *testing.T) {
	suffix := ", " + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH
	checkout := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef0123"},
			{Key: "vcs.time", Value: "2026-11-21T10:00:00Z"},
			{Key: "vcs.modified", Value: modified},
		}
	}
	for _, c := range []struct {
		name string
		info *debug.BuildInfo
		want string
	}{
		{"without information", nil, "lockstep devel, commit unknown (built without -buildvcs)"},
		{"from a directory that is no checkout",
			&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "lockstep devel, commit unknown (built without -buildvcs)"},
		{"of a release", &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "lockstep v1.2.3"},
		{"from a clean checkout", &debug.BuildInfo{Settings: checkout("false")},
			"lockstep devel, commit 0123456789ab"},
		{"from a changed checkout", &debug.BuildInfo{Settings: checkout("true")},
			"lockstep devel, commit 0123456789ab with changes"},
	} {
		if got := describe(c.info).String(); got != c.want+suffix {
			t.Errorf("%s: %q, want %q", c.name, got, c.want+suffix)
		}
	}
}
