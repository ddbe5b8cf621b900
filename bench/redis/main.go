// Command redis holds lockstep serve beside Redis, with Redis's own redis-benchmark: 50
// connections, values of 256 bytes, 100,000 keys, all of which are there. GET is beside a
// Redis without an append-only file; SET, which is committed when it is answered, beside
// one that syncs its file before it answers. Both plain and pipelined by 16, over SQLite
// and over PostgreSQL.
//
// Rivals of one case run one after the other, and all cases in rounds; each ratio is
// between two results of one round. Whoever does not run is idle. What it prints goes to a
// file in results too.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/lockstep-cache/lockstep/bench/internal/report"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("redis: ")
	rounds := flag.Int("rounds", 5, "how often each case is run")
	duration := flag.Duration("duration", 3*time.Second, "about how long each rival runs in a round")
	pattern := flag.String("case", ".", "`pattern` of the cases to run, such as SET/sqlite")
	results := flag.String("results", "results", "`directory` for the results")
	flag.Parse()
	wanted, err := regexp.Compile(*pattern)
	if err != nil || flag.NArg() > 0 || *rounds < 1 || *duration < time.Second {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := compare(ctx, wanted, *rounds, *duration, *results); err != nil {
		stop()
		log.Fatal(err)
	}
}

// compare starts the servers, runs the rounds and writes the report.
func compare(ctx context.Context, wanted *regexp.Regexp, rounds int, duration time.Duration, results string) (err error) {
	origin := report.Now(fmt.Sprintf("go run ./redis -rounds %d -duration %v -case '%s'", rounds, duration, wanted))
	chosen := cases(wanted)
	if len(chosen) == 0 {
		return fmt.Errorf("no case matches %s", wanted)
	}
	servers, err := start(ctx, chosen)
	defer func() { err = errors.Join(err, servers.end()) }()
	if err != nil {
		return err
	}
	var m report.Contests
	for round := range rounds {
		for _, c := range chosen {
			for _, rival := range []rival{{"redis", servers.at[c.beside]}, {"lockstep", servers.at[c.store]}} {
				fmt.Fprintf(os.Stderr, "round %d of %d: %s, %s\n", round+1, rounds, c.name, rival.name)
				r, err := c.run(ctx, rival.server, duration)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", c.name, rival.name, err)
				}
				m.Add(round, c.name, rival.name, "requests/s", r.perSecond)
				m.Add(round, c.name, rival.name, "p50-ms", r.p50)
				m.Add(round, c.name, rival.name, "p99-ms", r.p99)
			}
		}
	}
	var text bytes.Buffer
	fmt.Fprintln(&text, origin)
	m.Report(&text, "lockstep")
	if _, err := os.Stdout.Write(text.Bytes()); err != nil {
		return err
	}
	return origin.Write(results, "redis", text.Bytes())
}
