//go:build unix

package sqlitestore

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// A program that goes on with its old connections would acknowledge what nobody
// will find again, and open new ones on another file.
func TestAFileThatWasTakenAwayTakesNoCommits(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"Removed": os.Remove,
		"Moved":   func(path string) error { return os.Rename(path, path+".moved") },
		"Replaced": func(path string) error { // as a backup is restored
			return errors.Join(os.Rename(path+".backup", path), os.Remove(path+"-wal"), os.Remove(path+"-shm"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			s := openStore[string, string](t, path, Options{})
			put(t, s, "k", "old")
			run(t, path, "VACUUM INTO '"+path+".backup'")
			if err := take(path); err != nil {
				t.Fatal(err)
			}
			for _, sound := range []bool{true, false} {
				_, err := commitOne(s, lockstep.Change[string, string]{Key: "k", Value: "new"})
				wantError(t, err, lockstep.ErrUnavailable, path)
				_, err = commitOne(s, lockstep.Change[string, string]{Key: "k", Value: "new"}, lockstep.Change[string, string]{Key: "l"})
				wantError(t, err, lockstep.ErrUnavailable, path)
				_, err = s.Capabilities().Begin(t.Context())
				wantError(t, err, lockstep.ErrUnavailable, path)
				if !sound {
					break
				}
				// As after an error of the disk: it is opened again, and makes no new file.
				s.db.release(<-s.db.writer, false)
			}
			// A reader that is opened now does not read another file.
			open := <-s.db.readers
			_, err := s.Load(t.Context(), []string{"k"})
			wantError(t, err, lockstep.ErrUnavailable, path)
			s.db.readers <- open
			if _, err := os.Stat(path); name != "Replaced" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is a new file in its place: %v", err)
			}
		})
	}
}
