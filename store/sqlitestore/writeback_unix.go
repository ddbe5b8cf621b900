//go:build unix

package sqlitestore

import (
	"os"
	"syscall"
)

// writeback is a file whose dirty pages can be written to the disk while nobody
// waits for it, by way of a descriptor that SQLite has open: opening one of our own
// and closing it would give up every POSIX lock that this process has on the file,
// SQLite's among them.
//
// The accepted risk: the descriptor may be closed, and its number given to another
// file, between the check and the sync. Then that one is synced, which costs time.
type writeback struct {
	path string
	fd   int // where it was last; 0 before
}

// most is how many descriptors are looked through for the file.
const most = 1 << 16

// flush does nothing when the descriptor is not found. Its outcome is of no
// consequence: the sync that counts is the checkpoint's own.
func (w *writeback) flush() {
	file, err := os.Stat(w.path)
	if err != nil {
		return
	}
	want, ok := file.Sys().(*syscall.Stat_t)
	if !ok {
		return
	}
	is := func(fd int) bool {
		var st syscall.Stat_t
		return fd > 0 && syscall.Fstat(fd, &st) == nil && st.Ino == want.Ino && st.Dev == want.Dev
	}
	if !is(w.fd) {
		w.fd = 0
		for fd := 1; fd < most && w.fd == 0; fd++ {
			if is(fd) {
				w.fd = fd
			}
		}
	}
	if w.fd != 0 {
		syscall.Fsync(w.fd)
	}
}
