package server

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/lockstep-cache/lockstep/resp"
	sqlrows "github.com/lockstep-cache/lockstep/store/rows"
)

func hashCommands() []command {
	const g = "hash"
	const rw, order, varies = "write denyoom fast", "nondeterministic_output_order", "nondeterministic_output"
	one := keys{1, 1, 1}
	read := func(name string, arity int, flags, access, tips, since, syntax, summary string, run func(*request)) command {
		return command{name: name, arity: arity, flags: flags, categories: g, group: g, keys: one, access: access, tips: tips, since: since,
			keyed: run, syntax: syntax, summary: summary}
	}
	write := func(name string, arity int, flags, access, since, syntax, summary string, run func(*request)) command {
		return command{name: name, arity: arity, flags: flags, categories: g, group: g, keys: one, access: access, since: since,
			keyed: run, shares: always, syntax: syntax, summary: summary}
	}
	return []command{
		write("hdel", -3, "write fast", "RW delete", "2.0.0", "key field [field ...]", "Takes fields out of a hash, and answers how many there were", hdel),
		read("hexists", 3, "readonly fast", "RO", "", "2.0.0", "key field", "Whether a hash has a field", hexists),
		read("hget", 3, "readonly fast", "RO access", "", "2.0.0", "key field", "The value of a hash's field", hget),
		read("hgetall", 2, "readonly", "RO access", order, "2.0.0", "key", "A hash's fields and their values", hgetall),
		write("hincrby", 4, rw, "RW access update", "2.0.0", "key field increment", "Adds a number to the integer that a field is", hincrBy),
		write("hincrbyfloat", 4, rw, "RW access update", "2.6.0", "key field increment", "Adds a number to the one that a field is", hincrByFloat),
		read("hkeys", 2, "readonly", "RO access", order, "2.0.0", "key", "The names of a hash's fields", hkeys),
		read("hlen", 2, "readonly fast", "RO", "", "2.0.0", "key", "How many fields a hash has", hlen),
		read("hmget", -3, "readonly fast", "RO access", "", "2.0.0", "key field [field ...]", "The values of some of a hash's fields", hmget),
		write("hmset", -4, rw, "RW update", "2.0.0", "key field value [field value ...]", "HSET with the answer OK", hmset),
		read("hrandfield", -2, "readonly", "RO access", varies, "6.2.0", "key [count [WITHVALUES]]", "Fields of a hash, chosen at random", hrandField),
		read("hscan", -3, "readonly", "RO access", varies, "2.8.0", "key cursor [MATCH pattern] [COUNT count]", "Fields of a hash and their values, a page at a time", hscan),
		write("hset", -4, rw, "RW update", "2.0.0", "key field value [field value ...]", "Sets fields of a hash, and answers how many are new", hset),
		write("hsetnx", 4, rw, "RW insert", "2.0.0", "key field value", "Sets a field that a hash does not have", hsetNX),
		read("hstrlen", 3, "readonly fast", "RO", "", "3.2.0", "key field", "The length of a field's value", hstrLen),
		read("hvals", 2, "readonly", "RO access", order, "2.0.0", "key", "The values of a hash's fields", hvals),
	}
}

// hash reads the hash that a key holds; "" if there is none. If it is something else it has
// answered with an error.
func (r *request) hash() (h hash, ok bool) {
	old, _, err := r.keys.read(r.ctx, r.key())
	if err == nil && old.exists {
		h, err = old.value.hash()
	}
	return h, r.sound(err)
}

// sound answers with an error, if it is one. That a row is not well written names its key.
func (r *request) sound(err error) bool {
	if err != nil {
		r.fail(r.named(err))
	}
	return err == nil
}

func (r *request) named(err error) error {
	if broken, ok := err.(brokenHash); ok {
		return fmt.Errorf("key %q: %w", r.args[r.cmd.keys.first], broken)
	}
	return err
}

// field reads one field of the hash that a key holds.
func (r *request) field() (value string, exists, ok bool) {
	h, ok := r.hash()
	if !ok || h == "" {
		return "", false, ok
	}
	value, exists, err := h.get(r.args[2])
	return value, exists, r.sound(err)
}

