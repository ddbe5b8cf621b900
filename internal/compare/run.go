package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Options say what to compare, and where.
type Options struct {
	Target Target
	// Command makes the program that is measured and killed. It calls Program.
	Command func() *exec.Cmd
	// Patterns are names, each once; nil for all of them.
	Patterns []string
	Workload Workload
	Seed     uint64
	// Journals is a directory for those of write-behind, on a disk like the database's.
	Journals string
	// Progress, when set, is told what is being done, and how far the run is: a part of
	// one.
	Progress func(what string, done float64)
}

// Target is the database. Those tables that are made in it are gone when it is left.
type Target interface {
	// Name is for people. URL is for the program.
	Name() string
	URL() string
	// Visit opens it, for tables that all begin with the prefix.
	Visit(ctx context.Context, prefix string) (Visit, error)
}

// Visit is a Target that is open.
type Visit interface {
	Database
	// Leave closes the database and takes away the tables, also when ctx has ended.
	Leave(ctx context.Context) error
}

// Run takes each pattern in turn. With an error the report has what was measured until
// then.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if err := o.Workload.Check(); err != nil {
		return nil, err
	}
	names := o.Patterns
	if names == nil {
		names = Patterns()
	}
	var chosen []pattern
	for i, name := range names {
		p, err := find(name)
		if err != nil {
			return nil, fmt.Errorf("compare: %w", err)
		}
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("compare: pattern %q is there twice", name)
		}
		chosen = append(chosen, p)
	}
	prefix := fmt.Sprintf("lockstep_compare_%08x_", rand.Uint32())
	v, err := o.Target.Visit(ctx, prefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Leave(ctx)) }()
	report = newReport(o)
	for i, p := range chosen {
		r := &run{Options: o, pattern: p, visit: v, table: prefix + fmt.Sprint(i), journal: filepath.Join(o.Journals, fmt.Sprint(i)), progress: func(part float64) {
			if o.Progress != nil {
				o.Progress(p.name, (float64(i)+part)/float64(len(chosen)))
			}
		}}
		result, err := r.play(ctx)
		if err != nil {
			return report, fmt.Errorf("compare: %s: %w", p.name, err)
		}
		report.Patterns = append(report.Patterns, result)
	}
	return report, nil
}

// run is one pattern's.
type run struct {
	Options
	pattern  pattern
	visit    Visit
	table    string
	journal  string
	progress func(part float64)
}

const (
	// atLeast and atMost bound how long a program goes on, once it was measured, before it is
	// killed.
	atLeast, atMost = 200 * time.Millisecond, 600 * time.Millisecond
	// silence is how long a program may tell nothing.
	silence = time.Minute
)

func (r *run) play(ctx context.Context) (Result, error) {
	store, err := r.visit.Table(ctx, r.table)
	if err != nil {
		return Result{}, err
	}
	result := Result{Pattern: r.pattern.name, About: r.pattern.about}
	acknowledged, err := r.measure(ctx, &result)
	if err != nil {
		return result, err
	}
	if r.pattern.recovers {
		if err := r.recover(ctx); err != nil {
			return result, fmt.Errorf("recovering after the crash: %w", err)
		}
	}
	result.Lost, err = lost(ctx, store, acknowledged)
	return result, err
}

// measure has a program run and kills it. It returns the last number of each key that was
// acknowledged.
func (r *run) measure(ctx context.Context, result *Result) (acknowledged []int64, err error) {
	var (
		kill    func()
		told    bool
		expects = time.Duration(float64(r.Workload.Measure) * (1 + warmUp))
	)
	acknowledged = make([]int64, r.Workload.Keys)
	err = r.program(ctx, false, func(process func()) { kill = process }, func(rec record) error {
		switch {
		case rec.Tick != nil:
			r.progress(min(1, float64(rec.Tick.At)/float64(expects+atMost)))
			result.tick(*rec.Tick)
		case rec.Measured != nil:
			told = true
			for key, number := range rec.Measured.Acknowledged[:min(len(acknowledged), len(rec.Measured.Acknowledged))] {
				acknowledged[key] = max(acknowledged[key], number)
			}
			result.measured(*rec.Measured)
			wait := atLeast + time.Duration(rand.Int64N(int64(atMost-atLeast)))
			time.AfterFunc(wait, kill)
		case rec.Acknowledged != nil: // the first of them before what was measured
			a := rec.Acknowledged
			if a.Key < 0 || a.Key >= len(acknowledged) {
				return fmt.Errorf("a write of key %d was told", a.Key)
			}
			acknowledged[a.Key] = max(acknowledged[a.Key], a.Number)
			result.AfterMeasured++
		}
		return nil
	})
	if err == nil && !told {
		err = errors.New("the program ended before it was measured")
	}
	for _, number := range acknowledged {
		result.Acknowledged += uint64(number)
	}
	return acknowledged, err
}

// recover runs a program that takes up what a crash has left.
func (r *run) recover(ctx context.Context) error {
	done := false
	err := r.program(ctx, true, func(func()) {}, func(rec record) error {
		done = done || rec.Done
		return nil
	})
	if err == nil && !done {
		err = errors.New("the program ended before it was done")
	}
	return err
}

// program runs a program until it ends, or is killed. began is told how to kill it.
func (r *run) program(ctx context.Context, recover bool, began func(kill func()), told func(record) error) error {
	line, err := json.Marshal(assignment{
		URL: r.Target.URL(), Table: r.table, Journal: r.journal, Pattern: r.pattern.name, Workload: r.Workload, Seed: r.Seed, Recover: recover,
	})
	if err != nil {
		return err
	}
	cmd := r.Command()
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(append(line, '\n')), &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var (
		mu     sync.Mutex
		killed bool
		hung   bool
		failed error
	)
	kill := func() {
		mu.Lock()
		defer mu.Unlock()
		killed = true
		cmd.Process.Kill()
	}
	began(kill)
	defer context.AfterFunc(ctx, kill)()
	quiet := time.AfterFunc(silence, func() {
		mu.Lock()
		hung = true
		mu.Unlock()
		kill()
	})
	defer quiet.Stop()
	heardErr := hear(out, func(rec record) {
		quiet.Reset(silence)
		if rec.Failed != "" {
			failed = errors.New(rec.Failed)
		}
		if err := told(rec); err != nil && failed == nil {
			failed = err
			kill()
		}
	})
	// What it has told is read to its end, and Wait closes the pipe.
	_, _ = io.Copy(io.Discard, out)
	ended := cmd.Wait()
	mu.Lock()
	defer mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case hung:
		return fmt.Errorf("the program told nothing for %v", silence)
	case failed != nil:
		return failed
	case heardErr != nil:
		return heardErr
	case ended != nil && !killed:
		return fmt.Errorf("the program: %w\n%s", ended, strings.TrimSpace(said.String()))
	}
	return nil
}

// lost counts the acknowledged writes that the table does not have.
func lost(ctx context.Context, store Store, acknowledged []int64) (lost uint64, err error) {
	for from := 0; from < len(acknowledged); from += fillAtOnce {
		keys := make([]int, 0, fillAtOnce)
		for key := from; key < min(len(acknowledged), from+fillAtOnce); key++ {
			keys = append(keys, key)
		}
		var rows map[int]lockstep.Row[int64]
		if rows, err = store.Load(ctx, keys); err != nil {
			return 0, err
		}
		for _, key := range keys {
			row := rows[key]
			if !row.Exists {
				row.Value = -1
			}
			lost += uint64(max(0, acknowledged[key]-row.Value))
		}
	}
	return lost, nil
}
