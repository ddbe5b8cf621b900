package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestIncrementsOfManyConnectionsLoseNone: each gets a number of its own, though there are
// two servers over the table, of which neither knows what the other has written.
func TestIncrementsOfManyConnectionsLoseNone(t *testing.T) {
	const conns, each = 16, 10
	store := openStore(t)
	var addrs [2]string
	for i := range addrs {
		_, addrs[i] = start(t, Options{Store: store})
	}
	var (
		mu  sync.Mutex
		got []int
		all sync.WaitGroup
	)
	for i := range conns {
		p := dial(t, addrs[i%2])
		all.Go(func() {
			for range each {
				if _, err := io.WriteString(p, "INCR n\r\n"); err != nil {
					t.Error(err)
					return
				}
				v, err := p.replies.Decode()
				n, ok := v.Int()
				if err != nil || !ok {
					t.Errorf("%s, %v", v, err)
					return
				}
				mu.Lock()
				got = append(got, int(n))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(got)
	for i, n := range got {
		if n != i+1 {
			t.Fatalf("the answers are %v", got)
		}
	}
}

// TestSetNXHasOneWinner, whose value it is that stays.
func TestSetNXHasOneWinner(t *testing.T) {
	const conns, rounds = 8, 20
	_, addr := start(t, Options{Store: openStore(t)})
	var peers []*peer
	for range conns {
		peers = append(peers, dial(t, addr))
	}
	for round := range rounds {
		var all sync.WaitGroup
		replies := make([]string, conns)
		for i, p := range peers {
			all.Go(func() {
				_, _ = fmt.Fprintf(p, "SET k%d %d NX\r\n", round, i)
				v, err := p.replies.Decode()
				if replies[i] = string(v.AppendTo(nil)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		winner := slices.Index(replies, "+OK\r\n")
		if winner < 0 || slices.Contains(replies[winner+1:], "+OK\r\n") {
			t.Fatalf("%q", replies)
		}
		peers[0].ask(fmt.Sprintf("GET k%d", round), fmt.Sprintf("$1\r\n%d\r\n", winner))
	}
}

// TestPipelinedWritesShareCommits: while the first is under way the others queue.
func TestPipelinedWritesShareCommits(t *testing.T) {
	const writes = 100
	store := fault.Inject[string, Value](openStore(t), fault.Script{}, 1)
	pending := make(chan struct{}, 2*writes)
	_, addr := start(t, Options{Store: store, Cache: lockstep.Options[string, Value]{Hooks: lockstep.Hooks[string]{
		Pending: func(lockstep.WriteEvent[string]) { pending <- struct{}{} },
	}}})
	p := dial(t, addr)
	// A large request first, so that there is room for the others together.
	large := strings.Repeat("x", 60<<10)
	p.ask("ECHO "+large, "$61440\r\n"+large+"\r\n")
	first := store.Block(fault.BeforeCommit)
	defer first.Pass()
	var in strings.Builder
	for i := range writes {
		fmt.Fprintf(&in, "SET k%d v%d\r\n", i, i)
	}
	p.send(in.String())
	for range writes {
		<-pending
	}
	first.Pass()
	for range writes {
		p.want("+OK\r\n")
	}
	if n := store.Counts().Commits; n > writes/10 {
		t.Errorf("%d writes took %d commits", writes, n)
	}
	for i := range writes {
		p.ask(fmt.Sprintf("GET k%d", i), fmt.Sprintf("$%d\r\nv%d\r\n", len(fmt.Sprint("v", i)), i))
	}
}

// TestChains: what shares a key keeps its order, directly or by way of others.
func TestChains(t *testing.T) {
	for _, c := range []struct{ run, want string }{
		{"a|b|c", "0;1;2"},
		{"a|b|a", "0,2;1"},
		{"a|b|a b|c|b", "0,1,2,4;3"},
		{"b|a|c|c b|a", "0,2,3;1,4"},
		{"a a|b", "0;1"},
	} {
		var group []*member
		for request := range strings.SplitSeq(c.run, "|") {
			m := &member{request: request0("del " + request)}
			group = append(group, m)
		}
		var chains []string
		for _, chain := range chainsOf(group) {
			var numbers []string
			for _, m := range chain {
				numbers = append(numbers, strconv.Itoa(slices.Index(group, m)))
			}
			chains = append(chains, strings.Join(numbers, ","))
		}
		if got := strings.Join(chains, ";"); got != c.want {
			t.Errorf("%s: %s, want %s", c.run, got, c.want)
		}
	}
}

func request0(text string) request {
	var args [][]byte
	for word := range strings.FieldsSeq(text) {
		args = append(args, []byte(word))
	}
	_, cmd := commands.find(args)
	return request{cmd: cmd, args: args}
}

// TestWhatAWriteThatFailedSays: whether it was done, or that nobody knows.
func TestWhatAWriteThatFailedSays(t *testing.T) {
	for _, c := range []struct{ script, request, want string }{
		{"commit 1: fail", "SET a 1", "-UNAVAILABLE write not applied: "},
		{"commit 1: lose reply", "SET a 1", "-UNKNOWN write outcome unknown: "},
		{"commit 1: lose request", "INCR a", "-UNKNOWN write outcome unknown: "},
		{"commit 1: lose reply", "DEL a", "-UNKNOWN write outcome unknown: "},
		{"commit 1: lose reply", "EXPIRE a 1 XX", ":0"}, // there was nothing to write
		{"commit 1: lose reply", "MSET a 1 b 2", "-UNKNOWN write outcome unknown: "},
		{"commit 1: lose reply", "MSETNX a 1 b 2", "-UNKNOWN write outcome unknown: "},
		{"commit 1: lose reply", "FLUSHALL", "-UNKNOWN write outcome unknown: "},
		{"commit 1: panic", "SET a 1", "-UNKNOWN write outcome unknown: "},
		{"commit 1: refuse", "SET a 1", "-ERR write not applied: "},
		{"load 1: fail", "GET a", "-UNAVAILABLE "},
		{"load 1: fail", "INCR a", "-UNAVAILABLE "},
		{"load 1: fail", "MGET a b", "-UNAVAILABLE "},
		{"scan 1: fail", "KEYS *", "-UNAVAILABLE "},
		{"", "SET a " + strings.Repeat("x", 100), "-ERR write not applied: too large: the value of key a is 101 bytes, and MaxValueBytes 100"},
		{"", "SETRANGE a 100 x", "-ERR too large: the string would have 101 bytes, and 99 is the most (MaxValueBytes)"},
		{"", "APPEND a " + strings.Repeat("x", 100), "-ERR too large: "},
	} {
		script, err := fault.ParseScript(c.script)
		if err != nil {
			t.Fatal(err)
		}
		store := fault.Inject[string, Value](memstore.New(memstore.Options[string, Value]{}), script, 1)
		_, addr := start(t, Options{Store: store, Cache: lockstep.Options[string, Value]{MaxValueBytes: 100, Logger: slog.New(slog.DiscardHandler)}})
		p := dial(t, addr)
		p.send(c.request + "\r\n")
		v, err := p.replies.Decode()
		if got := string(v.AppendTo(nil)); err != nil || !strings.HasPrefix(got, c.want) || strings.Count(got, "\r\n") != 1 {
			t.Errorf("%s with %q is answered with %q, %v; want %q", c.request, c.script, got, err, c.want)
		}
	}
}

// commandsOf runs requests and returns all replies.
func commandsOf(c *conn, requests ...string) string {
	for _, request := range requests {
		c.do(request0(request).args)
		c.runGroup()
	}
	defer c.w.Reset(keptOutput)
	return string(c.w.Bytes())
}

// quiet is a connection of a server over memory, for what has nothing to do with sockets.
func quiet(t testing.TB) *conn {
	s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return newConn(s, &canned{})
}

// TestKeysEnd at their time, and not before.
func TestKeysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := quiet(t)
		commandsOf(c, "SET a 1 PX 1000", "SET b 1", "EXPIRE b 1", "SET c 1 EX 1", "PERSIST c", "SET d 5 EX 1", "INCR d")
		time.Sleep(999 * time.Millisecond)
		if got := commandsOf(c, "MGET a b c d", "PTTL a", "PTTL d", "TTL c"); got != "*4\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n6\r\n:1\r\n:1\r\n:-1\r\n" {
			t.Errorf("before: %q", got)
		}
		time.Sleep(time.Millisecond)
		if got := commandsOf(c, "MGET a b c d", "TTL a", "EXISTS a b c d", "DBSIZE", "SETNX a 2", "TTL a"); got != "*4\r\n$-1\r\n$-1\r\n$1\r\n1\r\n$-1\r\n:-2\r\n:1\r\n:1\r\n:1\r\n:-1\r\n" {
			t.Errorf("after: %q", got)
		}
	})
}

// TestScanReadsTheWholeTable page by page, and starts again from a cursor that is forgotten.
func TestScanReadsTheWholeTable(t *testing.T) {
	c := quiet(t)
	want := map[string]bool{}
	for i := range 20 {
		want[fmt.Sprint("k", i)] = true
		commandsOf(c, fmt.Sprintf("SET k%d 1", i))
	}
	page := func(cursor string) (next string, keys []resp.Value) {
		v, err := resp.NewDecoder(strings.NewReader(commandsOf(c, "SCAN "+cursor+" COUNT 3")), resp.DecodeLimits{}).Decode()
		if err != nil || len(v.Elems) != 2 {
			t.Fatalf("%s, %v", v, err)
		}
		return v.Elems[0].Text, v.Elems[1].Elems
	}
	cursor, pages := "0", 0
	for {
		next, keys := page(cursor)
		for _, key := range keys {
			delete(want, key.Text)
		}
		if pages++; next == "0" {
			break
		}
		cursor = next
	}
	if len(want) != 0 || pages < 7 {
		t.Errorf("%d pages, without %v", pages, want)
	}
	_, first := page("0")
	for _, unknown := range []string{"99999999", "18446744073709551615"} {
		if _, keys := page(unknown); !slices.EqualFunc(keys, first, func(a, b resp.Value) bool { return a.Text == b.Text }) {
			t.Errorf("cursor %s: %v", unknown, keys)
		}
	}
	for range keptCursors {
		page("0")
	}
	if _, keys := page(cursor); !slices.EqualFunc(keys, first, func(a, b resp.Value) bool { return a.Text == b.Text }) {
		t.Errorf("a cursor that is forgotten: %v", keys)
	}
}

// TestHitCopiesNothing but into the reply: what GET allocates is the key's name.
func TestHitCopiesNothing(t *testing.T) {
	c := quiet(t)
	commandsOf(c, "SET a "+strings.Repeat("x", 10_000))
	request := request0("GET a").args
	run := func() {
		c.do(request)
		c.w.Reset(keptOutput)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestServerWithoutAStoreHasNoKeys(t *testing.T) {
	_, addr := start(t, Options{})
	p := dial(t, addr)
	p.ask("GET a", "-ERR this server was started without a store, and has no keys\r\n")
	p.send("SET a 1\r\nSET b 1\r\n")
	p.want("-ERR this server was started without a store, and has no keys\r\n")
	p.want("-ERR this server was started without a store, and has no keys\r\n")
}

func TestOptionsOfTheCacheThatAReplyCannotHonour(t *testing.T) {
	store := memstore.New(memstore.Options[string, Value]{})
	for _, o := range []lockstep.Options[string, Value]{
		{TTL: time.Minute, StaleIfError: time.Minute},
		{Clone: func(v Value) Value { return v }},
		{MaxEntries: -1},
	} {
		if _, err := New(Options{Store: store, Cache: o}); err == nil || !strings.Contains(err.Error(), "Options.Cache") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// FuzzKeys: whatever comes, no command panics, and every reply is one.
func FuzzKeys(f *testing.F) {
	for _, script := range append(keyScripts, multiScripts...) {
		f.Add([]byte(strings.ReplaceAll(script, "; ", "\r\n") + "\r\n"))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), Cache: lockstep.Options[string, Value]{MaxValueBytes: 1 << 16},
			Logger: slog.New(slog.NewTextHandler(panics{t}, nil)), Limits: resp.Limits{MaxArgs: 1000, MaxBulk: 1000, MaxRequest: 5000}})
		if err != nil {
			t.Fatal(err)
		}
		c := &canned{in: bytes.Clone(in), piece: len(in) + 1}
		s.accept(c)
		s.under.Wait()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		d := resp.NewDecoder(bytes.NewReader(c.out.Bytes()), resp.DecodeLimits{})
		for {
			if _, err := d.Decode(); err == io.EOF {
				return
			} else if err != nil {
				t.Fatalf("%q is answered with %q: %v", in, c.out.String(), err)
			}
		}
	})
}
