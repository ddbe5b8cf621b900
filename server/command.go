package server

import (
	"strings"
)

func commandCommands() []command {
	const c, flags, order = "connection", "loading stale", "nondeterministic_output_order"
	return []command{{name: "command", arity: -1, flags: flags, categories: c, tips: order, group: "server", since: "2.8.13", run: commandAll, summary: "Everything that there is to know of all commands", subs: []command{
		{name: "count", arity: 2, flags: flags, categories: c, since: "2.8.13", run: commandCount, summary: "How many commands there are"},
		{name: "docs", arity: -2, flags: flags, categories: c, tips: order, since: "7.0.0", run: commandDocs, syntax: "[command-name [command-name ...]]", summary: "What commands are for, and their syntax"},
		{name: "getkeys", arity: -4, flags: flags, categories: c, since: "2.8.13", run: commandGetKeys, syntax: "command [arg [arg ...]]", summary: "Which of a command's arguments are keys"},
		{name: "help", arity: 2, flags: flags, categories: c, since: "5.0.0", run: help("command"), summary: "This help"},
		{name: "info", arity: -2, flags: flags, categories: c, tips: order, since: "2.8.13", run: commandInfo, syntax: "[command-name [command-name ...]]", summary: "Arity, flags, keys and categories of commands"},
		{name: "list", arity: -2, flags: flags, categories: c, tips: order, since: "7.0.0", run: commandList, syntax: "[FILTERBY MODULE module-name | ACLCAT category | PATTERN pattern]", summary: "The names of commands"},
	}}}
}

// COMMAND
func commandAll(c *conn, _ [][]byte) {
	c.w.Array(len(commands.all))
	for _, cmd := range commands.all {
		c.describe(cmd)
	}
}

// COMMAND COUNT
func commandCount(c *conn, _ [][]byte) { c.w.Integer(int64(len(commands.all))) }

// COMMAND INFO [command-name [command-name ...]]
func commandInfo(c *conn, args [][]byte) {
	if len(args) == 2 {
		commandAll(c, args)
		return
	}
	c.w.Array(len(args) - 2)
	for _, name := range args[2:] {
		if cmd := lookup(commands.byName, name); cmd != nil {
			c.describe(cmd)
		} else {
			c.w.Null()
		}
	}
}

// describe writes a command's row as COMMAND does.
func (c *conn) describe(cmd *command) {
	c.w.Array(10)
	c.w.BulkString(cmd.full)
	c.w.Integer(int64(cmd.arity))
	c.words("", strings.Fields(cmd.flags))
	for _, n := range []int{cmd.keys.first, cmd.keys.last, cmd.keys.step} {
		c.w.Integer(int64(n))
	}
	c.words("@", cmd.allCategories())
	tips := strings.Fields(cmd.tips)
	c.w.Set(len(tips))
	for _, tip := range tips {
		c.w.BulkString(tip)
	}
	c.describeKeys(cmd)
	c.w.Set(len(cmd.subs))
	for i := range cmd.subs {
		c.describe(&cmd.subs[i])
	}
}

// describeKeys writes where a command's keys are, and what it does with them.
func (c *conn) describeKeys(cmd *command) {
	last := cmd.keys.last
	if last > 0 {
		last -= cmd.keys.first // it is counted from the first
	}
	switch {
	case cmd.access == "":
		c.w.Set(0)
	case cmd.second == "":
		c.w.Set(1)
		c.describeRange(cmd.access, cmd.note, keys{cmd.keys.first, last, cmd.keys.step})
	default:
		c.w.Set(2)
		c.describeRange(cmd.access, cmd.note, keys{1, 0, 1})
		c.describeRange(cmd.second, "", keys{2, 0, 1})
	}
}

// describeRange writes where some keys are, the last counted from the first.
func (c *conn) describeRange(access, note string, k keys) {
	n := 3
	if note != "" {
		n++
	}
	c.w.Map(n)
	if note != "" {
		c.w.BulkString("notes")
		c.w.BulkString(note)
	}
	c.w.BulkString("flags")
	c.words("", strings.Fields(access))
	c.w.BulkString("begin_search")
	c.w.Map(2)
	c.w.BulkString("type")
	c.w.BulkString("index")
	c.w.BulkString("spec")
	c.w.Map(1)
	c.w.BulkString("index")
	c.w.Integer(int64(k.first))
	c.w.BulkString("find_keys")
	c.w.Map(2)
	c.w.BulkString("type")
	c.w.BulkString("range")
	c.w.BulkString("spec")
	c.w.Map(3)
	for _, pair := range []struct {
		name string
		n    int
	}{{"lastkey", k.last}, {"keystep", k.step}, {"limit", 0}} {
		c.w.BulkString(pair.name)
		c.w.Integer(int64(pair.n))
	}
}

