package server

import (
	"bytes"
	"strings"
)

// do runs a request and builds its reply. The order of the checks is Redis's: what the
// command is, how many arguments it has, who asks.
func (c *conn) do(args [][]byte) {
	if !c.renew() {
		c.dropped = true
		return
	}
	container, cmd := commands.find(args)
	if c.join(cmd, args) {
		return
	}
	c.runGroup()
	c.answer(func() {
		before := c.w.Len()
		c.dispatch(container, cmd, args)
		c.answered(container, cmd, c.w.Bytes()[min(before, c.w.Len()):])
	})
	if w := c.alone.writing; w != nil {
		c.alone.writing, c.wrote = nil, true
		c.tellOwn(w.own)
	}
	if c.multi == nil && (cmd == nil || container == nil || container.name != "client") {
		c.follows.caching = false // it was for this one, or for the EXEC that this one was
	}
}

func (c *conn) dispatch(container, cmd *command, args [][]byte) {
	refusal := c.refusal(container, cmd, args)
	switch {
	case c.dropped:
		return
	case refusal != "":
		c.refuse(cmd, refusal)
		return
	}
	c.current = cmd
	if c.multi != nil && !cmd.atOnce {
		c.enqueue(cmd, args)
		return
	}
	c.begin(cmd, args)
	switch {
	case cmd.keyed == nil:
		cmd.run(c, args)
	default:
		c.follow(cmd, args)
		c.alone = c.request(cmd, args, &c.w)
		c.alone.perform()
	}
}

const noStore = "ERR this server was started without a store, and has no keys"

// refusal is the error that answers a request which is not run, or "".
func (c *conn) refusal(container, cmd *command, args [][]byte) string {
	switch {
	case cmd == nil && container == nil:
		return c.unknown(args)
	case cmd == nil:
		return "ERR unknown subcommand '" + cText(args[1], 128) + "'. Try " + strings.ToUpper(container.name) + " HELP."
	case !cmd.fits(len(args)):
		return wrongNumberOf(cmd.full)
	case !c.authenticated && !cmd.noAuth:
		return "NOAUTH Authentication required."
	case !c.may(cmd):
		return "NOPERM this user has no permissions to run the '" + cmd.full + "' command"
	case c.listensOnly() && !cmd.whileListening:
		return "ERR Can't execute '" + cmd.full + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
	case cmd.keyed != nil && c.server.keys == nil:
		return noStore
	}
	return ""
}

// unknown is the error about a command that is not there. Redis names the first of its arguments,
// until that comes to 128 bytes. HTTP is not answered: a web page can make a browser send
// requests here, and must not learn what they do.
func (c *conn) unknown(args [][]byte) string {
	if bytes.EqualFold(args[0], []byte("post")) || bytes.EqualFold(args[0], []byte("host:")) {
		c.server.unwelcome.warn(c, "server: an HTTP request, perhaps made by a web page that attacks; its connection is closed", nil)
		c.dropped = true
		return ""
	}
	var given strings.Builder
	for _, arg := range args[1:] {
		if given.Len() >= 128 {
			break
		}
		given.WriteString("'" + cText(arg, 128-given.Len()) + "' ")
	}
	return "ERR unknown command '" + cText(args[0], 128) + "', with args beginning with: " + given.String()
}

func (c *conn) wrongNumber(command string) {
	c.w.Error(wrongNumberOf(command))
}

func wrongNumberOf(command string) string {
	return "ERR wrong number of arguments for '" + command + "' command"
}

func (c *conn) syntaxError() { c.w.Error("ERR syntax error") }

func (c *conn) ok() { c.w.SimpleString("OK") }

// cText is at most so many bytes of a text, and ends at a NUL, as C's strings do.
func cText(b []byte, most int) string {
	b = b[:min(len(b), most)]
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

// is tells whether an argument is that word, in small letters, in whatever case.
func is(arg []byte, word string) bool {
	return len(arg) == len(word) && strings.EqualFold(string(arg), word)
}
