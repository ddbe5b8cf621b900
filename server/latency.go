package server

// Redis keeps samples of what was slow, by kind of event, if it is told to: this server
// does not, and refuses to be told to (CONFIG SET latency-monitor-threshold). So what asks
// for them, exporters among them, is answered as by a Redis that was not told to.

func latencyCommands() []command {
	const admin = "admin noscript loading stale"
	const varies = "nondeterministic_output request_policy:all_nodes response_policy:special"
	return []command{{name: "latency", arity: -2, group: "server", since: "2.8.13", summary: "Commands about samples of what was slow, which this server does not keep: see SLOWLOG, and the metrics", subs: []command{
		{name: "doctor", arity: 2, flags: admin, tips: varies, since: "2.8.13", run: latencyDoctor, summary: "Says that there are none"},
		{name: "help", arity: 2, flags: "loading stale", since: "2.8.13", run: help("latency"), summary: "This help"},
		{name: "history", arity: 3, flags: admin, tips: varies, since: "2.8.13", run: latencyNone, syntax: "event", summary: "The samples of an event, of which there are none"},
		{name: "latest", arity: 2, flags: admin, tips: varies, since: "2.8.13", run: latencyNone, summary: "The latest samples, of which there are none"},
		{name: "reset", arity: -2, flags: admin, tips: "request_policy:all_nodes response_policy:all_succeeded", since: "2.8.13", run: latencyReset, syntax: "[event [event ...]]", summary: "How many kinds of samples were forgotten: none"},
	}}}
}

// LATENCY LATEST, LATENCY HISTORY event
func latencyNone(c *conn, _ [][]byte) { c.w.Array(0) }

// LATENCY RESET [event [event ...]]
func latencyReset(c *conn, _ [][]byte) { c.w.Integer(0) }

// LATENCY DOCTOR
func latencyDoctor(c *conn, _ [][]byte) {
	c.w.Verbatim(textFormat, "This server keeps no samples of latency. SLOWLOG has requests that were slow, and INFO lockstep and the metrics how long the database takes.\n")
}
