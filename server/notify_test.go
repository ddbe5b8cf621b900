package server

import (
	"context"
	"net"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// eventWrites are what is written while somebody listens, a conversation each.
var eventWrites = []string{
	"set k 1; set k 1 ex 100; set k 1 keepttl; set k 1 nx; set k 1 xx; setex k 100 1; psetex k 100000 1; setnx k 1; setnx l 1; getset k 1; set k x get",
	"mset k 1 l 2; msetnx k 1; msetnx m 1; append k 2; setrange k 0 x; setrange k 0 ''; incr k; incr l; decr l; incrby l 5; decrby l 2; incrbyfloat l 1.5",
	"set k 1; getex k; getex k ex 100; getex k persist; getex k persist; getex k exat 1; getdel k; set k 1; getdel k; getdel k; set k 1; del k nosuch; unlink k; mset k 1 l 1; del l k",
	"set k 1; expire k 100; expire k 50 gt; pexpire k 200000; expireat k 33177117420; pexpireat k 33177117420000; persist k; persist k; expire k -1; expire k 10",
	"set k 1; rename k l; copy l k; copy l k; copy l k replace; renamenx l k; rename l l; rename nosuch k; renamenx l m",
	"hset h f 1 g 2; hset h f 1; hsetnx h f 2; hsetnx h i 2; hincrby h f 1; hincrbyfloat h f 1; hdel h nosuch; hdel h f; hdel h g i; hmset h a 1; hget h a; incr h",
	"multi | set k 1 | incr k | set k 2 ex 100 | set k 3 keepttl | del k | exec; multi | set k 1 | discard; set k 1; multi | rename k l | hset h f 1 | incr h | exec; flushall; touch k; get k",
}

// TestEventsAreRedis has a real Redis and a Server tell of the same writes.
func TestEventsAreRedis(t *testing.T) {
	u, err := url.Parse(dbtest.StartRedis(t, "databases 1").URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	_, addr := start(t, Options{Store: openStore(t), Users: func(name string) (User, bool) {
		return User{Passwords: []PasswordHash{HashPassword(password)}}, name == defaultUser
	}})
	var scripts []string
	for _, writes := range eventWrites {
		scripts = append(scripts, "z: config set notify-keyspace-events KEA; p: psubscribe __key*; w: "+strings.ReplaceAll(writes, "; ", "; w: "))
	}
	for _, classes := range []string{"K$", "Eg", "Kh", "E", "K", "KEAmn", "KEAlszetd", "q", "gx$EK", "", "KEA"} {
		scripts = append(scripts, "z: config set notify-keyspace-events '"+classes+"'; z: config get notify-keyspace-events; p: psubscribe __key*; w: set k 1; w: hset h f 1; w: del k; z: config set notify-keyspace-events ''")
	}
	sameConversations(t, []talk{
		{"new keys (n) and misses (m) are not told, and asking for them is an error", regexp.MustCompile("KEAmn"), func([]string) []string { return nil }, false},
		{"the keys of one command are told in any order", regexp.MustCompile("mset|del l k"), anyOrder, true},
	}, target{u.Host, password}, target{addr, password}, scripts)
}

// TestKeysThatEndAreTold, and those that nobody has read, too.
func TestKeysThatEndAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), KeyspaceEvents: "Ex"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Shutdown(context.Background())
		connect := func() *peer {
			theirs, ours := net.Pipe()
			s.accept(ours)
			return &peer{theirs, t, resp.NewDecoder(theirs, resp.DecodeLimits{})}
		}
		p, w := connect(), connect()
		defer p.Close()
		defer w.Close()
		p.ask("SUBSCRIBE __keyevent@0__:expired", "*3\r\n$9\r\nsubscribe\r\n$22\r\n__keyevent@0__:expired\r\n:1\r\n")
		w.ask("SET k 1 EX 10", "+OK\r\n")
		w.ask("SET l 1", "+OK\r\n")
		begin := time.Now()
		p.want("*3\r\n$7\r\nmessage\r\n$22\r\n__keyevent@0__:expired\r\n$1\r\nk\r\n")
		if took := time.Since(begin); took < 10*time.Second || took > 15*time.Second {
			t.Errorf("it was told after %v", took)
		}
	})
}

// TestEventsFollowTheCommit: one of which nobody knows is told when it is settled, if it was
// made, and one that failed never is.
func TestEventsFollowTheCommit(t *testing.T) {
	script, err := fault.ParseScript("commit 1: lose reply; commit 2: fail")
	if err != nil {
		t.Fatal(err)
	}
	store := fault.Inject[string, Value](memstore.New(memstore.Options[string, Value]{}), script, 1)
	_, addr := start(t, Options{Store: store, KeyspaceEvents: "KA"})
	p, w := dial(t, addr), dial(t, addr)
	p.ask("PSUBSCRIBE *", "*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n")
	block := store.Block(fault.BeforeSettle)
	defer block.Pass()
	for _, want := range []string{"UNKNOWN", "UNAVAILABLE"} {
		w.send("SET " + want + " 1\r\n")
		if v, err := w.replies.Decode(); err != nil || !strings.HasPrefix(v.Text, want) {
			t.Fatalf("%s, %v", v, err)
		}
	}
	w.send("LOCKSTEP.SETV k 1 0\r\n")
	if v, err := w.replies.Decode(); err != nil || v.Kind != resp.Integer {
		t.Fatalf("%s, %v", v, err)
	}
	told := func(key string) {
		t.Helper()
		if v, err := p.replies.Decode(); err != nil || v.Elems[2].Text != "__keyspace@0__:"+key || v.Elems[3].Text != "set" {
			t.Fatalf("%s, %v", v, err)
		}
	}
	told("k")
	block.Pass()
	told("UNKNOWN")
}

func TestWrongClassesOfEventsAreNamed(t *testing.T) {
	for _, classes := range []string{"KEm", "q", "K E"} {
		if _, err := New(Options{KeyspaceEvents: classes}); err == nil || !strings.Contains(err.Error(), "Options.KeyspaceEvents is \""+classes+"\"") {
			t.Errorf("%s: %v", classes, err)
		}
	}
}
