package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/lockstep-cache/lockstep"
)

// wholeTable is why a command has no part in a transaction, which reads and writes keys.
const wholeTable = "it is about the whole table"

func keyCommands() []command {
	const g, k = "generic", "keyspace"
	const all, varies, sum = "request_policy:all_shards", "nondeterministic_output", "request_policy:multi_shard response_policy:agg_sum"
	many := keys{1, -1, 1}
	return []command{
		{name: "dbsize", alone: wholeTable, arity: 1, flags: "readonly fast", categories: k, group: "server", tips: all + " response_policy:agg_sum", since: "1.0.0", keyed: dbSize, summary: "How many keys there are, by reading the whole table"},
		{name: "del", arity: -2, flags: "write", categories: k, group: g, keys: many, access: "RM delete", tips: sum, since: "1.0.0", keyed: del, shares: always, syntax: "key [key ...]", summary: "Deletes keys, and answers how many there were"},
		{name: "exists", arity: -2, flags: "readonly fast", categories: k, group: g, keys: many, access: "RO", tips: sum, since: "1.0.0", keyed: exists, syntax: "key [key ...]", summary: "How many of the keys exist"},
		{name: "flushall", alone: wholeTable, arity: -1, flags: "write", categories: "keyspace dangerous", group: "server", tips: all + " response_policy:all_succeeded", since: "1.0.0", keyed: flush, syntax: "[ASYNC | SYNC]", summary: "Deletes all keys"},
		{name: "flushdb", alone: wholeTable, arity: -1, flags: "write", categories: "keyspace dangerous", group: "server", tips: all + " response_policy:all_succeeded", since: "1.0.0", keyed: flush, syntax: "[ASYNC | SYNC]", summary: "Deletes all keys"},
		{name: "keys", alone: wholeTable, arity: 2, flags: "readonly", categories: "keyspace dangerous", group: g, tips: all + " nondeterministic_output_order", since: "1.0.0", keyed: keysLike, syntax: "pattern", summary: "The keys that match a pattern, by reading the whole table"},
		{name: "randomkey", alone: wholeTable, arity: 1, flags: "readonly", categories: k, group: g, tips: all + " " + varies, since: "1.0.0", keyed: randomKey, summary: "A key, by reading the whole table"},
		{name: "scan", alone: wholeTable, arity: -2, flags: "readonly", categories: k, group: g, tips: varies + " request_policy:special", since: "2.8.0", keyed: scan, syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]", summary: "Keys, a page at a time"},
		{name: "touch", arity: -2, flags: "readonly fast", categories: k, group: g, keys: many, access: "RO", tips: sum, since: "3.2.1", keyed: exists, syntax: "key [key ...]", summary: "Reads keys, and answers how many exist"},
		{name: "type", arity: 2, flags: "readonly fast", categories: k, group: g, keys: keys{1, 1, 1}, access: "RO", since: "1.0.0", keyed: typeOf, syntax: "key", summary: "What a key holds"},
		{name: "unlink", arity: -2, flags: "write fast", categories: k, group: g, keys: many, access: "RM delete", tips: sum, since: "4.0.0", keyed: del, shares: always, syntax: "key [key ...]", summary: "DEL by another name"},
	}
}

// tooLargeText names the limit.
func tooLargeText(what string, size int64, limit int) string {
	return fmt.Sprintf("too large: the %s would have %d bytes, and %d is the most (MaxValueBytes)", what, size, limit)
}

