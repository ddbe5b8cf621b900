package server

import (
	"bufio"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"net"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
)

// permittedOfOperations is the differences of commands about the server itself.
var permittedOfOperations = []difference{
	{"INFO has the fields of this server", regexp.MustCompile(`(?i)^info`), maskSections, false},
	{"CONFIG GET has the parameters that this server has", regexp.MustCompile(`(?i)^config get \*`), maskAll, false},
	{"CONFIG GET has the order of a hash table", regexp.MustCompile(`(?i)^config get \S+ \S+`), maskPairs, false},
	{"each server listens somewhere", regexp.MustCompile(`(?i)^config get (port|bind)`), maskAll, false},
	{"what cannot be set at all says why in our words, and what cannot be set while the server runs is more than with Redis", regexp.MustCompile(`(?i)^config set (save|appendonly|maxmemory|maxmemory-policy|port|bind|latency-monitor-threshold|client-output-buffer-limit|proto-max-bulk-len|client-query-buffer-limit)\b`), maskOurs, false},
	{"the help is our own, and so is what LATENCY DOCTOR says", regexp.MustCompile(`(?i)^(config|slowlog|memory|latency) help$|^latency doctor$`), maskAll, false},
	{"a key takes what memory takes for it", regexp.MustCompile(`(?i)^memory usage`), maskNumbers, false},
}

// maskSections leaves the headings of INFO's sections.
func maskSections(v resp.Value) string {
	if v.Kind == resp.Error {
		return v.Text
	}
	var headings []string
	for line := range strings.Lines(v.Text) {
		if strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "# Lockstep") {
			headings = append(headings, line)
		}
	}
	return string(v.Kind) + strings.Join(headings, "")
}

// maskPairs puts the names and values of CONFIG GET into order.
func maskPairs(v resp.Value) string {
	var pairs []string
	for i := 0; i+1 < len(v.Elems); i += 2 {
		pairs = append(pairs, strings.ToLower(v.Elems[i].Text)+"="+v.Elems[i+1].Text)
	}
	slices.Sort(pairs)
	return string(v.Kind) + strings.Join(pairs, " ")
}

func maskOurs(v resp.Value) string {
	if v.Kind == resp.Error && strings.Contains(v.Text, "CONFIG SET failed (possibly related to argument") {
		return "failed"
	}
	return "failed" // Redis sets it
}

var operationScripts = []string{
	"info", "INFO", "info server", "info SERVER", "info all", "info everything", "info default", "info nosuch", "info ''", "info commandstats", "info server clients cpu", "info keyspace commandstats server", "info all server", "info default commandstats", "info modules", "info latencystats", "info errorstats cluster persistence replication memory stats",
	"config", "config foo", "config get", "config get nosuch", "config get maxclients", "config get MAXCLIENTS timeOut", "config get time* timeout", "config get '[t]imeout'", "config get save", "config get appendonly", "config get databases", "config get slowlog-log-slower-than", "config get slowlog-max-len", "config get proto-max-bulk-len client-query-buffer-limit", "config get latency-monitor-threshold", "config get ''", "config get port", "config get *",
	"config set", "config set a", "config set a b", "config set 'a b' c", "config set timeout 1 2", "config set maxclients x", "config set maxclients 0", "config set maxclients -1", "config set maxclients 4294967296", "config set maxclients 99999999999999999999", "config set maxclients 1.5", "config set maxclients ''", "config set maxclients 5000; config get maxclients; config set MaxClients 10000",
	"config set timeout -1", "config set timeout 2147483648", "config set timeout 5 timeout 6", "config set timeout 5 a b", "config set a b timeout x", "config set timeout 7 maxclients x; config get timeout", "config set timeout 100 maxclients 9000; config get timeout maxclients; config set timeout 0 maxclients 10000", "config set databases 3", "config set databases 1 timeout x", "config set timeout x databases 1", "config set timeout x timeout y",
	"config set save ''", "config set save x", "config set appendonly no", "config set appendonly maybe", "config set maxmemory x", "config set maxmemory-policy x", "config set slowlog-log-slower-than x", "config set slowlog-log-slower-than -2", "config set slowlog-max-len -1", "config set slowlog-max-len 0; slowlog len; config set slowlog-max-len 128", "config set latency-monitor-threshold 0",
	"config resetstat", "config resetstat x", "config rewrite x", "config help", "config help x",
	"slowlog", "slowlog foo", "slowlog help", "slowlog get x", "slowlog get -2", "slowlog get 1 2", "slowlog get -1", "slowlog get", "slowlog get 0", "slowlog len", "slowlog len x", "slowlog reset", "slowlog reset x",
	"latency", "latency foo", "latency help", "latency latest", "latency latest x", "latency history", "latency history command", "latency reset", "latency reset a b", "latency doctor", "latency doctor x",
	"memory", "memory foo", "memory help", "memory usage", "memory usage nosuch", "memory usage a samples", "memory usage a samples x", "memory usage a samples -1", "memory usage nosuch samples 0", "memory usage a foo 1", "memory usage a samples 5 x", "set a 1; memory usage a; memory usage a samples 5; del a", "command getkeys memory usage a",
	"debug", "debug sleep 0", "debug foo bar",
	"acl whoami",
}

