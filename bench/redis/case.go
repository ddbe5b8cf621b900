package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	connections = 50
	valueBytes  = 256
	keyCount    = 100_000
)

// contest is a case: a command, how many of it are sent at once, and between whom.
type contest struct {
	name     string
	command  string
	pipeline int
	store    string // of lockstep serve
	beside   string
	// perSecond is about what a slow machine does, by which the number of requests is
	// chosen the first time.
	perSecond float64
}

type rival struct {
	name   string
	server server
}

// cases are those whose names match.
func cases(wanted *regexp.Regexp) (chosen []*contest) {
	for _, c := range []*contest{
		{command: "GET", pipeline: 1, store: "sqlite", beside: forgetful, perSecond: 60_000},
		{command: "GET", pipeline: 16, store: "sqlite", beside: forgetful, perSecond: 300_000},
		{command: "SET", pipeline: 1, store: "sqlite", beside: durable, perSecond: 20_000},
		{command: "SET", pipeline: 16, store: "sqlite", beside: durable, perSecond: 40_000},
		{command: "SET", pipeline: 1, store: "postgres", beside: durable, perSecond: 20_000},
		{command: "SET", pipeline: 16, store: "postgres", beside: durable, perSecond: 40_000},
	} {
		c.name = fmt.Sprintf("%s/%s/pipeline=%d", c.command, c.store, c.pipeline)
		if wanted.MatchString(c.name) {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// result is what redis-benchmark has measured.
type result struct{ perSecond, p50, p99 float64 }

// run has redis-benchmark send requests for about that long.
func (c *contest) run(ctx context.Context, s server, duration time.Duration) (result, error) {
	requests := max(int(c.perSecond*duration.Seconds()), 1000)
	run := exec.CommandContext(ctx, "redis-benchmark", "-h", s.host, "-p", s.port, "--csv",
		"-c", strconv.Itoa(connections), "-d", strconv.Itoa(valueBytes), "-r", strconv.Itoa(keyCount),
		"-P", strconv.Itoa(c.pipeline), "-n", strconv.Itoa(requests), "-t", strings.ToLower(c.command))
	if s.password != "" {
		run.Env = append(run.Environ(), "REDISCLI_AUTH="+s.password)
		run.Args = append(run.Args, "-a", s.password)
	}
	out, err := run.Output()
	if err != nil {
		return result{}, fmt.Errorf("redis-benchmark: %w: %s", err, out)
	}
	return parse(string(out))
}

// parse reads what redis-benchmark --csv prints: a head, and a line.
func parse(out string) (r result, err error) {
	lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(lines) != 2 {
		return r, fmt.Errorf("redis-benchmark printed %q", out)
	}
	for i, name := range lines[0] {
		into := map[string]*float64{"rps": &r.perSecond, "p50_latency_ms": &r.p50, "p99_latency_ms": &r.p99}[name]
		if into == nil {
			continue
		}
		if *into, err = strconv.ParseFloat(lines[1][i], 64); err != nil {
			return r, fmt.Errorf("redis-benchmark printed %q", out)
		}
	}
	if r.perSecond == 0 {
		return r, fmt.Errorf("redis-benchmark printed no rate: %q", out)
	}
	return r, nil
}
