package server

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// INFO has the fields that clients and exporters read, by Redis's names and with Redis's
// meaning, or one that is said here. What this server has not, replicas for one, is as in a
// Redis without any. What it does not know is left out.
//
//	keyspace_hits, keyspace_misses   reads that memory has answered, and that have asked the database,
//	                                 of tables that are served, too
//	evicted_keys, expired_keys       copies that have left memory, theirs, too; a row's life ends with
//	                                 expired
//	used_memory                      the live heap of the process; used_memory_peak, the most that
//	                                 an INFO has seen
//	maxmemory                        the bound in bytes; 0 where it is a number of keys
//	db0:keys                         keys that memory holds, absent ones that it remembers among
//	                                 them; DBSIZE counts the table
//	instantaneous_…                  the mean since the INFO before, if that is not too near
//
// CONFIG RESETSTAT sets back what INFO counts, but not the sections Lockstep and CPU, and no
// metrics.

func infoCommands() []command {
	return []command{
		{name: "info", arity: -1, flags: "loading stale", categories: "dangerous", group: "server", since: "1.0.0", run: info, tips: "nondeterministic_output request_policy:all_shards response_policy:special", syntax: "[section [section ...]]", summary: "What the server has done, and how it is"},
	}
}

// infos is what INFO remembers.
type infos struct {
	runID string

	mu     sync.Mutex
	base   totals // what CONFIG RESETSTAT takes off
	stats  lockstep.Stats
	peak   uint64
	before sample
	rate   sample // by the second
}

// sample is what rates are made of.
type sample struct {
	at             time.Time
	calls, in, out float64
}

func (i *infos) init() {
	b := make([]byte, 20)
	_, _ = rand.Read(b) // it never fails
	i.runID = hex.EncodeToString(b)
}

// infoSection is one of INFO's. One that is not usual is there when it is asked for, or all
// is.
type infoSection struct {
	name   string
	usual  bool
	fields func(t *telling)
}

var infoSections = []infoSection{
	{"Server", true, tellServer},
	{"Clients", true, tellClients},
	{"Memory", true, tellMemory},
	{"Persistence", true, tellPersistence},
	{"Stats", true, tellStats},
	{"Replication", true, tellReplication},
	{"CPU", true, tellCPU},
	{"Modules", true, func(*telling) {}},
	{"Commandstats", false, tellCommands},
	{"Errorstats", true, tellErrors},
	{"Latencystats", false, func(*telling) {}},
	{"Cluster", true, func(t *telling) { t.field("cluster_enabled", 0) }},
	{"Keyspace", true, tellKeyspace},
	{"Lockstep", true, tellLockstep},
}

// telling is an INFO that is being written.
type telling struct {
	*Server
	text   strings.Builder
	now    time.Time
	since  totals           // RESETSTAT
	closed [closings]uint64 // connections, from the beginning
	caches []served
	stats  lockstep.Stats // of all caches together, from their beginning
	base   lockstep.Stats
	rate   sample
	peak   uint64
	heap   uint64
}

func (t *telling) field(name string, value any) {
	t.text.WriteString(name + ":" + fieldText(value) + "\r\n")
}

func fieldText(value any) string {
	switch v := value.(type) {
	case bool:
		value = 0
		if v {
			value = 1
		}
	case float64:
		value = strconv.FormatFloat(v, 'f', 2, 64)
	}
	return fmt.Sprint(value)
}

// bytes writes a size, and once more for people.
func (t *telling) bytes(name string, n uint64) {
	t.field(name, n)
	t.field(name+"_human", human(n))
}

// human is a size as Redis writes it for people.
func human(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + "B"
	}
	f := float64(n)
	for _, unit := range "KMGTPE" {
		if f /= 1024; f < 1024 {
			return strconv.FormatFloat(f, 'f', 2, 64) + string(unit)
		}
	}
	return ""
}

// INFO [section [section ...]]
func info(c *conn, args [][]byte) {
	c.w.Verbatim(textFormat, c.server.info(args[1:]))
}

func (s *Server) info(names [][]byte) string {
	wanted := func(section infoSection) bool {
		for _, name := range names {
			switch {
			case is(name, "all"), is(name, "everything"), is(name, "default") && section.usual, is(name, strings.ToLower(section.name)):
				return true
			}
		}
		return len(names) == 0 && section.usual
	}
	t := &telling{Server: s, now: time.Now(), heap: heapBytes()}
	t.caches = s.caches()
	t.stats = together(t.caches)
	total := s.counts.totals()
	i := &s.infos
	i.mu.Lock()
	i.peak = max(i.peak, t.heap)
	now := sample{t.now, float64(total.calls), float64(total.in), float64(total.out)}
	if d := now.at.Sub(i.before.at); d >= 100*time.Millisecond {
		if !i.before.at.IsZero() {
			seconds := d.Seconds()
			i.rate = sample{now.at, (now.calls - i.before.calls) / seconds, (now.in - i.before.in) / seconds, (now.out - i.before.out) / seconds}
		}
		i.before = now
	}
	t.base, t.rate, t.peak = i.stats, i.rate, i.peak
	base := i.base
	i.mu.Unlock()
	t.closed, t.since = total.closed, total.since(base)
	for _, section := range infoSections {
		if !wanted(section) {
			continue
		}
		if t.text.Len() > 0 {
			t.text.WriteString("\r\n")
		}
		t.text.WriteString("# " + section.name + "\r\n")
		section.fields(t)
	}
	return t.text.String()
}

