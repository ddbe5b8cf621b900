package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/internal/sabotage"
	"github.com/lockstep-cache/lockstep/internal/verify"
)

// verifyVerb is lockstep verify.
type verifyVerb struct {
	Store    storeFlag     `placeholder:"URL" help:"Verify on this database: ${stores}. The tables are made for the run, and removed afterwards. Without --store and --start, a temporary file."`
	Start    *string       `placeholder:"KIND" help:"Start a server for the run, and break that, too: postgres or mariadb, as it is installed."`
	Faults   []string      `default:"all" placeholder:"LIST" help:"What goes wrong: all that is possible there, none, or some of those above; default all."`
	Duration time.Duration `default:"1m" help:"How long to go on."`
	Parallel int           `placeholder:"N" help:"How many programs to break at once; default twice the number of processors."`
	Seed     *uint64       `placeholder:"N" help:"What the first round is made from, and the next one is made from the next number; default: at random."`
	Sabotage *string       `placeholder:"NAME" help:"Build in a fault, to see that it is found: a name, or list to print them."`
	JSON     bool          `name:"json" help:"The report as one JSON object, and nothing else."`
	Pages    string        `default:"." placeholder:"DIR" help:"Where to draw a history that is wrong, as an HTML page; default the current directory."`
}

// Help is the long help.
func (verifyVerb) Help() string {
	return strings.TrimSpace(`
Starts programs that use Lockstep, breaks them and what they stand on, and checks that what their callers saw can be explained by one order of everything that was done: linearizability, and after each crash that every write that was acknowledged is in the database, that every one that was refused is not, and that every one nobody knows of is there as a whole or not at all.

The exit status is 0 if nothing was found, 1 if something was, 2 if it could not be told: the run could not start or was interrupted, or a history could not be checked in time.

What goes wrong, by the names that --faults takes:

` + verify.FaultsHelp())
}

// undecided is the error of a run that has no verdict.
type undecided struct{ error }

func (v verifyVerb) Run(ctx context.Context, out io.Writer, progress standardError) error {
	err := v.run(ctx, out, progress.Writer)
	if found := (violated{}); err == nil || errors.As(err, &found) || errors.As(err, new(usageError)) {
		return err
	}
	return undecided{err}
}

// violated is the error of a run that has found something.
type violated struct{}

func (violated) Error() string { return "the promise was not kept; see the report" }

func (v verifyVerb) run(ctx context.Context, out, progress io.Writer) (err error) {
	if v.Sabotage != nil && *v.Sabotage == "list" {
		for _, s := range sabotage.All() {
			fmt.Fprintln(out, s.Name)
		}
		return nil
	}
	switch {
	case v.Start != nil && v.Store != "":
		return usagef("--start and --store: one of the two")
	case v.Parallel < 0:
		return usagef("--parallel %d: it must not be below 0", v.Parallel)
	case v.Duration <= 0:
		return usagef("--duration %v: it must be above 0", v.Duration)
	}
	o := verify.Options{Duration: v.Duration, Faults: v.Faults, Seed: rand.Uint64N(1 << 32), Parallel: cmp.Or(v.Parallel, 2*runtime.GOMAXPROCS(0))}
	if v.Seed != nil {
		o.Seed = *v.Seed
	}
	if v.Sabotage != nil {
		// An empty name, as a shell makes of a variable that is not set, is not none.
		if _, err := sabotage.Find(*v.Sabotage); err != nil {
			return usageError{err}
		}
		o.Sabotage = *v.Sabotage
	}
	if !v.JSON {
		o.Progress, o.Terminal = progress, isTerminal(progress)
	}
	if at, err := os.Stat(v.Pages); err != nil || !at.IsDir() {
		return usagef("--pages %s: there is no such directory", v.Pages)
	}
	text := string(v.Store)
	switch {
	case v.Start != nil:
		server, url, err := startServer(ctx, *v.Start)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		o.Server, text = server, url
	case text == "":
		dir, err := os.MkdirTemp("", "lockstep-verify-")
		if err != nil {
			return fmt.Errorf("no directory for a temporary file: %w", err)
		}
		defer os.RemoveAll(dir)
		text = onFile(filepath.Join(dir, "verify.db"))
	}
	url, err := parseStore(text)
	if err != nil {
		return err
	}
	if o.Target, err = newTarget(ctx, url, v.Store == "" && v.Start == nil); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	o.Command = func() *exec.Cmd { return exec.Command(program, programVerbName) }

	report, err := verify.Run(ctx, o)
	if report == nil {
		return usageError{err}
	}
	for i := range report.Violations {
		found := &report.Violations[i]
		found.Replay = v.replay(url, found.Seed)
		page := filepath.Join(v.Pages, fmt.Sprintf("lockstep-verify-%d.html", found.Seed))
		written, pageErr := found.Violation.WritePage(page)
		if written && pageErr == nil {
			found.Page = page
		}
		err = errors.Join(err, pageErr)
	}
	if v.JSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err = errors.Join(err, encoder.Encode(report))
	} else {
		err = errors.Join(err, report.WriteText(out))
	}
	switch {
	case len(report.Violations) > 0:
		return errors.Join(violated{}, err)
	case err != nil:
		return err
	case len(report.Undecided) > 0:
		return fmt.Errorf("the histories of %d rounds could not be checked in time", len(report.Undecided))
	case report.Rounds == 0:
		return fmt.Errorf("no round came to its end in %v", v.Duration)
	case report.Verdict != verify.Clean:
		return errors.New("no read was answered from memory, so that nothing was verified")
	}
	return nil
}

