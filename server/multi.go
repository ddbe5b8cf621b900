package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
)

func multiCommands() []command {
	const g, flags = "transactions", "noscript loading stale fast allow_busy"
	const c = "transaction"
	return []command{
		{name: "discard", arity: 1, flags: flags, categories: c, group: g, since: "2.0.0", run: discard, atOnce: true, summary: "Forgets the commands since MULTI"},
		{name: "exec", arity: 1, flags: "noscript loading stale skip_slowlog", categories: c, group: g, since: "1.2.0", run: exec, atOnce: true, summary: "Runs the commands since MULTI, in one transaction of the database"},
		{name: "multi", arity: 1, flags: flags, categories: c, group: g, since: "1.2.0", run: beginMulti, atOnce: true, summary: "Begins a transaction: what follows waits for EXEC"},
		{name: "unwatch", arity: 1, flags: flags, categories: c, group: g, since: "2.2.0", run: unwatch, summary: "Forgets what WATCH has been told"},
		{name: "watch", arity: -2, flags: flags, categories: c, group: g, keys: keys{1, -1, 1}, access: "RO", since: "2.2.0", run: watch, atOnce: true, syntax: "key [key ...]", summary: "Has EXEC do nothing if one of the keys is changed before"},
	}
}

// multi is what has come since MULTI.
type multi struct {
	queue []queued
	size  int  // of the memory that the queue takes, roughly
	wrong bool // something was refused, and EXEC will be
}

type queued struct {
	cmd  *command
	args [][]byte
}

// seen is what WATCH has found.
type seen struct {
	exists  bool
	version lockstep.Version
	value   Value // of a row that has no version, as those of some tables
}

func seenOf(r row, version lockstep.Version) seen {
	if version == 0 {
		return seen{exists: r.exists, value: r.value}
	}
	return seen{exists: r.exists, version: version}
}

// Roughly what a request takes in a queue, and each of its arguments, beside its bytes.
const (
	queuedSize = 64
	argSize    = 24
)

// MULTI
func beginMulti(c *conn, _ [][]byte) {
	if c.multi != nil {
		c.w.Error("ERR MULTI calls can not be nested")
		return
	}
	c.multi = &multi{}
	c.ok()
}

// DISCARD
func discard(c *conn, _ [][]byte) {
	if c.multi == nil {
		c.w.Error("ERR DISCARD without MULTI")
		return
	}
	c.endMulti()
	c.ok()
}

// endMulti makes the connection one that has sent neither MULTI nor WATCH.
func (c *conn) endMulti() {
	c.multi = nil
	c.forgetWatched()
}

func (c *conn) forgetWatched() { c.watched, c.watchedSize = nil, 0 }

// UNWATCH
func unwatch(c *conn, _ [][]byte) {
	c.forgetWatched()
	c.ok()
}

// refuse answers a request that is not run, because of what it is or who sent it. Inside
// MULTI it has EXEC refused, too.
func (c *conn) refuse(cmd *command, text string) {
	switch {
	case cmd != nil && cmd.full == "exec":
		c.endMulti()
		text = "EXECABORT Transaction discarded because of: " + strings.TrimPrefix(text, "ERR ")
	case c.multi != nil:
		c.multi.wrong = true
	}
	c.w.Error(text)
}

// enqueue keeps a request for EXEC.
func (c *conn) enqueue(cmd *command, args [][]byte) {
	m, most := c.multi, c.server.most()
	if cmd.alone != "" {
		c.refuse(cmd, "ERR "+strings.ToUpper(strings.ReplaceAll(cmd.full, "|", " "))+" is not allowed inside MULTI: "+cmd.alone)
		return
	}
	if !m.wrong {
		m.size += queuedSize
		for _, arg := range args {
			m.size += argSize + len(arg)
		}
		if m.size > most {
			c.refuse(cmd, fmt.Sprintf("ERR too large: the commands inside MULTI take more than %d bytes (Limits.MaxRequest)", most))
			return
		}
		m.queue = append(m.queue, queued{cmd, clone(args)})
	}
	c.w.SimpleString("QUEUED")
}

