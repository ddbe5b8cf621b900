package server

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/lockstep-cache/lockstep/resp"
)

func pubsubCommands() []command {
	const c, listen, tell, ask = "pubsub", "pubsub noscript loading stale", "pubsub loading stale fast", "pubsub loading stale"
	row := func(name, flags, since, syntax, summary string, arity int, run func(c *conn, args [][]byte)) command {
		cmd := command{name: name, arity: arity, flags: flags, group: c, since: since, run: run, syntax: syntax, summary: summary}
		if flags == listen {
			cmd.alone = "what it is answered with is a message"
		}
		return cmd
	}
	shard := func(cmd command, last int) command {
		cmd.keys, cmd.access = keys{1, last, 1}, "not_key"
		return cmd
	}
	return []command{
		row("psubscribe", listen, "2.0.0", "pattern [pattern ...]", "Has messages of channels sent whose names match a pattern", -2, func(c *conn, args [][]byte) { c.subscribe(patterns, args[1:]) }),
		row("publish", tell, "2.0.0", "channel message", "Sends a message to those who have subscribed to a channel, and answers how many they are", 3, publish),
		{name: "pubsub", arity: -2, group: c, since: "2.8.0", summary: "What there is to know of channels", subs: []command{
			row("channels", ask, "2.8.0", "[pattern]", "The channels that somebody has subscribed to", -2, func(c *conn, args [][]byte) { c.channels(channels, args) }),
			{name: "help", arity: 2, flags: "loading stale", group: c, since: "6.2.0", run: help("pubsub"), summary: "This help"},
			row("numpat", ask, "2.8.0", "", "How many patterns there are that somebody has subscribed to", 2, pubsubNumPat),
			row("numsub", ask, "2.8.0", "[channel [channel ...]]", "How many have subscribed to each channel, without those by patterns", -2, func(c *conn, args [][]byte) { c.listeners(channels, args[2:]) }),
			row("shardchannels", ask, "7.0.0", "[pattern]", "The shard channels that somebody has subscribed to", -2, func(c *conn, args [][]byte) { c.channels(shards, args) }),
			row("shardnumsub", ask, "7.0.0", "[shardchannel [shardchannel ...]]", "How many have subscribed to each shard channel", -2, func(c *conn, args [][]byte) { c.listeners(shards, args[2:]) }),
		}},
		row("punsubscribe", listen, "2.0.0", "[pattern [pattern ...]]", "Ends subscriptions to patterns, or all of them", -1, func(c *conn, args [][]byte) { c.unsubscribe(patterns, args[1:]) }),
		shard(row("spublish", tell, "7.0.0", "shardchannel message", "Sends a message to those who have subscribed to a shard channel, and answers how many they are", 3, shardPublish), 1),
		shard(row("ssubscribe", listen, "7.0.0", "shardchannel [shardchannel ...]", "Has messages of shard channels sent", -2, func(c *conn, args [][]byte) { c.subscribe(shards, args[1:]) }), -1),
		row("subscribe", listen, "2.0.0", "channel [channel ...]", "Has messages of channels sent", -2, func(c *conn, args [][]byte) { c.subscribe(channels, args[1:]) }),
		shard(row("sunsubscribe", listen, "7.0.0", "[shardchannel [shardchannel ...]]", "Ends subscriptions to shard channels, or all of them", -1, func(c *conn, args [][]byte) { c.unsubscribe(shards, args[1:]) }), -1),
		row("unsubscribe", listen, "2.0.0", "[channel [channel ...]]", "Ends subscriptions to channels, or all of them", -1, func(c *conn, args [][]byte) { c.unsubscribe(channels, args[1:]) }),
	}
}

// listenersCommands are what may be sent by who speaks RESP2 and has subscribed to
// something: whatever comes to him then is an array, which is no reply to anything else.
var listenersCommands = []string{"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe", "ping", "quit", "reset"}

// topics is a kind of what one can subscribe to.
type topics int

const (
	channels topics = iota
	patterns
	shards // there is one shard: they are channels of their own, without patterns
	kindsOfTopics
)

// prefix is what is before the names of commands and messages.
func (t topics) prefix() string { return [...]string{"", "p", "s"}[t] }

// hub knows who has subscribed to what. A message is put into all outboxes under its
// lock, so that all who get two messages get them in the same order. Patterns are matched
// without it: that takes as long as peers have made them and the channel, and must keep
// nobody but the publisher.
type hub struct {
	mu     sync.Mutex
	topics [kindsOfTopics]map[string]map[*conn]struct{}
	known  []string // the patterns, in a slice that is not changed; nil if there is none that is right
}

