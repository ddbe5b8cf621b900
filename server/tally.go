package server

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"
)

// What is counted of commands must not slow them. A connection counts for itself while it
// runs the same command again and again, and looks at the clock when another one begins,
// or when all that came together has been run: a pipeline of GETs is two looks, which
// would otherwise be a quarter of a GET. So the time of a command is exact as a sum; and
// SLOWLOG, which is about single requests, has a line for a run of them.

// stripes is how many sets of counters there are, among which connections are divided, so
// that two cores seldom write to the same place.
const stripes = 16

// stripe is the counters of some of the connections.
type stripe struct {
	commands      []callCount   // by command.number
	in, out       atomic.Uint64 // bytes
	reads, writes atomic.Uint64
	_             [64]byte
}

// callCount is what is counted of a command: calls, those of them that answered with an
// error, requests that were refused before they were run (arguments, password, user), and
// the time of all calls in nanoseconds.
type callCount struct{ calls, failed, rejected, nanos atomic.Uint64 }

// counts is what a server counts.
type counts struct {
	stripes  [stripes]stripe
	accepted atomic.Uint64 // connections
	rejected atomic.Uint64 // connections, of which there were too many
	shakes   atomic.Uint64 // TLS handshakes that failed
	closed   [closings]atomic.Uint64

	mu     sync.Mutex
	errors map[string]uint64 // error replies, by code
}

// closing is why the server has closed a connection whose peer was there.
type closing int

const (
	closedIdle     closing = iota // Options.IdleTimeout
	closedDrip                    // Options.RequestTimeout
	closedStranger                // Options.AuthTimeout
	closedUnread                  // Options.WriteTimeout
	closedOutput                  // Options.OutputLimit
	closedSlow                    // Options.InvalidationTimeout
	closedLate                    // see lateness
	closings
)

// String is what INFO and the metrics call it.
func (c closing) String() string {
	return [closings]string{"idle", "request_timeout", "auth_timeout", "write_timeout", "output_limit", "invalidation_timeout", "invalidations_late"}[c]
}

// otherErrors is the code of errors that are there when there are too many codes already.
const otherErrors, mostCodes = "OTHER", 128

func (n *counts) init() {
	for i := range n.stripes {
		n.stripes[i].commands = make([]callCount, commands.size)
	}
	n.errors = map[string]uint64{}
}

