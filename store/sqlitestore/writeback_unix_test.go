//go:build unix

package sqlitestore

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// The descriptor must be SQLite's own, found again when its number has come to mean
// another file, and nothing may be opened: a close would give up SQLite's locks.
func TestWritebackGoesThroughSQLitesOwnDescriptor(t *testing.T) {
	s := openStore[string, string](t, newPath(t), Options{})
	if _, err := commitOne(s, lockstep.Change[string, string]{Key: "k", Value: "v"}); err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(s.db.Path())
	if err != nil {
		t.Fatal(err)
	}
	refersTo := func(fd int) bool {
		var st syscall.Stat_t
		sys := want.Sys().(*syscall.Stat_t)
		return syscall.Fstat(fd, &st) == nil && st.Ino == sys.Ino && st.Dev == sys.Dev
	}
	w := writeback{path: s.db.Path()}
	w.flush()
	if w.fd == 0 || !refersTo(w.fd) {
		t.Fatalf("the descriptor found, %d, is not of the database file", w.fd)
	}

	other, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	w.fd = int(other.Fd())
	w.flush()
	if w.fd == int(other.Fd()) || !refersTo(w.fd) {
		t.Errorf("with the number taken by another file, the descriptor found is %d", w.fd)
	}

	w = writeback{path: filepath.Join(t.TempDir(), "nowhere")}
	w.flush()
	if w.fd != 0 {
		t.Errorf("a file that is not there has the descriptor %d", w.fd)
	}
}