// longestPattern bounds a pattern that is subscribed to, and with it what every publisher
// has to do for those of others. Redis has no such bound.
const longestPattern = 1024

// subscriptions are a connection's own, by name.
type subscriptions [kindsOfTopics]map[string]struct{}

func (c *conn) subscribed() bool { return c.subs != nil && c.subs.count() > 0 }

// listensOnly: see listenersCommands.
func (c *conn) listensOnly() bool { return c.subscribed() && c.w.Version() == resp.RESP2 }

func (s *subscriptions) count() int { return len(s[channels]) + len(s[patterns]) + len(s[shards]) }

// told is the number in the reply to (un)subscribing.
func (s *subscriptions) told(kind topics) int64 {
	if kind == shards {
		return int64(len(s[shards]))
	}
	return int64(len(s[channels]) + len(s[patterns]))
}

// SUBSCRIBE, PSUBSCRIBE and SSUBSCRIBE name [name ...]
func (c *conn) subscribe(kind topics, names [][]byte) {
	if c.subs == nil {
		c.subs = &subscriptions{}
	}
	if c.subs[kind] == nil {
		c.subs[kind] = map[string]struct{}{}
	}
	if kind == patterns && slices.ContainsFunc(names, func(name []byte) bool { return len(name) > longestPattern }) {
		c.w.Error(fmt.Sprintf("ERR a pattern has at most %d bytes here", longestPattern))
		return
	}
	if c.flush() != nil {
		c.dropped = true
		return
	}
	for _, name := range names {
		c.subs[kind][string(name)] = struct{}{}
		c.w.Push(3)
		c.w.BulkString(kind.prefix() + "subscribe")
		c.w.Bulk(name)
		c.w.Integer(c.subs.told(kind))
	}
	// What was said of the subscriptions is queued, and they are made, in one step for
	// whoever publishes. The first message comes after it, and none is missed by who has
	// been told.
	h := &c.server.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics[kind] == nil {
		h.topics[kind] = map[string]map[*conn]struct{}{}
	}
	for _, name := range names {
		listeners := h.topics[kind][string(name)]
		if listeners == nil {
			listeners = map[*conn]struct{}{}
			h.topics[kind][string(name)] = listeners
			h.forget(kind)
		}
		listeners[c] = struct{}{}
	}
	c.queue()
	c.tellSubscriptions() // and only then: an invalidation, by REDIRECT, comes after it, too
}

// UNSUBSCRIBE, PUNSUBSCRIBE and SUNSUBSCRIBE [name ...]
func (c *conn) unsubscribe(kind topics, names [][]byte) {
	if c.subs == nil {
		c.subs = &subscriptions{}
	}
	if len(names) == 0 {
		for name := range c.subs[kind] {
			names = append(names, []byte(name))
		}
		slices.SortFunc(names, slices.Compare)
	}
	tell := func(name []byte, has bool) {
		c.w.Push(3)
		c.w.BulkString(kind.prefix() + "unsubscribe")
		if has {
			c.w.Bulk(name)
		} else {
			c.w.Null()
		}
		c.w.Integer(c.subs.told(kind))
	}
	// First, for messages that are queued by then are sent before what is said here.
	c.server.hub.remove(c, kind, names)
	for _, name := range names {
		delete(c.subs[kind], string(name))
		tell(name, true)
	}
	if len(names) == 0 {
		tell(nil, false)
	}
	c.keep()
	c.tellSubscriptions()
}

func (h *hub) remove(c *conn, kind topics, names [][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		listeners := h.topics[kind][string(name)]
		delete(listeners, c)
		if len(listeners) == 0 {
			delete(h.topics[kind], string(name))
			h.forget(kind)
		}
	}
}

// forget is for a name that has come or gone. The caller has the lock.
func (h *hub) forget(kind topics) {
	if kind == patterns {
		h.known = nil
	}
}

// matching returns the patterns that a channel matches.
func (h *hub) matching(channel []byte) (found []string) {
	h.mu.Lock()
	if h.known == nil {
		h.known = slices.Collect(maps.Keys(h.topics[patterns]))
	}
	known := h.known
	h.mu.Unlock()
	for _, pattern := range known {
		if glob([]byte(pattern), channel, false) {
			found = append(found, pattern)
		}
	}
	return found
}

