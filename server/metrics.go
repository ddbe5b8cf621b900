package server

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// WriteMetrics writes what the server has counted since it was made as Prometheus reads
// it, in its text format (version 0.0.4). It takes some hundred microseconds, and no lock
// for which a request would wait. Its error is w's.
//
// It is written by hand: what is to be told is counted already, by atomics that hits pay
// for, and a library of metrics would have it counted once more, in its own types.
func (s *Server) WriteMetrics(w io.Writer) error {
	m := &metricWriter{w: bufio.NewWriter(w)}
	total := s.counts.totals()
	m.process(s)
	m.connections(s, total)
	m.commands(total)
	if caches := s.caches(); len(caches) > 0 {
		m.cache(caches)
		m.database(caches)
	}
	return m.w.Flush()
}

// metricWriter writes metrics, each with its help and its type before it. An error of the
// writer under it comes at Flush.
type metricWriter struct {
	w *bufio.Writer
}

// Types of metrics.
const (
	counterType = "counter"
	gaugeType   = "gauge"
	summaryType = "summary"
)

func (m *metricWriter) head(name, kind, help string) {
	fmt.Fprintf(m.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// value writes a line.
func (m *metricWriter) value(name, labels string, v float64) {
	m.w.WriteString(name)
	if labels != "" {
		m.w.WriteString("{" + labels + "}")
	}
	m.w.WriteByte(' ')
	m.w.Write(strconv.AppendFloat(m.w.AvailableBuffer(), v, 'g', -1, 64))
	m.w.WriteByte('\n')
}

// label escapes what no label has: they are names of commands, codes of errors, and words
// of ours. But an error's code is the beginning of what some command has said.
func label(name, value string) string { return name + `="` + labelEscapes.Replace(value) + `"` }

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (m *metricWriter) counter(name, help string, v uint64) {
	m.head(name, counterType, help)
	m.value(name, "", float64(v))
}

func (m *metricWriter) gauge(name, help string, v float64) {
	m.head(name, gaugeType, help)
	m.value(name, "", v)
}

// labels are those of a cache's line.
func (c served) labels(more ...string) string {
	if c.table != "" {
		more = append([]string{label("table", c.table)}, more...)
	}
	return strings.Join(more, ",")
}

type stats = lockstep.Stats

// ofCaches returns what writes a counter of each cache, and a gauge.
func (m *metricWriter) ofCaches(all []served) (count func(name, help string, of func(s *stats) uint64), gauge func(name, help string, of func(s *stats) float64)) {
	write := func(kind, name, help string, of func(s *stats) float64) {
		m.head(name, kind, help)
		for _, c := range all {
			m.value(name, c.labels(), of(&c.stats))
		}
	}
	count = func(name, help string, of func(s *stats) uint64) {
		write(counterType, name, help, func(s *stats) float64 { return float64(of(s)) })
	}
	gauge = func(name, help string, of func(s *stats) float64) { write(gaugeType, name, help, of) }
	return count, gauge
}

// latency writes a distribution of each cache. Its quantiles are since the server was made;
// what happened lately is the rate of its sum by that of its count.
func (m *metricWriter) latency(name, help string, all []served, of func(s *stats) lockstep.Latency) {
	m.head(name, summaryType, help)
	for _, c := range all {
		l := of(&c.stats)
		for _, q := range []struct {
			of    string
			value time.Duration
		}{{"0.5", l.P50}, {"0.9", l.P90}, {"0.99", l.P99}, {"0.999", l.P999}, {"1", l.Max}} {
			v := q.value.Seconds()
			if l.Count == 0 {
				v = math.NaN()
			}
			m.value(name, c.labels(label("quantile", q.of)), v)
		}
		m.value(name+"_sum", c.labels(), l.Mean.Seconds()*float64(l.Count))
		m.value(name+"_count", c.labels(), float64(l.Count))
	}
}

func (m *metricWriter) process(s *Server) {
	system, user := cpuTime()
	m.gauge("process_start_time_seconds", "When the server was made, in seconds since 1970.", float64(s.born.UnixMicro())/1e6)
	m.head("process_cpu_seconds_total", counterType, "Time that the process has spent on processors.")
	m.value("process_cpu_seconds_total", "", (system + user).Seconds())
	if rss := residentBytes(); rss > 0 {
		m.gauge("process_resident_memory_bytes", "The process's memory that is in the machine's.", float64(rss))
	}
	m.gauge("go_goroutines", "Goroutines that exist.", float64(runtime.NumGoroutine()))
	m.gauge("lockstep_heap_bytes", "Memory of objects on the heap, dead ones that are still to be found among them.", float64(heapBytes()))
}

func (m *metricWriter) connections(s *Server, t totals) {
	m.gauge("lockstep_connections", "Clients that are connected.", float64(len(s.clients())))
	m.gauge("lockstep_connections_limit", "How many clients may be.", float64(s.maxClients.Load()))
	m.counter("lockstep_connections_accepted_total", "Connections that were made.", t.accepted)
	m.counter("lockstep_connections_rejected_total", "Connections that were closed because there were too many.", t.rejected)
	m.counter("lockstep_tls_handshakes_failed_total", "TLS handshakes that failed.", t.shakes)
	m.head("lockstep_connections_closed_total", counterType, "Connections that were closed because of their peers, by what they did: said nothing for too long, took too long for a request or to say who they are, did not read replies, messages or an invalidation, or were late with invalidations too often.")
	for why, n := range t.closed {
		m.value("lockstep_connections_closed_total", label("reason", closing(why).String()), float64(n))
	}
	m.counter("lockstep_received_bytes_total", "Bytes of requests.", t.in)
	m.counter("lockstep_sent_bytes_total", "Bytes of replies and messages.", t.out)
	following := s.tracking.clients()
	m.gauge("lockstep_tracking_connections", "Connections that are told when copies of theirs are out of date (CLIENT TRACKING).", float64(following))
	m.gauge("lockstep_tracked_keys", "Keys of which they may have copies.", float64(s.tracking.known.Load()))
	m.head("lockstep_channels", gaugeType, "Channels, patterns and shard channels that somebody has subscribed to.")
	for kind, name := range [kindsOfTopics]string{channels: "channel", patterns: "pattern", shards: "shard"} {
		s.hub.mu.Lock()
		n := len(s.hub.topics[kind])
		s.hub.mu.Unlock()
		m.value("lockstep_channels", label("kind", name), float64(n))
	}
}

func (m *metricWriter) commands(t totals) {
	each := func(name, help string, of func(callTotal) float64) {
		m.head(name, counterType, help)
		for _, cmd := range commands.names() {
			if n := t.commands[cmd.number]; n.calls > 0 || n.rejected > 0 {
				m.value(name, label("command", cmd.full), of(n))
			}
		}
	}
	each("lockstep_commands_total", "Commands that were run.", func(n callTotal) float64 { return float64(n.calls) })
	each("lockstep_command_errors_total", "Commands that were run and answered with an error.", func(n callTotal) float64 { return float64(n.failed) })
	each("lockstep_commands_rejected_total", "Commands that were not run: wrong arguments, no password, not allowed.", func(n callTotal) float64 { return float64(n.rejected) })
	each("lockstep_command_seconds_total", "Time that commands took.", func(n callTotal) float64 { return time.Duration(n.nanos).Seconds() })
	m.head("lockstep_error_replies_total", counterType, "Replies that are errors, by their first word.")
	codes := make([]string, 0, len(t.errors))
	for code := range t.errors {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	for _, code := range codes {
		m.value("lockstep_error_replies_total", label("code", code), float64(t.errors[code]))
	}
}

// cache and database write a line for each cache: that of the keys has no label, which is as if its
// table were called "".
func (m *metricWriter) cache(all []served) {
	count, gauge := m.ofCaches(all)
	count("lockstep_cache_hits_total", "Reads that memory has answered.", func(s *stats) uint64 { return s.Hits })
	count("lockstep_cache_negative_hits_total", "Hits that memory has answered with there being no such key.", func(s *stats) uint64 { return s.NegativeHits })
	count("lockstep_cache_misses_total", "Reads that memory could not answer.", func(s *stats) uint64 { return s.Misses })
	gauge("lockstep_cache_entries", "Keys in memory, absent ones that it remembers among them.", func(s *stats) float64 { return float64(s.Entries) })
	gauge("lockstep_cache_bytes", "Bytes that they take, where memory is bounded by bytes.", func(s *stats) float64 { return float64(s.Bytes) })
	gauge("lockstep_cache_limit", "How many keys memory may hold, or bytes, where it is bounded by those.", func(s *stats) float64 { return float64(s.Maximum) })
	count("lockstep_cache_evictions_total", "Keys that have left memory to make room.", func(s *stats) uint64 { return s.Evictions })
	count("lockstep_cache_expirations_total", "Keys that have left memory because their time was over.", func(s *stats) uint64 { return s.Expirations })
	count("lockstep_cache_audited_entries_total", "Keys in memory that were compared with the database.", func(s *stats) uint64 { return s.AuditedEntries })
	count("lockstep_cache_audit_differences_total", "Keys in memory that were not what the database held.", func(s *stats) uint64 { return s.AuditDifferences })
	gauge("lockstep_cache_watching", "1 while the table is watched for changes of others.", func(s *stats) float64 { return truth(s.Watching) })
	count("lockstep_cache_watch_losses_total", "How often that was lost.", func(s *stats) uint64 { return s.WatchLosses })
	count("lockstep_cache_outside_changes_total", "Changes of others that the watch has told of.", func(s *stats) uint64 { return s.OutsideChanges })
	count("lockstep_cache_replacements_total", "How often the database's server was another than before.", func(s *stats) uint64 { return s.Replacements })
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (m *metricWriter) database(all []served) {
	count, gauge := m.ofCaches(all)
	count("lockstep_loads_total", "Reads of the database.", func(s *stats) uint64 { return s.Loads })
	count("lockstep_load_errors_total", "Reads of the database that failed.", func(s *stats) uint64 { return s.LoadErrors })
	count("lockstep_joined_loads_total", "Reads that waited for one which was under way.", func(s *stats) uint64 { return s.JoinedLoads })
	count("lockstep_refreshes_ahead_total", "Keys that were read from the database anew before their time in memory was over.", func(s *stats) uint64 { return s.RefreshesAhead })
	count("lockstep_refresh_ahead_errors_total", "Those of them whose read failed.", func(s *stats) uint64 { return s.RefreshAheadErrors })
	count("lockstep_rows_written_total", "Changes that were committed, deletions among them.", func(s *stats) uint64 { return s.Writes })
	count("lockstep_rows_deleted_total", "Deletions that were committed.", func(s *stats) uint64 { return s.Deletes })
	m.head("lockstep_writes_total", counterType, "Writes, by what became of them; an unknown one counts as settled besides, when it is not unknown any more.")
	for _, c := range all {
		s := c.stats
		for _, o := range []struct {
			name string
			n    uint64
		}{
			{"committed", s.Committed}, {"refused", s.Refused}, {"conflict", s.Conflicts}, {"unavailable", s.Unavailable},
			{"abandoned", s.Abandoned}, {"unknown", s.Unknown}, {"settled", s.Settled},
		} {
			m.value("lockstep_writes_total", c.labels(label("outcome", o.name)), float64(o.n))
		}
	}
	gauge("lockstep_writes_in_doubt", "Writes of which nobody knows right now whether they were made.", func(s *stats) float64 { return float64(s.InDoubt) })
	gauge("lockstep_writes_queued", "Writes that wait for their commit.", func(s *stats) float64 { return float64(s.QueueLength) })
	count("lockstep_commits_total", "Calls of the database that commit a batch of writes.", func(s *stats) uint64 { return s.Batches })
	count("lockstep_commit_rows_total", "Changes in those batches.", func(s *stats) uint64 { return uint64(math.Round(s.RowsPerBatch * float64(s.Batches))) })
	count("lockstep_transactions_total", "Transactions that were committed.", func(s *stats) uint64 { return s.Transactions })
	count("lockstep_reruns_total", "How often a transaction, or a change of a key by what it held, was tried again because somebody else was first.", func(s *stats) uint64 { return s.Reruns })
	m.latency("lockstep_load_duration_seconds", "How long reads of the database took.", all, func(s *stats) lockstep.Latency { return s.LoadLatency })
	m.latency("lockstep_commit_duration_seconds", "How long commits took.", all, func(s *stats) lockstep.Latency { return s.CommitLatency })
	m.latency("lockstep_queue_wait_seconds", "How long writes waited for their commit to begin.", all, func(s *stats) lockstep.Latency { return s.QueueWait })
	m.latency("lockstep_write_duration_seconds", "How long writes took, from the request to the answer.", all, func(s *stats) lockstep.Latency { return s.WriteLatency })
}
