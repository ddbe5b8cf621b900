package compare

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// assignment is what a program is told on its standard input, in one line.
type assignment struct {
	// URL is the database's, as the command that runs the program reads it.
	URL      string
	Table    string
	Journal  string // a directory
	Pattern  string
	Workload Workload
	Seed     uint64
	// Recover: take up what the program before has left, and do nothing else.
	Recover bool
}

// record is a line of what a program tells.
type record struct {
	// Tick is what was done since the one before.
	Tick *tick `json:",omitempty"`
	// Measured is told once. What follows it are acknowledgements, until the end.
	Measured *measured `json:",omitempty"`
	// Acknowledged: the key's write of that number has been answered for.
	Acknowledged *acknowledgement `json:",omitempty"`
	// Failed says why the program cannot go on.
	Failed string `json:",omitempty"`
	// Done: what was to be recovered has been.
	Done bool `json:",omitempty"`
}

type acknowledgement struct {
	Key    int
	Number int64
}

// tick is a moment of a program's life.
type tick struct {
	At         time.Duration // since it was opened
	Operations uint64
	Stale      uint64
}

// measured is what a program has measured.
type measured struct {
	Took          time.Duration
	Reads, Writes Latency
	Hits, Misses  uint64
	Stale         uint64
	// Errors are the calls that have failed, and Error is what the first of them said.
	Errors uint64
	Error  string
	// Acknowledged is the last number of each key that was answered for.
	Acknowledged []int64
}

// teller tells whoever has started the program. Each record is one write to a pipe: it is
// there to be read from then on, whatever becomes of the program.
type teller struct {
	mu  sync.Mutex
	out io.Writer
	err error
}

func (t *teller) tell(r record) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // a record is made of numbers and texts
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		_, t.err = t.out.Write(append(line, '\n'))
	}
}

func (t *teller) broken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != nil
}

// hear reads what a program tells, until it ends. A last line that was cut off by its
// death was not told.
func hear(in io.Reader, told func(record)) error {
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("compare: what a program tells: %w", err)
		}
		told(r)
	}
}
