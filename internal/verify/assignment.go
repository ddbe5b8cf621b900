package verify

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/internal/history"
)

// assignment is what a program is told on its standard input, in one line.
type assignment struct {
	// URL is the database's, as the command that runs the program reads it.
	URL      string
	Tables   []string
	Seed     uint64
	Faults   []Fault
	Sabotage string `json:",omitempty"`
	Life     int
	// Since is how long ago the round began, at the wall clock's time At: stamps are counted
	// from the beginning of the round. No clock that runs evenly is common to two processes;
	// a wall clock that is set between the start of one and its first line here makes its
	// stamps wrong by that.
	Since time.Duration
	At    time.Time
}

// clock is the round's, in the program.
func (a assignment) clock() history.Clock {
	now := time.Now()
	return history.RealTimeSince(now.Add(-a.Since - max(0, now.Sub(a.At))))
}

// What programs count beside faults.
const (
	hits  = "hits"
	loads = "loads"
)

// record is a line of what a program tells.
type record struct {
	Begun, Ended, Settled *history.Op `json:",omitempty"`
	// Counts are of what has happened in the program so far.
	Counts map[string]uint64 `json:",omitempty"`
	// Cannot says why the program cannot begin: the database or its tables could not be
	// opened.
	Cannot string `json:",omitempty"`
	// Done says that the program has done all that it was told, and has closed what it had
	// opened.
	Done bool `json:",omitempty"`
}

// journal tells the judge. Each record is one write to a pipe: it is there for the judge
// to read from then on, whatever becomes of the program.
type journal struct {
	mu  sync.Mutex
	out io.Writer
}

func (j *journal) Begun(op *history.Op)   { j.tell(record{Begun: op}) }
func (j *journal) Ended(op *history.Op)   { j.tell(record{Ended: op}) }
func (j *journal) Settled(op *history.Op) { j.tell(record{Settled: op}) }

func (j *journal) tell(r record) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // a struct of numbers and words
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	// A judge that is gone has no use for the program either.
	if _, err := j.out.Write(append(line, '\n')); err != nil {
		panic(fmt.Sprintf("verify: the judge does not listen any more: %v", err))
	}
}

// hear calls f with each record that a program tells, until its end. A line that was
// not written to its end, as the program was killed, is left out.
func hear(in io.Reader, f func(record)) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("verify: what the program told: %w", err)
		}
		f(r)
	}
}
