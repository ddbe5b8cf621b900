// Package report says where figures come from, and writes them into a file.
package report

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Origin is what a published figure comes with.
type Origin struct {
	Started time.Time
	// CPU is the processor's name, Dir where databases are, Command what has measured.
	CPU, Dir, Command string
	commit            string
}

// Now is the origin of what is measured from now on by the command, which ran in bench.
func Now(command string) Origin {
	return Origin{Started: time.Now().UTC(), CPU: cpu(), Dir: databaseDir(), Command: command, commit: checkedOut()}
}

// String is the head of a report.
func (o Origin) String() string {
	return fmt.Sprintf("date     %s\n", o.Started.Format("2006-01-02 15:04 UTC")) +
		fmt.Sprintf("machine  %s, %d cores, %s/%s, database on %s\n",
			o.CPU, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, filesystem(o.Dir)) +
		fmt.Sprintf("go       %s\n", runtime.Version()) +
		fmt.Sprintf("commit   %s\n", o.commit) +
		fmt.Sprintf("command  cd bench && %s\n", o.Command)
}

// Write writes a report into a new file in a directory, named for the origin and, if it is
// not empty, for what was measured.
func (o Origin) Write(dir, what string, report []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := o.Started.Format("2006-01-02-1504") + "-" + strings.Fields(o.commit)[0]
	if what != "" {
		name += "-" + what
	}
	file := filepath.Join(dir, name+".txt")
	fmt.Fprintf(os.Stderr, "written to %s\n", file)
	return os.WriteFile(file, report, 0o644)
}

// checkedOut names the commit that is checked out, and says if files of it were
// changed.
func checkedOut() string {
	hash, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	changed, _ := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output()
	if len(changed) > 0 {
		return strings.TrimSpace(string(hash)) + " with changes"
	}
	return strings.TrimSpace(string(hash))
}

// cpu is what go test calls the processor, on Linux at least.
func cpu() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "an unknown processor"
}

// databaseDir is where databases are kept.
func databaseDir() string {
	if dir := os.Getenv("BENCH_DIR"); dir != "" {
		return dir
	}
	return os.TempDir()
}

// filesystem names the kind of file system that holds dir. A figure for durable
// writes says little without it.
func filesystem(dir string) string {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "an unknown file system"
	}
	kind, longest := "an unknown file system", 0
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		mount := strings.TrimSuffix(fields[1], "/") + "/"
		if strings.HasPrefix(dir+"/", mount) && len(mount) >= longest {
			kind, longest = fields[2], len(mount)
		}
	}
	return kind
}
