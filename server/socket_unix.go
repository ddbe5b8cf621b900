//go:build unix

package server

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// writable tells whether a socket would take more bytes, or is broken, which a write finds out.
func writable(raw syscall.RawConn) bool {
	yes := true
	_ = raw.Control(func(fd uintptr) {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(polled, 0)
		yes = err != nil || n > 0
	})
	return yes
}
