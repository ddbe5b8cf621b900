package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-cache/lockstep/internal/history"
	"github.com/lockstep-cache/lockstep/internal/netfault"
	"github.com/lockstep-cache/lockstep/internal/sabotage"
)

// Options is what a run is about.
type Options struct {
	Target Target
	// Server is the database's, where it was started for the run; nil otherwise.
	Server Server
	// Command is a new process that calls Program.
	Command func() *exec.Cmd
	// Seed is the first round's; each has the next one.
	Seed uint64
	// Duration is when no more rounds are begun.
	Duration time.Duration
	// Parallel is how many rounds are played at once, each with a program of its own. Most
	// of the time a round waits for something that was made slow on purpose.
	Parallel int
	// Faults are names, or "all", which leaves out what is not possible here.
	Faults []string
	// Sabotage is the name of a fault that is built in, or "".
	Sabotage string
	// Progress is where the state of the run is written, over itself if it is a Terminal.
	Progress io.Writer
	Terminal bool
}

// Target is the database that programs use.
type Target interface {
	// Name says for a person what it is.
	Name() string
	// Address is that of its server, "" if there is none.
	Address() string
	// URL is what a program is given to open the database, at another address if that is
	// not "". It may have a password in it.
	URL(address string) string
	// Visit opens the database for tables whose names begin with a prefix.
	Visit(ctx context.Context, prefix string) (Visit, error)
}

// Visit is a database with tables that are removed when one leaves.
type Visit interface {
	Table(ctx context.Context, name string) (Store, error)
	Leave(ctx context.Context) error
}

// Server is a database server that can be killed and started again, and whose processes
// can be stopped: see package dbserver.
type Server interface {
	Kill() error
	Start(ctx context.Context) error
	Processes() (first int, children []int, err error)
	Suspend(pid int) error
	Resume(pid int) error
}

// Violation is something that went wrong and that no fault explains.
type Violation struct {
	Seed   uint64
	Reason string
	ops    []*history.Op // nil if the history says nothing of it
}

func (v *Violation) Error() string { return v.Reason }

// WritePage writes the history as a page to look at; it reports whether there was
// anything to write.
func (v *Violation) WritePage(path string) (bool, error) {
	if v.ops == nil {
		return false, nil
	}
	return true, history.WriteHTML(v.ops, checkPatience, path)
}

// checkPatience is how long the check of one round may take. It takes well under a
// second as a rule.
const checkPatience = time.Minute

// judge is a run.
type judge struct {
	Options
	faults []Fault
	prefix string
	// steady is held for reading by whoever needs the server, and for writing while it is
	// not there.
	steady sync.RWMutex
	adding sync.Mutex // to the report

	rounds, operations, struck atomic.Int64
}

// Run breaks programs until its time is over, or something has gone wrong that must not.
// An error says that it could not go on; the report is of what was done until then, and
// nil if nothing was begun.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	chosen, left, err := choose(o.Faults, o.Target.Address(), o.Server != nil)
	if err != nil {
		return nil, err
	}
	if o.Sabotage != "" {
		if _, err := sabotage.Find(o.Sabotage); err != nil {
			return nil, err
		}
	}
	j := &judge{Options: o, faults: chosen, prefix: fmt.Sprintf("lockstep_verify_%08x_", rand.Uint32())}
	// Whoever is there from first to last keeps what all rounds use: a file that was not
	// there before, and the list of tables.
	first, err := o.Target.Visit(ctx, j.prefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, first.Leave(ctx)) }()
	if _, err := first.Table(ctx, j.prefix+"0"); err != nil {
		return nil, err
	}
	report = newReport(o, chosen, left)
	progress := startProgress(j, report.began)
	defer report.finish()
	defer progress.end()

	lanes, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	for range max(o.Parallel, 1) {
		running.Go(func() {
			// A lane whose time is over leaves the others to end their rounds.
			if err := j.lane(lanes, report); err != nil {
				stop(err)
			}
		})
	}
	running.Wait()
	if err := context.Cause(lanes); err != nil && !errors.Is(err, errFound) {
		report.BrokenOff = err.Error()
		return report, err
	}
	return report, nil
}

// errFound ends all lanes: there is a verdict.
var errFound = errors.New("verify: a violation was found")

// lane plays one round after the other, and checks each.
func (j *judge) lane(ctx context.Context, report *Report) error {
	var net *netfault.Proxy
	if address := j.Target.Address(); address != "" {
		var err error
		if net, err = netfault.New(address); err != nil {
			return err
		}
		defer net.Close()
	}
	for time.Since(report.began) < j.Duration {
		r, err := j.play(ctx, net)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		began := time.Now()
		if err == nil {
			err = r.check(checkPatience)
		}
		took := time.Since(began)
		j.adding.Lock()
		err = report.add(r, took, err)
		j.adding.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
