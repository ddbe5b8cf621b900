package server

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// evictionPolicy is Redis's name for what comes next to W-TinyLFU.
const evictionPolicy = "allkeys-lfu"

// parameter is a row of CONFIG: what this server has of Redis's parameters, and of others
// those that clients ask for, as they are in a Redis that is set so.
type parameter struct {
	name string
	get  func(s *Server) string
	// parse checks a value, and returns what sets it, or says what is wrong with it in
	// Redis's words. Nil: it cannot be changed while the server runs.
	parse func(value string) (set func(s *Server), wrong string)
}

func fixed(value string) func(*Server) string { return func(*Server) string { return value } }

// only is a parse of what has one value.
func only(value, wrong string) func(string) (func(*Server), string) {
	return func(given string) (func(*Server), string) {
		if given != value {
			return nil, wrong
		}
		return func(*Server) {}, ""
	}
}

// between is a parse of numbers.
func between(from, to int64, set func(s *Server, n int64)) func(string) (func(*Server), string) {
	return func(value string) (func(*Server), string) {
		n, ok := integer([]byte(value))
		switch {
		case !ok:
			return nil, "argument couldn't be parsed into an integer"
		case n < from || n > to:
			return nil, fmt.Sprintf("argument must be between %d and %d inclusive", from, to)
		}
		return func(s *Server) { set(s, n) }, ""
	}
}

// limit is one of resp.Limits, or its default.
func limit(n, or int) string {
	if n == 0 {
		n = or
	}
	return strconv.Itoa(n)
}

// parameters are all, in the order of their names.
var parameters = []parameter{
	{"appendonly", fixed("no"), only("no", "this server keeps no such file: what it has answered is in the database")},
	{"bind", func(s *Server) string { return strings.Join(s.hosts(), " ") }, nil},
	{"client-output-buffer-limit", func(s *Server) string {
		return fmt.Sprintf("normal 0 0 0 slave 0 0 0 pubsub %d 0 0", s.options.OutputLimit)
	}, nil},
	{"client-query-buffer-limit", func(s *Server) string { return limit(s.options.Limits.MaxRequest, resp.DefaultMaxRequest) }, nil},
	{"databases", fixed("1"), nil},
	{"latency-monitor-threshold", fixed("0"), only("0", "this server keeps no such samples")},
	{"maxclients", func(s *Server) string { return strconv.FormatInt(s.maxClients.Load(), 10) },
		between(1, math.MaxUint32, func(s *Server, n int64) { s.maxClients.Store(n) })},
	{"maxmemory", func(s *Server) string { return strconv.FormatInt(s.options.Cache.MaxBytes, 10) }, nil},
	{"maxmemory-policy", fixed(evictionPolicy), only(evictionPolicy, "memory makes room by W-TinyLFU, whatever the policy; what leaves it stays in the database")},
	{"notify-keyspace-events", func(s *Server) string { return classes(s.events.Load()).String() }, func(value string) (func(*Server), string) {
		wanted, wrong := parseClasses(value)
		return func(s *Server) { s.events.Store(uint32(wanted)) }, wrong
	}},
	{"port", func(s *Server) string { return strconv.Itoa(s.port()) }, nil},
	{"proto-max-bulk-len", func(s *Server) string { return limit(s.options.Limits.MaxBulk, resp.DefaultMaxBulk) }, nil},
	{"save", fixed(""), only("", "this server takes no snapshots: what it has answered is in the database")},
	{"slowlog-log-slower-than", func(s *Server) string { return strconv.FormatInt(s.slow.over.Load(), 10) },
		between(-1, math.MaxInt64, func(s *Server, n int64) { s.slow.over.Store(n) })},
	{"slowlog-max-len", func(s *Server) string { return s.slow.maximum() },
		between(0, math.MaxInt64, func(s *Server, n int64) { s.slow.setMost(n) })},
	{"tracking-table-max-keys", func(s *Server) string { return strconv.Itoa(s.options.TrackedKeys) }, nil},
	{"timeout", func(s *Server) string { return strconv.FormatInt(s.idle.Load()/int64(time.Second), 10) },
		between(0, math.MaxInt32, func(s *Server, n int64) { s.setIdle(time.Duration(n) * time.Second) })},
}

