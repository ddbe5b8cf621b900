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

	"github.com/lockstep-cache/lockstep/bench/internal/report"
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

	origin := report.Now(fmt.Sprintf("go run ./paired -bench '%s' -rounds %d -benchtime %s", pattern, rounds, benchtime))
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
		run.Env = append(os.Environ(), fmt.Sprint(report.RoundVariable, "=", round))
		if err := run.Run(); err != nil {
			return err
		}
		m.add(round, out.String())
	}
	if m.Len() == 0 {
		return fmt.Errorf("no benchmark matches %s", pattern)
	}

	origin.CPU = m.cpu
	var text bytes.Buffer
	fmt.Fprintln(&text, origin)
	m.Report(&text, subject)
	if _, err := os.Stdout.Write(text.Bytes()); err != nil {
		return err
	}
	return origin.Write(results, "", append(text.Bytes(), raw.Bytes()...))
}
