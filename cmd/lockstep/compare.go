package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/compare"
)

// compareVerb is lockstep compare.
type compareVerb struct {
	Store    storeFlag     `placeholder:"URL" help:"Compare on this database: ${stores}. The tables are made for the run, and removed afterwards. Without it, a temporary file."`
	Duration time.Duration `default:"1m" help:"How long to measure, all patterns together; what is around it takes about as long again as a third of that."`
	Patterns []string      `placeholder:"LIST" help:"Which patterns to compare, with commas between them; default all of those above."`
	Writes   float64       `default:"0.1" help:"The part of the calls that write, from 0 to 1."`
	Clients  int           `default:"16" help:"How many clients call at once."`
	Keys     int           `default:"10000" help:"How many rows there are."`
	Memory   int           `default:"2000" help:"How many rows memory may have."`
	TTL      time.Duration `name:"ttl" default:"250ms" help:"How long memory may answer for a row; short, so that rows are loaded while they are written."`
	Skew     float64       `default:"1.1" help:"The exponent of Zipf's law, above 1, by which keys are drawn."`
	Seed     *uint64       `placeholder:"N" help:"What the clients' calls are drawn from; default: at random."`
	HTML     string        `name:"html" placeholder:"FILE" help:"Draw the curves, in one page that needs nothing else."`
	JSON     bool          `name:"json" help:"The report as one JSON object, and nothing else."`
}

// Help is the long help.
func (compareVerb) Help() string {
	var b strings.Builder
	b.WriteString("Runs the same workload through each pattern of caching, on a real database: what calls take, how many of them memory answers, how many reads are older than a write that had been acknowledged, and, after a SIGKILL in the middle, how many acknowledged writes the database does not have.\n\nThe patterns:\n")
	for _, name := range compare.Patterns() {
		fmt.Fprintf(&b, "\n  %s: %s", name, compare.About(name))
	}
	return b.String()
}

func (v compareVerb) Run(ctx context.Context, out io.Writer, progress standardError) (err error) {
	o := compare.Options{Seed: rand.Uint64N(1 << 32), Patterns: v.Patterns}
	if v.Seed != nil {
		o.Seed = *v.Seed
	}
	for i, name := range o.Patterns {
		switch {
		case !slices.Contains(compare.Patterns(), name):
			return usagef("--patterns: there is no %q; there are %s", name, strings.Join(compare.Patterns(), ", "))
		case slices.Contains(o.Patterns[:i], name):
			return usagef("--patterns: %s is there twice", name)
		}
	}
	if o.Patterns == nil {
		o.Patterns = compare.Patterns()
	}
	o.Workload = compare.Workload{
		Keys: v.Keys, Entries: v.Memory, TTL: v.TTL, Clients: v.Clients, Writes: v.Writes, Skew: v.Skew,
		Measure: v.Duration / time.Duration(len(o.Patterns)),
	}
	if err := o.Workload.Check(); err != nil {
		return usageError{err}
	}
	var page *os.File
	if v.HTML != "" {
		// Now, for the run is long, and a page that cannot be written would be found out after it.
		if page, err = os.Create(v.HTML); err != nil {
			return usagef("--html: %w", err)
		}
		defer func() { err = errors.Join(err, page.Close()) }()
	}
	dir, err := os.MkdirTemp("", "lockstep-compare-")
	if err != nil {
		return fmt.Errorf("no directory for temporary files: %w", err)
	}
	defer os.RemoveAll(dir)
	o.Journals = dir
	text := string(v.Store)
	if text == "" {
		text = onFile(filepath.Join(dir, "compare.db"))
	}
	url, err := parseStore(text)
	if err != nil {
		return err
	}
	t, err := newTarget(ctx, url, v.Store == "")
	if err != nil {
		return err
	}
	o.Target = comparison{t}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	o.Command = func() *exec.Cmd { return exec.Command(program, compareProgramName) }
	if !v.JSON {
		bar := newBar(progress.Writer)
		defer bar.end()
		o.Progress = bar.draw
	}
	report, err := compare.Run(ctx, o)
	if err != nil {
		return err
	}
	if page != nil {
		if err := report.WritePage(page); err != nil {
			return err
		}
	}
	if v.JSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return report.WriteText(out)
}

// comparison is a target as package compare needs it.
type comparison struct{ target }

func (c comparison) URL() string { return c.target.URL("") }

func (c comparison) Visit(ctx context.Context, prefix string) (compare.Visit, error) {
	g, err := c.url.visit(ctx, prefix)
	return comparedVisit{visit{g, c.url}}, err
}

// comparedVisit is a guest as package compare needs it.
type comparedVisit struct{ visit }

func (v comparedVisit) Positions(ctx context.Context, name string) (lockstep.Store[string, int64], error) {
	s, err := v.positions(ctx, name)
	return s, v.url.error(err)
}

// compareProgramVerb is the program that is measured and killed. The command starts
// itself again as that; nobody else has a use for it.
type compareProgramVerb struct{}

const compareProgramName = "compare-program"

func (compareProgramVerb) Run(ctx context.Context, out io.Writer) error {
	return compare.Program(ctx, os.Stdin, out, func(ctx context.Context, text string) (compare.Database, error) {
		url, err := parseStore(text)
		if err != nil {
			return nil, err
		}
		g, err := url.visit(ctx, "")
		return comparedVisit{visit{g, url}}, err
	})
}