// HGET key field
func hget(r *request) {
	switch value, exists, ok := r.field(); {
	case !ok:
	case exists:
		r.w.BulkString(value)
	default:
		r.w.Null()
	}
}

// HEXISTS key field
func hexists(r *request) {
	if _, exists, ok := r.field(); ok {
		r.truth(exists)
	}
}

// HSTRLEN key field
func hstrLen(r *request) {
	if value, _, ok := r.field(); ok {
		r.w.Integer(int64(len(value)))
	}
}

// HLEN key
func hlen(r *request) {
	h, ok := r.hash()
	if !ok {
		return
	}
	if n, ok := r.length(h); ok {
		r.w.Integer(int64(n))
	}
}

// length counts the fields, and so finds out that all of them can be read.
func (r *request) length(h hash) (int, bool) {
	if h == "" {
		return 0, true
	}
	n, err := h.length()
	return n, r.sound(err)
}

// HMGET key field [field ...]
func hmget(r *request) {
	h, ok := r.hash()
	if !ok {
		return
	}
	asked := r.args[2:]
	var (
		n      names
		number = make([]int, len(asked))
	)
	for i, name := range asked {
		number[i] = n.add(name)
	}
	var (
		values = make([]string, len(n.all))
		there  = make([]bool, len(n.all))
		left   = len(n.all)
	)
	w := h.walk()
	for left > 0 && w.next() {
		if i := n.find(w.name); i >= 0 && !there[i] {
			values[i], there[i] = w.value, true
			left--
		}
	}
	if left > 0 && h != "" && !r.sound(w.broken()) {
		return
	}
	size := 0
	for _, i := range number {
		size += len(values[i])
	}
	if !r.answerable(size) {
		return
	}
	r.w.Array(len(asked))
	for _, i := range number {
		if there[i] {
			r.w.BulkString(values[i])
		} else {
			r.w.Null()
		}
	}
}

// HGETALL key
func hgetall(r *request) { r.everything(r.w.Map, true, true) }

// HKEYS key
func hkeys(r *request) { r.everything(r.w.Array, true, false) }

// HVALS key
func hvals(r *request) { r.everything(r.w.Array, false, true) }

func (r *request) everything(begin func(n int), withNames, withValues bool) {
	h, ok := r.hash()
	if !ok {
		return
	}
	n, ok := r.length(h)
	if !ok {
		return
	}
	begin(n)
	for w := h.walk(); w.next(); {
		if withNames {
			r.w.BulkString(w.name)
		}
		if withValues {
			r.w.BulkString(w.value)
		}
	}
}

// alter has decide say what becomes of the fields that e names, of which found are those that
// the hash has. Without put nothing is written. Taking all of its fields out of a hash deletes
// its key, and a key's end stays as it is.
func (r *request) alter(e *edit, decide func(found []piece) (put bool, err error)) bool {
	if len(r.keys.tables.all) > 0 {
		if t, _ := r.keys.tables.find(r.key()); t != nil {
			if err := t.allows(e); err != nil {
				return r.sound(err)
			}
		}
	}
	err := r.keys.change(r.ctx, r.key(), func(old row) (next, error) {
		var (
			h     hash
			found []piece
			err   error
		)
		if old.exists {
			if h, err = old.value.hash(); err == nil {
				found, err = h.pieces(&e.names)
			}
			if err != nil {
				return next{}, r.named(err)
			}
		}
		put, err := decide(found)
		if err != nil || !put {
			return next{}, err
		}
		v, err := e.apply(h, found, r.keys.longest)
		return next{put: len(v) > 1, remove: len(v) == 1, value: v, end: old.end}, err
	})
	return r.sound(err)
}

// HSET key field value [field value ...]
func hset(r *request) {
	if n, ok := r.setFields(); ok {
		r.w.Integer(int64(n))
	}
}

// HMSET key field value [field value ...]
func hmset(r *request) {
	if _, ok := r.setFields(); ok {
		r.ok()
	}
}

func (r *request) setFields() (added int, ok bool) {
	if len(r.args)%2 != 0 {
		r.error("ERR wrong number of arguments for '" + r.cmd.full + "' command")
		return 0, false
	}
	var e edit
	for i := 2; i < len(r.args); i += 2 {
		e.set(r.args[i], r.args[i+1])
	}
	ok = r.alter(&e, func(found []piece) (bool, error) {
		added = len(e.all) - len(found)
		return true, nil
	})
	return added, ok
}

// HSETNX key field value
func hsetNX(r *request) {
	var (
		e    edit
		done bool
	)
	e.set(r.args[2], r.args[3])
	if r.alter(&e, func(found []piece) (bool, error) {
		done = len(found) == 0
		return done, nil
	}) {
		r.truth(done)
	}
}

// HDEL key field [field ...]
func hdel(r *request) {
	var (
		e edit
		n int
	)
	for _, name := range r.args[2:] {
		e.add(name)
	}
	if r.alter(&e, func(found []piece) (bool, error) {
		n = len(found)
		return n > 0, nil
	}) {
		r.w.Integer(int64(n))
	}
}

// HINCRBY key field increment
func hincrBy(r *request) {
	n, ok := r.number(r.args[3])
	if !ok {
		return
	}
	e := edit{adds: sqlrows.Whole}
	var sum int64
	e.add(r.args[2])
	if r.alter(&e, func(found []piece) (bool, error) {
		before := int64(0)
		if len(found) > 0 {
			var ok bool
			if before, ok = integer([]byte(found[0].value)); !ok {
				return false, reply("ERR hash value is not an integer")
			}
		}
		if n < 0 && before < math.MinInt64-n || n > 0 && before > math.MaxInt64-n {
			return false, reply("ERR increment or decrement would overflow")
		}
		sum = before + n
		e.set(r.args[2], strconv.AppendInt(nil, sum, 10))
		return true, nil
	}) {
		r.w.Integer(sum)
	}
}

// HINCRBYFLOAT key field increment
func hincrByFloat(r *request) {
	n, ok := parseFloat(string(r.args[3]))
	switch {
	case !ok:
		r.error("ERR value is not a valid float")
		return
	case n.IsInf():
		r.error("ERR value is NaN or Infinity")
		return
	}
	e := edit{adds: sqlrows.Real}
	var sum []byte
	e.add(r.args[2])
	if r.alter(&e, func(found []piece) (bool, error) {
		text := "0"
		if len(found) > 0 {
			text = found[0].value
		}
		before, ok := parseFloat(text)
		if !ok {
			return false, reply("ERR hash value is not a float")
		}
		if before.IsInf() {
			return false, reply(noFloat)
		}
		after := newFloat().Add(before, n)
		if after.MantExp(nil) > floatExponents {
			return false, reply(noFloat)
		}
		sum = formatFloat(after)
		e.set(r.args[2], sum)
		return true, nil
	}) {
		r.w.Bulk(sum)
	}
}

// HRANDFIELD key [count [WITHVALUES]]
func hrandField(r *request) {
	if len(r.args) == 2 {
		h, ok := r.hash()
		if !ok {
			return
		}
		n, ok := r.length(h)
		switch {
		case !ok:
		case n == 0:
			r.w.Null()
		default:
			w := h.walk()
			for range 1 + rand.IntN(n) {
				w.next()
			}
			r.w.BulkString(w.name)
		}
		return
	}
	count, ok := r.number(r.args[2])
	if !ok {
		return
	}
	withValues := len(r.args) == 4
	switch {
	case count == math.MinInt64:
		r.error("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807")
		return
	case len(r.args) > 4 || withValues && !is(r.args[3], "withvalues"):
		r.error(syntaxError)
		return
	case withValues && (count < -math.MaxInt64/2 || count > math.MaxInt64/2):
		r.error("ERR value is out of range")
		return
	}
	h, ok := r.hash()
	if !ok {
		return
	}
	n, ok := r.length(h)
	if !ok {
		return
	}
	if n == 0 || count == 0 {
		r.w.Array(0)
		return
	}
	fields := make([]walk, 0, n)
	for w := h.walk(); w.next(); {
		fields = append(fields, w)
	}
	r.choose(fields, count, withValues)
}

