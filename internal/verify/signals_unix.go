//go:build unix

package verify

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// pause stops a process until it is woken, or until the judge is gone.
func pause(p *os.Process) (wake func(), err error) {
	release, err := guard(p)
	if err != nil {
		return nil, err
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		release()
		return nil, err
	}
	return func() {
		p.Signal(syscall.SIGCONT) // or it was killed meanwhile
		release()
	}, nil
}

const guardScript = `read -r _ || kill -s CONT "$1"`

// guard has a shell wake a process when the judge is gone, which may be killed itself: a
// program that is stopped does not notice, and would be there for ever. Released, the
// shell leaves the number alone, which may be another process's by then.
func guard(p *os.Process) (release func(), err error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "guard", strconv.Itoa(p.Pid))
	judge, err := cmd.StdinPipe() // ends with this process, whatever ends it
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		judge.Write([]byte("\n")) // or the shell was killed
		cmd.Wait()
	}, nil
}

// wasKilled tells whether a process that has ended did so by a signal.
func wasKilled(p *os.ProcessState) bool { return p.ExitCode() == -1 }

// askWhere has a Go program print what its goroutines are doing, and end.
func askWhere(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }
