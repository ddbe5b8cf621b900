package server

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

func clientCommands() []command {
	const c = "connection"
	const plain, admin = "noscript loading stale", "admin noscript loading stale"
	const varies = "nondeterministic_output"
	return []command{{name: "client", arity: -2, group: c, since: "2.4.0", summary: "Commands about connections", subs: inOrder(append(trackingCommands(), []command{
		{name: "getname", arity: 2, flags: plain, categories: c, since: "2.6.9", run: clientGetName, summary: "The name of the connection"},
		{name: "help", arity: 2, flags: "loading stale", categories: c, since: "5.0.0", run: help("client"), summary: "This help"},
		{name: "id", arity: 2, flags: plain, categories: c, since: "5.0.0", run: clientID, summary: "The number of the connection"},
		{name: "info", arity: 2, flags: plain, categories: c, tips: varies, since: "6.2.0", run: clientInfo, summary: "What there is to know of the connection"},
		{name: "kill", arity: -3, flags: admin, categories: c, since: "2.4.0", run: clientKill, syntax: "ip:port | option value [option value ...], with ID, TYPE, USER, ADDR, LADDR and SKIPME", summary: "Closes connections"},
		{name: "list", arity: -2, flags: admin, categories: c, tips: varies, since: "2.4.0", run: clientList, syntax: "[TYPE normal|master|replica|pubsub] [ID client-id [client-id ...]]", summary: "What there is to know of each connection"},
		{name: "no-evict", arity: 3, flags: admin, categories: c, since: "7.0.0", run: clientNoEvict, syntax: "ON|OFF", summary: "Protects the connection where memory is short, which this server never makes room for by closing one"},
		{name: "no-touch", arity: 3, flags: plain, categories: c, since: "7.2.0", run: clientNoTouch, syntax: "ON|OFF", summary: "Reads of the connection do not make keys count as used"},
		{name: "reply", alone: "the reply of EXEC would have no end", arity: 3, flags: plain, categories: c, since: "3.2.0", run: clientReply, syntax: "ON|OFF|SKIP", summary: "Whether the connection wants replies"},
		{name: "setinfo", arity: 4, flags: plain, categories: c, since: "7.2.0", run: clientSetInfo, syntax: "LIB-NAME libname | LIB-VER libver", summary: "Names the client's library and its version"},
		{name: "setname", arity: 3, flags: plain, categories: c, since: "2.6.9", run: clientSetName, syntax: "connection-name", summary: "Names the connection"},
	}...))}}
}

// inOrder sorts commands by their names.
func inOrder(all []command) []command {
	slices.SortFunc(all, func(a, b command) int { return strings.Compare(a.name, b.name) })
	return all
}

// about is what others may know of a connection.
type about struct {
	name, user          string
	known               bool // it has shown to be that user
	libName, libVersion string
	version             resp.Version
	noEvict, noTouch    bool
	sub, psub, ssub     int // subscriptions
	command             *command
	active              time.Time
	buffered, memory    int
	queued, queuedSize  int // since MULTI, which itself counts as one
}

// say changes what others may know of the connection.
func (c *conn) say(change func(a *about)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.about)
}

// publish says what is said once for all requests that came together.
func (c *conn) publish() {
	buffered, memory := c.r.Buffered(), c.r.Memory()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.about.command, c.about.active = c.current, c.rested
	c.about.buffered, c.about.memory = buffered, memory
	c.countQueued(&c.about)
}

func (c *conn) countQueued(a *about) {
	a.queued, a.queuedSize = 0, 0
	if c.multi != nil {
		a.queued, a.queuedSize = 1+len(c.multi.queue), c.multi.size
	}
}

