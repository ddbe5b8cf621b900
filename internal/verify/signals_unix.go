//go:build unix

package verify

import (
	"os"
	"syscall"
)

// pause stops a process until it is told to go on.
func pause(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func wake(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

// wasKilled tells whether a process that has ended did so by a signal.
func wasKilled(p *os.ProcessState) bool { return p.ExitCode() == -1 }

// askWhere has a Go program print what its goroutines are doing, and end.
func askWhere(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }
