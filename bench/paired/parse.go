package main

import (
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/lockstep-cache/lockstep/bench/internal/report"
)

// measurements are the results of all rounds.
type measurements struct {
	report.Contests
	cpu string
}

var procs = regexp.MustCompile(`-\d+$`)

// add reads what the benchmarks printed in a round. The last part of a benchmark's
// name is the rival; where rivals take turns in one benchmark, all of its name is
// the case, and a unit is rival:unit.
func (m *measurements) add(round int, output string) {
	for line := range strings.Lines(output) {
		if cpu, ok := strings.CutPrefix(line, "cpu: "); ok {
			m.cpu = strings.TrimSpace(cpu)
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := procs.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
		parent, last := path.Split(name)
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				continue
			}
			if rival, unit, both := strings.Cut(fields[i+1], ":"); both {
				m.Add(round, name, rival, unit, value)
			} else {
				m.Add(round, strings.TrimSuffix(parent, "/"), last, fields[i+1], value)
			}
		}
	}
}
