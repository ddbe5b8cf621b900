//go:build unix

package dbserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// supervisor runs a server, "$@", and prints its process id. When its standard
// input ends, which is when the program ends that started it, it sends the server a signal,
// has it go on in case it is suspended, and removes its directory once it is gone. When
// the server goes first, it leaves the directory alone. Which of the two it was, watch
// tells by its status; once it has signalled, the server may be gone before watch is done,
// and must not end it.
const supervisor = `
dir=$1 signal=$2
shift 2
exec 3<&0 </dev/null
"$@" 3<&- >&2 &
server=$!
(read -r _ <&3; trap '' TERM; kill -s "$signal" "$server"; kill -s CONT "$server"; exit 0) >&2 &
watch=$!
exec 3<&-
echo "$server"
wait "$server"
kill "$watch" 2>/dev/null
if wait "$watch"; then rm -rf "$dir"; fi
`

// process is a server's first process, under its supervisor.
type process struct {
	pid  int
	cmd  *exec.Cmd
	hold *os.File      // the supervisor's standard input: closing it ends the server
	out  *os.File      // the supervisor's standard output, which ends with it
	read *bufio.Reader // out
}

func startProcess(dir, logFile, signal string, args []string) (p *process, err error) {
	cmd, err := command(context.Background(), dir, append([]string{"/bin/sh", "-c", supervisor, "supervisor", dir, signal}, args...))
	if err != nil {
		return nil, err
	}
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	stdin, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	defer stdout.Close()
	// Files, and nothing that a goroutine would have to copy.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, log
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, hold.Close(), out.Close())
	}
	p = &process{cmd: cmd, hold: hold, out: out, read: bufio.NewReader(out)}
	line, err := p.read.ReadString('\n')
	if err == nil {
		p.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the supervisor does not say what it started: %w", err), p.release())
	}
	return p, nil
}

// endedWithin tells whether the server is gone, and its supervisor with it; it
// waits that long for it.
func (p *process) endedWithin(d time.Duration) bool {
	if err := p.out.SetReadDeadline(time.Now().Add(d)); err != nil {
		return true
	}
	_, err := p.read.ReadByte()
	return err == io.EOF
}

// wait returns when the server is gone, and its supervisor with it.
func (p *process) wait() error {
	if !p.endedWithin(patience) {
		return errors.Join(errors.New("the server does not end"), p.hold.Close(), p.out.Close())
	}
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil // the supervisor's status says nothing
	}
	return errors.Join(err, p.hold.Close(), p.out.Close())
}

// release ends the server abruptly, and its directory.
func (p *process) release() error {
	if err := p.hold.Close(); err != nil {
		return err
	}
	if !p.endedWithin(patience) {
		return errors.Join(errors.New("the server does not end"), p.out.Close())
	}
	if err := p.cmd.Wait(); err != nil {
		return errors.Join(err, p.out.Close())
	}
	return p.out.Close()
}

// signal asks the server for something.
func (p *process) signal(s os.Signal) error { return syscall.Kill(p.pid, s.(syscall.Signal)) }

// kill kills the server's first process and its children. The parent is stopped
// first: so it makes no more of them, and does not tidy up after those that it
// sees die. The children die before it, because nobody would know afterwards whose
// they were.
func (p *process) kill() error {
	pid := p.pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; {
		children, err := childrenOf(pid)
		if err != nil {
			return err
		}
		if len(children) == 0 {
			return syscall.Kill(pid, syscall.SIGKILL)
		}
		for _, child := range children {
			if err := syscall.Kill(child, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				return err
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("children of process %d outlive SIGKILL: %v", pid, children)
		}
		time.Sleep(time.Millisecond)
	}
}

// suspend has the kernel run a process of the server no more until it is resumed, and
// returns when none of its threads runs: the signal alone is answered before that.
func (p *process) suspend(pid int) error {
	if err := p.toOne(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if done, err := stopped(pid); done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d runs on after SIGSTOP", pid)
		}
	}
}

// resume lets a process that was suspended go on.
func (p *process) resume(pid int) error { return p.toOne(pid, syscall.SIGCONT) }

// toOne signals a process of the server. A session's process that has ended may have given
// its number to a stranger, who is left alone.
func (p *process) toOne(pid int, s syscall.Signal) error {
	if pid != p.pid {
		children, err := childrenOf(p.pid)
		if err != nil {
			return err
		}
		if !slices.Contains(children, pid) {
			return fmt.Errorf("process %d is none of the server's: %w", pid, os.ErrProcessDone)
		}
	}
	return syscall.Kill(pid, s)
}

// command prepares a command that runs as the servers do: in a process group of
// its own, so that an interrupt from the terminal is the program's to answer. When ctx
// ends, the group is killed.
func command(ctx context.Context, dir string, args []string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Dir = dir
	cmd.Env = environment(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		uid, gid, err := nobody()
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd, nil
}

// giveAway makes the user that servers run as the owner of a file or directory.
func giveAway(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := nobody()
	if err != nil {
		return err
	}
	for above := filepath.Dir(path); ; above = filepath.Dir(above) {
		info, err := os.Stat(above)
		if err != nil {
			return err
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode()&0o001 == 0 && int(owner) != uid {
			return fmt.Errorf("servers that root starts run as nobody, who cannot reach %s; set TMPDIR", above)
		}
		if above == filepath.Dir(above) {
			return os.Chown(path, uid, gid)
		}
	}
}

// nobody is whom servers run as when root starts them, which PostgreSQL
// refuses. It is the one such user that every system has, whatever is installed.
func nobody() (uid, gid int, err error) {
	u, err := user.Lookup("nobody")
	if err != nil {
		return 0, 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}
