package server

import (
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// permittedOfMulti is the differences about transactions.
var permittedOfMulti = []difference{
	{"commands about the whole table have no part in a transaction", regexp.MustCompile(`(?i)^(dbsize|keys|randomkey|scan|flushall|flushdb)( |$)`), maskAll, false},
	{"and neither has CLIENT REPLY, which leaves EXEC's reply without an end", regexp.MustCompile(`(?i)^client reply `), maskAll, false},
	{"nor have those whose replies are messages, and no elements of an array", regexp.MustCompile(`(?i)^[ps]?(un)?subscribe `), maskAll, false},
	{"so EXEC is refused behind one of them", regexp.MustCompile(`(?i)^exec (# refused)$`), maskAll, false},
	{"addresses, ages and memory of clients are each server's own", regexp.MustCompile(`(?i)^(client (info|list)|exec (# clients))$`), maskClientsDeep, false},
	{"each server numbers its own connections", regexp.MustCompile(`(?i)^(hello|exec # hello$)`), maskHelloDeep, false},
	{"a key that held nothing before and holds nothing now is as it was; Redis has been told of it", regexp.MustCompile(`(?i)^exec (# as it was)$`), maskAll, false},
}

func maskClientsDeep(v resp.Value) string {
	for i := range v.Elems {
		maskClients(v.Elems[i])
		v.Elems[i].Text = clientField.ReplaceAllString(v.Elems[i].Text, "")
	}
	return maskClients(v)
}

func maskHelloDeep(v resp.Value) string {
	var all strings.Builder
	for _, e := range append([]resp.Value{v}, v.Elems...) {
		all.WriteString(maskNumbers(e))
	}
	return number.ReplaceAllString(all.String(), "0")
}

// multiScripts are each a connection's. What is behind a # tells where a difference comes
// from, and is not sent.
var multiScripts = []string{
	"multi; exec", "multi; discard", "exec", "discard", "multi x", "exec x", "discard x", "unwatch", "unwatch x", "watch", "multi; multi; exec", "multi; watch a; exec", "multi; discard; exec", "multi; exec x; exec", "multi; discard x; exec", "multi; unwatch; exec", "multi; unwatch x; exec",
	"multi; ping; ping a; echo b; exec", "multi; ping a b c; exec; get a", "multi; nosuch; set a 1; exec; get a", "multi; set a 1; nosuch x; exec; get a", "multi; set a; exec; exec", "multi; set a 1; get; set b 2; exec; mget a b", "multi; multi x; exec", "multi; client nosuch; exec", "multi; client getname x; exec",
	"MULTI; SET a 1; GeT a; ExEc; get a", "multi; set a 1; discard; get a; exec", "set a 1; multi; get a; set a 2; get a; exec; get a", "multi; set a x; incr a; append a y; get a; exec; get a", "hset h f v; multi; get h; incr h; hget h f; set a 1; nosuch a; exec; get a", "hset h f v; multi; get h; set a 1; hset a f v; hset h f w; exec; get a; hget h f",
	"multi; set a 1; set a 2; del a; exists a; get a; set a 3; exec; get a", "multi; del a b c; set a 1; del a a b; exists a; exec", "multi; mset a 1 b 2 c 3; mget a b c d; msetnx a 1 d 4; msetnx e 1 f 2; exec; mget a b c d e f", "multi; mset a 1 b; exec", "multi; mset a 1 b 2 c; set x 1; exec; get x",
	"multi; set a 1 ex 100; ttl a; incr a; ttl a; persist a; ttl a; exec", "multi; set a 1; expire a 100; get a; ttl a; incr a; ttl a; set a 2 keepttl; ttl a; set a 3; ttl a; exec; ttl a", "multi; set a 1 pxat 33177117420123; pexpiretime a; append a x; pexpiretime a; rename a b; pexpiretime b; copy b c; pexpiretime c; exec; pexpiretime c; pexpiretime b; get a", "set a 1 pxat 33177117420123; multi; incr a; pexpiretime a; setrange a 0 7; pexpiretime a; exec; pexpiretime a",
	"multi; set a 1 exat 1; get a; exists a; exec; get a", "set a 1; multi; expire a -1; get a; expire a 100; exec; exists a", "set a 1; multi; expireat a 1; set a 2 xx; set a 3 nx; get a; exec; get a", "multi; set a 1 nx; set a 2 nx; set a 3 xx get; get a; getdel a; get a; getdel a; exec", "multi; set a 1; getex a ex 100; ttl a; getex a persist; ttl a; getset a 2; exec; get a", "multi; set a 1; expire a 100 nx; expire a 50 gt; expire a 200 gt; ttl a; exec",
	"multi; rename a b; renamenx a b; copy a b; exec", "multi; set a 1; rename a b; rename b c; mget a b c; renamenx c d; set c 2; renamenx c d; copy c d replace; mget c d; exec; mget a b c d", "multi; set a 1; rename a a; renamenx a a; copy a a; exec", "multi; rename a; set b 1; exec; get b",
	"multi; set a 3.0; incrbyfloat a 1.1; incrbyfloat a x; strlen a; getrange a 0 1; type a; object encoding a; exec", "multi; incr a; incrby a 9223372036854775807; decr a; exec; get a", "set a 9223372036854775807; multi; incr a; set b 1; exec; mget a b", "multi; setrange a 5 x; strlen a; setrange a -1 x; exec", "multi; touch a b; set a 1; touch a b; type a; type b; unlink a b; exec",
	"multi; hset h a 1 b 2; hgetall h; hincrby h a 5; hdel h b; hlen h; hkeys h; hmget h a b; hexists h a; hstrlen h a; hdel h a; exists h; hsetnx h a 1; hincrbyfloat h a 0.5; exec; hgetall h", "multi; lcs a b; set a abc; set b xbc; lcs a b; lcs a b len; lcs a b idx; exec",
	"multi; get a; mget a b; getrange a 0 1; hget a b; hgetall a; getdel a; exec", "watch a; multi; set a 1; exec; get a", "set a 1; watch a; set a 2; multi; set b 1; exec; get b; multi; set b 1; exec; get b", "watch a; incr a; multi; exec; multi; exec", "watch a b; unwatch; set a 1; multi; get a; exec", "watch a; set a 1; unwatch; multi; get a; exec", "watch a; set a 1; multi; discard; multi; get a; exec", "watch a; watch a; set a 1; watch a; multi; get a; exec", "watch a; get a; multi; get a; exec",
	"set a 1; watch a; set a 1; multi; get a; exec", "set a 1; watch a; expire a 100; multi; get a; exec", "set a 1; watch a; persist a; multi; get a; exec", "set a 1 ex 100; watch a; persist a; multi; get a; exec", "set a 1; watch a; touch a; get a; strlen a; multi; get a; exec", "set a 1; watch a; del a; multi; get a; exec", "watch a; del a; multi; get a; exec", "set a 1; watch a; rename a b; multi; exec", "set a 1; watch b; copy a b; multi; exec", "set a 1; watch a; copy a b; multi; get a; exec", "watch a; mset a 1 b 2; multi; exec", "set a 1; watch a; setrange a 0 ''; multi; get a; exec", "set a 1; watch a; set a 2 nx; multi; get a; exec", "set a 1; watch a; getex a; multi; get a; exec", "set a 1; watch a; getdel a; multi; get a; exec", "set a x; watch a; incr a; multi; get a; exec", "hset h f 1; watch h; hset h f 1; multi; exec", "hset h f 1; watch h; hset h g 1; multi; exec", "hset h f 1; watch h; hdel h nosuch; hget h f; multi; exec",
	"watch a; set a 1 exat 1; multi; get a; exec # as it was", "watch a; set a 1; del a; multi; get a; exec # as it was", "set a 1 px 1; watch b; multi; get b; exec", "set a 1; watch a; flushall; multi; get a; exec", "watch a; flushall; multi; get a; exec", "watch b; multi; nosuch; exec; set b 1; multi; get b; exec", "watch b; set b 1; multi; nosuch; exec", "watch b; set b 1; exec; multi; exec",
	"multi; dbsize; exec # refused", "set a 1; multi; keys *; exec # refused; get a", "multi; randomkey; exec # refused", "multi; scan 0; exec # refused", "multi; set a 1; flushall; exec # refused; flushall", "multi; flushdb async; exec # refused", "multi; client reply on; exec # refused", "multi; subscribe a; exec # refused", "multi; set a 1; punsubscribe a; exec # refused", "multi; publish a b; spublish a b; pubsub numpat; exec",
	"multi; hello 3; get nosuch; hgetall nosuch; hello 2; hgetall nosuch; exec # hello; get nosuch", "hello 3; multi; hello 2; get nosuch; hgetall h; exec # hello; get nosuch", "multi; hello 9; hello x; hello 3 foo; hello 3 auth nobody x; get nosuch; exec", "multi; hello 3 setname abc; client getname; hset h a b; hgetall h; exec # hello", "multi; auth default wrong; auth nobody x; get a; exec", "multi; auth; exec", "hello 3; multi; get a; hgetall a; ping; exec; watch a; set a 1; multi; exec",
	"multi; client setname abc; client getname; client id x; client no-evict on; exec; client getname", "multi; client info; exec # clients", "multi; set a 1; client list type normal; client info; exec # clients; client info", "multi; client info; nosuch; exec; client info", "multi; get a; get b; reset; exec; client info", "multi; quit; exec", "multi; set a 1; quit", "multi; select 0; select 1; select x; echo a; exec", "multi; time x; exec; ping", "multi; command count x; command getkeys get a; exec", "watch a; set a 1; reset; hello; ping",
	"client reply skip; multi; get a; exec", "client reply off; multi; set a 1; exec; client reply on; get a", "multi; set a 1; set b 2; exec; set c 3; set d 4; multi; mget a b c d; exec; set a 9; get a", "set a 1; multi; set a 2; exec; set a 3; multi; get a; exec", "multi; get a; exec; multi; get b; exec; exec", "multi; set \"\\x00\" 1; get \"\\x00\"; set '' 2; get ''; exec", "multi; acl whoami; exec", "command getkeys watch a b; command getkeys exec; command getkeys multi", "multi; object help x; object foo; exec", "multi; copy a b db 0; copy a b db 7; copy a b foo; exec",
}

// randomMultiScripts put commands about keys between MULTI and EXEC.
func randomMultiScripts(rnd *rand.Rand, n int) (all []string) {
	// What is masked where it stands alone.
	left := regexp.MustCompile(`^(p?ttl|dbsize|keys|getex)|[0-9]{15}`)
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	key := func() string { return pick("a", "b", "c") }
	for _, script := range randomKeyScripts(rnd, n) {
		var lines []string
		for _, line := range strings.Split(script, "; ") {
			if left.MatchString(line) {
				line = pick("hset ", "hincrby ", "hsetnx ") + key() + pick(" f 1", " g x", " f")
			}
			switch rnd.IntN(8) {
			case 0, 1:
				lines = append(lines, "multi")
			case 2:
				lines = append(lines, "exec")
			case 3:
				lines = append(lines, pick("watch "+key(), "watch "+key(), "watch "+key()+" "+key(), "unwatch", "discard", "exec", "nosuch", "hgetall "+key()))
			}
			lines = append(lines, line)
		}
		all = append(all, strings.Join(append(lines, "exec"), "; "))
	}
	return all
}

// sent takes the notes off a script.
func sent(script []string) []string {
	clean := make([]string, len(script))
	for i, line := range script {
		clean[i], _, _ = strings.Cut(line, " #")
	}
	return clean
}

// TestTransactionsAreRedis sends transactions to a real Redis and to a Server over a
// database, in both versions of the protocol. Each script goes as one pipeline.
func TestTransactionsAreRedis(t *testing.T) {
	c := newComparison(t, permittedOfMulti)
	for i, version := range []string{"2", "3"} {
		for _, script := range append(append([]string(nil), multiScripts...), randomMultiScripts(rand.New(rand.NewPCG(13, uint64(i))), 150)...) {
			c.pipeline(t, version, script)
		}
		for _, script := range watchScripts {
			lines := c.lines(script)
			want, got := inTurn(t, c.redis, version, lines), inTurn(t, c.ours, version, lines)
			for j := range want {
				if a, b := string(got[j].AppendTo(nil)), string(want[j].AppendTo(nil)); a != b {
					t.Errorf("%q in %q: %q and Redis %q", lines[j], script, a, b)
				}
			}
		}
	}
	c.report(t)
}

// watchScripts are two connections', the second one's lines behind a bar.
var watchScripts = []string{
	"watch a; |set a 1; multi; get a; exec; multi; get a; exec", "set a 1; watch a; |get a; |touch a; multi; get a; exec", "set a 1; watch a; |set a 1; multi; get a; exec; get a", "watch a; |set b 1; multi; set a 2; exec; |get a", "set a 1; watch a; |del a; |set a 1; multi; exec", "set a 1; watch a; |expire a 100; multi; exec", "watch a b c; |mset x 1 c 2; multi; exec", "set a 1; watch a; |rename a b; multi; exec", "set a 1; watch b; |rename a b; multi; exec", "set a 1; watch a; |flushall; multi; exec",
	"watch a; multi; |set a 1; set a 2; exec; |get a", "watch a; |multi; |set a 1; watch b; |exec; multi; set a 2; exec; |get a", "watch a; multi; set a 1; |incr a; discard; |get a; multi; incr a; exec", "watch a; |set a 1; unwatch; multi; incr a; exec", "multi; incr a; |incr a; |incr a; get a; exec; |get a", "multi; get a; |multi; |set a 1; |exec; get a; exec", "hset h f 1; watch h; |hset h f 2; multi; hget h f; exec", "hset h f 1; watch h; |hset h f 1; multi; hget h f; exec",
	"set a 1 px 30; watch a; |wait a; multi; get a; exec", "set a 1 px 30; |wait a; watch a; multi; get a; exec", "set a 1 px 30; watch b; |wait a; multi; get a; exec", "set a 1 px 30; watch a; multi; incr b; |wait a; exec; get b", "set a 1 px 30; multi; get a; |wait a; exec",
}

// inTurn has two connections send what is theirs, one line after the other. WAIT is for
// a key's end.
func inTurn(t *testing.T, g target, version string, lines []string) []resp.Value {
	t.Helper()
	var conns [2]net.Conn
	var replies [2]*resp.Decoder
	ask := func(i int, request string) resp.Value {
		t.Helper()
		if _, err := fmt.Fprintf(conns[i], "%s\r\n", request); err != nil {
			t.Fatal(err)
		}
		v, err := replies[i].Decode()
		if err != nil {
			t.Fatalf("%q: %v", lines, err)
		}
		return v
	}
	for i := range conns {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		conns[i], replies[i] = c, resp.NewDecoder(c, resp.DecodeLimits{})
		ask(i, fmt.Sprintf("HELLO %s AUTH %s %s", version, defaultUser, g.password))
	}
	ask(0, "FLUSHALL")
	var all []resp.Value
	for _, line := range lines {
		line, other := strings.CutPrefix(line, "|")
		i := 0
		if other {
			i = 1
		}
		if key, wait := strings.CutPrefix(line, "wait "); wait {
			for {
				if n, _ := ask(i, "EXISTS "+key).Int(); n == 0 {
					break
				}
			}
			line = "ping"
		}
		all = append(all, ask(i, line))
	}
	return all
}
