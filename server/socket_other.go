//go:build !unix

package server

import "syscall"

// writable cannot be asked here: whatever is being written is taken to wait for the peer.
func writable(syscall.RawConn) bool { return false }
