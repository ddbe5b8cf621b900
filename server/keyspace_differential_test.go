package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/codec"
	"github.com/lockstep-cache/lockstep/store/sqlitestore"
)

// openStore opens a table of a database file of the test's own. Its commits do not wait
// for the disk: these tests are about replies.
func openStore(t testing.TB) *sqlitestore.Store[string, Value] {
	t.Helper()
	ctx := context.Background()
	db, err := sqlitestore.OpenDatabase(ctx, filepath.Join(t.TempDir(), "keys.db"), sqlitestore.DatabaseOptions{AllowUnsafeDurability: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	raw, err := codec.Raw[Value]()
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlitestore.OpenIn[string, Value](ctx, db, sqlitestore.Options{Codec: raw})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// permittedOfKeys is the differences about keys.
var permittedOfKeys = []difference{
	{"clocks go on", regexp.MustCompile(`(?i)^p?ttl `), maskPositive, true},
	{"a row's end is in the year 9999 at the latest", regexp.MustCompile(`[0-9]{15}`), maskAll, false},
	{"a value has at most 8 MiB unless told otherwise, and the error names the limit", regexp.MustCompile(`(?i)^setrange \S+ 8388608 `), maskAll, false},
	{"KEYS and SCAN have the order of the table", regexp.MustCompile(`(?i)^(keys|scan 0 .*count 1000)`), maskSorted, false},
	{"each server numbers its own connections", regexp.MustCompile(`^client id$`), maskNumbers, true},
	{"Redis counts keys that are over until it has noticed", regexp.MustCompile(`^dbsize$`), maskAll, true},
}

func maskPositive(v resp.Value) string {
	if n, ok := v.Int(); ok && n > 0 {
		return "positive"
	}
	return string(v.AppendTo(nil))
}

// maskSorted puts the keys of KEYS, or of a SCAN that is over, into order.
func maskSorted(v resp.Value) string {
	if len(v.Elems) == 2 && v.Elems[1].Kind == resp.Array {
		return v.Elems[0].Text + maskOrder(v.Elems[1])
	}
	return maskOrder(v)
}

// keyScripts are by hand: what generated ones would hardly meet. Each begins with an empty
// keyspace.
var keyScripts = []string{
	"get", "get a", "get a b", "set", "set a", "set a 1; get a", "set a ''; get a; strlen a; exists a", "set '' x; get ''; keys *; keys **", "set a \"\\x00\\r\\n\\xff\"; get a; strlen a", "set \"\\x00\\xff\" 1; get \"\\x00\\xff\"; keys *",
	"set a 1 nx; set a 2 nx; get a", "set a 1 xx; get a; set a 1; set a 2 xx; get a", "set a 1 nx xx", "set a 1 xx nx", "set a 1 get; set a 2 get; get a", "set a 1 nx get; set a 2 nx get; get a", "set a 1 xx get; get a", "set a 1 foo", "set a 1 ex", "set a 1 ex x", "set a 1 ex 0", "set a 1 ex -1", "set a 1 px 0", "set a 1 ex 1.5", "set a 1 ex ''", "set a 1 get get",
	"set a 1 ex 100; ttl a; set a 2; ttl a", "set a 1 ex 100; set a 2 keepttl; ttl a", "set a 1 keepttl; ttl a", "set a 1 ex 100 keepttl", "set a 1 keepttl ex 100", "set a 1 ex 10 px 10", "set a 1 ex 10 ex 20; ttl a", "set a 1 exat 33177117420; expiretime a; pexpiretime a", "set a 1 pxat 33177117420123; expiretime a; pexpiretime a", "set a 1 pxat 33177117420500; expiretime a", "set a 1 exat 1; get a; exists a", "set a 0; set a 1 pxat 1; get a; dbsize", "set a 0; set a 1 exat 1 get; get a", "set a 0; set a 1 exat 1 nx; get a", "set a 1 exat 0", "set a 1 pxat -1", "set a 1 persist",
	"set a 1 ex 9223372036854775807", "set a 1 ex 9223372036854775", "set a 1 px 9223372036854775807", "set a 1 exat 9223372036854775807", "set a 1 exat 9223372036854775", "set a 1 ex 9223372036854775808", "set a 1 pxat 9223372036854775807", "set a 1 ex 922337203685477",
	"setnx a 1; setnx a 2; get a", "setnx a", "setex a 10 1; ttl a; get a", "setex a 0 1", "setex a -1 1", "setex a x 1", "setex a 10", "psetex a 10000 1; get a; ttl a", "psetex a 0 1", "psetex a 1.0 1", "setex a 9223372036854775807 1", "set a 1; setex a 100 2; persist a; ttl a",
	"getset a 1; getset a 2; get a", "set a 1 ex 100; getset a 2; ttl a", "getset a", "getdel a; set a 1; getdel a; get a; getdel", "getdel a b",
	"getex a; set a 1; getex a; ttl a; getex a ex 100; ttl a; getex a persist; ttl a", "getex a ex 0", "set a 1; getex a ex 0", "set a 1; getex a ex -5", "set a 1; getex a ex x", "getex a ex x", "getex a ex", "getex a foo", "getex a persist ex 1", "getex a ex 1 persist", "getex a nx", "getex a keepttl", "getex a get", "set a 1; getex a exat 1; get a", "set a 1; getex a pxat 33177117420123; pexpiretime a", "set a 1; getex a px 100000; ttl a", "set a 1; getex a exat 0; get a", "set a 1; getex a ex 9223372036854775807", "getex",
	"mget", "mget a", "set a 1; set c 3; mget a b c a", "mset a", "mset a 1 b", "mset a 1 b 2; mget a b", "mset a 1 a 2; get a", "set a 1 ex 100; mset a 2; ttl a", "mset a 1 b 2 c", "msetnx a 1 b 2; mget a b; msetnx b 3 c 4; mget b c", "msetnx a 1 a 2; get a", "msetnx a", "msetnx a 1 b",
	"incr a; incr a; decr a; get a", "set a x; incr a", "set a ''; incr a", "set a ' 1'; incr a", "set a '1 '; incr a", "set a 01; incr a", "set a +1; incr a", "set a -0; incr a", "set a 1.0; incr a", "set a 9223372036854775807; incr a; get a", "set a -9223372036854775808; decr a; get a", "set a 9223372036854775808; incr a", "set a -9223372036854775808; incrby a -1", "incrby a 9223372036854775807; incrby a 1", "incrby a -9223372036854775808; incrby a 9223372036854775807; get a", "incrby a x", "incrby a", "incrby a 1.5", "incrby a ''", "decrby a 5; get a", "decrby a -9223372036854775808", "decrby a -9223372036854775807; decrby a -1", "decrby a x", "set a x; decrby a 1", "set a 10; decrby a 3; incrby a 0", "set a 5 ex 100; incr a; ttl a; incrby a 5; ttl a; incrbyfloat a 0.5; ttl a; append a x; ttl a; setrange a 0 y; ttl a",
	"incr", "incr a b", "decr", "decr a b", "set a 123456789012345678901; incr a", "set a 1 pxat 33177117420123; incr a; pexpiretime a; append a 1; pexpiretime a; incrbyfloat a 1; pexpiretime a; setrange a 1 z; pexpiretime a",
	"incrbyfloat a 1.5; incrbyfloat a 1.5; get a", "incrbyfloat a 0.1; incrbyfloat a 0.2; get a", "set a 10.50; incrbyfloat a 0.1; incrbyfloat a -5", "set a 5.0e3; incrbyfloat a 2.0e2", "incrbyfloat a x", "set a x; incrbyfloat a 1", "incrbyfloat a inf", "incrbyfloat a -inf", "incrbyfloat a nan", "incrbyfloat a Infinity", "set a inf; incrbyfloat a -inf", "set a inf; incrbyfloat a 1", "incrbyfloat a ''", "incrbyfloat a ' 1'", "incrbyfloat a '1 '", "incrbyfloat a 1e308; incrbyfloat a 1e308", "incrbyfloat a 1e400; strlen a", "incrbyfloat a 1e4932; strlen a", "incrbyfloat a 1e4933", "incrbyfloat a 1e5000", "incrbyfloat a 1e-5000", "incrbyfloat a 1e-4000; get a", "incrbyfloat a 0e5", "incrbyfloat a 0x10", "incrbyfloat a 0x1p4", "incrbyfloat a 0x.8", "incrbyfloat a 1_000", "incrbyfloat a .5", "incrbyfloat a 5.", "incrbyfloat a .", "incrbyfloat a +5", "incrbyfloat a --5", "incrbyfloat a 1e", "incrbyfloat a 1e+", "incrbyfloat a 3.0e3; incrbyfloat a -3000", "incrbyfloat a -0; get a", "incrbyfloat a 0.00000000000000001", "incrbyfloat a 0.000000000000000001", "incrbyfloat a 123456789012345678901234567890", "incrbyfloat a 1.1; incrbyfloat a 2.2", "set a 9007199254740993; incrbyfloat a 0.5", "incrbyfloat a 1e17; incrbyfloat a 0.1", "incrbyfloat a 17179869184.3; incrbyfloat a 0.7", "set a ''; incrbyfloat a 1", "incrbyfloat a 0b1", "incrbyfloat a 0o7", "incrbyfloat a 0x", "incrbyfloat a 1d5", "incrbyfloat a 1e99999999999999999999", "incrbyfloat a 0e99999999999999999999",
	"append a 1; append a 2; get a", "append a ''; exists a", "append a", "strlen a; set a hello; strlen a; strlen", "set a 1; append a ''; get a",
	"getrange a 0 -1", "set a 'This is a string'; getrange a 0 3; getrange a -3 -1; getrange a 0 -1; getrange a 10 100; substr a 1 2", "set a abc; getrange a 2 1; getrange a -1 -3; getrange a -100 100; getrange a 3 5; getrange a -100 -50; getrange a 0 0; getrange a -1 0; getrange a 1 -1; getrange a 0 -100", "getrange a x 1", "getrange a 1 x", "getrange a", "substr a", "substr a 0 -1", "set a abc; getrange a -9223372036854775808 9223372036854775807; getrange a 9223372036854775807 9223372036854775807", "getrange a 9223372036854775808 1", "set a ''; getrange a 0 -1; getrange a 0 0",
	"setrange a 5 x; get a", "setrange a 0 ''; exists a", "set a abc; setrange a 1 ''; get a", "setrange a -1 x", "setrange a -1 ''", "setrange a x y", "set a 'Hello World'; setrange a 6 Redis; get a", "setrange a 536870912 x", "setrange a 9223372036854775807 x", "setrange a 9223372036854775800 abcdefghij", "setrange a 8388608 x", "setrange a 0 x y", "setrange a", "set a abcdef; setrange a 2 XY; get a; setrange a 5 long; get a",
	"del", "del a; set a 1; del a; del a", "mset a 1 b 2 c 3; del a b x a; exists a b c; unlink c c; dbsize", "unlink", "exists", "set a 1; exists a a b; touch a b a; touch", "type a; set a 1; type a; type", "type a b",
	"expire a 10", "expire a", "expire a x", "set a 1; expire a x", "set a 1; expire a 100; ttl a; expire a -1; exists a", "set a 1; expire a 0; get a", "set a 1; pexpire a 100000; ttl a", "set a 1; expireat a 33177117420; expiretime a; pexpiretime a", "set a 1; pexpireat a 33177117420999; expiretime a; pexpiretime a", "set a 1; expireat a 1; get a; dbsize", "set a 1; pexpireat a -5; get a", "set a 1; expireat a -9223372036854775808", "set a 1; expireat a -9223372036854775; get a", "set a 1; expire a 9223372036854775807", "set a 1; expire a 9223372036854775", "set a 1; pexpire a 9223372036854775807", "set a 1; pexpire a -9223372036854775808; get a", "set a 1; expire a -9223372036854775807",
	"set a 1; expire a 100 nx; expire a 200 nx; ttl a", "set a 1; expire a 100 xx; ttl a; expire a 100; expire a 200 xx; ttl a", "set a 1; expire a 100 gt; ttl a; expire a 100; expire a 50 gt; ttl a; expire a 200 gt; ttl a", "set a 1; expire a 100 lt; ttl a; expire a 200 lt; ttl a; expire a 50 lt; ttl a", "expire a 1 nx xx", "expire a 1 nx gt", "expire a 1 lt nx", "expire a 1 gt lt", "expire a 1 foo", "expire a x foo", "expire a x nx xx", "expire a 1 xx gt; set a 1; expire a 1 xx lt", "expire a 1 nx nx", "set a 1; expireat a 33177117420 nx; expireat a 33177117420 gt; expireat a 33177117420 lt; expireat a 33177117419 lt; expiretime a", "set a 1 ex 100; expire a -1 gt; exists a; expire a -1 lt; exists a", "set a 1; expire a -1 lt; exists a", "set a 1; expire a -1 nx; exists a", "expire a 1 \"fo\\x00o\"", "pexpire a 1 NX; pexpireat a 1 Xx; expireat a 1 gT",
	"ttl a; pttl a; expiretime a; pexpiretime a; set a 1; ttl a; pttl a; expiretime a; pexpiretime a", "ttl; pttl; expiretime; pexpiretime; ttl a b", "set a 1 ex 100; pttl a; expiretime a; persist a; persist a; ttl a; persist b", "persist", "set a 1 px 1500; ttl a", "set a 1 ex 1000000000; ttl a",
	"dbsize; set a 1; dbsize; dbsize x", "flushall; set a 1; flushall async; dbsize; set a 1; flushdb sync; dbsize", "flushall foo", "flushdb foo", "flushall async sync", "flushdb x y z",
	"keys", "keys *", "mset a 1 ab 2 abc 3 b 4; keys a*; keys a?; keys [ab]; keys ''; keys x; keys *; keys a b", "randomkey; set a 1; randomkey; randomkey x",
	"scan", "scan x", "scan 0; scan ''", "scan ' 0'", "scan 18446744073709551615", "scan 18446744073709551616", "scan -1", "scan - ", "scan +0", "scan 0x", "scan 0 count", "scan 0 count 0", "scan 0 count x", "scan 0 count -1", "scan 0 foo", "scan 0 match", "scan 0 foo bar", "scan 0 type", "mset a 1 b 2 ab 3; scan 0 count 1000; scan 0 match a* count 1000; scan 0 type string count 1000; scan 0 type STRING count 1000; scan 0 type hash count 1000; scan 0 type nosuch count 1000; scan 0 match zzz count 1000; scan 0 count 1000 match * type string; scan 0 match '' count 1000; scan 0 match a count 5 match b count 1000", "set '' 1; scan 0 count 1000; scan 0 match * count 1000; scan 0 match ** count 1000", "scan 0 type hash count 1000",
	"rename a b; set a 1; rename a b; get a; get b; rename a b", "rename", "rename a", "rename a b c", "renamenx", "renamenx a b c", "rename a a; set a 1; rename a a; get a", "renamenx a a; set a 1; renamenx a a; get a", "renamenx a b; mset a 1 b 2; renamenx a b; mget a b; del b; renamenx a b; mget a b", "mset a 1 b 2; rename a b; mget a b; dbsize",
	"set a 1 pxat 33177117420123; rename a b; pexpiretime b; pexpiretime a; renamenx b c; pexpiretime c", "set a 1; set b 2 ex 100; rename a b; ttl b", "set a 1 ex 100; set b 2; rename a b; ttl b; get b", "set a 1 ex 100; rename a a; ttl a", "set '' 1; rename '' \"\\x00\"; get \"\\x00\"",
	"copy", "copy a", "copy a b; set a 1; copy a b; mget a b; copy a b; set a 2; copy a b; get b; copy a b replace; get b", "copy a a", "set a 1; copy a a; copy a a replace", "copy a b foo", "copy a b db", "copy a b db x", "copy a b db 99", "copy a b db -1", "copy a b db 99999999999", "copy a b db ''", "set a 1; copy a b db 0; get b", "set a 1; copy a b replace replace db 0 REPLACE; get b", "copy a b replace db", "copy a a db 0", "copy a a foo", "copy a a db x",
	"set a 1 pxat 33177117420123; copy a b; pexpiretime a; pexpiretime b; set c 1 ex 100; copy c b replace; ttl b; set d 1; copy d b replace; ttl b", "command getkeys rename a b; command getkeys copy a b replace", "mset a 1 b 2; rename a c; rename b a; rename c b; mget a b c", "set a 1; rename a b; incr b; rename b c; incr c; get c",
	"client reply off; set a 1; set b 2; client reply on; mget a b", "client reply skip; set a 1; set b 2; mget a b", "set a 1; client reply skip; incr a; incr a; get a", "set a 1; nosuch; set b 2; mget a b", "set a 1; set a; set b 2; mget a b", "set a 1; incr a; append a x; set b 1; incr a; get a; get b", "set a 1; quit", "set a 1; set b 2; client id; get x; set c 1 get; get x; set d 1",
	"set a 1; command getkeys set a 1; command getkeys mset a 1 b 2; command getkeys del a b; command getkeys get", "SET A 1 Ex 100 gEt; GeT A",
}

// randomKeyScripts are commands with arguments that are near each other's limits, on few
// keys.
func randomKeyScripts(rnd *rand.Rand, n int) (all []string) {
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	key := func() string { return pick("a", "b", "c", "''", "\"\\x00k\"") }
	value := func() string {
		return pick("1", "-1", "0", "10", "9223372036854775807", "-9223372036854775808", "9223372036854775806", "''", "hello", "3.5", "1e3", "01", "\"\\r\\n\"", "\"a\\x00b\"", "' 1'", "-0", "abcdefgh", "1.25e-3")
	}
	integer := func() string {
		return pick("0", "1", "-1", "2", "-2", "5", "100", "-100", "x", "''", "1.5", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "007")
	}
	length := func() string { return pick("0", "1", "100", "1000", "-1", "x", "''", "9223372036854775807") }
	future := func() string { return pick("33177117420", "33177117421", "1", "0", "-1", "x") }
	milli := func() string { return pick("33177117420123", "33177117420124", "1", "0", "-1", "x") }
	condition := func() string { return pick("", "", "", " nx", " xx", " gt", " lt", " nx xx", " gt lt", " foo") }
	end := func() string {
		return pick("", "", " ex "+length(), " px "+pick("100000", "0", "-1", "x"), " exat "+future(), " pxat "+milli(), " keepttl", " ex", " persist")
	}
	commands := []func() string{
		func() string { return "get " + key() },
		func() string { return "set " + key() + " " + value() },
		func() string {
			return "set " + key() + " " + value() + pick("", " nx", " xx", " get", " nx get", " xx get", " foo") + end()
		},
		func() string { return "setnx " + key() + " " + value() },
		func() string {
			return pick("setex ", "psetex ") + key() + " " + pick("100", "100000", "0", "-1", "x") + " " + value()
		},
		func() string { return "getset " + key() + " " + value() },
		func() string { return "getdel " + key() },
		func() string { return "getex " + key() + end() },
		func() string { return "mget " + key() + " " + key() + " " + key() },
		func() string { return "mset " + key() + " " + value() + " " + key() + " " + value() },
		func() string { return "msetnx " + key() + " " + value() + " " + key() + " " + value() },
		func() string { return pick("incr ", "decr ") + key() },
		func() string { return pick("incrby ", "decrby ") + key() + " " + integer() },
		func() string {
			return "incrbyfloat " + key() + " " + pick(value(), integer(), fmt.Sprint(rnd.NormFloat64()*1e3), fmt.Sprint(rnd.Float32()))
		},
		func() string { return "append " + key() + " " + value() },
		func() string { return "strlen " + key() },
		func() string { return pick("getrange ", "substr ") + key() + " " + integer() + " " + integer() },
		func() string { return "setrange " + key() + " " + pick("0", "1", "5", "20", "-1", "x") + " " + value() },
		func() string {
			return pick("del ", "unlink ", "exists ", "touch ") + key() + pick("", " "+key(), " "+key()+" "+key())
		},
		func() string { return pick("type ", "persist ") + key() },
		func() string { return pick("rename ", "renamenx ", "copy ") + key() + " " + key() },
		func() string { return "copy " + key() + " " + key() + pick(" replace", " db 0", " db x", " foo") },
		func() string { return "expire " + key() + " " + length() + condition() },
		func() string {
			return "pexpire " + key() + " " + pick("100000", "200000", "0", "-1", "x") + condition()
		},
		func() string { return "expireat " + key() + " " + future() + condition() },
		func() string { return "pexpireat " + key() + " " + milli() + condition() },
		func() string { return pick("ttl ", "pttl ") + key() },
		func() string { return "dbsize" },
		func() string { return "keys " + pick("*", "a*", "?", "[a-b]") },
		func() string {
			return pick("get", "set a", "incr", "expire a", "mset a", "getrange a 0", "append a", "strlen a b")
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

// TestKeysAreRedis sends commands about keys to a real Redis and to a Server over a
// database, in both versions of the protocol. Each script goes as one pipeline.
func TestKeysAreRedis(t *testing.T) {
	c := newComparison(t, permittedOfKeys)
	for i, version := range []string{"2", "3"} {
		for _, script := range append(append([]string(nil), keyScripts...), randomKeyScripts(rand.New(rand.NewPCG(5, uint64(i))), 150)...) {
			c.pipeline(t, version, script)
		}
	}
	c.report(t)
}
