package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// versionVerb is lockstep version.
type versionVerb struct {
	JSON bool `name:"json" help:"As one JSON object."`
}

func (v versionVerb) Run(out io.Writer) error {
	info, _ := debug.ReadBuildInfo()
	made := describe(info)
	if v.JSON {
		return json.NewEncoder(out).Encode(made)
	}
	_, err := fmt.Fprintln(out, made)
	return err
}

const devel = "devel"

// build says how this program was made.
type build struct {
	// Version is the module's, devel when it was built from a checkout without
	// one.
	Version string `json:"version"`
	// Commit and CommitTime are those of the checkout, empty for a build that
	// does not know them.
	Commit     string `json:"commit,omitempty"`
	CommitTime string `json:"commit_time,omitempty"`
	// Modified says that the checkout had changes which were not committed.
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// describe reads what the linker wrote into the program; info may be nil.
func describe(info *debug.BuildInfo) build {
	b := build{
		Version:  devel,
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info == nil {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.CommitTime = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String is the version on one line. What has neither a version nor a commit says
// why: with such a build nobody can tell what it was made from.
func (b build) String() string {
	commit := ""
	switch {
	case b.Commit == "" && b.Version == devel:
		commit = ", commit unknown (built without -buildvcs)"
	case b.Commit != "":
		commit = ", commit " + b.Commit[:min(12, len(b.Commit))]
		if b.Modified {
			commit += " with changes"
		}
	}
	return fmt.Sprintf("lockstep %s%s, %s, %s", b.Version, commit, b.Go, b.Platform)
}
