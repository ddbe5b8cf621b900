package clients

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestIoredis runs ioredis/check.js.
func TestIoredis(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("%v: make test installs it", err)
	}
	if _, err := os.Stat(filepath.Join("ioredis", "node_modules", "ioredis")); err != nil {
		t.Fatalf("%v: make test installs it; by hand, npm ci in server/clients/ioredis", err)
	}
	inVersions(t, func(t *testing.T, version int) {
		p := serve(t)
		check := exec.CommandContext(limited(t), node, "check.js")
		check.Dir = "ioredis"
		check.Env = append(os.Environ(), "PORT="+p.port(), "PASSWORD="+password, fmt.Sprint("PROTOCOL=", version))
		var stderr strings.Builder
		check.Stderr = &stderr
		out, err := check.StdoutPipe()
		ok(t, err)
		ok(t, check.Start())
		restarts, done := 0, false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch lines.Text() {
			case "restart":
				restarts++
				p.stop()
				p.start()
			case "done":
				done = true
			default:
				t.Errorf("it says %q", lines.Text())
			}
		}
		if err := check.Wait(); err != nil || !done || restarts != 1 {
			t.Errorf("%v, %d restarts, done: %v: %s", err, restarts, done, stderr.String())
		}
	})
}
