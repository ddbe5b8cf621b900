package server

import (
	"strconv"
	"time"
)

func serverCommands() []command {
	return []command{
		{name: "time", arity: 1, flags: "loading stale fast", group: "server", since: "2.6.0", run: tellTime, tips: "nondeterministic_output", summary: "The time of the server's clock, in seconds and microseconds"},
	}
}

// TIME
func tellTime(c *conn, _ [][]byte) {
	now := time.Now()
	c.w.Array(2)
	c.w.BulkString(strconv.FormatInt(now.Unix(), 10))
	c.w.BulkString(strconv.Itoa(now.Nanosecond() / 1000))
}