// words writes a set of words, each with a prefix.
func (c *conn) words(prefix string, words []string) {
	c.w.Set(len(words))
	for _, word := range words {
		c.w.SimpleString(prefix + word)
	}
}

// COMMAND DOCS [command-name [command-name ...]]
func commandDocs(c *conn, args [][]byte) {
	found := commands.all
	if len(args) > 2 {
		found = nil
		for _, name := range args[2:] {
			if cmd := lookup(commands.byName, name); cmd != nil {
				found = append(found, cmd)
			}
		}
	}
	c.w.Map(len(found))
	for _, cmd := range found {
		c.document(cmd)
	}
}

// document writes a command's name and what it is for.
func (c *conn) document(cmd *command) {
	c.w.BulkString(cmd.full)
	fields := [][2]string{{"summary", strings.TrimSpace(cmd.summary)}, {"since", cmd.since}, {"group", cmd.group}}
	n := len(fields)
	if len(cmd.subs) > 0 {
		n++
	}
	c.w.Map(n)
	for _, field := range fields {
		c.w.BulkString(field[0])
		c.w.BulkString(field[1])
	}
	if len(cmd.subs) > 0 {
		c.w.BulkString("subcommands")
		c.w.Map(len(cmd.subs))
		for i := range cmd.subs {
			c.document(&cmd.subs[i])
		}
	}
}

// COMMAND GETKEYS command [arg [arg ...]]
func commandGetKeys(c *conn, args [][]byte) {
	args = args[2:]
	_, cmd := commands.find(args)
	switch {
	case cmd == nil:
		c.w.Error("ERR Invalid command specified")
		return
	case cmd.keys.step == 0, cmd.access == "not_key":
		c.w.Error("ERR The command has no key arguments")
		return
	case !cmd.fits(len(args)):
		c.w.Error("ERR Invalid number of arguments specified for command")
		return
	}
	keys := cmd.keys.of(args)
	c.w.Array(len(keys))
	for _, key := range keys {
		c.w.Bulk(key)
	}
}

// COMMAND LIST [FILTERBY MODULE module-name | ACLCAT category | PATTERN pattern]
func commandList(c *conn, args [][]byte) {
	var wanted func(cmd *command) bool
	switch {
	case len(args) == 2:
		c.w.Array(len(commands.all))
		for _, cmd := range commands.all {
			c.w.BulkString(cmd.full)
		}
		return
	case len(args) != 5 || !is(args[2], "filterby"):
		c.syntaxError()
		return
	case is(args[3], "module"):
		wanted = func(*command) bool { return false }
	case is(args[3], "aclcat"):
		wanted = func(cmd *command) bool {
			for _, category := range cmd.allCategories() {
				if is(args[4], category) {
					return true
				}
			}
			return false
		}
	case is(args[3], "pattern"):
		wanted = func(cmd *command) bool { return glob(args[4], []byte(cmd.full), true) }
	default:
		c.syntaxError()
		return
	}
	var found []*command
	for _, cmd := range commands.names() {
		if wanted(cmd) {
			found = append(found, cmd)
		}
	}
	c.w.Array(len(found))
	for _, cmd := range found {
		c.w.BulkString(cmd.full)
	}
}

// help returns a HELP of a container's subcommands, made of their rows.
func help(container string) func(c *conn, _ [][]byte) {
	return func(c *conn, _ [][]byte) {
		cmd := commands.byName[container]
		c.w.Array(1 + 2*len(cmd.subs))
		c.w.SimpleString(strings.ToUpper(container) + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
		for i := range cmd.subs {
			sub := &cmd.subs[i]
			c.w.SimpleString(strings.TrimSpace(strings.ToUpper(sub.name) + " " + sub.syntax))
			c.w.SimpleString("    " + sub.summary + ".")
		}
	}
}