// resetStat is CONFIG RESETSTAT.
func (s *Server) resetStat() {
	total, stats := s.counts.totals(), together(s.caches())
	s.infos.mu.Lock()
	defer s.infos.mu.Unlock()
	s.infos.base, s.infos.stats, s.infos.peak = total, stats, heapBytes()
}

func tellServer(t *telling) {
	t.field("redis_version", version)
	t.field("redis_git_sha1", "00000000")
	t.field("redis_git_dirty", 0)
	t.field("redis_build_id", "0000000000000000")
	t.field("redis_mode", "standalone")
	t.field("os", runtime.GOOS+" "+runtime.GOARCH)
	t.field("arch_bits", strconv.IntSize)
	t.field("process_id", os.Getpid())
	t.field("process_supervised", "no")
	t.field("run_id", t.infos.runID)
	t.field("tcp_port", t.port())
	t.field("server_time_usec", t.now.UnixMicro())
	up := int64(t.now.Sub(t.born) / time.Second)
	t.field("uptime_in_seconds", up)
	t.field("uptime_in_days", up/(24*60*60))
	t.field("hz", 10)
	t.field("configured_hz", 10)
	t.field("executable", executable())
	t.field("config_file", "")
	t.field("io_threads_active", 0)
}

func executable() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	return path
}

func tellClients(t *telling) {
	clients := t.clients()
	most := 0
	for _, c := range clients {
		c.mu.Lock()
		most = max(most, c.about.buffered)
		c.mu.Unlock()
	}
	t.field("connected_clients", len(clients))
	t.field("cluster_connections", 0)
	t.field("maxclients", t.maxClients.Load())
	t.field("client_recent_max_input_buffer", most)
	t.field("client_recent_max_output_buffer", 0)
	t.field("blocked_clients", 0)
	t.field("tracking_clients", t.tracking.clients())
	t.field("clients_in_timeout_table", 0)
}

func tellMemory(t *telling) {
	t.bytes("used_memory", t.heap)
	rss := residentBytes()
	if rss > 0 {
		t.bytes("used_memory_rss", rss)
	}
	t.bytes("used_memory_peak", t.peak)
	t.field("used_memory_peak_perc", fmt.Sprintf("%.2f%%", 100*float64(t.heap)/float64(max(t.peak, 1))))
	if total := machineBytes(); total > 0 {
		t.bytes("total_system_memory", total)
	}
	t.bytes("maxmemory", uint64(t.options.Cache.MaxBytes))
	t.field("maxmemory_policy", evictionPolicy)
	if rss > 0 {
		t.field("mem_fragmentation_ratio", float64(rss)/float64(max(t.heap, 1)))
	}
	clients := 0
	for _, c := range t.clients() {
		c.mu.Lock()
		clients += c.about.memory
		c.mu.Unlock()
	}
	t.field("mem_clients_normal", clients)
	t.field("mem_allocator", "go")
	t.field("active_defrag_running", 0)
	t.field("lazyfree_pending_objects", 0)
}

// heapBytes is the memory of live objects, and of dead ones that are still to be found.
func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}

func tellPersistence(t *telling) {
	for _, f := range []string{"loading", "async_loading", "rdb_changes_since_last_save", "rdb_bgsave_in_progress"} {
		t.field(f, 0)
	}
	t.field("rdb_last_save_time", t.now.Unix()) // what was answered is in the database
	t.field("rdb_last_bgsave_status", "ok")
	t.field("rdb_last_bgsave_time_sec", -1)
	t.field("rdb_current_bgsave_time_sec", -1)
	t.field("aof_enabled", 0)
	t.field("aof_rewrite_in_progress", 0)
	t.field("aof_rewrite_scheduled", 0)
	t.field("aof_last_rewrite_time_sec", -1)
	t.field("aof_current_rewrite_time_sec", -1)
	t.field("aof_last_bgrewrite_status", "ok")
	t.field("aof_last_write_status", "ok")
}

