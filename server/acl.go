package server

func aclCommands() []command {
	const flags = "noscript loading stale"
	return []command{{name: "acl", arity: -2, group: "server", since: "6.0.0", summary: "Commands about users, whom this server is told of by its options or a file", subs: []command{
		{name: "help", arity: 2, flags: "loading stale", since: "6.0.0", run: help("acl"), summary: "This help"},
		{name: "whoami", arity: 2, flags: flags, since: "6.0.0", run: aclWhoAmI, summary: "The name of the connection's user"},
	}}}
}

// ACL WHOAMI
func aclWhoAmI(c *conn, _ [][]byte) { c.w.BulkString(c.about.user) }
