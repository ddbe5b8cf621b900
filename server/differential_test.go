package server

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
)

// difference is one between Lockstep's replies and Redis's that is permitted, with its
// reason. What mask returns for the two replies must be the same.
type difference struct {
	reason  string
	command *regexp.Regexp // of requests as they are in scripts
	mask    func(reply resp.Value) string
	chance  bool // it may happen not to be needed
}

// permitted is all of them: a reply that differs otherwise fails the test, and so does a
// line here that is not needed.
var permitted = []difference{
	{"each server numbers its own connections", regexp.MustCompile(`(?i)^client id$|^hello`), maskNumbers, false},
	{"clocks go on", regexp.MustCompile(`(?i)^time$`), maskNumbers, false},
	{"addresses, ages and memory are each server's own, and so are the library's name and version, which 7.0 does not have", regexp.MustCompile(`(?i)^client (info|list)`), maskClients, false},
	{"CLIENT SETINFO and NO-TOUCH are 7.2's; clients send them to whatever answers", regexp.MustCompile(`(?i)^client (setinfo|no-touch)`), maskAll, false},
	{"COMMAND tells of the commands that there are", regexp.MustCompile(`(?i)^command( (count|info))?$|^command list($| filterby aclcat connection)|^command info (.* )?(client|command|info)( |$)`), maskAll, false},
	{"COMMAND LIST has the order of a hash table", regexp.MustCompile(`(?i)^command list filterby`), maskOrder, true},
	{"COMMAND GETKEYS does not know commands that are not there", regexp.MustCompile(`(?i)^command getkeys (lpush|info) `), maskAll, false},
	{"PUBSUB CHANNELS has the order of a hash table", regexp.MustCompile(`(?i)^pubsub channels`), maskOrder, true},
	{"descriptions of commands are our own, and name no arguments", regexp.MustCompile(`(?i)^command docs`), maskAll, false},
	{"the help is our own", regexp.MustCompile(`(?i)^(client|command|pubsub) help$`), maskAll, false},
	{"a NUL in a line is an error at once; Redis waits for 64 KiB", regexp.MustCompile(`\x00`), maskAll, false},
}

var (
	number      = regexp.MustCompile(`\d+`)
	clientField = regexp.MustCompile(` ?(id|addr|laddr|fd|age|idle|qbuf|qbuf-free|argv-mem|multi-mem|rbs|rbp|obl|oll|omem|tot-mem|lib-name|lib-ver)=[^ \n]*`)
)

func maskAll(resp.Value) string { return "" }

func maskOrder(v resp.Value) string {
	slices.SortFunc(v.Elems, func(a, b resp.Value) int { return strings.Compare(a.Text, b.Text) })
	return string(v.AppendTo(nil))
}

// maskNumbers takes the numbers out of what is no error.
func maskNumbers(v resp.Value) string {
	text := string(v.AppendTo(nil))
	if v.Kind == resp.Error {
		return text
	}
	if v.Kind == resp.Map || v.Kind == resp.Array && len(v.Elems) == 14 { // HELLO
		for i, e := range v.Elems {
			if e.Text == "id" {
				v.Elems[i+1].Text = "0"
			}
		}
		return string(v.AppendTo(nil))
	}
	return number.ReplaceAllString(text, "0")
}

// maskClients takes the fields out of lines of clients that are each server's own.
func maskClients(v resp.Value) string {
	v.Text = clientField.ReplaceAllString(v.Text, "")
	return string(v.AppendTo(nil))
}

// target is a server that is asked.
type target struct{ addr, password string }

