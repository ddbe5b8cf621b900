package server

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
)

// keyspace is what commands about keys work on: rows, one a key, whose end is the key's.
type keyspace struct {
	view
	cache  *rowCache // for what is about the whole table
	tables *tables
	// longest is how many bytes a string may grow to, so that what is too long is refused
	// before it is built.
	longest int
	// mostReply is how many bytes of values one reply may have.
	mostReply int
	absent    time.Duration // see left
	cursors   *cursors
}

func newKeyspace(o Options, t *tracking) (*keyspace, error) {
	if o.Cache.StaleIfError != 0 || o.Cache.Clone != nil {
		return nil, errors.New("server: Options.Cache has StaleIfError or Clone: a reply cannot say that it is stale, and values cannot be changed")
	}
	if err := commits(o.Cache.Mode); err != nil {
		return nil, fmt.Errorf("server: Options.Cache: %w", err)
	}
	listen(t, &o.Cache.Hooks, func(key string) string { return key })
	t.server.tellEnds(&o.Cache.Hooks)
	opened, err := lockstep.New(o.Store, o.Cache)
	if err != nil {
		return nil, fmt.Errorf("server: Options.Cache: %w", err)
	}
	tables, err := openTables(o.Tables, o.Store.Capabilities().Table, t)
	if err != nil {
		return nil, errors.Join(err, opened.Close(context.Background()))
	}
	cache := &rowCache{opened, t}
	longest := o.Cache.MaxValueBytes
	if longest == 0 {
		longest = lockstep.DefaultMaxValueBytes
	}
	return &keyspace{
		tables: tables, view: &cached{cache: cache, tables: tables, seed: maphash.MakeSeed()}, cache: cache, longest: longest - 1, mostReply: t.server.most(), absent: absentFor(o.Cache), cursors: &cursors{},
	}, nil
}

// commits refuses the modes of a cache in which a write that is answered is not in the
// database, or is not the cache's to make.
func commits(mode lockstep.Mode) error {
	if mode == lockstep.WriteBehind || mode == lockstep.CacheAside {
		return fmt.Errorf("its Mode is %v; what the server answers is committed, by the cache", mode)
	}
	return nil
}

// request is a command about keys, under way: on its connection's goroutine, or beside
// others of its pipeline.
type request struct {
	ctx  context.Context // writing, where it is not nil
	keys *keyspace
	cmd  *command
	args [][]byte
	w    *resp.Writer

	writing *writing // nil for what does not write
}

// request makes a request of the connection.
func (c *conn) request(cmd *command, args [][]byte, w *resp.Writer) request {
	r := request{ctx: c.server.life, keys: c.server.keys, cmd: cmd, args: args, w: w}
	if cmd.writes {
		r.writing = c.newWriting()
		r.writing.cmd = cmd
		r.ctx = r.writing
	}
	return r
}

func (c *conn) newWriting() *writing {
	return &writing{Context: c.server.life, tracking: c.server.tracking, conn: c, noting: c.server.events.Load() != 0}
}

// perform runs the command. What it has written is not busy any more then, unless nobody
// knows what has become of it.
func (r *request) perform() {
	if r.writing != nil {
		defer r.writing.finish()
	}
	r.cmd.keyed(r)
}

const (
	wrongType    = "WRONGTYPE Operation against a key holding the wrong kind of value"
	notAnInteger = "ERR value is not an integer or out of range"
	syntaxError  = "ERR syntax error"
)

func (r *request) key() string { return string(r.args[1]) }

func (r *request) ok() { r.w.SimpleString("OK") }

func (r *request) error(text string) { r.w.Error(text) }

// number reads an argument, or answers that it is none.
func (r *request) number(arg []byte) (int64, bool) {
	n, ok := integer(arg)
	if !ok {
		r.error(notAnInteger)
	}
	return n, ok
}

func (r *request) truth(yes bool) {
	if yes {
		r.w.Integer(1)
	} else {
		r.w.Integer(0)
	}
}

// reply is an error that is the reply as it stands.
type reply string

func (e reply) Error() string { return string(e) }

// longestError bounds what a reply tells of an error, which may have a key in it.
const longestError = 1 << 10

// fail answers with an error. Its code tells what has become of a write: UNKNOWN, which
// nobody knows; anything else, that it was not done.
func (r *request) fail(err error) {
	if r.writing != nil {
		r.writing.fail(err)
	}
	if text, ok := errors.AsType[reply](err); ok {
		r.error(string(text))
		return
	}
	code := "ERR"
	switch {
	case errors.Is(err, lockstep.ErrUnknownOutcome):
		code = "UNKNOWN"
	case errors.Is(err, lockstep.ErrTooLarge), errors.Is(err, lockstep.ErrInvalid), errors.Is(err, lockstep.ErrUnsupported):
	case errors.Is(err, lockstep.ErrUnavailable), errors.Is(err, lockstep.ErrClosed), errors.Is(err, lockstep.ErrConflict),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		code = "UNAVAILABLE"
	}
	text := code + " " + strings.TrimPrefix(err.Error(), "lockstep: ")
	r.error(text[:min(len(text), longestError)])
}

// get reads the string that a key holds. Where there is none, or something else, it has
// answered: with null, or with an error.
func (r *request) get(key []byte) (text string, ok bool) {
	v, err := r.keys.get(r.ctx, string(key))
	switch {
	case errors.Is(err, lockstep.ErrNotFound):
		r.w.Null()
	case err != nil:
		r.fail(err)
	case v.kind() != stringKind:
		r.error(wrongType)
	default:
		return v.text(), true
	}
	return "", false
}

// row is what a key holds, for those who decide by it.
type row struct {
	exists bool
	value  Value
	end    end
}

// text is the string that the row holds, "" where there is none.
func (o row) text() (string, error) {
	switch {
	case !o.exists:
		return "", nil
	case o.value.kind() != stringKind:
		return "", reply(wrongType)
	}
	return o.value.text(), nil
}

// end is when a row ends: never, at a moment, or some time after its commit.
type end struct {
	at    time.Time
	after time.Duration
}

func (e end) over(now time.Time) bool { return !e.at.IsZero() && !now.Before(e.at) }

func (e end) options(more ...lockstep.WriteOption) []lockstep.WriteOption {
	switch {
	case e.after > 0:
		return append(more, lockstep.Lifetime(e.after))
	case !e.at.IsZero():
		return append(more, lockstep.ExpiresAt(e.at))
	}
	return more
}

// next is what becomes of a row: nothing, another one, or its end.
type next struct {
	put, remove bool
	value       Value
	end         end
}
