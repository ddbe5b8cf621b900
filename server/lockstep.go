package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// What Redis does not have: the versions of rows, and what an operator asks of the cache.
func lockstepCommands() []command {
	const g = "lockstep"
	one := keys{1, 1, 1}
	return []command{
		{name: "lockstep.audit", alone: wholeTable, arity: -1, flags: "admin noscript", group: g, since: "7.0.0", keyed: audit, syntax: "[table]", summary: "Compares every copy in memory with its row, or those of one table, by the name it is served as ('' for the keys that are none's), and drops those that are wrong"},
		{name: "lockstep.getv", arity: 2, flags: "readonly fast", categories: "string", group: g, keys: one, access: "RO access", since: "7.0.0", keyed: getVersion, syntax: "key", summary: "The string that a key holds, and the version of its row"},
		{name: "lockstep.setv", alone: "the version that it answers with comes with the commit", arity: 4, flags: "write denyoom fast", categories: "string", group: g, keys: one, access: "OW update", since: "7.0.0", keyed: setVersion, shares: always, syntax: "key value version", summary: "Sets a string if its row has that version, or with version 0 if there is none, and answers with the new version"},
		{name: "lockstep.status", arity: 1, flags: "loading stale", group: g, since: "7.0.0", run: status, tips: "nondeterministic_output", summary: "What the cache has done, what became of writes, and what waits"},
	}
}

// LOCKSTEP.GETV key
func getVersion(r *request) {
	found, version, err := r.keys.read(r.ctx, r.key())
	var text string
	if err == nil {
		text, err = found.text()
	}
	switch {
	case err != nil:
		r.fail(err)
	case !found.exists:
		r.w.NullArray()
	case version == 0:
		r.error("ERR the key was written in this transaction, and has no version before the commit")
	default:
		r.w.Array(2)
		r.w.BulkString(text)
		r.w.Integer(int64(version))
	}
}

// LOCKSTEP.SETV key value version
func setVersion(r *request) {
	expected, ok := r.number(r.args[3])
	if !ok {
		return
	}
	if expected < 0 {
		r.error("ERR a version is not negative")
		return
	}
	condition := lockstep.IfVersion(lockstep.Version(expected))
	if expected == 0 {
		condition = lockstep.IfAbsent()
	}
	version, err := r.keys.cache.Set(r.ctx, r.key(), stringOf(r.args[2]), condition)
	if mayBeMade(err) {
		r.writing.changed(r.key(), false, end{})
	}
	found, conflicts := errors.AsType[*lockstep.ConflictError](err)
	switch {
	case err == nil:
		r.w.Integer(int64(version))
	case !conflicts || errors.Is(err, lockstep.ErrUnknownOutcome):
		r.fail(err)
	case found.Exists:
		r.error(fmt.Sprintf("CONFLICT the key is at version %d", found.Version))
	default:
		r.error("CONFLICT the key holds nothing")
	}
}

// mostExamples bounds what AUDIT tells of differences.
const mostExamples = 100

// LOCKSTEP.AUDIT [table]
func audit(r *request) {
	var only *string
	switch len(r.args) {
	case 1:
	case 2:
		name := string(r.args[1])
		only = &name
	default:
		r.error(wrongNumberOf("lockstep.audit"))
		return
	}
	found, err := r.keys.audit(r.ctx, only)
	if err != nil {
		r.fail(err)
		return
	}
	r.w.Map(4)
	r.w.BulkString("entries")
	r.w.Integer(int64(found.entries))
	r.w.BulkString("in_motion")
	r.w.Integer(int64(found.inMotion))
	r.w.BulkString("differences")
	r.w.Integer(int64(len(found.differences)))
	r.w.BulkString("examples")
	examples := found.differences[:min(len(found.differences), mostExamples)]
	r.w.Array(len(examples))
	for _, d := range examples {
		r.w.Array(3)
		r.w.BulkString(d.key)
		for _, row := range []auditRow{d.cached, d.stored} {
			if row.exists {
				r.w.Integer(int64(row.version))
			} else {
				r.w.Null()
			}
		}
	}
}

