package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

// onSmallDisk runs the test again in a process that may mount a file system of
// its own, of so many kilobytes, and there it runs f. Any user may do so, in a
// user namespace.
func onSmallDisk(t *testing.T, kilobytes int, f func(dir string, grow func())) {
	alone, err := inOwnProcess(t, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	})
	if errors.Is(err, syscall.EPERM) && os.Getenv("CI") != "true" {
		t.Skip("this machine lets nobody mount a file system of their own")
	}
	if err != nil {
		t.Fatal(err)
	}
	if !alone {
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kilobytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	f(dir, func() {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%dk", 8*kilobytes)); err != nil {
			t.Fatal(err)
		}
	})
}

// A file system that is really full: what was refused is not there, what was
// acknowledged is, and with room again writes go on.
func TestFullFileSystem(t *testing.T) {
	onSmallDisk(t, 1024, func(dir string, grow func()) {
		type note struct {
			Text []byte `db:"text"`
		}
		path := filepath.Join(dir, "test.db")
		run(t, path, "CREATE TABLE notes (id TEXT NOT NULL PRIMARY KEY, text BLOB NOT NULL) WITHOUT ROWID")
		db := openAt(t, path)
		kv, err := OpenIn[string, []byte](t.Context(), db, Options{})
		if err != nil {
			t.Fatal(err)
		}
		table, err := NewTable[string, note](t.Context(), db, "notes", TableOptions{})
		if err != nil {
			t.Fatal(err)
		}
		put(t, table, "small", note{[]byte("old")})
		if n := fill(t, kv, func(b []byte) []byte { return b }); n == 0 {
			t.Error("it was full from the beginning")
		}
		put(t, kv, "small", []byte("there is room for a little"))
		fill(t, table, func(b []byte) note { return note{b} })
		_, err = commitOne(table, lockstep.Change[string, note]{Key: "small", Value: note{noise(20_000)}})
		wantError(t, err, lockstep.ErrUnavailable, "full")
		if r := get(t, table, "small"); string(r.Value.Text) != "old" {
			t.Errorf("the row that was to be replaced is %q", r.Value.Text)
		}
		grow()
		put(t, kv, "after", noise(50_000))
		put(t, table, "after", note{noise(50_000)})
	})
}

// fill writes rows until the disk is full, and checks that those that were
// acknowledged are there, and the one that was refused is not.
func fill[V any](t *testing.T, s lockstep.Store[string, V], wrap func([]byte) V) (acknowledged int) {
	t.Helper()
	for {
		outcomes, err := s.Commit(context.Background(), []lockstep.ChangeSet[string, V]{
			{Changes: []lockstep.Change[string, V]{{Key: fmt.Sprint(acknowledged), Value: wrap(noise(20_000))}}},
		})
		if err = errors.Join(err, first(outcomes)); err != nil {
			wantError(t, err, lockstep.ErrUnavailable, "full")
			break
		}
		if acknowledged++; acknowledged > 1000 {
			t.Fatal("the disk has no end")
		}
	}
	for i := range acknowledged + 1 {
		if r := get(t, s, fmt.Sprint(i)); r.Exists != (i < acknowledged) {
			t.Errorf("row %d of %d acknowledged ones: %v", i, acknowledged, r.Exists)
		}
	}
	return acknowledged
}

func first[V any](outcomes []lockstep.Outcome[V]) error {
	if len(outcomes) == 0 {
		return nil
	}
	return outcomes[0].Err
}