// DEL key [key ...], and UNLINK
func del(r *request) {
	if len(r.args) == 2 {
		existed, err := r.keys.remove(r.ctx, r.key())
		if err != nil {
			r.fail(err)
			return
		}
		r.truth(existed)
		return
	}
	var n int64
	err := r.keys.transact(r.ctx, func(tx rows) error {
		n = 0
		for _, arg := range r.args[1:] {
			existed, err := tx.remove(r.ctx, string(arg))
			if err != nil {
				return err
			}
			if existed { // not where it was named before
				n++
			}
		}
		return nil
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.w.Integer(n)
}

// all reads the keys that are all of the arguments, or answers why it cannot.
func (r *request) all() (names []string, found map[string]Value, ok bool) {
	names = make([]string, len(r.args)-1)
	for i, arg := range r.args[1:] {
		names[i] = string(arg)
	}
	found, err := r.keys.many(r.ctx, names)
	if err != nil {
		r.fail(err)
	}
	return names, found, err == nil
}

// EXISTS key [key ...], and TOUCH. A key that is named twice counts twice.
func exists(r *request) {
	names, found, ok := r.all()
	if !ok {
		return
	}
	var n int64
	for _, name := range names {
		if _, ok := found[name]; ok {
			n++
		}
	}
	r.w.Integer(n)
}

// TYPE key
func typeOf(r *request) {
	switch v, err := r.keys.get(r.ctx, r.key()); {
	case errors.Is(err, lockstep.ErrNotFound):
		r.w.SimpleString("none")
	case err != nil:
		r.fail(err)
	default:
		r.w.SimpleString(v.typeName())
	}
}

// FLUSHALL [ASYNC | SYNC], and FLUSHDB. It is done when it is answered, either way.
func flush(r *request) {
	if len(r.args) > 2 || len(r.args) == 2 && !is(r.args[1], "async") && !is(r.args[1], "sync") {
		r.error(syntaxError)
		return
	}
	if err := r.keys.cache.DeleteAll(r.ctx); err != nil {
		r.fail(err)
		return
	}
	r.ok()
}

// each reads the whole table, and answers where that fails.
func (r *request) each(f func(key string)) bool {
	for e, err := range r.keys.cache.Scan(r.ctx) {
		if err != nil {
			r.fail(err)
			return false
		}
		f(e.Key)
	}
	return true
}

// DBSIZE
func dbSize(r *request) {
	var n int64
	if r.each(func(string) { n++ }) {
		r.w.Integer(n)
	}
}

// KEYS pattern
func keysLike(r *request) {
	var found []string
	like := liker(r.args[1])
	add := func(key string) {
		if like(key) {
			found = append(found, key)
		}
	}
	if !r.each(add) {
		return
	}
	for _, t := range r.keys.tables.all {
		for e, err := range t.cache.Scan(r.ctx) {
			if err != nil {
				r.fail(err)
				return
			}
			add(t.of(e.Key))
		}
	}
	r.w.Array(len(found))
	for _, key := range found {
		r.w.BulkString(key)
	}
}

// liker tells of keys whether they match. A star alone matches the empty one, too.
func liker(pattern []byte) func(key string) bool {
	if string(pattern) == "*" {
		return func(string) bool { return true }
	}
	return func(key string) bool { return glob(pattern, []byte(key), false) }
}

// RANDOMKEY
func randomKey(r *request) {
	var (
		n      int
		chosen string
	)
	if !r.each(func(key string) {
		if n++; rand.IntN(n) == 0 {
			chosen = key
		}
	}) {
		return
	}
	if n == 0 {
		r.w.Null()
		return
	}
	r.w.BulkString(chosen)
}

// scanOptions are those of SCAN and HSCAN, which has no TYPE.
type scanOptions struct {
	count int64
	like  func(key string) bool
	kind  string // "": any
}

// scanOptions reads them, or answers what is wrong.
func (r *request) scanOptions(args [][]byte, typed bool) (o scanOptions, ok bool) {
	o = scanOptions{count: 10, like: liker([]byte("*"))}
	for rest := args; len(rest) > 0; rest = rest[2:] {
		switch {
		case len(rest) > 1 && is(rest[0], "count"):
			if o.count, ok = r.number(rest[1]); !ok {
				return o, false
			}
			if o.count < 1 {
				r.error(syntaxError)
				return o, false
			}
		case len(rest) > 1 && is(rest[0], "match"):
			o.like = liker(rest[1])
		case len(rest) > 1 && typed && is(rest[0], "type"):
			o.kind = string(rest[1])
		default:
			r.error(syntaxError)
			return o, false
		}
	}
	return o, true
}

// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
func scan(r *request) {
	number, ok := parseCursor(string(r.args[1]))
	if !ok {
		r.error("ERR invalid cursor")
		return
	}
	o, ok := r.scanOptions(r.args[2:], true)
	if !ok {
		return
	}
	keys, values, next, err := r.keys.page(r.ctx, r.keys.cursors.find(number), int(min(o.count, scanPage)))
	if err != nil {
		r.fail(err)
		return
	}
	var found []string
	for i, key := range keys {
		if o.like(key) && (o.kind == "" || is([]byte(o.kind), values[i].typeName())) {
			found = append(found, key)
		}
	}
	r.w.Array(2)
	r.w.BulkString(strconv.FormatUint(r.keys.cursors.keep(next), 10))
	r.w.Array(len(found))
	for _, key := range found {
		r.w.BulkString(key)
	}
}

// scanPage is the most that a SCAN reads, whatever COUNT says, which is a hint.
const scanPage = 512
