package server

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// The commands of CLIENT TRACKING, and what a connection does that tracks: see tracking.

func trackingCommands() []command {
	const c, plain, admin = "connection", "noscript loading stale", "admin noscript loading stale"
	return []command{
		{name: "caching", arity: 3, flags: plain, categories: c, since: "6.0.0", run: clientCaching, syntax: "YES|NO", summary: "Whether the keys of the next command are tracked, in the modes OPTIN and OPTOUT"},
		{name: "getredir", arity: 2, flags: plain, categories: c, since: "6.0.0", run: clientGetRedir, summary: "The number of the connection that invalidations are sent to"},
		{name: "tracking", arity: -3, flags: plain, categories: c, since: "6.0.0", run: clientTracking, syntax: "ON|OFF [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]", summary: "Has the connection told when keys that it has read are written"},
		{name: "trackinginfo", arity: 2, flags: plain, categories: c, since: "6.2.0", run: clientTrackingInfo, summary: "How the connection tracks keys"},
		{name: "unblock", arity: -3, flags: admin, categories: c, since: "5.0.0", run: clientUnblock, syntax: "client-id [TIMEOUT|ERROR]", summary: "Ends the waiting of a connection, of which this server has none that wait"},
	}
}

// following is what a connection knows of its own tracking, besides mode.
type following struct {
	*follower
	prefixes []string // of BCAST, in order
	caching  bool     // CLIENT CACHING was sent
	reading  bool     // outbox.reading
}

// setMode changes how the connection tracks. Its own goroutine may read the mode without
// the lock, all but broken.
func (c *conn) setMode(m mode) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.mode = m
}

// CLIENT TRACKING ON|OFF [option ...]
func clientTracking(c *conn, args [][]byte) {
	m := mode{on: true}
	var prefixes []string
	for rest := args[3:]; len(rest) > 0; rest = rest[1:] {
		switch {
		case is(rest[0], "redirect") && len(rest) > 1:
			if m.redirect != 0 {
				c.w.Error("ERR A client can only redirect to a single other client")
				return
			}
			id, ok := integer(rest[1])
			if !ok {
				c.w.Error(notAnInteger)
				return
			}
			if c.server.client(id) == nil {
				c.w.Error("ERR The client ID you want redirect to does not exist")
				return
			}
			m.redirect, rest = id, rest[1:]
		case is(rest[0], "bcast"):
			m.bcast = true
		case is(rest[0], "optin"):
			m.optIn = true
		case is(rest[0], "optout"):
			m.optOut = true
		case is(rest[0], "noloop"):
			m.noLoop = true
		case is(rest[0], "prefix") && len(rest) > 1:
			prefixes, rest = append(prefixes, string(rest[1])), rest[1:]
		default:
			c.syntaxError()
			return
		}
	}
	on, ok := c.onOrOff(args[2])
	if on && ok {
		ok = c.startFollowing(m, prefixes)
	} else if ok {
		c.stopFollowing()
	}
	if ok {
		c.ok()
	}
}

// Bounds of what a connection may list for BCAST: each write looks for a prefix of each
// length that there is, and each prefix is compared with the others. Redis has none.
const (
	longestPrefix = 1024
	mostPrefixes  = 1024
)

