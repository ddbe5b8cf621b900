// Command soak keeps a cache under full load for a long time, with a bound of memory far
// below the rows that are asked for, and looks whether anything grows: it samples the live
// heap, the resident memory and the goroutines once a second, and of the last two thirds of
// the run it prints how much each has grown along its least-squares line, relative to its
// mean. One that has grown by more than 1 % of the heap or of the goroutines is a leak
// until the contrary is shown: the exit status is 1.
//
// What it prints goes to a file in results too.
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
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/bench/internal/report"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("soak: ")
	store := flag.String("store", "sqlite", "the `database`: "+strings.Join(storeNames(), ", "))
	duration := flag.Duration("duration", 30*time.Minute, "how long the load lasts")
	results := flag.String("results", "results", "`directory` for the results")
	l := fullLoad
	flag.IntVar(&l.keys, "keys", l.keys, "how many keys are asked for")
	flag.IntVar(&l.entries, "entries", l.entries, "the bound of memory")
	flag.IntVar(&l.readers, "readers", l.readers, "goroutines that read")
	flag.IntVar(&l.writers, "writers", l.writers, "goroutines that write")
	flag.Parse()
	if flag.NArg() > 0 || l.check() != nil || *duration < leastSamples*time.Second || stores[*store] == nil {
		fmt.Fprintln(flag.CommandLine.Output(), errors.Join(l.check(),
			fmt.Errorf("a run takes a store (%s) and at least %d seconds", strings.Join(storeNames(), ", "), leastSamples)))
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	command := "go run ./soak " + strings.Join(os.Args[1:], " ")
	if err := soak(ctx, *store, l, *duration, *results, strings.TrimSpace(command)); err != nil {
		stop()
		log.Fatal(err)
	}
}

// soak runs the load over a store, and writes the report. What has grown is an error.
func soak(ctx context.Context, name string, l load, duration time.Duration, results, command string) (err error) {
	origin := report.Now(command)
	store, dir, end, err := stores[name].open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	origin.Dir = dir
	r, err := run(ctx, store, l, duration)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprintln(&text, origin)
	verdict := r.report(&text)
	_, err = os.Stdout.Write(text.Bytes())
	return errors.Join(verdict, err, origin.Write(results, "soak-"+name, text.Bytes()))
}

// run puts the load on a cache over the store, and returns what was seen of it. A call
// that fails ends it, and so does ctx; the cache is compared with the table at the end.
func run(ctx context.Context, store lockstep.Store[string, []byte], l load, duration time.Duration) (*record, error) {
	cache, err := lockstep.New(store, lockstep.Options[string, []byte]{MaxEntries: l.entries, TTL: copyLives})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "filling the table with %.0f rows\n", present*float64(l.keys))
	if err := l.fill(ctx, cache); err != nil {
		return nil, errors.Join(err, cache.Close(context.Background()))
	}
	w := l.start(cache)
	r := record{load: l}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	began := time.Now()
	for err == nil && time.Since(began) < duration {
		select {
		case <-ticker.C:
			r.add(sampleOf(cache, w, time.Since(began)))
			if n := len(r.samples); n%10 == 0 {
				fmt.Fprintf(os.Stderr, "%s of %v\n", r.samples[n-1], duration)
			}
		case err = <-w.failed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	w.stop()
	select { // one that failed while the others ended
	case failure := <-w.failed:
		err = errors.Join(err, failure)
	default:
	}
	// Not under ctx, whose end is no reason to leave the database in the middle of things.
	last, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err == nil {
		var audit lockstep.AuditReport[string, []byte]
		audit, err = cache.Audit(last)
		if n := len(audit.Differences); n > 0 {
			err = errors.Join(err, fmt.Errorf("memory is not what the table holds: %d of %d copies, the first of %q", n, audit.Entries, audit.Differences[0].Key))
		}
		r.audited, r.stats, r.calls = audit.Entries, cache.Stats(), w.calls()
	}
	return &r, errors.Join(err, cache.Close(last))
}
