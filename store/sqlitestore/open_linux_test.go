package sqlitestore

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// asNobody runs f with the file permissions of an ordinary user, also where the
// tests run as root, whom no permission stops.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setfsuid(0)
	f()
}

func TestFilesThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	run(t, path, "CREATE TABLE t (a)")
	for name, mode := range map[string]os.FileMode{path: 0o444, dir: 0o555, filepath.Dir(dir): 0o755} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Chmod(dir, 0o755) })
	open := func(path string) (err error) {
		asNobody(t, func() {
			var s *Store[string, string]
			if s, err = Open[string, string](t.Context(), path, Options{}); err == nil {
				s.Close()
			}
		})
		return err
	}
	// Both read-only; a directory that takes no log; a directory that takes no file.
	wantError(t, open(path), lockstep.ErrInvalid, "test.db")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	wantError(t, open(path), lockstep.ErrInvalid, "test.db")
	wantError(t, open(filepath.Join(dir, "new.db")), lockstep.ErrInvalid, "new.db")

	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	wantError(t, open(path), lockstep.ErrInvalid, "test.db")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := open(path); err != nil {
		t.Error(err)
	}
}
