package server

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lockstep-cache/lockstep"
)

func stringCommands() []command {
	const s = "string"
	const ro, fastRO = "readonly", "readonly fast"
	const rw, fastRW = "write denyoom", "write denyoom fast"
	one := keys{1, 1, 1}
	return []command{
		{name: "append", arity: 3, flags: fastRW, categories: s, group: s, keys: one, access: "RW insert", since: "2.0.0", keyed: appendTo, shares: always, syntax: "key value", summary: "Appends to a string, and answers with its length"},
		{name: "decr", arity: 2, flags: fastRW, categories: s, group: s, keys: one, access: "RW access update", since: "1.0.0", keyed: decr, shares: always, syntax: "key", summary: "Takes one off the integer that a string is"},
		{name: "decrby", arity: 3, flags: fastRW, categories: s, group: s, keys: one, access: "RW access update", since: "1.0.0", keyed: decrBy, shares: always, syntax: "key decrement", summary: "Takes a number off the integer that a string is"},
		{name: "get", arity: 2, flags: fastRO, categories: s, group: s, keys: one, access: "RO access", since: "1.0.0", keyed: get, syntax: "key", summary: "The string that a key holds"},
		{name: "getdel", arity: 2, flags: "write fast", categories: s, group: s, keys: one, access: "RW access delete", since: "6.2.0", keyed: getDel, syntax: "key", summary: "The string that a key held that is deleted"},
		{name: "getex", arity: -2, flags: "write fast", categories: s, group: s, keys: one, access: "RW access update", note: "RW and UPDATE because it changes the TTL", since: "6.2.0", keyed: getEx, syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]", summary: "The string that a key holds, whose end is set or taken away"},
		{name: "getrange", arity: 4, flags: ro, categories: s, group: s, keys: one, access: "RO access", since: "2.4.0", keyed: getRange, syntax: "key start end", summary: "A part of a string; negative positions are from its end"},
		{name: "getset", arity: 3, flags: fastRW, categories: s, group: s, keys: one, access: "RW access update", since: "1.0.0", keyed: getSet, syntax: "key value", summary: "Sets a string, and answers with what it was"},
		{name: "incr", arity: 2, flags: fastRW, categories: s, group: s, keys: one, access: "RW access update", since: "1.0.0", keyed: incr, shares: always, syntax: "key", summary: "Adds one to the integer that a string is"},
		{name: "incrby", arity: 3, flags: fastRW, categories: s, group: s, keys: one, access: "RW access update", since: "1.0.0", keyed: incrBy, shares: always, syntax: "key increment", summary: "Adds a number to the integer that a string is"},
		{name: "incrbyfloat", arity: 3, flags: fastRW, categories: s, group: s, keys: one, access: "RW access update", since: "2.6.0", keyed: incrByFloat, shares: always, syntax: "key increment", summary: "Adds a number to the one that a string is"},
		{name: "mget", arity: -2, flags: fastRO, categories: s, group: s, keys: keys{1, -1, 1}, access: "RO access", tips: "request_policy:multi_shard", since: "1.0.0", keyed: mget, syntax: "key [key ...]", summary: "The strings that keys hold"},
		{name: "mset", arity: -3, flags: rw, categories: s, group: s, keys: keys{1, -1, 2}, access: "OW update", tips: "request_policy:multi_shard response_policy:all_succeeded", since: "1.0.1", keyed: mset, shares: always, syntax: "key value [key value ...]", summary: "Sets strings, all of them or none"},
		{name: "msetnx", arity: -3, flags: rw, categories: s, group: s, keys: keys{1, -1, 2}, access: "OW insert", tips: "request_policy:multi_shard response_policy:agg_min", since: "1.0.1", keyed: msetNX, shares: always, syntax: "key value [key value ...]", summary: "Sets strings if none of the keys exists"},
		{name: "psetex", arity: 4, flags: rw, categories: s, group: s, keys: one, access: "OW update", since: "2.6.0", keyed: psetEx, shares: always, syntax: "key milliseconds value", summary: "Sets a string that ends after so many milliseconds"},
		{name: "set", arity: -3, flags: rw, categories: s, group: s, keys: one, access: "RW access update variable_flags", note: "RW and ACCESS due to the optional `GET` argument", since: "1.0.0", keyed: set, shares: withoutGet, syntax: "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]", summary: "Sets a string"},
		{name: "setex", arity: 4, flags: rw, categories: s, group: s, keys: one, access: "OW update", since: "2.0.0", keyed: setEx, shares: always, syntax: "key seconds value", summary: "Sets a string that ends after so many seconds"},
		{name: "setnx", arity: 3, flags: fastRW, categories: s, group: s, keys: one, access: "OW insert", since: "1.0.0", keyed: setNX, shares: always, syntax: "key value", summary: "Sets a string if the key does not exist"},
		{name: "setrange", arity: 4, flags: rw, categories: s, group: s, keys: one, access: "RW update", since: "2.2.0", keyed: setRange, shares: always, syntax: "key offset value", summary: "Writes over a part of a string, and answers with its length"},
		{name: "strlen", arity: 2, flags: fastRO, categories: s, group: s, keys: one, access: "RO", since: "2.2.0", keyed: strLen, syntax: "key", summary: "The length of a string"},
		{name: "substr", arity: 4, flags: ro, categories: s, group: s, keys: one, access: "RO access", since: "1.0.0", keyed: getRange, syntax: "key start end", summary: "GETRANGE by its old name"},
	}
}

// GET key
func get(r *request) {
	if text, ok := r.get(r.args[1]); ok {
		r.w.BulkString(text)
	}
}

// MGET key [key ...]
func mget(r *request) {
	names, found, ok := r.all()
	if !ok {
		return
	}
	size := 0
	for _, name := range names {
		size += len(found[name])
	}
	if !r.answerable(size) {
		return
	}
	r.w.Array(len(names))
	for _, name := range names {
		if v, ok := found[name]; ok && v.kind() == stringKind {
			r.w.BulkString(v.text())
		} else {
			r.w.Null()
		}
	}
}

// STRLEN key
func strLen(r *request) {
	old, _, err := r.keys.read(r.ctx, r.key())
	var text string
	if err == nil {
		text, err = old.text()
	}
	if err != nil {
		r.fail(err)
		return
	}
	r.w.Integer(int64(len(text)))
}

// GETRANGE key start end, and SUBSTR
func getRange(r *request) {
	from, ok := r.number(r.args[2])
	if !ok {
		return
	}
	to, ok := r.number(r.args[3])
	if !ok {
		return
	}
	old, _, err := r.keys.read(r.ctx, r.key())
	var text string
	if err == nil {
		text, err = old.text()
	}
	if err != nil {
		r.fail(err)
		return
	}
	r.w.BulkString(part(text, from, to))
}

// part is the text between two positions, both of them included.
func part(text string, from, to int64) string {
	size := int64(len(text))
	if from < 0 && to < 0 && from > to {
		return ""
	}
	if from < 0 {
		from = max(from+size, 0)
	}
	if to < 0 {
		to = max(to+size, 0)
	}
	to = min(to, size-1)
	if from > to {
		return ""
	}
	return text[from : to+1]
}

// setOptions are what SET and GETEX are given behind their arguments.
type setOptions struct {
	nx, xx, get, keepTTL, persist bool
	unit                          unit // of the end; none if none is given
	end                           []byte
}