// most bounds what a connection may have kept of several requests together, as one request
// is bounded.
func (s *Server) most() int {
	if most := s.options.Limits.MaxRequest; most > 0 {
		return most
	}
	return resp.DefaultMaxRequest
}

// clone copies arguments out of the reader's buffer.
func clone(args [][]byte) [][]byte {
	n := 0
	for _, arg := range args {
		n += len(arg)
	}
	all, copied := make([]byte, 0, n), make([][]byte, len(args))
	for i, arg := range args {
		from := len(all)
		all = append(all, arg...)
		copied[i] = all[from:len(all):len(all)] // who appends to one does not write over the next
	}
	return copied
}

// WATCH key [key ...]
func watch(c *conn, args [][]byte) {
	switch {
	case c.multi != nil:
		c.w.Error("ERR WATCH inside MULTI is not allowed")
		return
	case c.server.keys == nil:
		c.w.Error(noStore)
		return
	}
	ctx, keys := c.server.life, c.server.keys
	if len(args) > 2 {
		_, _ = keys.many(ctx, textsOf(args[1:])) // in one load; those that fail are asked for again
	}
	for _, arg := range args[1:] {
		key := string(arg)
		if _, again := c.watched[key]; again {
			continue
		}
		if c.watchedSize += queuedSize + len(key); c.watchedSize > c.server.most() {
			c.w.Error(fmt.Sprintf("ERR too large: the watched keys take more than %d bytes (Limits.MaxRequest)", c.server.most()))
			return
		}
		now, version, err := keys.read(ctx, key)
		if err != nil {
			(&request{w: &c.w}).fail(err)
			return
		}
		if c.watched == nil {
			c.watched = map[string]seen{}
		}
		c.watched[key] = seenOf(now, version)
		c.watchedSize += len(c.watched[key].value)
	}
	c.ok()
}

func textsOf(args [][]byte) []string {
	texts := make([]string, len(args))
	for i, arg := range args {
		texts[i] = string(arg)
	}
	return texts
}

// EXEC
func exec(c *conn, _ [][]byte) {
	m := c.multi
	switch {
	case m == nil:
		c.w.Error("ERR EXEC without MULTI")
		return
	case m.wrong:
		c.endMulti()
		c.w.Error("EXECABORT Transaction discarded because of previous errors.")
		return
	}
	defer c.endMulti() // afterwards: CLIENT LIST tells of MULTI inside EXEC
	t := &execution{conn: c, queue: m.queue, watched: c.watched}
	var read []string
	for _, q := range m.queue {
		read = append(read, c.follow(q.cmd, q.args)...)
	}
	w := c.newWriting()
	c.alone.writing = w // see do
	err := w.run(func() error { return t.transact(w) })
	if err == nil {
		w.reread(read)
	}
	if errors.Is(err, errTouched) && !errors.Is(err, lockstep.ErrUnknownOutcome) {
		c.w.NullArray()
		return
	} else if err != nil {
		(&request{w: &c.w}).fail(err)
		return
	}
	c.executing = true
	defer func() { c.executing = false }()
	c.w.Array(len(m.queue))
	tracks := false // by a command of these: nobody was down for what those behind it have read
	for i, q := range m.queue {
		before := c.w.Len()
		switch {
		case q.cmd.keyed == nil && !c.may(q.cmd):
			c.w.Error(notAnyMore)
		case q.cmd.keyed == nil:
			q.cmd.run(c, q.args)
			tracks = tracks || q.cmd.full == "client|tracking" || q.cmd.full == "client|caching"
		default:
			c.w.Raw(t.reply(i))
			if tracks {
				for _, key := range c.follow(q.cmd, q.args) {
					c.again(key)
				}
			}
		}
		c.executed(q.cmd, c.w.Bytes()[min(before, c.w.Len()):])
	}
}

