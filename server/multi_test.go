package server

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// exchange sends requests together, and returns the last reply.
func (p *peer) exchange(requests ...string) resp.Value {
	p.t.Helper()
	p.send(strings.Join(requests, "\r\n") + "\r\n")
	var last resp.Value
	for range requests {
		var err error
		if last, err = p.replies.Decode(); err != nil {
			p.t.Error(err)
		}
	}
	return last
}

// TestWhatAnExecThatFailedSays: for all of its commands.
func TestWhatAnExecThatFailedSays(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct{ script, requests, want, after string }{
		{"commit 1: fail", "MULTI; SET a 1; SET b 2; EXEC", "-UNAVAILABLE write not applied: ", "*2\r\n$-1\r\n$-1\r\n"},
		{"commit 1: lose reply", "MULTI; SET a 1; SET b 2; EXEC", "-UNKNOWN write outcome unknown: ", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n"},
		{"commit 1: lose request", "MULTI; INCR a; INCR b; EXEC", "-UNKNOWN write outcome unknown: ", "*2\r\n$-1\r\n$-1\r\n"},
		{"commit 1: panic", "MULTI; SET a 1; PING; EXEC", "-UNKNOWN write outcome unknown: ", ""},
		{"commit 1: refuse", "MULTI; SET a 1; SET b 2; EXEC", "-ERR write not applied: ", "*2\r\n$-1\r\n$-1\r\n"},
		{"commit 1: fail", "MULTI; GET a; GET b; EXEC", "-UNAVAILABLE write not applied: ", ""},
		{"commit 1: lose reply", "MULTI; GET a; GET b; EXEC", "-UNAVAILABLE write not applied: ", ""}, // nothing was written
		{"load 1: fail", "MULTI; GET a; EXEC", "-UNAVAILABLE ", ""},
		{"load 1: fail", "MULTI; SET a 1; INCR b; EXEC", "-UNAVAILABLE ", "*2\r\n$-1\r\n$-1\r\n"},
		{"load 1: fail", "WATCH a", "-UNAVAILABLE ", ""},
		{"load 1..2: fail", "WATCH a b", "-UNAVAILABLE ", ""},
		{"commit 1: fail", "MULTI; CLIENT SETNAME x; SET a 1; EXEC; CLIENT GETNAME", "$-1\r\n", ""},
		{"", "MULTI; SET a " + long + "; SET b 2; EXEC", "*2\r\n-ERR too large: the value of key a is 101 bytes, and MaxValueBytes 100\r\n+OK\r\n", "*2\r\n$-1\r\n$1\r\n2\r\n"},
		{"", "MULTI; MSET a " + long + " c 1; MSETNX c 1 d " + long + "; SET b 2; EXEC", "*3\r\n-ERR too large: the string would have 100 bytes, and 99 is the most (MaxValueBytes)\r\n-ERR too large: ", "*2\r\n$-1\r\n$1\r\n2\r\n"},
		{"", "MULTI; SET bad 1; SET b 2; EXEC", "*2\r\n-ERR invalid: key bad: not this one\r\n+OK\r\n", "*2\r\n$-1\r\n$1\r\n2\r\n"},
		{"", "MULTI; SET a 1; MSET x 1 bad 1 y 1; SET b 2; EXEC", "-ERR write not applied: invalid: key bad: not this one\r\n", "*2\r\n$-1\r\n$-1\r\n"},
		{"", "MULTI; SET a 1; MSETNX x 1 bad 1 y 1; EXEC", "-ERR write not applied: invalid: key bad: not this one\r\n", "*2\r\n$-1\r\n$-1\r\n"},
		{"", "SET c 1; MULTI; SET b 2; RENAME c bad; EXEC", "*2\r\n+OK\r\n-ERR invalid: key bad: not this one\r\n", "*2\r\n$-1\r\n$1\r\n2\r\n"},
	} {
		script, err := fault.ParseScript(c.script)
		if err != nil {
			t.Fatal(err)
		}
		store := fault.Inject[string, Value](memstore.New(memstore.Options[string, Value]{}), script, 1)
		_, addr := start(t, Options{Store: store, Cache: lockstep.Options[string, Value]{
			MaxValueBytes: 100, Logger: slog.New(slog.DiscardHandler),
			Validate: func(key string, _ Value) error {
				if key == "bad" {
					return errors.New("not this one")
				}
				return nil
			},
		}})
		p := dial(t, addr)
		v := p.exchange(strings.Split(c.requests, "; ")...)
		if got := string(v.AppendTo(nil)); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s with %q is answered with %q; want %q", c.requests, c.script, got, c.want)
		}
		if c.after != "" {
			if got := string(p.exchange("MGET a b").AppendTo(nil)); got != c.after {
				t.Errorf("after %s with %q there is %q; want %q", c.requests, c.script, got, c.after)
			}
		}
	}
}

