package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/resp"
)

// permittedOfHashes is the differences about hashes, OBJECT and LCS.
var permittedOfHashes = []difference{
	{"a hash has its fields in the order in which they came; a Redis's large one has that of a hash table", regexp.MustCompile(`(?i)^(hgetall|hkeys|hvals|hscan|hrandfield) large`), maskFields, false},
	{"which fields HRANDFIELD chooses is chance", regexp.MustCompile(`(?i)^hrandfield (a|b|''|small)( |$)`), maskShape, false},
	{"OBJECT tells of a value as if it had just been set", regexp.MustCompile(`(?i)^object encoding grown`), maskAll, false},
	{"when a key was used last is not known", regexp.MustCompile(`(?i)^object idletime`), maskAll, false},
	{"there is one of each value, small numbers included", regexp.MustCompile(`(?i)^object refcount`), maskNumbers, false},
	{"the help is our own", regexp.MustCompile(`(?i)^object help$`), maskAll, false},
	{"clocks go on", regexp.MustCompile(`(?i)^p?ttl `), maskPositive, true},
}

// maskFields puts what a reply has in it into order, cursors left out.
func maskFields(v resp.Value) string {
	if len(v.Elems) == 2 && v.Elems[1].Kind == resp.Array && v.Elems[0].Kind == resp.BulkString {
		v = v.Elems[1]
	}
	if v.Kind == resp.BulkString {
		return "one"
	}
	slices.SortFunc(v.Elems, func(a, b resp.Value) int { return bytes.Compare(a.AppendTo(nil), b.AppendTo(nil)) })
	return string(v.AppendTo(nil))
}

// maskShape leaves of a reply how many of what kind it has.
func maskShape(v resp.Value) string {
	if len(v.Elems) == 0 {
		if v.Kind == resp.BulkString && !v.Absent {
			return "text"
		}
		return string(v.AppendTo(nil))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%c%d", v.Kind, len(v.Elems))
	for _, e := range v.Elems {
		b.WriteString(maskShape(e))
	}
	return b.String()
}

// fieldsOf is arguments of HSET for so many fields.
func fieldsOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " field%d %d", i, i*i)
	}
	return b.String()
}