// forsake ends all subscriptions without a word.
func (c *conn) forsake() {
	if c.subs == nil {
		return
	}
	for kind := range c.subs {
		var names [][]byte
		for name := range c.subs[kind] {
			names = append(names, []byte(name))
		}
		c.server.hub.remove(c, topics(kind), names)
	}
	c.subs = nil
	c.tellSubscriptions()
}

// tellSubscriptions has others know of how many there are.
func (c *conn) tellSubscriptions() {
	var s subscriptions
	if c.subs != nil {
		s = *c.subs
	}
	c.say(func(a *about) { a.sub, a.psub, a.ssub = len(s[channels]), len(s[patterns]), len(s[shards]) })
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.subscribed = s.count() > 0
}

// message is what is sent to listeners, built once for each version.
type message struct {
	parts [][]byte // without its kind
	kind  string
	built [2][]byte
}

func (m *message) in(version resp.Version) []byte {
	i := 0
	if version == resp.RESP3 {
		i = 1
	}
	if m.built[i] == nil {
		var w resp.Writer
		w.SetVersion(version)
		w.Push(1 + len(m.parts))
		w.BulkString(m.kind)
		for _, part := range m.parts {
			w.Bulk(part)
		}
		m.built[i] = w.Bytes()
	}
	return m.built[i]
}

// publish sends a message, and returns to how many.
func (h *hub) publish(kind topics, channel, text []byte) (receivers int64) {
	var matched []string
	if kind == channels {
		matched = h.matching(channel)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	send := func(listeners map[*conn]struct{}, m *message) {
		for c := range listeners {
			receivers++
			c.out.mu.Lock()
			c.out.putLocked(m.in(c.out.version))
			c.out.mu.Unlock()
		}
	}
	send(h.topics[kind][string(channel)], &message{kind: kind.prefix() + "message", parts: [][]byte{channel, text}})
	for _, pattern := range matched { // whose last listener may be gone by now
		send(h.topics[patterns][pattern], &message{kind: "pmessage", parts: [][]byte{[]byte(pattern), channel, text}})
	}
	return receivers
}

// PUBLISH channel message
func publish(c *conn, args [][]byte) { c.announce(channels, args[1], args[2]) }

// SPUBLISH shardchannel message
func shardPublish(c *conn, args [][]byte) { c.announce(shards, args[1], args[2]) }

// announce has who publishes to himself get that in the order in which everybody does, among
// the messages of others; and between his replies, of which those before must leave first. The
// reply of an EXEC is one, and his message is before it.
func (c *conn) announce(kind topics, channel, text []byte) {
	if !c.executing && c.hears(kind, channel) && c.flush() != nil {
		c.dropped = true
		return
	}
	c.w.Integer(c.server.hub.publish(kind, channel, text))
}

// hears tells whether the connection has subscribed to a channel.
func (c *conn) hears(kind topics, channel []byte) bool {
	if c.subs == nil {
		return false
	}
	if _, has := c.subs[kind][string(channel)]; has {
		return true
	}
	if kind == channels {
		for pattern := range c.subs[patterns] {
			if glob([]byte(pattern), channel, false) {
				return true
			}
		}
	}
	return false
}

// PUBSUB CHANNELS and SHARDCHANNELS [pattern]
func (c *conn) channels(kind topics, args [][]byte) {
	if len(args) > 3 {
		c.w.Error("ERR unknown subcommand or wrong number of arguments for '" + cText(args[1], 128) + "'. Try PUBSUB HELP.")
		return
	}
	h := &c.server.hub
	h.mu.Lock()
	found := slices.Collect(maps.Keys(h.topics[kind]))
	h.mu.Unlock()
	if len(args) == 3 {
		found = slices.DeleteFunc(found, func(name string) bool { return !glob(args[2], []byte(name), false) })
	}
	slices.Sort(found)
	c.w.Array(len(found))
	for _, name := range found {
		c.w.BulkString(name)
	}
}

// PUBSUB NUMSUB and SHARDNUMSUB [channel ...]
func (c *conn) listeners(kind topics, names [][]byte) {
	h := &c.server.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	c.w.Array(2 * len(names))
	for _, name := range names {
		c.w.Bulk(name)
		c.w.Integer(int64(len(h.topics[kind][string(name)])))
	}
}

// PUBSUB NUMPAT
func pubsubNumPat(c *conn, _ [][]byte) {
	h := &c.server.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	c.w.Integer(int64(len(h.topics[patterns])))
}
