package server

func renameCommands() []command {
	const g, k = "generic", "keyspace"
	two := keys{1, 2, 1}
	return []command{
		{name: "copy", arity: -3, flags: "write denyoom", categories: k, group: g, keys: two, access: "RO access", second: "OW update", since: "6.2.0", keyed: copyKey, shares: always, syntax: "source destination [DB destination-db] [REPLACE]", summary: "Copies what a key holds, and its end, to another key"},
		{name: "rename", arity: 3, flags: "write", categories: k, group: g, keys: two, access: "RW access delete", second: "OW update", since: "1.0.0", keyed: rename, shares: always, syntax: "key newkey", summary: "Gives what a key holds, and its end, to another key, which loses what it held"},
		{name: "renamenx", arity: 3, flags: "write fast", categories: k, group: g, keys: two, access: "RW access delete", second: "OW insert", since: "1.0.0", keyed: renameNX, shares: always, syntax: "key newkey", summary: "Gives what a key holds, and its end, to another key that holds nothing"},
	}
}

// transfer writes what the first argument's key holds, with its end, to the second's, in
// one transaction; moved, the first one holds nothing afterwards. It tells whether there
// was anything, and whether it has been done: not over something else, unless it may
// replace that. A key that is moved to itself stays as it is.
func (r *request) transfer(moved, replace bool) (found, done bool, err error) {
	from, to := string(r.args[1]), string(r.args[2])
	err = r.keys.transact(r.ctx, func(tx rows) error {
		source, _, err := tx.read(r.ctx, from)
		found, done = source.exists, false
		if err != nil || !found {
			return err
		}
		if from == to {
			done = replace
			return nil
		}
		if !replace {
			target, _, err := tx.read(r.ctx, to)
			if err != nil || target.exists {
				return err
			}
		}
		done = true
		if err := tx.set(r.ctx, to, source.value, source.end); err != nil || !moved {
			return err
		}
		return tx.delete(from)
	})
	return found, done, err
}

// RENAME key newkey
func rename(r *request) {
	switch found, _, err := r.transfer(true, true); {
	case err != nil:
		r.fail(err)
	case !found:
		r.error(noSuchKey)
	default:
		r.ok()
	}
}

// RENAMENX key newkey
func renameNX(r *request) {
	switch found, done, err := r.transfer(true, false); {
	case err != nil:
		r.fail(err)
	case !found:
		r.error(noSuchKey)
	default:
		r.truth(done)
	}
}

const noSuchKey = "ERR no such key"

// COPY source destination [DB destination-db] [REPLACE]
func copyKey(r *request) {
	replace := false
	for rest := r.args[3:]; len(rest) > 0; {
		switch {
		case is(rest[0], "replace"):
			replace, rest = true, rest[1:]
		case is(rest[0], "db") && len(rest) > 1:
			if wrong := wrongDatabase(rest[1]); wrong != "" {
				r.error(wrong)
				return
			}
			rest = rest[2:]
		default:
			r.error(syntaxError)
			return
		}
	}
	if string(r.args[1]) == string(r.args[2]) {
		r.error("ERR source and destination objects are the same")
		return
	}
	_, done, err := r.transfer(false, replace)
	if err != nil {
		r.fail(err)
		return
	}
	r.truth(done)
}