// line is a connection's line in CLIENT LIST. Fields of what this server does not have, or
// does not count, are there with what they are for Redis when there is nothing.
func (c *conn) line(now time.Time) string {
	c.mu.Lock()
	a := c.about
	c.mu.Unlock()
	waiting := c.out.waiting()
	flags := ""
	if a.listens() {
		flags += "P"
	}
	if a.queued > 0 {
		flags += "x"
	}
	tracks, redirect := c.trackingLine()
	flags += tracks
	if a.noEvict {
		flags += "e"
	}
	if a.noTouch {
		flags += "T"
	}
	if flags == "" {
		flags = "N"
	}
	command := "NULL"
	if a.command != nil {
		command = a.command.full
	}
	seconds := func(since time.Time) string { return strconv.FormatInt(int64(max(now.Sub(since), 0)/time.Second), 10) }
	return "id=" + strconv.FormatInt(c.id, 10) +
		" addr=" + c.nc.RemoteAddr().String() + " laddr=" + c.nc.LocalAddr().String() + " fd=-1 name=" + a.name +
		" age=" + seconds(c.created) + " idle=" + seconds(a.active) + " flags=" + flags +
		" db=0 sub=" + strconv.Itoa(a.sub) + " psub=" + strconv.Itoa(a.psub) + " ssub=" + strconv.Itoa(a.ssub) + " multi=" + strconv.Itoa(a.queued-1) + " qbuf=" + strconv.Itoa(a.buffered) +
		" qbuf-free=0 argv-mem=0 multi-mem=" + strconv.Itoa(a.queuedSize) + " rbs=0 rbp=0 obl=0 oll=0 omem=" + strconv.Itoa(waiting) + " tot-mem=" + strconv.Itoa(a.memory+waiting) +
		" events=r cmd=" + command + " user=" + a.user + " redir=" + redirect + " resp=" + strconv.Itoa(int(a.version)) +
		" lib-name=" + a.libName + " lib-ver=" + a.libVersion
}

var textFormat = [3]byte{'t', 'x', 't'}

// CLIENT GETNAME
func clientGetName(c *conn, _ [][]byte) {
	if c.about.name == "" {
		c.w.Null()
		return
	}
	c.w.BulkString(c.about.name)
}

// CLIENT ID
func clientID(c *conn, _ [][]byte) { c.w.Integer(c.id) }

// CLIENT INFO
func clientInfo(c *conn, _ [][]byte) {
	now := time.Now()
	c.say(func(a *about) { a.command, a.active = c.current, now; c.countQueued(a) })
	c.w.Verbatim(textFormat, c.line(now)+"\n")
}

// CLIENT LIST [TYPE normal|master|replica|pubsub] [ID client-id [client-id ...]]
func clientList(c *conn, args [][]byte) {
	wanted := func(*conn) bool { return true }
	switch {
	case len(args) == 2:
	case len(args) == 4 && is(args[2], "type"):
		fits, ok := c.clientType(args[3])
		if !ok {
			return
		}
		wanted = fits
	case len(args) > 3 && is(args[2], "id"):
		ids := map[int64]bool{}
		for _, arg := range args[3:] {
			id, ok := integer(arg)
			if !ok {
				c.w.Error("ERR Invalid client ID")
				return
			}
			ids[id] = true
		}
		wanted = func(c *conn) bool { return ids[c.id] }
	default:
		c.syntaxError()
		return
	}
	now := time.Now()
	c.say(func(a *about) { a.command, a.active = c.current, now; c.countQueued(a) })
	var list strings.Builder
	for _, client := range c.server.clients() {
		if wanted(client) {
			list.WriteString(client.line(now) + "\n")
		}
	}
	c.w.Verbatim(textFormat, list.String())
}

// clientType reads a type of clients, and returns what tells whether one is of it, or
// answers that there is no such type.
func (c *conn) clientType(arg []byte) (fits func(*conn) bool, ok bool) {
	switch {
	case is(arg, "normal"):
		return func(c *conn) bool { return !c.listens() }, true
	case is(arg, "pubsub"):
		return (*conn).listens, true
	case is(arg, "master"), is(arg, "replica"), is(arg, "slave"):
		return func(*conn) bool { return false }, true
	}
	c.w.Error("ERR Unknown client type '" + cText(arg, len(arg)) + "'")
	return nil, false
}

// listens tells of any connection whether it has subscribed to something.
func (c *conn) listens() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.about.listens()
}

func (a *about) listens() bool { return a.sub+a.psub+a.ssub > 0 }

// victims are who CLIENT KILL is to close: those that fit everything that was said.
type victims struct {
	id            int64 // 0: any
	user          []byte
	remote, local []byte
	ofType        func(*conn) bool // nil: any
	withSelf      bool
}

func (v victims) has(c, self *conn) bool {
	c.mu.Lock()
	user := c.about.user
	c.mu.Unlock()
	return (v.ofType == nil || v.ofType(c)) && (v.id == 0 || v.id == c.id) &&
		(v.user == nil || string(v.user) == user) &&
		(v.remote == nil || string(v.remote) == c.nc.RemoteAddr().String()) &&
		(v.local == nil || string(v.local) == c.nc.LocalAddr().String()) &&
		(v.withSelf || c != self)
}