// setOptions reads options of SET or GETEX, or answers that they are wrong. What excludes
// what is Redis's: EX may be given twice, and the last counts.
func (r *request) setOptions(args [][]byte, forSet bool) (o setOptions, ok bool) {
	for i := 0; i < len(args); i++ {
		given, takes := unitOf(args[i])
		switch {
		case forSet && is(args[i], "nx") && !o.xx:
			o.nx = true
		case forSet && is(args[i], "xx") && !o.nx:
			o.xx = true
		case forSet && is(args[i], "get"):
			o.get = true
		case forSet && is(args[i], "keepttl") && o.unit == none:
			o.keepTTL = true
		case !forSet && is(args[i], "persist") && o.unit == none:
			o.persist = true
		case takes && i+1 < len(args) && !o.keepTTL && !o.persist && (o.unit == none || o.unit == given):
			o.unit, o.end = given, args[i+1]
			i++
		default:
			r.error(syntaxError)
			return o, false
		}
	}
	return o, true
}

// SET key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]
func set(r *request) {
	o, ok := r.setOptions(r.args[3:], true)
	if !ok {
		return
	}
	r.set(r.args[2], o, func(done bool) {
		if done {
			r.ok()
		} else {
			r.w.Null()
		}
	})
}

// SETNX key value
func setNX(r *request) { r.set(r.args[2], setOptions{nx: true}, r.truth) }

// SETEX key seconds value
func setEx(r *request) {
	r.set(r.args[3], setOptions{unit: seconds, end: r.args[2]}, func(bool) { r.ok() })
}

// PSETEX key milliseconds value
func psetEx(r *request) {
	r.set(r.args[3], setOptions{unit: milliseconds, end: r.args[2]}, func(bool) { r.ok() })
}

// GETSET key value
func getSet(r *request) { r.set(r.args[2], setOptions{get: true}, nil) }

// set is the SET family. Without GET, answer tells whether it was done.
func (r *request) set(value []byte, o setOptions, answer func(done bool)) {
	var until end
	if o.unit != none {
		var ok bool
		if until, ok = r.endOf(o.end, o.unit); !ok {
			return
		}
	}
	v := stringOf(value)
	if !o.nx && !o.xx && !o.get && !o.keepTTL {
		if err := r.keys.set(r.ctx, r.key(), v, until); err != nil {
			r.fail(err)
			return
		}
		answer(true)
		return
	}
	var (
		before row
		text   string
		done   bool
	)
	err := r.keys.change(r.ctx, r.key(), func(old row) (n next, err error) {
		if o.get {
			if text, err = old.text(); err != nil {
				return n, err
			}
		}
		before, done = old, !(o.nx && old.exists || o.xx && !old.exists)
		n = next{put: done, value: v, end: until}
		if o.keepTTL {
			n.end = old.end
		}
		return n, nil
	})
	switch {
	case err != nil:
		r.fail(err)
	case !o.get:
		answer(done)
	case before.exists:
		r.w.BulkString(text)
	default:
		r.w.Null()
	}
}

// GETDEL key
func getDel(r *request) {
	r.getAnd(func(row) (next, error) { return next{remove: true}, nil })
}

// GETEX key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]
func getEx(r *request) {
	o, ok := r.setOptions(r.args[2:], false)
	if !ok {
		return
	}
	if o.unit == none && !o.persist {
		get(r)
		return
	}
	r.getAnd(func(old row) (next, error) {
		n := next{put: true, value: old.value}
		if o.persist {
			n.put = old.end != end{}
			return n, nil
		}
		// Only of a key that exists, as with Redis.
		until, err := parseEnd(o.end, o.unit, r.cmd.full, time.Now())
		n.end = until
		return n, err
	})
}

// getAnd answers with the string that a key holds, and has decide say what becomes of it.
func (r *request) getAnd(decide func(old row) (next, error)) {
	var (
		before row
		text   string
	)
	err := r.keys.change(r.ctx, r.key(), func(old row) (next, error) {
		var err error
		before = old
		if text, err = old.text(); err != nil || !old.exists {
			return next{}, err
		}
		return decide(old)
	})
	switch {
	case err != nil:
		r.fail(err)
	case before.exists:
		r.w.BulkString(text)
	default:
		r.w.Null()
	}
}