// TestOperationsAreRedis compares commands about the server with a real one.
func TestOperationsAreRedis(t *testing.T) {
	u, err := url.Parse(dbtest.StartRedis(t, "databases 1", "appendonly no", "slowlog-log-slower-than 10000000").URL())
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := u.User.Password()
	s, addr := start(t, Options{Store: openStore(t), Users: (&people{all: map[string]User{"default": {Passwords: password(secret)}}}).find})
	s.slow.over.Store(10_000_000)
	all := operationScripts
	for _, cmd := range commands.names() {
		if cmd.sub == nil && cmd.group == "server" && cmd.name != "command" && !strings.HasPrefix(cmd.full, "command|") {
			all = append(all, "command info "+cmd.full)
		}
	}
	needed := make([]int, len(permittedOfOperations))
	requests := 0
	for _, version := range []string{"2", "3"} {
		begin := func(g target) [][]byte {
			return [][]byte{resp.AppendRequest(nil, "HELLO", version, "AUTH", defaultUser, g.password)}
		}
		for _, script := range all {
			lines := strings.Split(script, "; ")
			requests += len(lines)
			compare(t, permittedOfOperations, needed, target{u.Host, secret}, target{addr, secret}, begin, lines)
		}
	}
	for i, d := range permittedOfOperations {
		t.Logf("%6d  %s", needed[i], d.reason)
		if needed[i] == 0 && !d.chance {
			t.Errorf("%q is permitted, and not needed", d.reason)
		}
	}
	t.Logf("%d requests, %d permitted differences", requests, len(permittedOfOperations))

	// What exporters read by name has Redis's names.
	fields := func(g target) (names []string, values map[string]string) {
		values = map[string]string{}
		replies := g.ask(t, resp.AppendRequest(nil, "AUTH", g.password), []string{"info everything"})
		for line := range strings.Lines(replies[1].Text) {
			name, value, found := strings.Cut(strings.TrimSpace(line), ":")
			if found {
				names = append(names, name)
				values[name] = value
			}
		}
		return names, values
	}
	_, theirs := fields(target{u.Host, secret})
	names, values := fields(target{addr, secret})
	for _, name := range names {
		if _, known := theirs[name]; !known && !strings.HasPrefix(name, "lockstep_") && !strings.HasPrefix(name, "cmdstat_") && !strings.HasPrefix(name, "errorstat_") && name != "db0" {
			t.Errorf("INFO has %s, which Redis has not", name)
		}
	}
	numeric := regexp.MustCompile(`^-?[0-9.]+$`)
	for name, value := range theirs {
		if ours, there := values[name]; there && numeric.MatchString(value) != numeric.MatchString(ours) && name != "mem_allocator" && name != "redis_build_id" {
			t.Errorf("%s is %q, and Redis's %q", name, ours, value)
		}
	}
}

