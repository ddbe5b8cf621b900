package server

import (
	"math"
	"time"
)

func expiryCommands() []command {
	const g, k = "generic", "keyspace"
	one := keys{1, 1, 1}
	expire := func(name, since, end, summary string, run func(*request)) command {
		return command{name: name, arity: -3, flags: "write fast", categories: k, group: g, keys: one, access: "RW update", since: since,
			keyed: run, shares: always, syntax: "key " + end + " [NX | XX | GT | LT]", summary: summary}
	}
	tell := func(name, since, tips, summary string, run func(*request)) command {
		return command{name: name, arity: 2, flags: "readonly fast", categories: k, group: g, keys: one, access: "RO access", since: since,
			tips: tips, keyed: run, syntax: "key", summary: summary}
	}
	return []command{
		expire("expire", "1.0.0", "seconds", "Ends a key after so many seconds", func(r *request) { r.expire(seconds) }),
		expire("expireat", "1.2.0", "unix-time-seconds", "Ends a key at a time", func(r *request) { r.expire(unixSeconds) }),
		tell("expiretime", "7.0.0", "", "When a key ends, in seconds since 1970", func(r *request) { r.tellEnd(time.Second, false) }),
		{name: "persist", arity: 2, flags: "write fast", categories: k, group: g, keys: one, access: "RW update", since: "2.2.0", keyed: persist, shares: always, syntax: "key", summary: "Takes a key's end away"},
		expire("pexpire", "2.6.0", "milliseconds", "Ends a key after so many milliseconds", func(r *request) { r.expire(milliseconds) }),
		expire("pexpireat", "2.6.0", "unix-time-milliseconds", "Ends a key at a time, in milliseconds", func(r *request) { r.expire(unixMilliseconds) }),
		tell("pexpiretime", "7.0.0", "", "When a key ends, in milliseconds since 1970", func(r *request) { r.tellEnd(time.Millisecond, false) }),
		tell("pttl", "2.6.0", "nondeterministic_output", "How long a key has left, in milliseconds", func(r *request) { r.tellEnd(time.Millisecond, true) }),
		tell("ttl", "1.0.0", "nondeterministic_output", "How long a key has left, in seconds", func(r *request) { r.tellEnd(time.Second, true) }),
	}
}

// unit is in what an end is given.
type unit int

const (
	none unit = iota
	seconds
	milliseconds
	unixSeconds
	unixMilliseconds
)

// unitOf is the unit that an option of SET and GETEX stands for.
func unitOf(option []byte) (unit, bool) {
	switch {
	case is(option, "ex"):
		return seconds, true
	case is(option, "px"):
		return milliseconds, true
	case is(option, "exat"):
		return unixSeconds, true
	case is(option, "pxat"):
		return unixMilliseconds, true
	}
	return none, false
}

// set tells whether there is one.
func (e end) set() bool { return e != end{} }

// lastEnd is the latest end of a row that every database can hold: the year 9999.
var lastEnd = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMilli()

// parseEnd reads an end, which may be over already. The one that is counted from now on is
// counted from the commit.
func parseEnd(arg []byte, u unit, command string, now time.Time) (end, error) {
	n, ok := integer(arg)
	if !ok {
		return end{}, reply(notAnInteger)
	}
	invalid := reply("ERR invalid expire time in '" + command + "' command")
	if n <= 0 {
		return end{}, invalid
	}
	return endAt(n, u, now, invalid)
}

// endAt is parseEnd for any number.
func endAt(n int64, u unit, now time.Time, invalid error) (end, error) {
	relative := u == seconds || u == milliseconds
	if u == seconds || u == unixSeconds {
		if n > math.MaxInt64/1000 || n < math.MinInt64/1000 {
			return end{}, invalid
		}
		n *= 1000
	}
	at := n
	if relative {
		if n > math.MaxInt64-now.UnixMilli() {
			return end{}, invalid
		}
		at += now.UnixMilli()
	}
	switch {
	case at > lastEnd:
		return end{}, invalid
	case at <= 0:
		// The year 1 is as good as any that is over.
		return end{at: time.UnixMilli(1)}, nil
	case relative && 0 < n && n <= int64(math.MaxInt64/time.Millisecond):
		return end{at: time.UnixMilli(at), after: time.Duration(n) * time.Millisecond}, nil
	}
	return end{at: time.UnixMilli(at)}, nil
}

// endOf reads an end, or answers that it is none.
func (r *request) endOf(arg []byte, u unit) (end, bool) {
	e, err := parseEnd(arg, u, r.cmd.full, time.Now())
	if err != nil {
		r.fail(err)
	}
	return e, err == nil
}

// expireOptions are the conditions under which EXPIRE is done.
type expireOptions struct{ nx, xx, gt, lt bool }

func (r *request) expireOptions(args [][]byte) (o expireOptions, ok bool) {
	for _, arg := range args {
		switch {
		case is(arg, "nx"):
			o.nx = true
		case is(arg, "xx"):
			o.xx = true
		case is(arg, "gt"):
			o.gt = true
		case is(arg, "lt"):
			o.lt = true
		default:
			r.error("ERR Unsupported option " + cText(arg, len(arg)))
			return o, false
		}
	}
	switch {
	case o.nx && (o.xx || o.gt || o.lt):
		r.error("ERR NX and XX, GT or LT options at the same time are not compatible")
	case o.gt && o.lt:
		r.error("ERR GT and LT options at the same time are not compatible")
	default:
		return o, true
	}
	return o, false
}

// hold tells whether a row's end may be replaced. That of one that stays is later than any.
func (o expireOptions) hold(before, after end) bool {
	stays := before == end{}
	switch {
	case o.nx && !stays, o.xx && stays:
		return false
	case o.gt && (stays || after.at.UnixMilli() <= before.at.UnixMilli()):
		return false
	case o.lt && !stays && after.at.UnixMilli() >= before.at.UnixMilli():
		return false
	}
	return true
}

// EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT key end [NX | XX | GT | LT]
func (r *request) expire(u unit) {
	o, ok := r.expireOptions(r.args[3:])
	if !ok {
		return
	}
	n, ok := r.number(r.args[2])
	if !ok {
		return
	}
	after, err := endAt(n, u, time.Now(), reply("ERR invalid expire time in '"+r.cmd.full+"' command"))
	if err != nil {
		r.fail(err)
		return
	}
	done := false
	err = r.keys.change(r.ctx, r.key(), func(old row) (next, error) {
		done = old.exists && o.hold(old.end, after)
		return next{put: done, value: old.value, end: after}, nil
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.truth(done)
}

// PERSIST key
func persist(r *request) {
	done := false
	err := r.keys.change(r.ctx, r.key(), func(old row) (next, error) {
		done = old.exists && old.end != end{}
		return next{put: done, value: old.value}, nil
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.truth(done)
}

// TTL, PTTL, EXPIRETIME and PEXPIRETIME key. How long is left is by this machine's clock,
// as a client's EXPIREAT is by the client's; when the row is gone is by the database's.
func (r *request) tellEnd(in time.Duration, left bool) {
	old, _, err := r.keys.read(r.ctx, r.key())
	switch {
	case err != nil:
		r.fail(err)
		return
	case !old.exists:
		r.w.Integer(-2)
		return
	case old.end == end{}:
		r.w.Integer(-1)
		return
	}
	ms := old.end.at.UnixMilli()
	if left {
		ms = max(ms-time.Now().UnixMilli(), 0)
	}
	if in == time.Second {
		ms = (ms + 500) / 1000
	}
	r.w.Integer(ms)
}
