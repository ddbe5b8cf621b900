package server

import (
	"bytes"
	"slices"
	"strings"
)

// command is a row of the table: everything that is known of a command, from which it is
// checked and run, and from which COMMAND answers.
type command struct {
	name       string // in small letters; of a subcommand without its container's
	arity      int    // how many arguments, the name (and its container's) among them; -n: n or more
	flags      string // as Redis calls them: readonly write fast admin no_auth …
	categories string // of ACLs, besides those that follow from the flags
	keys       keys
	tips       string
	syntax     string // of the arguments
	summary    string // one line
	since      string // the version of Redis
	group      string
	run        func(c *conn, args [][]byte)
	subs       []command

	// Inside MULTI a command waits for EXEC, unless it is run atOnce, or alone says why it
	// cannot be a part of a transaction.
	atOnce bool
	alone  string

	// Of commands about keys, which have keyed instead of run.
	keyed  func(r *request)
	shares func(args [][]byte) bool // whether it may be part of a run of writes; nil: never
	access string                   // what it does with its keys, as Redis calls that
	second string                   // the same of its second key, where that is another
	note   string                   // about access

	// What follows from the above, when the table is made.
	number int    // from 1 on, in its table
	full   string // "client|list"
	noAuth bool
	// guarded: not for users who are read-only.
	guarded bool
	// tracked: who sends it may keep what its keys hold. writes: it may change them.
	tracked, writes bool
	// whileListening: it may be sent by who speaks RESP2 and has subscribed to something.
	whileListening bool
	sub            map[string]*command
}

// keys says which arguments are keys: from the first to the last, every step. The name is
// argument 0, and a negative last is counted from the end: -1 is the last one. None: zero.
type keys struct{ first, last, step int }

// of returns the keys among the arguments.
func (k keys) of(args [][]byte) [][]byte {
	if k.step == 0 {
		return nil
	}
	last := k.last
	if last < 0 {
		last += len(args)
	}
	var found [][]byte
	for i := k.first; i <= last && i < len(args); i += k.step {
		found = append(found, args[i])
	}
	return found
}

// commands is the table. It is filled here and not where it is declared, for COMMAND, which
// is in it, reads it.
var commands *table

func init() {
	commands = newTable(
		connectionCommands(),
		clientCommands(),
		commandCommands(),
		serverCommands(),
		aclCommands(),
		infoCommands(),
		configCommands(),
		slowlogCommands(),
		latencyCommands(),
		memoryCommands(),
		stringCommands(),
		keyCommands(),
		expiryCommands(),
		renameCommands(),
		multiCommands(),
		lockstepCommands(),
		hashCommands(),
		objectCommands(),
		lcsCommands(),
		pubsubCommands(),
	)
}

// table is all commands, in the order of their families.
type table struct {
	size   int // one more than the last number
	all    []*command
	byName map[string]*command // of subcommands, too, as "client|list"
}

func newTable(families ...[]command) *table {
	t := &table{byName: map[string]*command{}, size: 1}
	for _, family := range families {
		for i := range family {
			c := &family[i]
			c.derive(c.name)
			c.number = t.size
			t.size++
			t.all = append(t.all, c)
			t.byName[c.full] = c
			for j := range c.subs {
				sub := &c.subs[j]
				sub.derive(c.name + "|" + sub.name)
				sub.number = t.size
				t.size++
				if sub.group == "" {
					sub.group = c.group
				}
				t.byName[sub.full] = sub
				if c.sub == nil {
					c.sub = map[string]*command{}
				}
				c.sub[sub.name] = sub
			}
		}
	}
	return t
}

func (c *command) derive(full string) {
	c.full = full
	flags := strings.Fields(c.flags)
	if c.keyed != nil && slices.Contains(strings.Fields(c.flags), "write") {
		c.keyed = guarded(c)
	}
	c.noAuth = slices.Contains(flags, "no_auth")
	c.guarded = slices.Contains(flags, "write") || slices.Contains(flags, "admin")
	c.tracked = c.keyed != nil && slices.Contains(flags, "readonly")
	c.writes = c.keyed != nil && slices.Contains(flags, "write")
	c.whileListening = slices.Contains(listenersCommands, full)
}

// names are the names by which each command can be asked for: those of its subcommands
// follow its own.
func (t *table) names() []*command {
	var all []*command
	for _, c := range t.all {
		all = append(all, c)
		for i := range c.subs {
			all = append(all, &c.subs[i])
		}
	}
	return all
}

// longestName bounds the search for a command: no name is as long.
const longestName = 32

// lookup finds a command in a map by its name in whatever case, without allocating.
func lookup(in map[string]*command, name []byte) *command {
	var small [longestName]byte
	if len(name) > len(small) {
		return nil
	}
	for i, b := range name {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		small[i] = b
	}
	return in[string(small[:len(name)])]
}

// find returns the command that a request is for. Where its first word is a container's name,
// and its second no name of a subcommand, there is only a container.
func (t *table) find(request [][]byte) (container, cmd *command) {
	cmd = lookup(t.byName, request[0])
	switch {
	case cmd == nil || bytes.IndexByte(request[0], '|') >= 0:
		return nil, nil
	case cmd.sub != nil && len(request) > 1:
		return cmd, lookup(cmd.sub, request[1])
	}
	return nil, cmd
}

// categoryOrder is the order in which Redis names the categories of its ACLs.
var categoryOrder = strings.Fields("keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub " +
	"admin fast slow blocking dangerous connection transaction scripting")

// allCategories returns a command's categories, those that follow from its flags included.
func (c *command) allCategories() []string {
	has := map[string]bool{}
	for _, category := range strings.Fields(c.categories) {
		has[category] = true
	}
	flag := map[string]bool{}
	for _, f := range strings.Fields(c.flags) {
		flag[f] = true
	}
	has["fast"], has["slow"] = flag["fast"], !flag["fast"]
	has["write"] = has["write"] || flag["write"]
	has["read"] = has["read"] || flag["readonly"]
	has["admin"] = has["admin"] || flag["admin"]
	has["dangerous"] = has["dangerous"] || flag["admin"]
	has["pubsub"] = has["pubsub"] || flag["pubsub"]
	has["blocking"] = has["blocking"] || flag["blocking"]
	var ordered []string
	for _, category := range categoryOrder {
		if has[category] {
			ordered = append(ordered, category)
		}
	}
	return ordered
}

// fits tells whether that many arguments may be given.
func (c *command) fits(args int) bool {
	return c.arity == args || c.arity < 0 && args >= -c.arity
}
