//go:build unix

package verify

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echo is a program that answers each line with the same.
func echo(t *testing.T) (cmd *exec.Cmd, answers func(line string) bool) {
	cmd = exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewReader(out)
	return cmd, func(line string) bool {
		fmt.Fprintln(in, line)
		answer, err := lines.ReadString('\n')
		return err == nil && strings.TrimSpace(answer) == line
	}
}

func TestAProgramThatWasPausedGoesOn(t *testing.T) {
	cmd, answers := echo(t)
	wake, err := pause(cmd.Process)
	if err != nil {
		t.Fatal(err)
	}
	wake()
	if !answers("awake") {
		t.Error("it does not answer")
	}
}

// A judge that is killed during a pause left the program stopped, for ever.
func TestAPausedProgramOutlivesNoJudge(t *testing.T) {
	cmd, answers := echo(t)
	shell := exec.Command("/bin/sh", "-c", guardScript, "guard", fmt.Sprint(cmd.Process.Pid))
	gone, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	gone.Close() // as the end of a process closes what it had open
	shell.Wait()
	stuck := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	if !answers("awake") {
		t.Error("it is stopped")
	}
}
