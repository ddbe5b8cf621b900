package server

import "strconv"

func objectCommands() []command {
	const g, k, varies = "generic", "keyspace", "nondeterministic_output"
	sub := func(name, since, summary string, run func(*request)) command {
		return command{name: name, arity: 3, flags: "readonly", categories: k, keys: keys{2, 2, 1}, access: "RO", tips: varies, since: since,
			keyed: run, syntax: "key", summary: summary}
	}
	return []command{{name: "object", arity: -2, group: g, since: "2.2.3", summary: "What a Redis would tell of how it keeps a key", subs: []command{
		sub("encoding", "2.2.3", "How a Redis would keep what the key holds", objectEncoding),
		sub("freq", "4.0.0", "Refused: how often keys are used is not told", objectFreq),
		{name: "help", arity: 2, flags: "loading stale", categories: k, since: "6.2.0", run: help("object"), summary: "This help"},
		sub("idletime", "2.2.3", "Refused: when a key was used last is not known", objectIdleTime),
		sub("refcount", "2.2.3", "1, as there is one of each value", objectRefCount),
	}}}
}

// object has tell answer for the key, if there is one.
func (r *request) object(tell func(v Value)) {
	switch old, _, err := r.keys.read(r.ctx, string(r.args[2])); {
	case err != nil:
		r.fail(err)
	case !old.exists:
		r.w.Null()
	default:
		tell(old.value)
	}
}

// OBJECT ENCODING key. It is as a Redis would keep the value if it had just been set: one that
// has grown has another there.
func objectEncoding(r *request) {
	r.object(func(v Value) {
		switch v.kind() {
		case stringKind:
			r.w.BulkString(stringEncoding(v.text()))
		case hashKind:
			h, err := v.hash()
			var encoding string
			if err == nil {
				encoding, err = h.encoding()
			}
			if r.sound(err) {
				r.w.BulkString(encoding)
			}
		default:
			r.w.BulkString("unknown")
		}
	})
}

func stringEncoding(text string) string {
	switch n, ok := integer([]byte(text[:min(len(text), 21)])); {
	case ok && strconv.FormatInt(n, 10) == text:
		return "int"
	case len(text) <= 44:
		return "embstr"
	}
	return "raw"
}

// encoding is listpack for a hash that Redis keeps as a list: as its hash-max-listpack-entries
// and hash-max-listpack-value are by default.
func (h hash) encoding() (string, error) {
	n, list := 0, true
	w := h.walk()
	for w.next() {
		n++
		list = list && len(w.name) <= 64 && len(w.value) <= 64
	}
	if list && n <= smallHash {
		return "listpack", w.broken()
	}
	return "hashtable", w.broken()
}

// OBJECT FREQ key. The error is the one of a Redis that keeps no such count.
func objectFreq(r *request) {
	r.object(func(Value) {
		r.error("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.")
	})
}

// OBJECT IDLETIME key. The error is nearly the one of a Redis that keeps no such time.
func objectIdleTime(r *request) {
	r.object(func(Value) { r.error("ERR idle time not tracked") })
}

// OBJECT REFCOUNT key
func objectRefCount(r *request) {
	r.object(func(Value) { r.w.Integer(1) })
}
