package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// silence is for how long a program may tell nothing. No call of a client's takes a
// tenth of it.
const silence = time.Minute

// life is a program, from its start to its end.
type life struct {
	cmd *exec.Cmd
	// output is what it has printed that is meant for people.
	output *limited
	// ended is closed when nothing more is told.
	ended chan struct{}
	err   error // of reading what it told, when ended is closed
	once  sync.Once
	// killed says that it was meant to die.
	killed bool
	done   bool
	hung   atomic.Bool
	cannot string // why it cannot begin
}

// start starts a program. told is called with each record, one after the other.
func (j *judge) start(ctx context.Context, a assignment, told func(*life, record)) (*life, error) {
	l := &life{cmd: j.Command(), output: &limited{}, ended: make(chan struct{})}
	line, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	l.cmd.Stdin = bytes.NewReader(append(line, '\n'))
	l.cmd.Stderr = l.output
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	quiet := time.AfterFunc(silence, func() {
		fmt.Fprintf(l.output, "nothing was told for %v\n", silence)
		l.hung.Store(true)
		askWhere(l.cmd.Process)
	})
	end := context.AfterFunc(ctx, func() { l.cmd.Process.Kill() })
	go func() {
		defer close(l.ended)
		defer quiet.Stop()
		defer end()
		l.err = hear(out, func(r record) {
			quiet.Reset(silence)
			l.done = l.done || r.Done
			if r.Cannot != "" {
				l.cannot = r.Cannot
			}
			told(l, r)
		})
	}()
	return l, nil
}

// kill kills it at once. What it has told by then is still to be heard.
func (l *life) kill() {
	l.once.Do(func() {
		l.killed = true
		l.cmd.Process.Kill()
	})
}

// wait returns when the program has ended and all that it told was heard. Its error is
// that of a program that has ended as it should not have, also if that was in the moment
// before it would have been killed.
func (l *life) wait() error {
	<-l.ended
	err := l.cmd.Wait()
	switch {
	case l.err != nil:
		return l.err
	case l.hung.Load(): // be it in closing
		err = errors.New("it hung")
	case l.done || l.killed && wasKilled(l.cmd.ProcessState):
		return nil
	case err == nil:
		err = errors.New("it ended before it was done")
	}
	return fmt.Errorf("the program: %w\n%s", err, strings.TrimSpace(l.output.String()))
}

// limited keeps the beginning and the end of what is written to it.
type limited struct {
	mu         sync.Mutex
	head, tail []byte
	lost       bool
}

const limit = 32 << 10

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	if free := limit - len(l.head); free > 0 {
		free = min(free, len(p))
		l.head, p = append(l.head, p[:free]...), p[free:]
	}
	l.tail = append(l.tail, p...)
	if over := len(l.tail) - limit; over > 0 {
		l.tail, l.lost = append([]byte(nil), l.tail[over:]...), true
	}
	return n, nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return string(l.head) + "\n…\n" + string(l.tail)
	}
	return string(l.head) + string(l.tail)
}

var _ io.Writer = (*limited)(nil)