// parseVictims reads options of CLIENT KILL, or answers with an error.
func (c *conn) parseVictims(options [][]byte) (v victims, ok bool) {
	for ; len(options) > 0; options = options[2:] {
		if len(options) == 1 {
			c.syntaxError()
			return v, false
		}
		switch option, value := options[0], options[1]; {
		case is(option, "id"):
			id, ok := integer(value)
			if !ok || id < 1 {
				c.w.Error("ERR client-id should be greater than 0")
				return v, false
			}
			v.id = id
		case is(option, "type"):
			fits, ok := c.clientType(value)
			if !ok {
				return v, false
			}
			v.ofType = fits
		case is(option, "addr"):
			v.remote = value
		case is(option, "laddr"):
			v.local = value
		case is(option, "user"):
			if _, exists := c.server.options.Users(string(value)); !exists {
				c.w.Error("ERR No such user '" + cText(value, len(value)) + "'")
				return v, false
			}
			v.user = value
		case is(option, "skipme") && is(value, "yes"):
			v.withSelf = false
		case is(option, "skipme") && is(value, "no"):
			v.withSelf = true
		default:
			c.syntaxError()
			return v, false
		}
	}
	return v, true
}

// CLIENT KILL ip:port | option value [option value ...]
func clientKill(c *conn, args [][]byte) {
	old := len(args) == 3
	v := victims{remote: args[2], withSelf: true}
	if !old {
		var ok bool
		if v, ok = c.parseVictims(args[2:]); !ok {
			return
		}
	}
	killed := 0
	for _, client := range c.server.clients() {
		if !v.has(client, c) {
			continue
		}
		killed++
		if client == c {
			c.closing = true // once it has its reply
			continue
		}
		client.hangUp()
		c.server.leave(client)
	}
	switch {
	case !old:
		c.w.Integer(int64(killed))
	case killed == 0:
		c.w.Error("ERR No such client")
	default:
		c.ok()
	}
}

// onOrOff reads an argument, or answers with an error.
func (c *conn) onOrOff(arg []byte) (on, ok bool) {
	switch {
	case is(arg, "on"):
		return true, true
	case is(arg, "off"):
		return false, true
	}
	c.syntaxError()
	return false, false
}

// CLIENT NO-EVICT ON|OFF
func clientNoEvict(c *conn, args [][]byte) {
	if on, ok := c.onOrOff(args[2]); ok {
		c.say(func(a *about) { a.noEvict = on })
		c.ok()
	}
}

// CLIENT NO-TOUCH ON|OFF
func clientNoTouch(c *conn, args [][]byte) {
	if on, ok := c.onOrOff(args[2]); ok {
		c.say(func(a *about) { a.noTouch = on })
		c.ok()
	}
}

// CLIENT REPLY ON|OFF|SKIP
func clientReply(c *conn, args [][]byte) {
	switch {
	case is(args[2], "on"):
		c.silence.off, c.silence.this = false, false
		c.ok()
	case is(args[2], "off"):
		c.silence.off = true
	case is(args[2], "skip"):
		c.silence.next = !c.silence.off
	default:
		c.syntaxError()
	}
}

// CLIENT SETINFO LIB-NAME libname | LIB-VER libver
func clientSetInfo(c *conn, args [][]byte) {
	option, value := args[2], args[3]
	if !is(option, "lib-name") && !is(option, "lib-ver") {
		c.w.Error("ERR Unrecognized option '" + cText(option, len(option)) + "'")
		return
	}
	if !validName(value) {
		c.w.Error("ERR " + string(bytes.ToLower(option)) + " cannot contain spaces, newlines or special characters.")
		return
	}
	c.say(func(a *about) {
		if is(option, "lib-name") {
			a.libName = string(value)
		} else {
			a.libVersion = string(value)
		}
	})
	c.ok()
}

// CLIENT SETNAME connection-name
func clientSetName(c *conn, args [][]byte) {
	if !validName(args[2]) {
		c.w.Error(badClientName)
		return
	}
	c.say(func(a *about) { a.name = string(args[2]) })
	c.ok()
}

// validName tells whether a name can stand in a line of CLIENT LIST.
func validName(name []byte) bool {
	for _, b := range name {
		if b < '!' || b > '~' {
			return false
		}
	}
	return true
}
