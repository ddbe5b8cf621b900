// Command paired runs the benchmarks round after round, and prints how one
// rival compares with the others of the same case. Each ratio is between two
// results of one round, which ran one after the other; of all rounds it prints
// the median, the lowest and the highest.
//
// What it prints goes to a file in results too, with what every round measured.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("paired: ")
	var (
		pattern   = flag.String("bench", ".", "`pattern` of the benchmarks to run, as for go test")
		rounds    = flag.Int("rounds", 5, "how often each of them is run")
		benchtime = flag.String("benchtime", "2s", "how long each runs in a round, as for go test")
		subject   = flag.String("subject", "lockstep", "the `rival` that is compared with the others")
		results   = flag.String("results", "results", "`directory` for the results")
	)
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}

	if err := measure(*pattern, *benchtime, *subject, *results, *rounds); err != nil {
		log.Fatal(err)
	}
}

// measure runs the benchmarks and writes the report.
func measure(pattern, benchtime, subject, results string, rounds int) error {
	dir, err := os.MkdirTemp("", "paired-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "bench.test")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return err
	}

	started, commit := time.Now().UTC(), checkedOut()
	var raw bytes.Buffer
	var m measurements
	for round := range rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, rounds)
		fmt.Fprintf(&raw, "\nround %d\n", round+1)
		var out bytes.Buffer
		run := exec.Command(program, "-test.run=^$", "-test.bench="+pattern,
			"-test.benchtime="+benchtime, "-test.timeout=0")
		run.Stdout = io.MultiWriter(&out, &raw, os.Stderr)
		run.Stderr = os.Stderr
		if err := run.Run(); err != nil {
			return err
		}
		m.add(round, out.String())
	}
	if len(m.order) == 0 {
		return fmt.Errorf("no benchmark matches %s", pattern)
	}

	var report bytes.Buffer
	fmt.Fprintf(&report, "date     %s\n", started.Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(&report, "machine  %s, %d cores, %s/%s, database on %s\n",
		m.cpu, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, filesystem(databaseDir()))
	fmt.Fprintf(&report, "go       %s\n", runtime.Version())
	fmt.Fprintf(&report, "commit   %s\n", commit)
	fmt.Fprintf(&report, "command  cd bench && go run ./paired -bench '%s' -rounds %d -benchtime %s\n\n",
		pattern, rounds, benchtime)
	m.report(&report, subject)
	if _, err := os.Stdout.Write(report.Bytes()); err != nil {
		return err
	}

	if err := os.MkdirAll(results, 0o755); err != nil {
		return err
	}
	name := started.Format("2006-01-02-1504") + "-" + strings.Fields(commit)[0] + ".txt"
	file := filepath.Join(results, name)
	fmt.Fprintf(os.Stderr, "written to %s\n", file)
	return os.WriteFile(file, append(report.Bytes(), raw.Bytes()...), 0o644)
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

// databaseDir is where the benchmarks keep their databases.
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
