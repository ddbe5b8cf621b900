package server

import (
	"strconv"

	"github.com/lockstep-cache/lockstep/resp"
)

// version is the version of Redis that clients are told, which decide by it what they use.
const version = "7.0.15"

func connectionCommands() []command {
	const first = "noscript loading stale fast no_auth allow_busy" // what may be sent first
	const c = "connection"
	return []command{
		{name: "auth", arity: -2, flags: first, categories: c, group: c, since: "1.0.0", run: auth, syntax: "[username] password", summary: "Says who uses the connection"},
		{name: "hello", arity: -1, flags: first, categories: c, group: c, since: "6.0.0", run: hello, syntax: "[protover [AUTH username password] [SETNAME clientname]]", summary: "Chooses the version of the protocol, and says who uses the connection"},
		{name: "ping", arity: -1, flags: "fast", categories: c, group: c, since: "1.0.0", run: ping, syntax: "[message]", summary: "Answers with PONG, or with the message", tips: "request_policy:all_shards response_policy:all_succeeded"},
		{name: "echo", arity: 2, flags: "loading stale fast", categories: c, group: c, since: "1.0.0", run: echo, syntax: "message", summary: "Answers with the message"},
		{name: "quit", atOnce: true, arity: -1, flags: first, categories: c, group: c, since: "1.0.0", run: quit, summary: "Closes the connection"},
		{name: "reset", atOnce: true, arity: 1, flags: first, categories: c, group: c, since: "6.2.0", run: reset, summary: "Makes the connection what it was when it was new"},
		{name: "select", arity: 2, flags: "loading stale fast", categories: c, group: c, since: "1.0.0", run: selectDatabase, syntax: "index", summary: "Chooses the database, of which there is one, 0"},
	}
}

const (
	wrongPassword = "WRONGPASS invalid username-password pair or user is disabled."
	helloNoAuth   = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
	badClientName = "ERR Client names cannot contain spaces, newlines or special characters."
)

// AUTH [username] password
func auth(c *conn, args [][]byte) {
	switch {
	case len(args) > 3:
		c.syntaxError()
	case len(args) == 3:
		if c.login(args[1], args[2]) {
			c.ok()
		}
	case c.open():
		c.w.Error("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	case c.login([]byte(defaultUser), args[1]):
		c.ok()
	}
}

// login has the connection be a user's, or answers with an error. Who was somebody before
// still is after a wrong password, as with Redis.
func (c *conn) login(name, password []byte) bool {
	seen := c.server.usersChanges.Load()
	user, good := c.server.authenticates(name, password)
	if !good {
		c.w.Error(wrongPassword)
		return false
	}
	c.usersSeen = seen
	c.become(string(name), user, true)
	return true
}

func (c *conn) open() bool {
	_, open := c.server.open()
	return open
}

// HELLO [protover [AUTH username password] [SETNAME clientname]]
func hello(c *conn, args [][]byte) {
	spoken := c.w.Version()
	if len(args) > 1 {
		n, ok := integer(args[1])
		switch {
		case !ok:
			c.w.Error("ERR Protocol version is not an integer or out of range")
			return
		case n != 2 && n != 3:
			c.w.Error("NOPROTO unsupported protocol version")
			return
		}
		spoken = resp.Version(n)
	}
	var user, password []byte
	for rest := args[min(len(args), 2):]; len(rest) > 0; {
		switch {
		case is(rest[0], "auth") && len(rest) > 2:
			user, password, rest = rest[1], rest[2], rest[3:]
		case is(rest[0], "setname") && len(rest) > 1:
			if !validName(rest[1]) {
				c.w.Error(badClientName)
				return
			}
			// At once, whatever the rest is, as with Redis.
			c.say(func(a *about) { a.name = string(rest[1]) })
			rest = rest[2:]
		default:
			c.w.Error("ERR Syntax error in HELLO option '" + cText(rest[0], len(rest[0])) + "'")
			return
		}
	}
	if user != nil && !c.login(user, password) {
		return
	}
	if !c.authenticated {
		c.w.Error(helloNoAuth)
		return
	}
	c.speak(spoken)
	c.say(func(a *about) { a.version = spoken })
	c.w.Map(7)
	for _, pair := range [][2]string{{"server", "redis"}, {"version", version}} {
		c.w.BulkString(pair[0])
		c.w.BulkString(pair[1])
	}
	c.w.BulkString("proto")
	c.w.Integer(int64(spoken))
	c.w.BulkString("id")
	c.w.Integer(c.id)
	for _, pair := range [][2]string{{"mode", "standalone"}, {"role", "master"}} {
		c.w.BulkString(pair[0])
		c.w.BulkString(pair[1])
	}
	c.w.BulkString("modules")
	c.w.Array(0)
}

// speak chooses the version of replies. That of messages follows when the reply that says so
// leaves (flushAll): what others send until then comes before it.
func (c *conn) speak(version resp.Version) { c.w.SetVersion(version) }

// PING [message]
func ping(c *conn, args [][]byte) {
	if c.listensOnly() && len(args) < 3 {
		c.w.Array(2)
		c.w.BulkString("pong")
		c.w.Bulk(append(args, nil)[1])
		return
	}
	switch len(args) {
	case 1:
		c.w.SimpleString("PONG")
	case 2:
		c.w.Bulk(args[1])
	default:
		c.wrongNumber("ping")
	}
}

// ECHO message
func echo(c *conn, args [][]byte) { c.w.Bulk(args[1]) }

// QUIT
func quit(c *conn, _ [][]byte) {
	c.ok()
	c.closing = true
}

// RESET
func reset(c *conn, _ [][]byte) {
	c.forsake()
	c.stopFollowing()
	c.speak(resp.RESP2)
	c.silence.off, c.silence.next = false, false
	c.endMulti()
	c.say(func(a *about) {
		// NO-EVICT stays, as with Redis.
		*a = about{version: resp.RESP2, active: a.active, command: a.command, noEvict: a.noEvict, libName: a.libName, libVersion: a.libVersion}
	})
	c.arrive()
	c.w.SimpleString("RESET")
}

// SELECT index
func selectDatabase(c *conn, args [][]byte) {
	if wrong := wrongDatabase(args[1]); wrong != "" {
		c.w.Error(wrong)
		return
	}
	c.ok()
}

// wrongDatabase is the error about a database's number, of which there is one, 0.
func wrongDatabase(arg []byte) string {
	n, ok := integer(arg)
	switch {
	case !ok:
		return notAnInteger
	case n != int64(int32(n)):
		return "ERR value is out of range, value must between -2147483648 and 2147483647"
	case n != 0:
		return "ERR DB index is out of range"
	}
	return ""
}

// integer reads an argument as a number of 64 bits, in the one way in which Redis takes it.
func integer(arg []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(arg), 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != string(arg) {
		return 0, false
	}
	return n, true
}