// TestExecsOfManyConnectionsAreOneAfterTheOther, though there are two servers over the
// table, of which neither knows what the other has written: so that their functions run
// again and again, and each reply is of the last run alone.
func TestExecsOfManyConnectionsAreOneAfterTheOther(t *testing.T) {
	const conns, each = 8, 15
	store := openStore(t)
	var servers [2]*Server
	var addrs [2]string
	for i := range addrs {
		servers[i], addrs[i] = start(t, Options{Store: store})
	}
	var (
		mu  sync.Mutex
		got []int
		all sync.WaitGroup
	)
	for i := range conns {
		writer, reader := dial(t, addrs[i%2]), dial(t, addrs[i%2])
		all.Go(func() {
			for range each {
				v := writer.exchange("MULTI", "INCR a", "PING", "INCR b", "MGET a b", "EXEC")
				if len(v.Elems) != 4 || len(v.Elems[3].Elems) != 2 {
					t.Errorf("%s", v)
					return
				}
				n, _ := v.Elems[0].Int()
				m, _ := v.Elems[2].Int()
				if text := strconv.FormatInt(n, 10); m != n || v.Elems[3].Elems[0].Text != text || v.Elems[3].Elems[1].Text != text {
					t.Errorf("the commands of an EXEC have seen different things: %s", v)
				}
				mu.Lock()
				got = append(got, int(n))
				mu.Unlock()
			}
		})
		all.Go(func() {
			for range each {
				v := reader.exchange("MULTI", "GET b", "GET a", "EXEC")
				if len(v.Elems) != 2 || v.Elems[0].Text != v.Elems[1].Text {
					t.Errorf("half of an EXEC was seen: %s", v)
				}
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
	if reruns := servers[0].keys.cache.Stats().Reruns + servers[1].keys.cache.Stats().Reruns; reruns == 0 {
		t.Error("nothing ran again")
	}
}

// TestWatchLosesNoUpdate: as programs use it, over two servers that do not hear of each
// other.
func TestWatchLosesNoUpdate(t *testing.T) {
	const conns, each = 6, 8
	store := openStore(t)
	var addrs [2]string
	for i := range addrs {
		_, addrs[i] = start(t, Options{Store: store})
	}
	var all sync.WaitGroup
	for i := range conns {
		p := dial(t, addrs[i%2])
		all.Go(func() {
			for done := 0; done < each && !t.Failed(); {
				n := 0
				if v := p.exchange("WATCH n", "GET n"); v.Kind == resp.BulkString && v.Text != "" {
					n, _ = strconv.Atoi(v.Text)
				}
				if v := p.exchange("MULTI", fmt.Sprintf("SET n %d", n+1), "EXEC"); len(v.Elems) == 1 {
					done++
				} else if got := string(v.AppendTo(nil)); got != "*-1\r\n" {
					t.Errorf("EXEC is answered with %q", got)
				}
			}
		})
	}
	all.Wait()
	_, last := start(t, Options{Store: store})
	dial(t, last).ask("GET n", fmt.Sprintf("$%d\r\n%d\r\n", len(strconv.Itoa(conns*each)), conns*each))
}

// TestWhatMultiKeepsIsBounded: MULTI and WATCH, each as one request is.
func TestWhatMultiKeepsIsBounded(t *testing.T) {
	_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{}), Limits: resp.Limits{MaxRequest: 3000}})
	p := dial(t, addr)
	large := "SET a " + strings.Repeat("x", 1000)
	v := p.exchange("MULTI", large, large, large)
	if v.Kind != resp.Error || !strings.Contains(v.Text, "too large: the commands inside MULTI") {
		t.Errorf("%s", v)
	}
	if v = p.exchange("GET a", "EXEC"); v.Text != "EXECABORT Transaction discarded because of previous errors." {
		t.Errorf("%s", v)
	}
	p.ask("GET a", "$-1\r\n")
	var watches []string
	for i := range 100 {
		watches = append(watches, fmt.Sprintf("WATCH k%d", i))
	}
	if v = p.exchange(watches...); v.Kind != resp.Error || !strings.Contains(v.Text, "too large: the watched keys") {
		t.Errorf("%s", v)
	}
	p.ask("UNWATCH", "+OK\r\n")
	p.ask("WATCH a", "+OK\r\n")
	p.ask("SET b "+strings.Repeat("x", 1000), "+OK\r\n")
	if v = p.exchange("MULTI", "SET c 1", "GET b", "GET b", "GET b", "EXEC"); v.Kind != resp.Error || !strings.Contains(v.Text, "too large: the replies of EXEC") {
		t.Errorf("%s", v)
	}
	p.ask("GET c", "$-1\r\n")
}

// TestAMessageToOneselfIsNotInsideTheReplyOfExec.
func TestAMessageToOneselfIsNotInsideTheReplyOfExec(t *testing.T) {
	_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{})})
	p := dial(t, addr)
	p.exchange("HELLO 3")
	p.ask("SUBSCRIBE a", ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
	p.send("MULTI\r\nSET k 1\r\nPUBLISH a text\r\nGET k\r\nEXEC\r\nGET k\r\n")
	var got []string
	for range 7 {
		v, err := p.replies.Decode()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(v.AppendTo(nil)))
	}
	for _, want := range []string{">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\ntext\r\n", "*3\r\n+OK\r\n:1\r\n$1\r\n1\r\n"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

// TestAReaderCannotWriteByWayOfExec: what he may not run is refused when it is sent.
func TestAReaderCannotWriteByWayOfExec(t *testing.T) {
	_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{}), Users: func(name string) (User, bool) {
		return User{NoPassword: true, ReadOnly: name == "reader"}, name == defaultUser || name == "reader"
	}})
	p := dial(t, addr)
	p.ask("SET a 1", "+OK\r\n")
	p.ask("AUTH reader x", "+OK\r\n")
	if v := p.exchange("MULTI", "GET a", "SET a 2", "EXEC"); v.Text != "EXECABORT Transaction discarded because of previous errors." {
		t.Errorf("%s", v)
	}
	if v := p.exchange("WATCH a", "MULTI", "GET a", "EXEC"); string(v.AppendTo(nil)) != "*1\r\n$1\r\n1\r\n" {
		t.Errorf("%s", v)
	}
	p.ask("LOCKSTEP.SETV a 2 0", "-NOPERM this user has no permissions to run the 'lockstep.setv' command\r\n")
	// Who becomes one between MULTI and EXEC is one when the connection's commands have
	// run, which is after those about keys.
	p.ask("AUTH default x", "+OK\r\n")
	if v := p.exchange("MULTI", "AUTH reader x", "SET a 2", "EXEC"); len(v.Elems) != 2 {
		t.Errorf("%s", v)
	}
	p.ask("SET a 3", "-NOPERM this user has no permissions to run the 'set' command\r\n")
}