// pairs are MSET's keys and values: of a key that is named twice, the last. It answers
// where one is without the other, and where a value is too large.
func (r *request) pairs() (map[string]Value, bool) {
	if len(r.args)%2 == 0 {
		r.error("ERR wrong number of arguments for '" + r.cmd.full + "' command")
		return nil, false
	}
	pairs := make(map[string]Value, len(r.args)/2)
	for i := 1; i < len(r.args); i += 2 {
		if err := r.grown(int64(len(r.args[i+1]))); err != nil {
			r.fail(err)
			return nil, false
		}
		pairs[string(r.args[i])] = stringOf(r.args[i+1])
	}
	return pairs, true
}

// MSET key value [key value ...]
func mset(r *request) {
	pairs, ok := r.pairs()
	if !ok {
		return
	}
	if err := r.keys.setMany(r.ctx, pairs); err != nil {
		r.fail(err)
		return
	}
	r.ok()
}

var errExists = errors.New("one of the keys exists")

// MSETNX key value [key value ...]
func msetNX(r *request) {
	pairs, ok := r.pairs()
	if !ok {
		return
	}
	err := r.keys.transact(r.ctx, func(tx rows) error {
		for key := range pairs {
			if _, err := tx.get(r.ctx, key); err == nil {
				return errExists
			} else if !errors.Is(err, lockstep.ErrNotFound) {
				return err
			}
		}
		return tx.setMany(r.ctx, pairs)
	})
	switch {
	case err == nil:
		r.truth(true)
	case errors.Is(err, errExists) && !errors.Is(err, lockstep.ErrUnknownOutcome):
		r.truth(false)
	default:
		r.fail(err)
	}
}

// answerable refuses a reply whose values come to more than one may have: a request that names
// one key again and again is short, and would have us build any number of copies of its value.
func (r *request) answerable(size int) bool {
	if size > r.keys.mostReply {
		r.error(fmt.Sprintf("ERR too large: the reply would have more than %d bytes (Limits.MaxRequest)", r.keys.mostReply))
		return false
	}
	return true
}

const tooLong = reply("ERR string exceeds maximum allowed size (proto-max-bulk-len)")

// grown refuses a string that would be longer than a value may be: before it is built,
// for an offset alone can ask for half a gigabyte. Where Redis refuses it too, so does
// this with its words.
func (r *request) grown(size int64) error {
	switch {
	case size > redisLongest:
		return tooLong
	case size > int64(r.keys.longest):
		return reply("ERR " + tooLargeText("string", size, r.keys.longest))
	}
	return nil
}

// redisLongest is how long a string can be with Redis.
const redisLongest = 512 << 20

// APPEND key value
func appendTo(r *request) {
	var size int64
	err := r.keys.change(r.ctx, r.key(), func(old row) (next, error) {
		text, err := old.text()
		if err != nil {
			return next{}, err
		}
		size = int64(len(text)) + int64(len(r.args[2]))
		if err := r.grown(size); err != nil {
			return next{}, err
		}
		if old.exists && len(r.args[2]) == 0 {
			return next{}, nil
		}
		return next{put: true, value: stringOf([]byte(text), r.args[2]), end: old.end}, nil
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.w.Integer(size)
}

// SETRANGE key offset value
func setRange(r *request) {
	offset, ok := r.number(r.args[2])
	if !ok {
		return
	}
	if offset < 0 {
		r.error("ERR offset is out of range")
		return
	}
	value := r.args[3]
	var size int64
	err := r.keys.change(r.ctx, r.key(), func(old row) (next, error) {
		text, err := old.text()
		if err != nil {
			return next{}, err
		}
		if size = int64(len(text)); len(value) == 0 {
			return next{}, nil
		}
		if offset > math.MaxInt64-int64(len(value)) {
			return next{}, tooLong
		}
		size = max(size, offset+int64(len(value)))
		if err := r.grown(size); err != nil {
			return next{}, err
		}
		b := make([]byte, size)
		copy(b, text)
		copy(b[offset:], value)
		return next{put: true, value: stringOf(b), end: old.end}, nil
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.w.Integer(size)
}