// errTouched says that a watched key is not what it was.
var errTouched = errors.New("a watched key was changed")

// execution is an EXEC under way. Commands about keys are run in one transaction, whose
// function runs again when somebody has changed what it read, and which builds their
// replies anew each time. Commands about the connection have effects, and no part in the
// database's transaction: they are run once, in their turn, when that is committed.
type execution struct {
	conn    *conn
	queue   []queued
	watched map[string]seen

	replies resp.Writer // of commands about keys
	ends    []int       // in it
}

func (t *execution) reply(i int) []byte {
	begin := 0
	if i > 0 {
		begin = t.ends[i-1]
	}
	return t.replies.Bytes()[begin:t.ends[i]]
}

// transact runs the commands about keys, if there are any, and looks at what is watched.
func (t *execution) transact(w *writing) error {
	keyed := len(t.watched) > 0
	for _, q := range t.queue {
		keyed = keyed || q.cmd.keyed != nil
	}
	if !keyed {
		return nil
	}
	s := t.conn.server
	versions := t.versions()
	return lockstep.Transact(w, func(ctx context.Context, tx *lockstep.Tx) error {
		in := newRows(ctx, tx, s.keys.cache.Cache, s.keys.tables)
		inside := *s.keys
		inside.view = in
		t.replies.Reset(keptOutput)
		t.ends = t.ends[:0]
		if err := t.look(ctx, in); err != nil {
			return err
		}
		for i, q := range t.queue {
			if q.cmd.keyed != nil {
				t.replies.SetVersion(versions[i])
				in.own.began()
				w.cmd = q.cmd
				t.run(&request{ctx: ctx, keys: &inside, cmd: q.cmd, args: q.args, w: &t.replies})
				if err := in.own.failed; err != nil {
					return err
				}
				if n := t.replies.Len(); n > s.most() {
					return reply(fmt.Sprintf("ERR too large: the replies of EXEC come to more than %d bytes (Limits.MaxRequest)", s.most()))
				}
			}
			t.ends = append(t.ends, t.replies.Len())
		}
		return nil
	})
}

func (t *execution) run(r *request) {
	if !t.conn.may(r.cmd) {
		r.error(notAnyMore)
		return
	}
	r.cmd.keyed(r)
}

// notAnyMore is the reply to a command that its user might send and may not run by now.
const notAnyMore = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: no permission to execute the command"

// look reads what the commands are going to read, together, and compares what is watched.
func (t *execution) look(ctx context.Context, in rows) error {
	var names []string
	for key := range t.watched {
		names = append(names, key)
	}
	for _, q := range t.queue {
		if q.cmd.keyed != nil && q.cmd.reads() {
			names = append(names, textsOf(q.cmd.keys.of(q.args))...)
		}
	}
	if _, err := in.many(ctx, names); err != nil && !refused(err) {
		return err
	}
	for key, before := range t.watched {
		now, version, err := in.read(ctx, key)
		switch {
		case err != nil:
			return err
		case before != seenOf(now, version):
			return errTouched
		}
	}
	return nil
}

// reads tells whether a command reads what its keys hold, whatever its options are.
func (c *command) reads() bool {
	return !strings.HasPrefix(c.access, "OW") && !strings.Contains(c.access, "variable_flags") && c.second == ""
}

// versions are those of the protocol in which each command is answered, which HELLO
// changes. It is run when the transaction is committed, and here on a connection for show.
func (t *execution) versions() []resp.Version {
	spoken := t.conn.w.Version()
	versions := make([]resp.Version, len(t.queue))
	var show *conn
	for i, q := range t.queue {
		versions[i] = spoken
		if q.cmd.full != "hello" {
			continue
		}
		if show == nil {
			show = newConn(t.conn.server, t.conn.nc)
			show.become(t.conn.about.user, User{}, t.conn.authenticated)
			show.w.SetVersion(spoken)
		}
		hello(show, q.args)
		spoken = show.w.Version()
	}
	return versions
}
