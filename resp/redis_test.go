package resp_test

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
)

// redis is a real Redis, with a password.
type redis struct{ addr, password string }

func start(t *testing.T, settings ...string) redis {
	u, err := url.Parse(dbtest.StartRedis(t, settings...).URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return redis{u.Host, password}
}

// ask sends everything at once and returns all that comes back until the server closes,
// which it does when it has read everything.
func (r redis) ask(t *testing.T, in []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() {
		// A server that has seen enough closes while this is on its way.
		_, _ = conn.Write(in)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	out, err := io.ReadAll(conn)
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return string(out)
}

// hello begins a connection: who one is, and the version. Its reply is left out of what
// is compared, for the connection's number is in it.
func (r redis) hello(version resp.Version) []byte {
	return resp.AppendRequest(nil, "HELLO", strconv.Itoa(int(version)), "AUTH", "default", r.password)
}

// answer does what a Redis would that had no command but ECHO and PING.
func answer(in []byte, version resp.Version) string {
	var w resp.Writer
	w.SetVersion(version)
	r := resp.NewReader(bytes.NewReader(in), resp.Limits{})
	r.SetAuthenticated(version != 0)
	for {
		args, err := r.Next()
		switch {
		case err != nil:
			w.Error("ERR " + err.Error())
			return string(w.Bytes())
		case args == nil:
			if r.Fill() != nil {
				return string(w.Bytes())
			}
		case version == 0:
			w.Error("NOAUTH Authentication required.")
		case strings.EqualFold(string(args[0]), "ping"):
			w.SimpleString("PONG")
		case strings.EqualFold(string(args[0]), "echo") && len(args) != 2:
			w.Error("ERR wrong number of arguments for 'echo' command")
		case strings.EqualFold(string(args[0]), "echo"):
			w.Bulk(args[1])
		default:
			given := ""
			for _, arg := range args[1:] {
				given += "'" + string(arg) + "' "
			}
			w.Error("ERR unknown command '" + string(args[0]) + "', with args beginning with: " + given)
		}
	}
}

// TestRequestsAreReadAsRedisReadsThem sends the same bytes to a real Redis.
func TestRequestsAreReadAsRedisReadsThem(t *testing.T) {
	server := start(t)
	cases := []string{
		"PING\r\n", "PING\n", "  PING  \r\n", "PING\r\r\n", "PING\r \n", "\r\n\n \t\v\f\r\nPING\r\n", "*0\r\n*-1\r\n*-2147483649\r\nPING\r\n",
		"*1\r\n$4\r\nPING\r\n", "*1\rX$4\rXPINGab*1\r\n$4\r\nping\r\n", "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "*2\r\n$4\r\necho\r\n$3\r\n\x00\r\n\r\n",
		"PING\r\n*2\r\n$4\r\nECHO\r\n$1\r\na\r\nECHO b\n",
		"ECHO \"a b\"\n", "ECHO 'a b'\n", "ECHO a\"b c\"\n", "ECHO \"\"\n", "ECHO ''\n", `ECHO "\x41\xfF\x4g\n\r\t\b\a\q\\\""` + "\n", `ECHO '\n\'\\'` + "\n",
		"ECHO \"a\" \n", "ECHO \"a\"\t\n", "ECHO \"a\"\v\n", "ECHO \"a\"b\n", "ECHO 'a'b\n", "ECHO \"a\n", "ECHO 'a\n", "ECHO \"\\\n", "ECHO '\\'\n", "ECHO a\vb\fc\n",
		"ECHO \"\\x0\"\n", "ECHO \"\\x00\"\n", "ECHO 'a\"b'\n", "ECHO \"a'b\"\n", "ECHO \xff\xfe\n", "\"\"\n", "\xff\n", "'PI'NG\n", "'PING'\n",
		"*\r\n", "*a\r\n", "*01\r\n", "*+1\r\n", "*-0\r\n", "*1 \r\n", "* 1\r\n", "*9223372036854775807\r\n", "*9223372036854775808\r\n", "*2147483648\r\n", "*11\r\n", "*10\r\n",
		"*1\r\n\r\n", "*1\r\n\n\r\n", "*1\r\nx\r\n", "*1\r\n\xff\xfe\r\n", "*1\r\nPING\r\n", "*1\r\n:4\r\n", "*1\r\n*1\r\n", "*1\r\n%\r\n",
		"*1\r\n$\r\n", "*1\r\n$a\r\n", "*1\r\n$-1\r\n", "*1\r\n$04\r\n", "*1\r\n$+4\r\n", "*1\r\n$536870913\r\n", "*1\r\n$536870912\r\n", "*1\r\n$9223372036854775807\r\nabc", "*1\r\n$16385\r\n", "*1\r\n$16384\r\n",
		"*1\r\n$4\r\nPIN", "*1\r\n$4\r", "*1\r", "PING", "PING\r\n*1\r\n$x\r\nPING\r\n",
		strings.Repeat("a", resp.MaxLine), strings.Repeat("a", resp.MaxLine+1), "*" + strings.Repeat("1", resp.MaxLine), "*1\r\n$" + strings.Repeat("1", resp.MaxLine),
		"*1\r\nx" + strings.Repeat("1", resp.MaxLine),
	}
	for _, in := range cases {
		if got, want := answer([]byte(in), 0), server.ask(t, []byte(in)); got != unknownIsToldFirst(want) {
			t.Errorf("%.80q, not authenticated: %q, and Redis %q", in, got, want)
		}
		for _, version := range []resp.Version{resp.RESP2, resp.RESP3} {
			whole := server.ask(t, append(server.hello(version), in...))
			d := resp.NewDecoder(strings.NewReader(whole), resp.DecodeLimits{})
			hello, err := d.Decode()
			if err != nil {
				t.Fatalf("%.80q: %v", in, err)
			}
			want := whole[len(hello.AppendTo(nil)):]
			if got := answer([]byte(in), version); got != want {
				t.Errorf("%.80q in RESP%d: %q, and Redis %q", in, version, got, want)
			}
		}
	}
	t.Logf("%d requests, each in three ways", len(cases))
}

// TestRandomRequestsAreReadAsRedisReadsThem: lines of what quoting is made of, and requests
// in which a few bytes are wrong.
func TestRandomRequestsAreReadAsRedisReadsThem(t *testing.T) {
	server := start(t)
	rnd := rand.New(rand.NewPCG(5, 0))
	const quoting, framing = " '\"\\xa4\t\v\r'\"\\", "*$0123456789-\r\n :x\xff"
	letters := func(most int) (text []byte) {
		for range rnd.IntN(most) {
			text = append(text, quoting[rnd.IntN(len(quoting))])
		}
		return text
	}
	for i := range 800 {
		in := append(append([]byte("ECHO "), letters(12)...), '\n')
		if i%2 == 0 {
			in = resp.AppendRequest(resp.AppendRequest(nil, "ECHO", "abc"), "echo", "d\r\n")
			for range 1 + rnd.IntN(2) {
				wrong := framing[rnd.IntN(len(framing))]
				switch at := rnd.IntN(len(in)); rnd.IntN(3) {
				case 0:
					in[at] = wrong
				case 1:
					in = append(in[:at], in[at+1:]...)
				default:
					in = append(in[:at], append([]byte{wrong}, in[at:]...)...)
				}
			}
		}
		whole := server.ask(t, append(server.hello(resp.RESP2), in...))
		hello, err := resp.NewDecoder(strings.NewReader(whole), resp.DecodeLimits{}).Decode()
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		if got, want := answer(in, resp.RESP2), whole[len(hello.AppendTo(nil)):]; got != want {
			t.Errorf("%q: %q, and Redis %q", in, got, want)
		}
	}
}

// unknownIsToldFirst: Redis tells a peer who is not authenticated that a command is unknown
// or short of arguments before it tells it who it should be. That is for commands.
func unknownIsToldFirst(replies string) string {
	lines := strings.SplitAfter(replies, "\r\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "-ERR unknown command") || strings.HasPrefix(line, "-ERR wrong number") {
			lines[i] = "-NOAUTH Authentication required.\r\n"
		}
	}
	return strings.Join(lines, "")
}

// TestTypesAreWrittenAsRedisWritesThem has a real Redis write each type, in both versions.
func TestTypesAreWrittenAsRedisWritesThem(t *testing.T) {
	server := start(t, "enable-debug-command yes")
	for _, version := range []resp.Version{resp.RESP2, resp.RESP3} {
		types := []struct {
			name  string
			write func(w *resp.Writer)
		}{
			{"string", func(w *resp.Writer) { w.BulkString("Hello World") }},
			{"integer", func(w *resp.Writer) { w.Integer(12345) }},
			{"double", func(w *resp.Writer) { w.Double(3.141) }},
			{"null", (*resp.Writer).Null},
			{"array", func(w *resp.Writer) {
				w.Array(3)
				for i := range 3 {
					w.Integer(int64(i))
				}
			}},
			{"set", func(w *resp.Writer) {
				w.Set(3)
				for i := range 3 {
					w.Integer(int64(i))
				}
			}},
			{"map", func(w *resp.Writer) {
				w.Map(3)
				for i := range 3 {
					w.Integer(int64(i))
					w.Bool(i == 1)
				}
			}},
			{"bignum", func(w *resp.Writer) { w.BigNumber("1234567999999999999999999999999999999") }},
			{"true", func(w *resp.Writer) { w.Bool(true) }},
			{"false", func(w *resp.Writer) { w.Bool(false) }},
			{"verbatim", func(w *resp.Writer) { w.Verbatim([3]byte{'t', 'x', 't'}, "This is a verbatim\nstring") }},
			{"attrib", func(w *resp.Writer) {
				if w.Attribute(1) {
					w.BulkString("key-popularity")
					w.Array(2)
					w.BulkString("key:123")
					w.Integer(90)
				}
				w.BulkString("Some real reply following the attribute")
			}},
		}
		in := server.hello(version)
		var want resp.Writer
		want.SetVersion(version)
		for _, typ := range types {
			in = resp.AppendRequest(in, "DEBUG", "PROTOCOL", typ.name)
			typ.write(&want)
		}
		replies := server.ask(t, in)
		d := resp.NewDecoder(strings.NewReader(replies), resp.DecodeLimits{})
		hello, err := d.Decode()
		if err != nil {
			t.Fatal(err)
		}
		got := replies[len(hello.AppendTo(nil)):]
		if got != string(want.Bytes()) {
			t.Errorf("RESP%d: %q\nand Redis %q", version, want.Bytes(), got)
		}
		for _, typ := range types {
			v, err := d.Decode()
			if err != nil {
				t.Fatalf("RESP%d, %s: %v", version, typ.name, err)
			}
			text := string(v.AppendTo(nil))
			if !strings.HasPrefix(got, text) {
				t.Errorf("RESP%d, %s is decoded as %s", version, typ.name, v)
			}
			got = got[len(text):]
		}
	}
}

// TestDoublesAreWrittenAsRedisWritesThem has a real Redis write random numbers. (In
// a listpack, its other way of keeping a sorted set, some of them are integers.)
func TestDoublesAreWrittenAsRedisWritesThem(t *testing.T) {
	server := start(t, "zset-max-listpack-entries 0")
	rnd := rand.New(rand.NewPCG(1, 2))
	doubles := []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 1e16, 1e17, 1e18, 123456789012345678, 0.0001, 0.00001, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), 1 << 53}
	for range 300 {
		if f := math.Float64frombits(rnd.Uint64()); !math.IsNaN(f) {
			doubles = append(doubles, f)
		}
		doubles = append(doubles, math.Round(rnd.NormFloat64()*1e6)/100, math.Pow(10, float64(rnd.IntN(60)-30)))
	}
	for _, version := range []resp.Version{resp.RESP2, resp.RESP3} {
		in := server.hello(version)
		var want resp.Writer
		want.SetVersion(version)
		for _, f := range doubles {
			in = resp.AppendRequest(in, "ZADD", "z", strconv.FormatFloat(f, 'g', -1, 64), "m")
			in = resp.AppendRequest(in, "ZSCORE", "z", "m")
			in = resp.AppendRequest(in, "DEL", "z")
			want.Integer(1)
			want.Double(f)
			want.Integer(1)
		}
		replies := server.ask(t, in)
		hello, err := resp.NewDecoder(strings.NewReader(replies), resp.DecodeLimits{}).Decode()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(replies[len(hello.AppendTo(nil)):], "\r\n")
		for i, line := range strings.Split(string(want.Bytes()), "\r\n") {
			if i >= len(got) || got[i] != line {
				t.Fatalf("RESP%d, line %d: %q, and Redis %q", version, i, line, got[min(i, len(got)-1)])
			}
		}
	}
}