// ask sends a script, and QUIT, and returns what comes back until the server closes the
// connection.
func (g target) ask(t *testing.T, begin []byte, script []string) []resp.Value {
	t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	in := slices.Clone(begin)
	for _, request := range script {
		in = append(append(in, request...), "\r\n"...)
	}
	if _, err := conn.Write(append(in, "QUIT\r\n"...)); err != nil {
		t.Fatal(err)
	}
	// Redis reads no further than a NUL, and does not close where it has no reply to send
	// before.
	if bytes.IndexByte(in, 0) >= 0 || bytes.Contains(in, []byte("client reply")) {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	d := resp.NewDecoder(conn, resp.DecodeLimits{})
	var replies []resp.Value
	for {
		v, err := d.Decode()
		if err == io.EOF || err != nil && len(replies) > 0 && strings.Contains(err.Error(), "reset by peer") {
			return replies
		}
		if err != nil {
			t.Fatalf("%q: %v", script, err)
		}
		replies = append(replies, v)
	}
}

// compare has both servers run a script, and compares their replies. The first of begin
// is not part of the script: its replies are left out.
func compare(t *testing.T, permitted []difference, needed []int, redis, ours target, begin func(g target) [][]byte, script []string) {
	t.Helper()
	ask := func(g target) []resp.Value {
		first := begin(g)
		replies := g.ask(t, bytes.Join(first, nil), sent(script))
		return replies[min(len(first), len(replies)):] // an HTTP request loses them, too
	}
	want, got := ask(redis), ask(ours)
	show := func(values []resp.Value) string {
		var b strings.Builder
		for _, v := range values {
			fmt.Fprintf(&b, "\n\t%.300s", v)
		}
		return b.String()
	}
	if len(got) != len(want) {
		// A NUL, for one, ends ours.
		for i, d := range permitted {
			if d.command.MatchString(strings.Join(script, "\n")) && strings.Contains(d.command.String(), `\x00`) {
				needed[i]++
				return
			}
		}
		t.Errorf("%q: %d replies and %d of Redis's:%s\nand%s", script, len(got), len(want), show(got), show(want))
		return
	}
	for i := range got {
		a, b := string(got[i].AppendTo(nil)), string(want[i].AppendTo(nil))
		if a == b {
			continue
		}
		request := script[min(i, len(script)-1)]
		k := slices.IndexFunc(permitted, func(d difference) bool { return d.command.MatchString(request) })
		if k < 0 || permitted[k].mask(got[i]) != permitted[k].mask(want[i]) {
			t.Errorf("%q in %q:\n\t%.1000q\nand Redis\n\t%.1000q", request, script, a, b)
			continue
		}
		needed[k]++
	}
}

// scripts are what is sent, each on a connection of its own.
var scripts = []string{
	"ping", "PING", "PiNg", "ping a", "ping a b", "ping ''", "echo", "echo a", "echo a b", "quit", "quit a b", "quit; ping", "time", "time x",
	"''", "nosuch", "nosuch a b c", "no\\nsuch", "'no\\r\\nsuch' 'a\\nb'", "\"no\\r\\nsuch\" \"a\\nb\"", "\"a\\x00b\" \"c\\x00d\" e", "client|id", "ping|x",
	strings.Repeat("x", 300), "x " + strings.Repeat("y", 300) + " z", "x " + strings.Repeat("y ", 300), strings.Repeat("x", 200) + " " + strings.Repeat("y", 127) + " z z",
	"post", "POST / HTTP/1.1; Host: here", "host: x; ping", "ping; post; ping", "ping\x00", "ping \"", "ping; 'a'b; ping",
	"select 0", "select 1", "select -1", "select 16", "select x", "select", "select 0 0", "select 01", "select +0", "select 2147483647", "select 2147483648", "select 99999999999999999999", "select ''",
	"hello", "hello 2", "hello 3", "hello 1", "hello 4", "hello x", "hello ''", "hello 03", "hello 99999999999999999999", "hello 3 setname", "hello 3 setname a; client getname", "hello 2 setname 'a b'; client getname",
	"hello 2 setname a setname b; client getname", "hello 3 foo", "hello 3 foo bar baz", "hello 3 auth", "hello 3 auth a", "hello 2 auth nobody x; ping", "hello 3 auth default wrong; ping", "hello 3 auth '' ''",
	"hello 3 setname a auth; client getname", "hello setname a", "hello 3; ping; hello 2; client getname; hello", "hello 3 setname a auth default wrong; client getname", "hello 3 \"a\\nb\"",
	"auth", "auth wrong; ping", "auth default wrong", "auth nobody wrong", "auth a b c", "auth a b c d", "auth '' ''", "auth ''",
	"reset", "reset x", "client setname a; hello 3; reset; client getname", "reset; ping", "client no-evict on; reset; client info", "select 0; reset; client info", "reset; auth wrong; client id",
	"client", "client ''", "client foo", "client foo bar", "client \"a\\nb\"", "client \"a\\x00b\"", "client " + strings.Repeat("x", 300), "CLIENT Foo", "client help", "client help x",
	"client id", "client id x", "client getname", "client getname x", "client setname", "client setname a", "client setname a; client getname; client setname ''; client getname", "client setname 'a b'", "client setname \"a\\n\"",
	"client setname \xff", "client setname ~!; client getname", "client setname a b", "client setinfo lib-name x", "client no-touch on",
	"client info", "client info x", "client setname abc; client info", "hello 3; client info", "client no-evict on; client info; client no-evict off; client info", "client no-evict", "client no-evict x", "client no-evict ON x",
	"client list", "client list x", "client list type", "client list type normal", "client list type NORMAL", "client list type master", "client list type replica", "client list type slave", "client list type pubsub", "client list type x", "client list type \"x\\ny\"",
	"client list id", "client list id x", "client list id 0", "client list id 999999", "client list id 999999 x", "client list id 999999 999998", "client list type normal id 1", "client list id 01", "client list id -5",
	"client kill", "client kill x", "client kill 1.2.3.4:5", "client kill id", "client kill id x", "client kill id 0", "client kill id -1", "client kill id 999999", "client kill id 99999999999999999999", "client kill id 999999 type",
	"client kill id 999999 type normal", "client kill type normal", "client kill type normal; ping", "client kill type normal skipme no; ping", "client kill type master", "client kill type replica", "client kill type slave", "client kill type pubsub skipme no", "client kill type x", "client kill TYPE \"x\\ny\"",
	"client kill user default", "client kill user default skipme no; ping", "client kill user nobody", "client kill user", "client kill addr 1.2.3.4:5", "client kill laddr 1.2.3.4:5", "client kill addr 1.2.3.4:5 skipme no", "client kill skipme yes", "client kill skipme no; ping", "client kill skipme x", "client kill skipme",
	"client kill foo bar", "client kill a b c", "client kill addr a addr b", "client kill id 999999 id 999998", "client kill type master type normal", "client kill type normal type master skipme no; ping",
	"client reply", "client reply x", "client reply on", "client reply on; ping", "client reply off; ping", "client reply off; ping; client reply on; ping", "client reply skip; ping; ping", "client reply skip; client reply skip; ping; ping",
	"client reply off; client reply skip; client reply on; ping", "client reply skip; nosuch; ping", "client reply off; ping \"", "client reply skip; ping \"", "client reply off; reset; ping", "client reply skip; reset; ping", "client reply off; quit; ping",
	"client reply skip; client reply on; ping", "client reply skip; client reply off; ping; client reply on", "client reply off; hello 3; client reply on; client getname", "client reply skip; client reply x; ping", "client reply off; client kill skipme no",
	"client reply skip; quit", "client reply off; post", "client reply on x",
	"command", "command count", "command count x", "command list", "command list x", "command list filterby", "command list filterby x", "command list filterby x y", "command list filterby pattern", "command list filterby pattern ping", "command list filterby pattern 'PI[MN-]G'", "command list filterby pattern 'p[^o]ng'", "command list filterby pattern 'client|*etn*'",
	"command list filterby pattern a b", "command list filterby pattern '\\\\ping'", "command list filterby aclcat nosuch", "command list filterby module x", "command list filterby aclcat connection", "command list filterby pattern ''",
	"command foo", "command foo bar", "command help", "command help x", "command docs", "command docs ping", "command docs nosuch", "command docs client|id",
	"command info", "command info nosuch", "command info ping nosuch echo", "command info client|nosuch", "command info 'client|id|x'", "command info client", "command info command", "command info PING Client|List",
	"command getkeys", "command getkeys ping", "command getkeys ping x", "command getkeys ping x y", "command getkeys nosuch x", "command getkeys client id", "command getkeys client nosuch", "command getkeys client id x", "command getkeys get x", "command getkeys mset a b c d", "command getkeys lpush a b", "command getkeys echo", "command getkeys echo a b c",
}

// random returns scripts of words that have something to do with each other.
func random(rnd *rand.Rand, n int) (all []string) {
	pools := [][]string{
		{"client", "id", "info", "list", "kill", "getname", "setname", "no-evict", "reply", "type", "normal", "master", "user", "default", "skipme", "yes", "no", "on", "off", "skip", "addr", "laddr", "999999", "0", "x", "''"},
		{"subscribe", "unsubscribe", "psubscribe", "ssubscribe", "sunsubscribe", "publish", "a", "b", "ping", "hello", "3", "reset", "''", "x"},
		{"hello", "2", "3", "auth", "setname", "default", "wrong", "a", "'a b'", "reset", "client", "getname", "4", "x"},
		{"command", "info", "getkeys", "ping", "echo", "client|id", "client|list", "nosuch", "client", "id", "auth", "select", "quit", "reset", "time", "hello"},
		{"ping", "echo", "select", "quit", "reset", "auth", "time", "0", "1", "a", "''", "\"\\n\"", "-1"},
	}
	for range n {
		pool := pools[rnd.IntN(len(pools))]
		var requests []string
		for range 1 + rnd.IntN(5) {
			words := []string{pool[0]}
			if other := pool[rnd.IntN(len(pool))]; rnd.IntN(4) == 0 && other != "info" && other != "type" { // which Redis has
				words[0] = other
			}
			for range rnd.IntN(6) {
				words = append(words, pool[rnd.IntN(len(pool))])
			}
			request := strings.Join(words, " ")
			if request == "command" || request == "command info" {
				request = "command count" // the others' replies are long, and ours differ
			}
			requests = append(requests, request)
		}
		all = append(all, strings.Join(requests, "; "))
	}
	return all
}

// TestRepliesAreRedis sends the same requests to a real Redis and to a Server, in both
// versions, with a password that was given, with one that was not, and where there is none.
func TestRepliesAreRedis(t *testing.T) {
	u, err := url.Parse(dbtest.StartRedis(t, "databases 1").URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	redis := target{u.Host, password}
	_, addr := start(t, Options{Users: func(name string) (User, bool) {
		return User{Passwords: []PasswordHash{HashPassword(password)}}, name == defaultUser
	}})
	ours := target{addr, password}

	var requests int
	needed := make([]int, len(permitted))
	all := append(slices.Concat(scripts, pubsubScripts, trackingScripts), random(rand.New(rand.NewPCG(7, 0)), 600)...)
	for _, cmd := range commands.names() {
		if !strings.HasPrefix(cmd.since, "7.2") && cmd.sub == nil && cmd.group != "lockstep" {
			all = append(all, "command info "+cmd.full)
		}
	}
	with := func(name string, redis, ours target, begin func(g target) [][]byte) {
		t.Run(name, func(t *testing.T) {
			for _, script := range all {
				lines := strings.Split(script, "; ")
				requests += len(lines)
				compare(t, permitted, needed, redis, ours, begin, lines)
			}
		})
	}
	for _, version := range []string{"2", "3"} {
		with("RESP"+version, redis, ours, func(g target) [][]byte {
			return [][]byte{resp.AppendRequest(nil, "HELLO", version, "AUTH", defaultUser, g.password)}
		})
	}
	nothing := func(target) [][]byte { return nil }
	with("without having said who", redis, ours, nothing)

	// From here on Redis has no password.
	if got := redis.ask(t, nil, []string{"auth " + password, "acl setuser default nopass"}); len(got) != 3 || got[1].Text != "OK" {
		t.Fatalf("%s", got)
	}
	_, open := start(t, Options{})
	with("without a password", redis, target{open, ""}, nothing)

	for i, d := range permitted {
		t.Logf("%6d  %s", needed[i], d.reason)
		if needed[i] == 0 && !d.chance {
			t.Errorf("%q is permitted, and not needed", d.reason)
		}
	}
	t.Logf("%d requests in %d scripts, %d permitted differences", requests, 4*len(all), len(permitted))
}

// TestPatternsMatchAsRedis has a real Redis match random patterns with random keys.
func TestPatternsMatchAsRedis(t *testing.T) {
	u, err := url.Parse(dbtest.Redis(t))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	rnd := rand.New(rand.NewPCG(3, 0))
	text := func(letters string, most int) string {
		var b strings.Builder
		for range rnd.IntN(most) {
			b.WriteByte(letters[rnd.IntN(len(letters))])
		}
		return b.String()
	}
	keys := map[string]bool{}
	in := resp.AppendRequest(nil, "HELLO", "2", "AUTH", defaultUser, password)
	in = resp.AppendRequest(in, "SELECT", strings.TrimPrefix(u.Path, "/"))
	for range 100 {
		key := text("abcABC-]\\", 6)
		keys[key] = true
		in = resp.AppendRequest(in, "SET", key, "")
	}
	patterns := []string{"", "*", "**", "*a*", "[", "[a", "[^", "[a-", "[^a", "[]", "[^]", "\\", "a\\", "[\\]]", "[c-a]", "*[a-c]", "[a-]", "[--a]"}
	for range 500 {
		patterns = append(patterns, text("abcB*?[]^-\\", 8))
	}
	for _, pattern := range patterns {
		in = resp.AppendRequest(in, "KEYS", pattern)
	}
	replies := target{u.Host, password}.ask(t, in, nil)
	replies = replies[len(replies)-1-len(patterns):]
	for i, pattern := range patterns {
		has := map[string]bool{}
		for _, key := range replies[i].Elems {
			has[key.Text] = true
		}
		for key := range keys {
			// KEYS * does not look at the keys.
			if got := pattern == "*" || glob([]byte(pattern), []byte(key), false); got != has[key] {
				t.Errorf("%q matches %q: %t, and for Redis %t", pattern, key, got, has[key])
			}
		}
	}
	if !glob([]byte("P[a-c]*\\X"), []byte("pBx"), true) || glob([]byte("a"), []byte("A"), false) {
		t.Error("letters of the other case are not as asked for")
	}
}