// TestTransactionsOfAServerWithoutAStore are of commands about the connection.
func TestTransactionsOfAServerWithoutAStore(t *testing.T) {
	_, addr := start(t, Options{})
	p := dial(t, addr)
	if v := p.exchange("MULTI", "PING", "EXEC"); string(v.AppendTo(nil)) != "*1\r\n+PONG\r\n" {
		t.Errorf("%s", v)
	}
	p.ask("WATCH a", "-"+noStore+"\r\n")
	if v := p.exchange("MULTI", "GET a", "EXEC"); v.Text != "EXECABORT Transaction discarded because of previous errors." {
		t.Errorf("%s", v)
	}
}

// TestExecSharesCommits: those of many connections, as other writes do.
func TestExecSharesCommits(t *testing.T) {
	const conns = 30
	store := fault.Inject[string, Value](openStore(t), fault.Script{}, 1)
	server, addr := start(t, Options{Store: store})
	first := store.Block(fault.BeforeCommit)
	defer first.Pass()
	peers := make([]*peer, conns)
	for i := range peers {
		peers[i] = dial(t, addr)
		peers[i].send(fmt.Sprintf("MULTI\r\nSET a%d 1\r\nSET b%d 1\r\nEXEC\r\n", i, i))
	}
	<-first.Reached
	for server.keys.cache.Stats().QueueLength < conns-1 { // a blocked one is not in the queue
		runtime.Gosched()
	}
	first.Pass()
	for _, p := range peers {
		for _, reply := range []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n+OK\r\n"} {
			p.want(reply)
		}
	}
	if n := store.Counts().Commits; n > conns/5 {
		t.Errorf("%d transactions took %d commits", conns, n)
	}
}