// startFollowing has the connection track, or answers with an error.
func (c *conn) startFollowing(m mode, prefixes []string) bool {
	const first = " before disabling tracking for this client, and then re-enabling it with a different mode."
	old := &c.out.mode
	switch {
	case !m.bcast && len(prefixes) > 0:
		c.w.Error("ERR PREFIX option requires BCAST mode to be enabled")
	case old.on && old.bcast != m.bcast:
		c.w.Error("ERR You can't switch BCAST mode on/off" + first)
	case m.bcast && (m.optIn || m.optOut):
		c.w.Error("ERR OPTIN and OPTOUT are not compatible with BCAST")
	case m.optIn && m.optOut:
		c.w.Error("ERR You can't specify both OPTIN mode and OPTOUT mode")
	case m.optIn && old.optOut, m.optOut && old.optIn:
		c.w.Error("ERR You can't switch OPTIN/OPTOUT mode" + first)
	case len(c.follows.prefixes)+len(prefixes) > mostPrefixes:
		c.w.Error(fmt.Sprintf("ERR a client has at most %d prefixes here", mostPrefixes))
	case slices.ContainsFunc(prefixes, func(prefix string) bool { return len(prefix) > longestPrefix }):
		c.w.Error(fmt.Sprintf("ERR a prefix has at most %d bytes here", longestPrefix))
	case m.bcast && !c.apart(prefixes):
	default:
		if m.bcast && len(prefixes) == 0 {
			prefixes = []string{""}
		}
		if c.follows.follower == nil {
			c.follows.follower = &follower{}
			c.follows.conn.Store(c)
		}
		c.setMode(m)
		c.server.tracking.join(c.follows.follower, prefixes)
		c.follows.prefixes = slices.Compact(slices.Sorted(slices.Values(append(c.follows.prefixes, prefixes...))))
		return true
	}
	return false
}

// apart tells whether no prefix begins with another one, or answers which does.
func (c *conn) apart(prefixes []string) bool {
	const must = "'. Prefixes for a single client must not overlap."
	overlap := func(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }
	for i, prefix := range prefixes {
		for _, other := range c.follows.prefixes {
			if overlap(prefix, other) {
				c.w.Error("ERR Prefix '" + prefix + "' overlaps with an existing prefix '" + other + must)
				return false
			}
		}
		for _, other := range prefixes[i+1:] {
			if overlap(prefix, other) {
				c.w.Error("ERR Prefix '" + prefix + "' overlaps with another provided prefix '" + other + must)
				return false
			}
		}
	}
	return true
}

func (c *conn) stopFollowing() {
	if c.follows.follower == nil {
		return
	}
	c.server.tracking.leave(c.follows.follower, c.follows.prefixes)
	c.setMode(mode{})
	c.follows.prefixes, c.follows.caching = nil, false
}

// unfollow is for a connection that is being closed. Whoever writes from here on does not
// wait for it: its peer learns from the end of it that there is nobody who tells him.
func (c *conn) unfollow() {
	if c.follows.follower != nil {
		c.stopFollowing()
		c.follows.conn.Store(nil)
	}
}