// hashScripts are by hand, as keyScripts are.
var hashScripts = []string{
	"hset", "hset a", "hset a f", "hset a f 1; hget a f; hgetall a; type a; exists a; hlen a", "hset a f 1 g", "hset a f 1 g 2 h; exists a", "hset a f 1 g 2; hset a g 3 h 4; hgetall a; hkeys a; hvals a", "hset a f 1 f 2; hgetall a", "hset a f 1 g 2 f 3; hgetall a", "hset a '' ''; hgetall a; hget a ''; hstrlen a ''; hexists a ''", "hset '' f 1; hgetall ''", "hset a \"\\x00\\r\\n\\xff\" \"\\x00,:\"; hgetall a; hget a \"\\x00\\r\\n\\xff\"", "hset a 4:name,3:Ann, x; hgetall a; hget a name", "hset a f 1 g 2 h 3; hdel a g; hset a g 4; hgetall a", "hset a f 1 g 2 h 3; hset a g 222222; hgetall a",
	"hset a f 1; hset a f 1", "hset a F 1 f 2; hgetall a", "hmset", "hmset a", "hmset a f", "hmset a f 1; hgetall a", "hmset a f 1 g", "hmset a f 1 g 2 f 3; hgetall a", "HSET a f 1; HMSet a g 2; HGETALL a",
	"hsetnx a f 1; hsetnx a f 2; hsetnx a g 3; hgetall a", "hsetnx a f", "hsetnx a f 1 2", "hsetnx",
	"hget a f", "hget a", "hget a f g", "hset a f 1; hget a g", "hmget a", "hmget a f", "hmget a f g f", "hset a f 1 g 2; hmget a g x f g; hmget a ''", "hset a" + fieldsOf(20) + "; hmget a field1 field3 field5 field7 field9 field11 field13 field15 field17 field19 field21 field1; hmget a field0", "hmget",
	"hgetall a", "hgetall", "hgetall a b", "hkeys a", "hkeys", "hvals a", "hvals", "hlen a", "hlen", "hlen a b", "hstrlen a f", "hset a f hello g ''; hstrlen a f; hstrlen a g; hstrlen a h; hstrlen a", "hset a f 12345; hstrlen a f", "hset a f -5; hstrlen a f", "hexists a f; hset a f 1; hexists a f; hexists a g; hexists a",
	"hdel a f", "hdel a", "hset a f 1 g 2 h 3; hdel a f x f h; hgetall a; hdel a g; exists a; type a; dbsize", "hset a f 1; hdel a f f; exists a", "hset a f 1; hdel a g; hgetall a", "hset a f 1; expire a 100; hset a f 2 g 3; hincrby a f 1; hincrbyfloat a f 1; hsetnx a h 1; hdel a g; ttl a; hdel a f h; ttl a; hset a f 1; ttl a", "hset a f 1 pxat 33177117420123; pexpireat a 33177117420123; hset a f 2; pexpiretime a",
	"hincrby a f 5; hincrby a f -7; hget a f; hgetall a", "hincrby a f x", "hincrby a f ''", "hincrby a f 1.5", "hincrby a f", "hincrby a f 1 2", "hset a f x; hincrby a f 1; hget a f", "hset a f ''; hincrby a f 1", "hset a f ' 1'; hincrby a f 1", "hset a f 1.0; hincrby a f 1", "hset a f 01; hincrby a f 1", "hset a f +1; hincrby a f 1", "hset a f 9223372036854775807; hincrby a f 1; hincrby a f -1; hget a f", "hset a f -9223372036854775808; hincrby a f -1", "hset a f -1; hincrby a f -9223372036854775808", "hincrby a f -9223372036854775808; hincrby a f 9223372036854775807", "hincrby a f 9223372036854775808", "hset a f 1 g 2 h 3; hincrby a g 100; hgetall a", "hset a f 9223372036854775808; hincrby a f 1", "hincrby a f x; exists a",
	"hincrbyfloat a f 1.5; hincrbyfloat a f 1.5; hget a f", "hincrbyfloat a f 0.1; hincrbyfloat a f 0.2", "hincrbyfloat a f x", "hincrbyfloat a f ''", "hincrbyfloat a f", "hincrbyfloat a f inf; exists a", "hincrbyfloat a f -inf", "hincrbyfloat a f nan; exists a", "hincrbyfloat a f Infinity", "hset a f x; hincrbyfloat a f 1", "hset a f ''; hincrbyfloat a f 1", "hset a f ' 1'; hincrbyfloat a f 1", "hset a f inf; hincrbyfloat a f 1", "hset a f nan; hincrbyfloat a f 1", "hset a f -inf; hincrbyfloat a f 1; hget a f", "hincrbyfloat a f 1e308; hincrbyfloat a f 1e308", "hincrbyfloat a f 1e400; hstrlen a f", "hset a f 5.0e3; hincrbyfloat a f 2.0e2; hget a f", "hset a f 10.50; hincrbyfloat a f 0.1; hincrbyfloat a f -5", "hincrbyfloat a f 1e4932; hincrbyfloat a f 1e4932", "hincrbyfloat a f 1e4933", "hincrbyfloat a f 0x10; hincrbyfloat a f ' 1'", "hincrbyfloat a f 1e-5000", "hset a f 3.0; hincrbyfloat a f 0", "hset a f abc; hincrbyfloat a f nan", "set a 1; hincrbyfloat a f nan", "set a 1; hincrbyfloat a f x", "hset a f 17; hincrbyfloat a f 0.25; hincrby a f 1", "hset a f 9007199254740993; hincrbyfloat a f 0.5",
	// What holds something else.
	"set a 1; hset a f 1; hmset a f 1; hsetnx a f 1; hget a f; hmget a f; hgetall a; hkeys a; hvals a; hlen a; hstrlen a f; hexists a f; hdel a f; hincrby a f 1; hincrbyfloat a f 1; hrandfield a; hrandfield a 1; hscan a 0; get a", "set a 1; hset a f; hset a f 1 g; hincrby a f x; hincrbyfloat a f x; hscan a x; hscan a 0 foo; hrandfield a x; hrandfield a 1 foo",
	"hset a f 1; get a; set a 1 nx; set a 1 get; getset a 1; getdel a; getex a; getex a ex 100; append a x; strlen a; getrange a 0 1; setrange a 0 x; setrange a 0 ''; incr a; decrby a 5; incrbyfloat a 1; mget a a; setnx a 1; msetnx a 1 b 2; hgetall a", "hset a f 1; set a 1; get a; type a", "hset a f 1; mset a 1 b 2; mget a b", "hset a f 1; set a 1 xx; get a", "hset a f 1; setex a 100 1; ttl a; get a", "hset a f 1; set a 1 xx get; type a", "set a 1; del a; hset a f 1; type a; set b 1; type b; del a b; dbsize", "hset a f 1; expire a -1; exists a", "hset a f 1; expire a 100; persist a; ttl a; hgetall a", "hset a f 1; touch a; exists a a; unlink a; hgetall a", "hset a f 1; randomkey; keys *; dbsize", "hset a f 1; set a 1 keepttl; get a",
	"hset a f 1; set b 1; scan 0 type hash count 1000; scan 0 type string count 1000; scan 0 type HASH count 1000",
	"hset a f 1; set b 1; flushall; exists a b",
	// HSCAN
	"hscan", "hscan a", "hscan a 0", "hscan a x", "hscan a ''", "hscan a -1", "hscan a 99999999999999999999", "hscan a 0 foo", "hscan a 0 match", "hscan a 0 count", "hset a f 1; hscan a 0; hscan a 5; hscan a -1; hscan a ''; hscan a ' 0'", "hset a f 1 ff 2 g 3; hscan a 0 match f*; hscan a 0 match x; hscan a 0 match '' ; hscan a 0 match *; hscan a 0 match ** count 1; hscan a 0 count 1", "hset a f 1; hscan a 0 foo; hscan a 0 match; hscan a 0 count; hscan a 0 count 0; hscan a 0 count -1; hscan a 0 count x; hscan a 0 type hash; hscan a 0 count 1 match f count 2; hscan a 0 novalues; hscan a x foo", "hset a '' 1; hscan a 0; hscan a 0 match *; hscan a 0 match **", "hset a" + fieldsOf(512) + "; hscan a 0 count 1; hgetall a; object encoding a",
	"hset large" + fieldsOf(600) + "; hscan large 0 count 1000000; hgetall large; hkeys large; hvals large; hlen large; hrandfield large; hrandfield large 1000; hrandfield large 600 withvalues; object encoding large; hscan large 0 count 1000000 match field1?; hget large field599; hdel large field0; hlen large",
	// HRANDFIELD
	"hrandfield", "hrandfield a", "hrandfield a 0", "hrandfield a 1", "hrandfield a -1", "hrandfield a x", "hrandfield a ''", "hrandfield a 1 withvalues", "hrandfield a 1 foo", "hrandfield a 1 withvalues x", "hrandfield a 9223372036854775807", "hrandfield a -9223372036854775807", "hrandfield a -9223372036854775808", "hrandfield a 9223372036854775808", "hrandfield a 9223372036854775807 withvalues", "hrandfield a -9223372036854775807 withvalues", "hrandfield a 4611686018427387903 withvalues", "hrandfield a 4611686018427387904 withvalues", "hrandfield a -4611686018427387904 withvalues", "hrandfield a x foo", "hrandfield a x withvalues y", "hrandfield a -9223372036854775808 foo",
	"hset a f 1; hrandfield a; hrandfield a 1; hrandfield a 5; hrandfield a 0; hrandfield a -3; hrandfield a 1 withvalues; hrandfield a 5 WITHVALUES; hrandfield a -3 withvalues; hrandfield a 0 withvalues; hrandfield a 1 foo; hrandfield a x; hrandfield a 1 withvalues x; hrandfield a -0",
	"hset small f 1 g 2 h 3; hrandfield small; hrandfield small 2; hrandfield small 3; hrandfield small 1000; hrandfield small -5; hrandfield small 2 withvalues; hrandfield small 3 withvalues; hrandfield small -5 withvalues; hrandfield small 1",
	"object", "object x", "object encoding", "object encoding a", "object encoding a b", "object help", "object help x", "object freq a", "object idletime a", "object refcount a", "object foo a", "OBJECT ENCODING",
	"set a 1; object encoding a; object freq a; object idletime a; object refcount a; OBJECT refcount a", "hset a f 1; object encoding a; object freq a; object refcount a", "set a hello; object refcount a; object encoding a", "set a ''; object encoding a", "set a 9223372036854775807; object encoding a", "set a 9223372036854775808; object encoding a", "set a -0; object encoding a", "set a 01; object encoding a", "set a -9223372036854775808; object encoding a", "set a ' 1'; object encoding a", "set a 1.5; object encoding a",
	"set a " + strings.Repeat("x", 44) + "; object encoding a; set a " + strings.Repeat("x", 45) + "; object encoding a; set grown x; append grown x; object encoding grown", "hset a f " + strings.Repeat("x", 64) + "; object encoding a; hset a f " + strings.Repeat("x", 65) + "; object encoding a; hset grown f " + strings.Repeat("x", 65) + "; hset grown f x; object encoding grown", "hset a " + strings.Repeat("x", 64) + " 1; object encoding a; hset a " + strings.Repeat("x", 65) + " 1; object encoding a",
	"lcs", "lcs a", "lcs a b", "lcs a b c", "lcs a b len", "lcs a b idx", "lcs a b len idx", "lcs a b minmatchlen", "lcs a b minmatchlen x", "lcs a b minmatchlen -1", "lcs a b withmatchlen", "lcs a b len len", "set a ohmytext; set b mynewtext; lcs a b; lcs a b len; lcs a b idx; lcs a b idx minmatchlen 4; lcs a b idx minmatchlen 4 withmatchlen; lcs a b idx withmatchlen; lcs a b withmatchlen; lcs a b minmatchlen 100; lcs a b idx minmatchlen 100; lcs a b LEN minmatchlen 4; lcs a b idx minmatchlen -5; lcs a b idx len; lcs b a; lcs b a idx; lcs a a idx withmatchlen; lcs a x; lcs a x idx; lcs a x len; lcs x a", "hset a f 1; set b x; lcs a b; lcs b a; lcs a x; lcs a b foo; lcs a b len idx; lcs x a", "set a abc; set b xyz; lcs a b; lcs a b idx; lcs a b len", "set a abcabc; set b acbacb; lcs a b; lcs a b idx withmatchlen; lcs b a; lcs b a idx", "set a \"\\x00\\xff\"; set b \"\\xff\\x00\"; lcs a b; lcs a b idx", "setrange a 20000 x; setrange b 20000 x; lcs a b; lcs a b len", "command getkeys lcs a b; command getkeys object encoding a; command getkeys hset a f 1; command getkeys object help",
	"set a 1; lcs a b idx minmatchlen 9223372036854775807; lcs a a idx minmatchlen 9223372036854775807; lcs a a idx minmatchlen 9223372036854775808",
}