// failed counts an error reply, which begins with its code.
func (n *counts) failed(reply []byte) {
	end := bytes.IndexAny(reply, " \r")
	if end < 0 {
		end = len(reply)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.errors[string(reply[:end])]; !known && len(n.errors) >= mostCodes {
		n.errors[otherErrors]++
		return
	}
	n.errors[string(reply[:end])]++
}

// tally is what a connection has counted and not handed over: calls of one command.
type tally struct {
	cmd   *command
	args  [][]byte // of the last call
	calls uint64
	since int64 // by nanos
	ran   bool  // whether the request that is being answered got as far as being run
}

var started = time.Now()

// nanos is a clock that is quick to look at.
func nanos() int64 { return int64(time.Since(started)) }

// begin is told of each command that is run by itself.
func (c *conn) begin(cmd *command, args [][]byte) {
	t := &c.tally
	t.args, t.ran = args, true
	if t.cmd != cmd {
		now := nanos()
		c.settleAt(now)
		t.cmd, t.since = cmd, now
	}
	t.calls++
}

// settle hands over what was counted.
func (c *conn) settle() {
	if c.tally.cmd != nil {
		c.settleAt(nanos())
	}
}

func (c *conn) settleAt(now int64) {
	t := &c.tally
	if t.cmd == nil {
		return
	}
	n := &c.counts.commands[t.cmd.number]
	n.calls.Add(t.calls)
	n.nanos.Add(uint64(now - t.since))
	c.server.slow.note(c, t.cmd, t.args, t.calls, time.Duration(now-t.since))
	t.cmd, t.args, t.calls = nil, nil, 0
}

// answered looks at the reply to a request: whether it is an error, and whether the
// command was run.
func (c *conn) answered(container, cmd *command, reply []byte) {
	ran := c.tally.ran
	c.tally.ran = false
	if len(reply) == 0 || reply[0] != '-' {
		return
	}
	c.server.counts.failed(reply[1:])
	if cmd == nil {
		cmd = container
	}
	switch {
	case cmd == nil:
	case ran:
		c.counts.commands[cmd.number].failed.Add(1)
	default:
		c.counts.commands[cmd.number].rejected.Add(1)
	}
}

// countMember counts a request of a run of writes, which has been answered.
func (c *conn) countMember(m *member) {
	n := &c.counts.commands[m.cmd.number]
	n.calls.Add(1)
	n.nanos.Add(uint64(m.took))
	if reply := m.reply.Bytes(); len(reply) > 0 && reply[0] == '-' {
		n.failed.Add(1)
		c.server.counts.failed(reply[1:])
	}
	c.server.slow.note(c, m.cmd, m.args, 1, m.took)
}

// executed counts a command of an EXEC. Its time is EXEC's.
func (c *conn) executed(cmd *command, reply []byte) {
	n := &c.counts.commands[cmd.number]
	n.calls.Add(1)
	if len(reply) > 0 && reply[0] == '-' {
		n.failed.Add(1)
		c.server.counts.failed(reply[1:])
	}
}

// counted is the connection as its reader sees it: what comes is counted.
type counted struct{ c *conn }

func (r counted) Read(b []byte) (int, error) {
	n, err := r.c.nc.Read(b)
	r.c.counts.in.Add(uint64(n))
	r.c.counts.reads.Add(1)
	return n, err
}

// callTotal is a callCount as it was at some moment.
type callTotal struct{ calls, failed, rejected, nanos uint64 }

// totals is what a server has counted until some moment.
type totals struct {
	commands                   []callTotal // by command.number
	calls                      uint64
	in, out, reads, writes     uint64
	accepted, rejected, shakes uint64
	closed                     [closings]uint64
	errors                     map[string]uint64
}

func (n *counts) totals() totals {
	t := totals{commands: make([]callTotal, commands.size), accepted: n.accepted.Load(), rejected: n.rejected.Load(), shakes: n.shakes.Load(), errors: map[string]uint64{}}
	for i := range n.stripes {
		s := &n.stripes[i]
		for j := range s.commands {
			from, to := &s.commands[j], &t.commands[j]
			calls := from.calls.Load()
			t.calls += calls
			to.calls += calls
			to.failed += from.failed.Load()
			to.rejected += from.rejected.Load()
			to.nanos += from.nanos.Load()
		}
		t.in += s.in.Load()
		t.out += s.out.Load()
		t.reads += s.reads.Load()
		t.writes += s.writes.Load()
	}
	for why := range n.closed {
		t.closed[why] = n.closed[why].Load()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for code, count := range n.errors {
		t.errors[code] = count
	}
	return t
}

// since is what was counted after b was.
func (t totals) since(b totals) totals {
	if b.commands == nil {
		return t
	}
	for i := range t.commands {
		c, old := &t.commands[i], b.commands[i]
		c.calls, c.failed, c.rejected, c.nanos = c.calls-old.calls, c.failed-old.failed, c.rejected-old.rejected, c.nanos-old.nanos
	}
	t.calls -= b.calls
	t.in, t.out, t.reads, t.writes = t.in-b.in, t.out-b.out, t.reads-b.reads, t.writes-b.writes
	t.accepted, t.rejected, t.shakes = t.accepted-b.accepted, t.rejected-b.rejected, t.shakes-b.shakes
	for why := range t.closed {
		t.closed[why] -= b.closed[why]
	}
	for code, count := range b.errors {
		if t.errors[code] -= count; t.errors[code] == 0 {
			delete(t.errors, code)
		}
	}
	return t
}