// infoOf returns INFO's fields.
func infoOf(s *Server, sections ...string) map[string]string {
	var names [][]byte
	for _, section := range sections {
		names = append(names, []byte(section))
	}
	fields := map[string]string{}
	for line := range strings.Lines(s.info(names)) {
		if name, value, found := strings.Cut(strings.TrimSuffix(line, "\r\n"), ":"); found {
			fields[name] = value
		}
	}
	return fields
}

// TestCallsAreCounted: alone, in pipelines and in runs of writes; failed, and refused.
func TestCallsAreCounted(t *testing.T) {
	s, addr := start(t, Options{Store: openStore(t)})
	p := dial(t, addr)
	p.send(strings.Repeat("GET a\r\n", 5) + "SET a x\r\nINCR a\r\nSET b 1\r\nGET a\r\nPING\r\nGET\r\nNOSUCH\r\nGET a\r\nCLIENT ID\r\nCLIENT NOSUCH\r\nGETRANGE a x 1\r\n")
	for range 16 {
		if _, err := p.replies.Decode(); err != nil {
			t.Fatal(err)
		}
	}
	p.ask("MULTI", "+OK\r\n")
	p.ask("GETDEL nosuch", "+QUEUED\r\n")
	p.ask("DECR a", "+QUEUED\r\n")
	p.ask("EXEC", "*2\r\n$-1\r\n-"+notAnInteger+"\r\n")
	p.ask("MULTI", "+OK\r\n")
	p.ask("DECR a", "+QUEUED\r\n")
	p.ask("DISCARD", "+OK\r\n")
	p.ask("PING", "+PONG\r\n") // what came before is counted
	number := regexp.MustCompile(`usec=\d+,usec_per_call=[0-9.]+`)
	stats := infoOf(s, "commandstats", "errorstats", "stats")
	for name, want := range map[string]string{
		"cmdstat_get":       "calls=7,U,rejected_calls=1,failed_calls=0",
		"cmdstat_set":       "calls=2,U,rejected_calls=0,failed_calls=0",
		"cmdstat_incr":      "calls=1,U,rejected_calls=0,failed_calls=1",
		"cmdstat_getrange":  "calls=1,U,rejected_calls=0,failed_calls=1",
		"cmdstat_client|id": "calls=1,U,rejected_calls=0,failed_calls=0",
		"cmdstat_client":    "calls=0,U,rejected_calls=1,failed_calls=0",
		"cmdstat_getdel":    "calls=1,U,rejected_calls=0,failed_calls=0",
		"cmdstat_decr":      "calls=1,U,rejected_calls=0,failed_calls=1",
		"cmdstat_exec":      "calls=1,U,rejected_calls=0,failed_calls=0",
		"errorstat_ERR":     "count=6",
	} {
		if got := number.ReplaceAllString(stats[name], "U"); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if stats["total_error_replies"] != "6" || stats["total_connections_received"] != "1" || stats["total_net_input_bytes"] == "0" || stats["total_net_output_bytes"] == "0" {
		t.Errorf("%v", stats)
	}
	p.ask("CONFIG REWRITE", "-ERR The server is running without a config file\r\n")
	p.ask("CONFIG RESETSTAT", "+OK\r\n")
	p.ask("PING", "+PONG\r\n")
	stats = infoOf(s, "commandstats", "errorstats", "stats")
	if stats["cmdstat_get"] != "" || stats["errorstat_ERR"] != "" || stats["total_error_replies"] != "0" {
		t.Errorf("after RESETSTAT: %v", stats)
	}
	if n := s.counts.totals().calls; n < 12 {
		t.Errorf("RESETSTAT has set back what metrics count: %d", n)
	}
}

// TestSlowRequestsAreKept: what they were, without passwords, and no more than asked for.
func TestSlowRequestsAreKept(t *testing.T) {
	s, addr := start(t, Options{Store: openStore(t), Users: withPassword().Users})
	p := dial(t, addr)
	p.ask("AUTH secret", "+OK\r\n")
	p.ask("CLIENT SETNAME me", "+OK\r\n")
	p.ask("CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 3", "+OK\r\n")
	p.ask("AUTH secret", "+OK\r\n")
	p.ask("MGET"+strings.Repeat(" k", 40), "*40\r\n"+strings.Repeat("$-1\r\n", 40))
	p.ask("SET a "+strings.Repeat("x", 200), "+OK\r\n")
	p.send("PING\r\nPING\r\nPING\r\n")
	for range 3 {
		p.want("+PONG\r\n")
	}
	p.ask("CONFIG SET slowlog-log-slower-than -1", "+OK\r\n")
	p.ask("SLOWLOG LEN", ":3\r\n")
	p.send("SLOWLOG GET 5\r\n")
	v, err := p.replies.Decode()
	if err != nil || len(v.Elems) != 3 {
		t.Fatalf("%s, %v", v, err)
	}
	if strings.Contains(v.String(), "secret") {
		t.Errorf("%s", v)
	}
	for i, want := range []string{"PING ... (the last of 3 such requests that came together)", "SET a " + strings.Repeat("x", 128) + "... (72 more bytes)", "MGET" + strings.Repeat(" k", 30) + " ... (10 more arguments)"} {
		var args []string
		e := v.Elems[i]
		for _, arg := range e.Elems[3].Elems {
			args = append(args, arg.Text)
		}
		if got := strings.Join(args, " "); got != want || e.Elems[5].Text != "me" || e.Elems[4].Text != p.LocalAddr().String() {
			t.Errorf("%s: %q; want %q", e, got, want)
		}
	}
	p.ask("CONFIG SET slowlog-max-len 1", "+OK\r\n")
	p.ask("SLOWLOG LEN", ":1\r\n")
	p.ask("SLOWLOG RESET", "+OK\r\n")
	p.ask("SLOWLOG LEN", ":0\r\n")
	_ = s
}

// TestTimeoutThatIsSetEndsThoseWhoAreIdleAlready, and those who come later.
func TestTimeoutThatIsSetEndsThoseWhoAreIdleAlready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		open := func() *bufio.Reader {
			theirs, ours := net.Pipe()
			s.accept(ours)
			t.Cleanup(func() { theirs.Close() })
			return bufio.NewReader(theirs)
		}
		idle := open()
		time.Sleep(time.Hour) // of the bubble: its buffers are given back, and it waits without a deadline
		admin, ours := net.Pipe()
		s.accept(ours)
		fmt.Fprint(admin, "CONFIG SET timeout 60\r\n")
		if line, err := bufio.NewReader(admin).ReadString('\n'); line != "+OK\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		began := time.Now()
		if _, err := idle.ReadByte(); err == nil {
			t.Error("the idle connection is not closed")
		}
		if d := time.Since(began); d > time.Second { // it has been idle for an hour
			t.Errorf("closed after %v", d)
		}
		if _, err := open().ReadByte(); err == nil {
			t.Error("a later one is not closed")
		}
		if d := time.Since(began); d < 59*time.Second || d > 62*time.Second {
			t.Errorf("closed after %v", d)
		}
		admin.Close()
		synctest.Wait()
	})
}

// TestMaxClientsThatIsSet holds for the next who comes.
func TestMaxClientsThatIsSet(t *testing.T) {
	s, addr := start(t, Options{})
	p := dial(t, addr)
	p.ask("CONFIG SET maxclients 1", "+OK\r\n")
	other := dial(t, addr)
	other.want("-ERR max number of clients reached\r\n")
	p.ask("CONFIG SET maxclients 2", "+OK\r\n")
	dial(t, addr).ask("PING", "+PONG\r\n")
	if got := infoOf(s, "stats", "clients"); got["rejected_connections"] != "1" || got["connected_clients"] != "2" || got["maxclients"] != "2" {
		t.Errorf("%v", got)
	}
}