// replay is a command that begins with the round of a seed. A password that was in the
// URL is left to who reads it.
func (v verifyVerb) replay(url storeURL, seed uint64) string {
	args := []string{"lockstep verify"}
	switch {
	case v.Start != nil:
		args = append(args, "--start", *v.Start)
	case v.Store != "":
		args = append(args, "--store", quoted(url.at.again()))
	}
	args = append(args, "--faults", strings.Join(v.Faults, ","))
	if v.Sabotage != nil {
		args = append(args, "--sabotage", *v.Sabotage)
	}
	return strings.Join(append(args, "--seed", fmt.Sprint(seed)), " ")
}

// quoted is a URL as a shell takes it. A quote in it is percent-encoded.
func quoted(arg string) string {
	if strings.Trim(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:/@%._-+=,") == "" {
		return arg
	}
	return "'" + arg + "'"
}

// target is a database as package verify needs it.
type target struct {
	url  storeURL
	name string
}

func newTarget(ctx context.Context, url storeURL, temporary bool) (target, error) {
	g, err := url.visit(ctx, fmt.Sprintf("lockstep_verify_%08x_", rand.Uint32()))
	if err != nil {
		return target{}, err
	}
	return target{url, g.database(temporary).Name}, g.leave(ctx)
}

func (t target) Name() string              { return t.name }
func (t target) Address() string           { return t.url.at.address() }
func (t target) URL(address string) string { return t.url.at.through(address) }

func (t target) Visit(ctx context.Context, prefix string) (verify.Visit, error) {
	g, err := t.url.visit(ctx, prefix)
	return visit{g, t.url}, err
}

// visit is a guest as package verify needs it.
type visit struct {
	guest
	url storeURL
}

func (v visit) Table(ctx context.Context, name string) (verify.Store, error) {
	s, err := v.integers(ctx, name)
	return s, v.url.error(err)
}

func (v visit) Leave(ctx context.Context) error { return v.leave(ctx) }
func (v visit) Close() error                    { return v.close() }

// programVerb is the program that verify breaks. The command starts itself again as
// that; nobody else has a use for it.
type programVerb struct{}

const programVerbName = "verify-program"

func (programVerb) Run(ctx context.Context, out io.Writer) error {
	return verify.Program(ctx, os.Stdin, out, func(ctx context.Context, text string) (verify.Database, error) {
		url, err := parseStore(text)
		if err != nil {
			return nil, err
		}
		g, err := url.visit(ctx, "")
		return visit{g, url}, err
	})
}
