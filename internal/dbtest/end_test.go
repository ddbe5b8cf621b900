package dbtest_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	osexec "os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

// TestServersEndWithTheProcess runs itself in a process of its own, which starts
// servers and ends in one way or another.
func TestServersEndWithTheProcess(t *testing.T) {
	const child = "DBTEST_CHILD"
	if os.Getenv(child) != "" {
		for _, k := range kinds {
			fmt.Println(k.database(t))
		}
		fmt.Println(dbtest.Redis(t))
		fmt.Println("started")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	for _, c := range []struct {
		how string
		end func(*osexec.Cmd, io.Closer) error
	}{
		{"killed", func(cmd *osexec.Cmd, _ io.Closer) error { return cmd.Process.Kill() }},
		{"returns", func(_ *osexec.Cmd, stdin io.Closer) error { return stdin.Close() }},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "lockstep-end-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			// The servers may run as somebody else than the test.
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			cmd := osexec.Command(os.Args[0], "-test.run=^TestServersEndWithTheProcess$")
			cmd.Env = append(os.Environ(), child+"=yes", "TMPDIR="+dir)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := ""
			var addrs []string
			for lines := bufio.NewScanner(stdout); lines.Scan() && lines.Text() != "started"; {
				said += lines.Text() + "\n"
				addrs = append(addrs, regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(lines.Text(), -1)...)
			}
			if len(addrs) != len(kinds)+1 {
				t.Errorf("the process started %d servers:\n%s", len(addrs), said)
			}
			for _, addr := range addrs {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
			if err := c.end(cmd, stdin); err != nil {
				t.Error(err)
			}
			cmd.Wait()
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				left, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				var running []string
				for _, addr := range addrs {
					if conn, err := net.Dial("tcp", addr); err == nil {
						conn.Close()
						running = append(running, addr)
					}
				}
				if len(left) == 0 && len(running) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("after the process's end there are %v, and servers at %v", left, running)
				}
			}
		})
	}
}
