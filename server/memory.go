package server

// entryBytes is what memory takes for a key besides its name and its value, about.
const entryBytes = 200

func memoryCommands() []command {
	return []command{
		{name: "memory", arity: -2, group: "server", since: "4.0.0", summary: "Commands about memory", subs: []command{
			{name: "help", arity: 2, flags: "loading stale", since: "4.0.0", run: help("memory"), summary: "This help"},
			{name: "usage", arity: -3, flags: "readonly", keys: keys{2, 2, 1}, access: "RO", since: "4.0.0", keyed: memoryUsage, syntax: "key [SAMPLES count]", summary: "How many bytes the key takes where memory holds it, about"},
		}},
		{name: "debug", arity: -2, flags: "admin noscript loading stale", group: "server", since: "1.0.0", run: refuseDebug, syntax: "subcommand [arg ...]", summary: "Refused"},
	}
}

// MEMORY USAGE key [SAMPLES count]
func memoryUsage(r *request) {
	for rest := r.args[3:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) == 1 || !is(rest[0], "samples") {
			r.error(syntaxError)
			return
		}
		n, ok := r.number(rest[1])
		if !ok {
			return
		}
		if n < 0 {
			r.error(syntaxError)
			return
		}
	}
	row, _, err := r.keys.read(r.ctx, string(r.args[2]))
	switch {
	case err != nil:
		r.fail(err)
	case !row.exists:
		r.w.Null()
	default:
		r.w.Integer(int64(len(r.args[2]) + len(row.value) + entryBytes))
	}
}

// DEBUG subcommand [arg ...]
func refuseDebug(c *conn, _ [][]byte) {
	c.w.Error(`ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.`)
}