// randomHashScripts are commands on few keys and fields.
func randomHashScripts(rnd *rand.Rand, n int) (all []string) {
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	key := func() string { return pick("a", "a", "b", "''") }
	field := func() string { return pick("f", "g", "h", "''", "\"\\x00\"", "1", "4:name,", "field") }
	value := func() string {
		return pick("1", "-1", "0", "10", "9223372036854775807", "-9223372036854775808", "''", "hello", "3.5", "1e3", "01", "\"\\r\\n\"", "' 1'", "-0", "abcdefghijkl", "1.25e-3")
	}
	number := func() string {
		return pick("0", "1", "-1", "5", "100", "x", "''", "1.5", "9223372036854775807", "-9223372036854775808", "9223372036854775808")
	}
	fields := func(values bool, more bool) string {
		var b strings.Builder
		for range 1 + rnd.IntN(5) {
			b.WriteString(" " + field())
			if values {
				b.WriteString(" " + value())
			}
		}
		if more && rnd.IntN(10) == 0 {
			b.WriteString(" " + field())
		}
		return b.String()
	}
	text := func() string {
		var b strings.Builder
		for range rnd.IntN(12) {
			b.WriteByte("abc"[rnd.IntN(3)])
		}
		return "'" + b.String() + "'"
	}
	commands := []func() string{
		func() string { return "hset " + key() + fields(true, true) },
		func() string { return "hset " + key() + fields(true, true) },
		func() string { return "hmset " + key() + fields(true, true) },
		func() string { return "hsetnx " + key() + " " + field() + " " + value() },
		func() string { return pick("hget ", "hexists ", "hstrlen ") + key() + " " + field() },
		func() string { return "hmget " + key() + fields(false, true) },
		func() string { return pick("hgetall ", "hkeys ", "hvals ", "hlen ", "type ", "exists ") + key() },
		func() string { return "hdel " + key() + fields(false, true) },
		func() string { return "hincrby " + key() + " " + field() + " " + number() },
		func() string {
			return "hincrbyfloat " + key() + " " + field() + " " + pick(value(), number(), fmt.Sprint(rnd.NormFloat64()*1e3))
		},
		func() string {
			return "hscan " + key() + " " + pick("0", "1", "x") + pick("", " match f*", " count 2", " foo")
		},
		func() string { return "hrandfield " + key() + pick("", " 2", " -2", " 2 withvalues", " x", " 1 foo") },
		func() string { return pick("get ", "del ", "incr ", "strlen ") + key() },
		func() string { return "set " + key() + " " + value() + pick("", "", " nx", " get") },
		func() string { return pick("append ", "getset ") + key() + " " + value() },
		func() string { return "expire " + key() + pick(" 100", " -1", " x") },
		func() string {
			return "mset x " + text() + " y " + text() + "; lcs x y; lcs x y idx withmatchlen; lcs y x idx minmatchlen " + pick("0", "1", "2", "-1") + "; lcs x y len"
		},
	}
	for range n {
		var script []string
		for range 5 + rnd.IntN(20) {
			script = append(script, commands[rnd.IntN(len(commands))]())
		}
		all = append(all, strings.Join(script, "; "))
	}
	return all
}

// TestHashesAreRedis sends commands about hashes to a real Redis and to a Server over a
// database, in both versions of the protocol. Each script goes as one pipeline.
func TestHashesAreRedis(t *testing.T) {
	c := newComparison(t, permittedOfHashes)
	for i, version := range []string{"2", "3"} {
		for _, script := range append(append([]string(nil), hashScripts...), randomHashScripts(rand.New(rand.NewPCG(11, uint64(i))), 150)...) {
			c.pipeline(t, version, script)
		}
	}
	c.report(t)
}