func tellStats(t *telling) {
	s, b, n := t.stats, t.base, t.since
	t.field("total_connections_received", n.accepted)
	t.field("total_commands_processed", n.calls)
	t.field("instantaneous_ops_per_sec", int64(t.rate.calls))
	t.field("total_net_input_bytes", n.in)
	t.field("total_net_output_bytes", n.out)
	t.field("instantaneous_input_kbps", t.rate.in/1024)
	t.field("instantaneous_output_kbps", t.rate.out/1024)
	t.field("rejected_connections", n.rejected)
	for _, f := range []string{"sync_full", "sync_partial_ok", "sync_partial_err"} {
		t.field(f, 0)
	}
	t.field("expired_keys", s.Expirations-b.Expirations)
	t.field("evicted_keys", s.Evictions-b.Evictions)
	t.field("evicted_clients", 0)
	t.field("keyspace_hits", s.Hits-b.Hits)
	t.field("keyspace_misses", s.Misses-b.Misses)
	for kind, f := range [kindsOfTopics]string{channels: "pubsub_channels", patterns: "pubsub_patterns", shards: "pubsubshard_channels"} {
		t.hub.mu.Lock()
		topics := len(t.hub.topics[kind])
		t.hub.mu.Unlock()
		t.field(f, topics)
	}
	for _, f := range []string{"latest_fork_usec", "total_forks", "migrate_cached_sockets",
		"slave_expires_tracked_keys"} {
		t.field(f, 0)
	}
	keys, items, prefixes := t.tracking.size()
	t.field("tracking_total_keys", keys)
	t.field("tracking_total_items", items)
	t.field("tracking_total_prefixes", prefixes)
	t.field("unexpected_error_replies", 0)
	var failed uint64
	for _, count := range n.errors {
		failed += count
	}
	t.field("total_error_replies", failed)
	t.field("total_reads_processed", n.reads)
	t.field("total_writes_processed", n.writes)
}

func tellReplication(t *telling) {
	t.field("role", "master")
	t.field("connected_slaves", 0)
	t.field("master_failover_state", "no-failover")
	t.field("master_replid", t.infos.runID)
	t.field("master_replid2", strings.Repeat("0", 40))
	t.field("master_repl_offset", 0)
	t.field("second_repl_offset", -1)
	t.field("repl_backlog_active", 0)
	t.field("repl_backlog_size", 0)
	t.field("repl_backlog_first_byte_offset", 0)
	t.field("repl_backlog_histlen", 0)
}

func tellCPU(t *telling) {
	system, user := cpuTime()
	t.field("used_cpu_sys", fmt.Sprintf("%.6f", system.Seconds()))
	t.field("used_cpu_user", fmt.Sprintf("%.6f", user.Seconds()))
	t.field("used_cpu_sys_children", "0.000000")
	t.field("used_cpu_user_children", "0.000000")
}

func tellCommands(t *telling) {
	for _, cmd := range commands.names() {
		n := t.since.commands[cmd.number]
		if n.calls == 0 && n.rejected == 0 {
			continue
		}
		usec, each := n.nanos/1000, 0.0
		if n.calls > 0 {
			each = float64(n.nanos) / 1000 / float64(n.calls)
		}
		t.field("cmdstat_"+cmd.full, fmt.Sprintf("calls=%d,usec=%d,usec_per_call=%.2f,rejected_calls=%d,failed_calls=%d", n.calls, usec, each, n.rejected, n.failed))
	}
}

func tellErrors(t *telling) {
	codes := make([]string, 0, len(t.since.errors))
	for code := range t.since.errors {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	for _, code := range codes {
		t.field("errorstat_"+code, fmt.Sprintf("count=%d", t.since.errors[code]))
	}
}

func tellKeyspace(t *telling) {
	if len(t.caches) > 0 && t.caches[0].stats.Entries > 0 {
		t.field("db0", fmt.Sprintf("keys=%d,expires=0,avg_ttl=0", t.caches[0].stats.Entries))
	}
}

// tellLockstep has what Redis has no names for. The numbers are those of lockstep.Stats: of
// the keys, a line for each; of each table that is served, all in one.
func tellLockstep(t *telling) {
	status := "serving"
	select {
	case <-t.stop:
		status = "draining"
	default:
	}
	t.field("lockstep_status", status)
	for why, n := range t.closed {
		t.field("lockstep_closed_"+closing(why).String(), n)
	}
	var keys lockstep.Stats
	if len(t.caches) > 0 {
		keys = t.caches[0].stats
	}
	for _, f := range figures(keys) {
		t.field("lockstep_"+f.name, f.value)
	}
	for _, l := range latencies(keys) {
		t.field("lockstep_"+l.name+"_usec", fmt.Sprintf("count=%d,mean=%d,p50=%d,p99=%d,max=%d", l.of.Count, l.of.Mean.Microseconds(), l.of.P50.Microseconds(), l.of.P99.Microseconds(), l.of.Max.Microseconds()))
	}
	for _, c := range t.caches[min(len(t.caches), 1):] {
		var line []string
		for _, f := range c.all() {
			line = append(line, f.name+"="+fieldText(f.value))
		}
		t.field("lockstep_table_"+fieldName.Replace(c.table), strings.Join(line, ","))
	}
}

// fieldName is for names of tables, which may have any letter but a colon in them.
var fieldName = strings.NewReplacer("\r", "_", "\n", "_")

// port is the lowest that is listened on.
func (s *Server) port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	port := 0
	for listener := range s.listeners {
		if p := portOf(listener.Addr()); p > 0 && (port == 0 || p < port) {
			port = p
		}
	}
	return port
}