// figure is a number that operators ask for, by its name in INFO and in LOCKSTEP.STATUS.
type figure struct {
	name  string
	value any
}

func figures(s lockstep.Stats) []figure {
	return []figure{
		{"hits", s.Hits}, {"negative_hits", s.NegativeHits}, {"misses", s.Misses}, {"hit_rate", s.HitRate},
		{"loads", s.Loads}, {"load_errors", s.LoadErrors}, {"joined_loads", s.JoinedLoads},
		{"refreshes_ahead", s.RefreshesAhead}, {"refresh_ahead_errors", s.RefreshAheadErrors},
		{"rows_written", s.Writes}, {"rows_deleted", s.Deletes},
		{"writes_committed", s.Committed}, {"writes_refused", s.Refused}, {"writes_conflicting", s.Conflicts},
		{"writes_unavailable", s.Unavailable}, {"writes_abandoned", s.Abandoned}, {"writes_unknown", s.Unknown}, {"writes_settled", s.Settled},
		{"writes_in_doubt", s.InDoubt}, {"writes_queued", s.QueueLength},
		{"transactions", s.Transactions}, {"reruns", s.Reruns},
		{"batches", s.Batches}, {"rows_per_batch", s.RowsPerBatch},
		{"entries", s.Entries}, {"entries_bytes", s.Bytes}, {"entries_maximum", s.Maximum},
		{"evictions", s.Evictions}, {"expirations", s.Expirations},
		{"watching", s.Watching}, {"watch_losses", s.WatchLosses}, {"outside_changes", s.OutsideChanges}, {"replacements", s.Replacements},
		{"audited_entries", s.AuditedEntries}, {"audit_differences", s.AuditDifferences},
	}
}

// latency is a distribution, by its name there.
type latency struct {
	name string
	of   lockstep.Latency
}

func latencies(s lockstep.Stats) []latency {
	return []latency{{"load", s.LoadLatency}, {"commit", s.CommitLatency}, {"queue", s.QueueWait}, {"write", s.WriteLatency}}
}

// LOCKSTEP.STATUS
func status(c *conn, _ [][]byte) {
	s := c.server
	s.mu.Lock()
	state := "serving"
	if s.draining {
		state = "draining"
	}
	clients := len(s.conns)
	s.mu.Unlock()
	all := []figure{{"status", state}, {"clients", clients}}
	for why, n := range s.counts.totals().closed {
		all = append(all, figure{"closed_" + closing(why).String(), n})
	}
	var tables []served
	if caches := s.caches(); len(caches) > 0 {
		all = append(append(all, figure{"store", s.options.Store.Capabilities().Name}), caches[0].all()...)
		tables = caches[1:]
	}
	n := len(all)
	if len(tables) > 0 {
		n++
	}
	c.w.Map(n)
	c.figures(all)
	if len(tables) == 0 {
		return
	}
	c.w.BulkString("tables")
	c.w.Map(len(tables))
	for _, t := range tables {
		c.w.BulkString(t.table)
		all := t.all()
		c.w.Map(len(all))
		c.figures(all)
	}
}

// all are the figures of a cache, and its latencies.
func (c served) all() []figure {
	all := figures(c.stats)
	for _, l := range latencies(c.stats) {
		for _, q := range []struct {
			name string
			d    time.Duration
		}{{"mean", l.of.Mean}, {"p50", l.of.P50}, {"p99", l.of.P99}, {"max", l.of.Max}} {
			all = append(all, figure{l.name + "_usec_" + q.name, q.d.Microseconds()})
		}
	}
	return all
}

// figures are those of a map.
func (c *conn) figures(all []figure) {
	for _, f := range all {
		c.w.BulkString(f.name)
		switch v := f.value.(type) {
		case int:
			c.w.Integer(int64(v))
		case int64:
			c.w.Integer(v)
		case uint64:
			c.w.Integer(int64(v))
		case float64:
			c.w.Double(v)
		case bool:
			c.w.Bool(v)
		default:
			c.w.BulkString(fmt.Sprint(v))
		}
	}
}