// longestChoice is the most that HRANDFIELD answers with where fields come as often as chance
// has it: the request is short, and would have us build any number of them.
const longestChoice = 64 << 20

// choose answers with fields chosen at random: so many different ones, or, where count is
// negative, each anew.
func (r *request) choose(fields []walk, count int64, withValues bool) {
	head, pair := r.w.Array, func() {}
	switch {
	case withValues && r.w.Version() == resp.RESP3:
		pair = func() { r.w.Array(2) }
	case withValues:
		head = func(n int) { r.w.Array(2 * n) }
	}
	put := func(f walk) {
		pair()
		r.w.BulkString(f.name)
		if withValues {
			r.w.BulkString(f.value)
		}
	}
	if count >= 0 {
		n := int(min(count, int64(len(fields))))
		if n < len(fields) {
			for i := range n {
				j := i + rand.IntN(len(fields)-i)
				fields[i], fields[j] = fields[j], fields[i]
			}
		}
		head(n)
		for _, f := range fields[:n] {
			put(f)
		}
		return
	}
	before := r.w.Len()
	if count > -longestChoice {
		head(int(-count))
		for ; count < 0 && r.w.Len()-before <= longestChoice; count++ {
			put(fields[rand.IntN(len(fields))])
		}
	}
	if count < 0 {
		r.w.Truncate(before)
		r.error(fmt.Sprintf("ERR too large: the reply would have more than %d bytes", longestChoice))
	}
}

// HSCAN key cursor [MATCH pattern] [COUNT count]
func hscan(r *request) {
	from, ok := parseCursor(string(r.args[2]))
	if !ok {
		r.error("ERR invalid cursor")
		return
	}
	h, ok := r.hash()
	if !ok {
		return
	}
	options := r.args[3:]
	if h == "" { // as Redis has it: they are not looked at where there is nothing
		options = nil
	}
	o, ok := r.scanOptions(options, false)
	if !ok {
		return
	}
	count, like := o.count, o.like
	var (
		fields []walk
		n      int
		w      = h.walk()
	)
	for w.next() {
		n++
		if like(w.name) {
			fields = append(fields, w)
		}
	}
	if h != "" && !r.sound(w.broken()) {
		return
	}
	var cursor uint64
	if n > smallHash {
		fields, cursor = pageOf(fields, from, count)
	}
	r.w.Array(2)
	r.w.BulkString(strconv.FormatUint(cursor, 10))
	r.w.Array(2 * len(fields))
	for _, f := range fields {
		r.w.BulkString(f.name)
		r.w.BulkString(f.value)
	}
}

// smallHash is how many fields a hash may have that HSCAN answers at once, as Redis does for
// those that it keeps as a list (hash-max-listpack-entries).
const smallHash = 512

// pageOf is the next fields of a HSCAN, in the order of their names' numbers, and where it goes
// on. A number depends on the name alone: so a field that is there all the while is neither
// missed nor comes twice, whatever is added and taken away meanwhile, and nothing has to be
// remembered for a client that may never come back. The price is a look at all names, each time.
func pageOf(fields []walk, from uint64, count int64) ([]walk, uint64) {
	type numbered struct {
		walk
		number uint64
	}
	var rest []numbered
	for _, f := range fields {
		if number := numberOf(f.name); number >= from {
			rest = append(rest, numbered{f, number})
		}
	}
	slices.SortStableFunc(rest, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	var page []walk
	for i, f := range rest {
		if int64(i) >= count && f.number != rest[i-1].number {
			return page, f.number
		}
		page = append(page, f.walk)
	}
	return page, 0
}

// numberOf is a name's number, of 63 bits for clients that count with a sign, and never 0, which
// is where a scan begins and ends.
func numberOf(name string) uint64 {
	sum := fnv.New64a()
	_, _ = io.WriteString(sum, name)
	return max(sum.Sum64()>>1, 1)
}
