package server

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// What SLOWLOG keeps of a request, as Redis does.
const (
	defaultSlow    = 10_000 // microseconds
	defaultSlowMax = 128
	slowArgs       = 32
	slowArg        = 128
	mostSlow       = 100_000
)

// slowlog is the requests that took long, the latest last.
type slowlog struct {
	over atomic.Int64 // microseconds; negative: none is kept

	mu      sync.Mutex
	most    int64
	lastID  int64
	entries []slowEntry
}

type slowEntry struct {
	id, at     int64
	took       time.Duration
	args       []string
	addr, name string
}

func (l *slowlog) init() {
	l.over.Store(defaultSlow)
	l.most = defaultSlowMax
}

// note is told how long a request took, or several that are alike and came together.
func (l *slowlog) note(c *conn, cmd *command, args [][]byte, calls uint64, took time.Duration) {
	over := l.over.Load()
	if over < 0 || took.Microseconds() < over || cmd.noAuth || cmd == commands.byName["exec"] {
		return // what has passwords in it, and what is there by its parts
	}
	e := slowEntry{at: time.Now().Unix(), took: took, addr: c.nc.RemoteAddr().String(), name: c.about.name}
	for i, arg := range args {
		if i == slowArgs-1 && len(args) > slowArgs {
			e.args = append(e.args, fmt.Sprintf("... (%d more arguments)", len(args)-i))
			break
		}
		if len(arg) > slowArg {
			e.args = append(e.args, fmt.Sprintf("%s... (%d more bytes)", arg[:slowArg], len(arg)-slowArg))
			continue
		}
		e.args = append(e.args, string(arg))
	}
	if calls > 1 {
		e.args = append(e.args, fmt.Sprintf("... (the last of %d such requests that came together)", calls))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most == 0 {
		return
	}
	e.id = l.lastID
	l.lastID++
	l.entries = append(l.entries, e)
	l.trim()
}

func (l *slowlog) trim() {
	if extra := len(l.entries) - int(min(l.most, mostSlow)); extra > 0 {
		l.entries = append([]slowEntry(nil), l.entries[extra:]...)
	}
}

func slowlogCommands() []command {
	const admin = "admin loading stale"
	const all = "request_policy:all_nodes "
	return []command{{name: "slowlog", arity: -2, group: "server", since: "2.2.12", summary: "Commands about requests that took long", subs: []command{
		{name: "get", arity: -2, flags: admin, tips: all + "nondeterministic_output", since: "2.2.12", run: slowlogGet, syntax: "[count]", summary: "The latest requests that took long, 10 unless told otherwise; -1 is all"},
		{name: "help", arity: 2, flags: "loading stale", since: "6.2.0", run: help("slowlog"), summary: "This help"},
		{name: "len", arity: 2, flags: admin, tips: all + "response_policy:agg_sum nondeterministic_output", since: "2.2.12", run: slowlogLen, summary: "How many are kept"},
		{name: "reset", arity: 2, flags: admin, tips: all + "response_policy:all_succeeded", since: "2.2.12", run: slowlogReset, summary: "Forgets them"},
	}}}
}

// SLOWLOG GET [count]
func slowlogGet(c *conn, args [][]byte) {
	count := int64(10)
	switch {
	case len(args) > 3:
		c.w.Error("ERR unknown subcommand or wrong number of arguments for '" + cText(args[1], len(args[1])) + "'. Try SLOWLOG HELP.")
		return
	case len(args) == 3:
		n, ok := integer(args[2])
		if !ok || n < -1 {
			c.w.Error("ERR count should be greater than or equal to -1")
			return
		}
		count = n
	}
	l := &c.server.slow
	l.mu.Lock()
	entries := l.entries
	l.mu.Unlock()
	if count >= 0 && count < int64(len(entries)) {
		entries = entries[int64(len(entries))-count:]
	}
	c.w.Array(len(entries))
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		c.w.Array(6)
		c.w.Integer(e.id)
		c.w.Integer(e.at)
		c.w.Integer(e.took.Microseconds())
		c.w.Array(len(e.args))
		for _, arg := range e.args {
			c.w.BulkString(arg)
		}
		c.w.BulkString(e.addr)
		c.w.BulkString(e.name)
	}
}

// SLOWLOG LEN
func slowlogLen(c *conn, _ [][]byte) {
	l := &c.server.slow
	l.mu.Lock()
	defer l.mu.Unlock()
	c.w.Integer(int64(len(l.entries)))
}

// SLOWLOG RESET
func slowlogReset(c *conn, _ [][]byte) {
	l := &c.server.slow
	l.mu.Lock()
	l.entries = nil
	l.mu.Unlock()
	c.ok()
}

func (l *slowlog) setMost(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = n
	l.trim()
}

func (l *slowlog) maximum() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strconv.FormatInt(l.most, 10)
}