// CLIENT CACHING YES|NO
func clientCaching(c *conn, args [][]byte) {
	m := &c.out.mode
	switch {
	case !m.on:
		c.w.Error("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled")
	case is(args[2], "yes") && !m.optIn:
		c.w.Error("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
	case is(args[2], "no") && !m.optOut:
		c.w.Error("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
	case is(args[2], "yes"), is(args[2], "no"):
		c.follows.caching = true
		c.ok()
	default:
		c.syntaxError()
	}
}

// redirection is the connection that invalidations are sent to, 0 for this one, or -1 where
// nothing is tracked.
func (m *mode) redirection() int64 {
	if !m.on {
		return -1
	}
	return m.redirect
}

// CLIENT GETREDIR
func clientGetRedir(c *conn, _ [][]byte) { c.w.Integer(c.out.mode.redirection()) }

// CLIENT TRACKINGINFO
func clientTrackingInfo(c *conn, _ [][]byte) {
	c.out.mu.Lock()
	m := c.out.mode
	c.out.mu.Unlock()
	flags := []string{"off"}
	if m.on {
		flags[0] = "on"
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{
		{m.bcast, "bcast"},
		{m.optIn, "optin"}, {m.optIn && c.follows.caching, "caching-yes"},
		{m.optOut, "optout"}, {m.optOut && c.follows.caching, "caching-no"},
		{m.noLoop, "noloop"}, {m.broken, "broken_redirect"},
	} {
		if flag.set {
			flags = append(flags, flag.name)
		}
	}
	c.w.Map(3)
	c.w.BulkString("flags")
	c.w.Set(len(flags))
	for _, flag := range flags {
		c.w.BulkString(flag)
	}
	c.w.BulkString("redirect")
	c.w.Integer(m.redirection())
	c.w.BulkString("prefixes")
	c.w.Array(len(c.follows.prefixes))
	for _, prefix := range c.follows.prefixes {
		c.w.BulkString(prefix)
	}
}

// CLIENT UNBLOCK client-id [TIMEOUT|ERROR]
func clientUnblock(c *conn, args [][]byte) {
	switch _, ok := integer(args[2]); {
	case len(args) > 4:
		c.w.Error("ERR unknown subcommand or wrong number of arguments for '" + cText(args[1], 128) + "'. Try CLIENT HELP.")
	case len(args) == 4 && !is(args[3], "timeout") && !is(args[3], "error"):
		c.w.Error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
	case !ok:
		c.w.Error(notAnInteger)
	default:
		c.w.Integer(0)
	}
}

// longestTracked bounds what the table takes, whose keys are counted (Options.TrackedKeys): one
// that is longer is not put down, and its value is followed by an invalidation. No store takes
// such keys by itself; to name them costs a peer nothing.
const longestTracked = 8 << 10

// follow is called before a command reads keys. It puts the connection down for them, as
// its mode has it, and returns those.
func (c *conn) follow(cmd *command, args [][]byte) []string {
	m := &c.out.mode
	if !m.on || !cmd.tracked || m.optIn && !c.follows.caching || m.optOut && c.follows.caching {
		return nil
	}
	keys := cmd.keys.of(args)
	if len(keys) == 0 {
		return nil
	}
	c.startReading()
	t := c.server.tracking
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		name := string(key)
		busy := false
		if !m.bcast && len(name) > longestTracked {
			c.again(name)
			continue
		}
		if !m.bcast {
			busy = t.register(c.follows.follower, name)
		} else if slices.ContainsFunc(c.follows.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			busy = t.isBusy(name)
		} else {
			continue
		}
		if busy {
			c.again(name)
		}
		names = append(names, name)
	}
	c.followEnds(names, m.bcast)
	return names
}

// followEnds has copies of rows that end be invalidated when they do, and no later than
// memory stops answering for its own. It reads them before the command does: an end that
// somebody sets in between is a write, of which the connection is told.
func (c *conn) followEnds(names []string, announced bool) {
	keys, ctx := c.server.keys, c.server.life
	if len(names) > 1 {
		_, _ = keys.many(ctx, names) // with one load; what cannot be read is seen below
	}
	for _, name := range names {
		switch left, err := keys.left(ctx, name); {
		case err != nil, left < 0:
			c.again(name) // the command may yet read it
		case left > 0:
			c.server.tracking.lapses(name, time.Now().Add(left), announced)
		}
	}
}

// startReading says that values are on their way into replies.
func (c *conn) startReading() {
	if c.follows.reading {
		return
	}
	c.follows.reading = true
	c.out.used.Store(true)
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.reading = true
}

// again has an invalidation follow the replies that are being built.
func (c *conn) again(key string) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.againLocked(invalidation{key: key})
}

// tellOwn appends invalidations of what the connection itself has written, behind the reply
// to that.
func (c *conn) tellOwn(own []invalidation) {
	if c.w.Version() != resp.RESP3 {
		return // which has no such messages
	}
	for _, i := range own {
		i.append(&c.w)
	}
}

// trackingLine is what CLIENT LIST says of it: flags, and the redirection.
func (c *conn) trackingLine() (flags, redirect string) {
	c.out.mu.Lock()
	m := c.out.mode
	c.out.mu.Unlock()
	if m.on {
		flags += "t"
	}
	if m.broken {
		flags += "R"
	}
	if m.bcast {
		flags += "B"
	}
	return flags, strconv.FormatInt(m.redirection(), 10)
}