func configCommands() []command {
	const admin = "admin noscript loading stale"
	return []command{{name: "config", arity: -2, group: "server", since: "2.0.0", summary: "Commands about settings", subs: []command{
		{name: "get", arity: -3, flags: admin, since: "2.0.0", run: configGet, syntax: "parameter [parameter ...]", summary: "Settings whose names fit patterns"},
		{name: "help", arity: 2, flags: "loading stale", since: "5.0.0", run: help("config"), summary: "This help"},
		{name: "resetstat", arity: 2, flags: admin, since: "2.0.0", run: configResetStat, summary: "Has INFO count from here on"},
		{name: "rewrite", arity: 2, flags: admin, since: "2.8.0", run: configRewrite, summary: "Refused: the server does not write its settings"},
		{name: "set", arity: -4, flags: admin, tips: "request_policy:all_nodes response_policy:all_succeeded", since: "2.0.0", run: configSet, syntax: "parameter value [parameter value ...]", summary: "Changes settings until the server ends: all that are given, or none"},
	}}}
}

// CONFIG GET parameter [parameter ...]
func configGet(c *conn, args [][]byte) {
	var pairs [][2]string
	given := map[string]bool{}
	for _, pattern := range args[2:] {
		for _, p := range parameters {
			if given[p.name] || !glob(pattern, []byte(p.name), true) {
				continue
			}
			given[p.name] = true
			name := p.name
			if is(pattern, name) {
				name = string(pattern) // Redis repeats what it was asked for
			}
			pairs = append(pairs, [2]string{name, p.get(c.server)})
		}
	}
	c.w.Map(len(pairs))
	for _, pair := range pairs {
		c.w.BulkString(pair[0])
		c.w.BulkString(pair[1])
	}
}

// CONFIG SET parameter value [parameter value ...]
func configSet(c *conn, args [][]byte) {
	args = args[2:]
	if len(args)%2 != 0 {
		c.syntaxError()
		return
	}
	fail := func(name, wrong string) {
		c.w.Error("ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + wrong)
	}
	// What is unknown, immutable or there twice is said before a value is looked at.
	var rows []parameter
	for i := 0; i < len(args); i += 2 {
		k := slices.IndexFunc(parameters, func(p parameter) bool { return is(args[i], p.name) })
		switch {
		case k < 0:
			c.w.Error("ERR Unknown option or number of arguments for CONFIG SET - '" + cText(args[i], len(args[i])) + "'")
			return
		case parameters[k].parse == nil:
			fail(parameters[k].name, "can't set immutable config")
			return
		case slices.ContainsFunc(rows, func(p parameter) bool { return p.name == parameters[k].name }):
			fail(parameters[k].name, "duplicate parameter")
			return
		}
		rows = append(rows, parameters[k])
	}
	var sets []func(*Server)
	for i, p := range rows {
		set, wrong := p.parse(string(args[2*i+1]))
		if wrong != "" {
			fail(p.name, wrong)
			return
		}
		sets = append(sets, set)
	}
	for _, set := range sets {
		set(c.server)
	}
	c.ok()
}

// setIdle changes Options.IdleTimeout, for connections that are idle already, too.
func (s *Server) setIdle(d time.Duration) {
	s.idle.Store(int64(d))
	for _, c := range s.clients() {
		c.nudge()
	}
}

// CONFIG RESETSTAT
func configResetStat(c *conn, _ [][]byte) {
	c.server.resetStat()
	c.ok()
}

// CONFIG REWRITE
func configRewrite(c *conn, _ [][]byte) { c.w.Error("ERR The server is running without a config file") }

func portOf(addr net.Addr) int {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return 0
	}
	return tcp.Port
}

// hosts are the addresses that are listened on, without their ports.
func (s *Server) hosts() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for listener := range s.listeners {
		host, _, err := net.SplitHostPort(listener.Addr().String())
		if err == nil && !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	slices.Sort(all)
	return all
}
