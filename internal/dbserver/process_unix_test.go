//go:build unix

package dbserver

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A server that ended at once when it was told to had its directory left behind, now and
// then: its supervisor ended the process that had told it before that one could say so.
func TestTheDirectoryGoesWithAServerThatEndsAtOnce(t *testing.T) {
	for range 100 {
		dir, err := os.MkdirTemp("", "lockstep-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := giveAway(dir); err != nil {
			t.Fatal(err)
		}
		p, err := startProcess(dir, filepath.Join(t.TempDir(), "log"), "KILL", []string{"sleep", "1000"})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.release(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the directory is left: %v", err)
		}
	}
}
