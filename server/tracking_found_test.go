package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
	sqlrows "github.com/lockstep-cache/lockstep/store/rows"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// TestShutdownEndsThoughAnInvalidationIsRedirected: its time is over, a write is in doubt, and
// what that ends with is to be told by way of another connection.
func TestShutdownEndsThoughAnInvalidationIsRedirected(t *testing.T) {
	script, err := fault.ParseScript("commit 1: lose reply")
	if err != nil {
		t.Fatal(err)
	}
	store := fault.Inject[string, Value](memstore.New(memstore.Options[string, Value]{}), script, 1)
	quiet := slog.New(slog.DiscardHandler)
	s, err := New(Options{Store: store, Logger: quiet, Cache: lockstep.Options[string, Value]{Logger: quiet}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	addr := listener.Addr().String()
	to, p, w := dial(t, addr), dial(t, addr), dial(t, addr)
	to.ask("CLIENT ID", ":1\r\n")
	p.hello("BCAST REDIRECT 1")
	block := store.Block(fault.BeforeSettle)
	defer block.Pass()
	w.send("SET k v\r\n")
	if v, err := w.replies.Decode(); err != nil || !strings.HasPrefix(v.Text, "UNKNOWN ") {
		t.Fatalf("%s, %v", v, err)
	}
	ended := errors.New("no time")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(ended)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	select {
	case err := <-down:
		if !errors.Is(err, ended) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Shutdown does not return though its context has ended")
	}
	block.Pass()
	if err := <-served; err != nil {
		t.Error(err)
	}
	s.under.Wait()
}

// TestCopyOfWhatAnExecHasWrittenAndReadIsInvalidated for who does not want to hear of his own
// writes, too: he has read the value, and would keep it.
func TestCopyOfWhatAnExecHasWrittenAndReadIsInvalidated(t *testing.T) {
	for _, mode := range []string{"NOLOOP", "OPTIN NOLOOP", "OPTOUT NOLOOP"} {
		_, addr, p := startTracked(t, Options{}, "", mode)
		w := dial(t, addr)
		if strings.HasPrefix(mode, "OPTIN") {
			p.ask("CLIENT CACHING YES", "+OK\r\n")
		}
		p.send("MULTI\r\nSET k 1\r\nGET k\r\nEXEC\r\n")
		for _, want := range []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n$1\r\n1\r\n"} {
			p.want(want)
		}
		p.want(invalidated("k"))
		w.ask("SET k 2", "+OK\r\n")
		p.ask("PING", pong)
		// What he has written without reading it, and read without writing it, is as ever.
		if strings.HasPrefix(mode, "OPTIN") {
			p.ask("CLIENT CACHING YES", "+OK\r\n")
		}
		p.send("MULTI\r\nSET k 3\r\nGET l\r\nEXEC\r\n")
		for _, want := range []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n_\r\n"} {
			p.want(want)
		}
		p.ask("PING", pong)
		w.ask("SET l 1", "+OK\r\n")
		p.want(invalidated("l"))
	}
}

// TestWhatAnExecReadsAfterItHasTurnedTrackingOnIsNotKept: with Redis it is tracked.
func TestWhatAnExecReadsAfterItHasTurnedTrackingOnIsNotKept(t *testing.T) {
	for _, c := range []struct{ before, inside string }{
		{"PING", "CLIENT TRACKING ON"},
		{"PING", "CLIENT TRACKING ON BCAST PREFIX k"},
		{"CLIENT TRACKING ON OPTIN", "CLIENT CACHING YES"},
		{"CLIENT TRACKING ON OPTIN", "CLIENT TRACKING ON"},
		{"CLIENT TRACKING ON BCAST PREFIX x", "CLIENT TRACKING ON BCAST PREFIX k"},
	} {
		_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{})})
		p, w := dial(t, addr), dial(t, addr)
		w.ask("SET k 1", "+OK\r\n")
		p.exchange("HELLO 3", c.before)
		p.exchange("MULTI", "GET before", c.inside, "GET k", "EXEC")
		w.ask("SET k 2", "+OK\r\n")
		p.send("PING\r\n")
		for told := false; ; told = true {
			v, err := p.replies.Decode()
			if err != nil {
				t.Fatal(err)
			}
			if v.Text == "PONG" {
				if !told {
					t.Errorf("%s, MULTI, %s, GET k, EXEC: k was written, and nobody said so", c.before, c.inside)
				}
				break
			}
		}
	}
}

// overseenTable is overseen for a table.
type overseenTable struct {
	overseen[sqlrows.Key, sqlrows.Row]
}

func (overseenTable) Columns() []sqlrows.Column { return []sqlrows.Column{{Name: "id", KeyPlace: 1}} }

// TestCopyOfARowThatOthersHaveChangedIsInvalidated where its table is watched.
func TestCopyOfARowThatOthersHaveChangedIsInvalidated(t *testing.T) {
	store := overseenTable{overseen[sqlrows.Key, sqlrows.Row]{memstore.New(memstore.Options[sqlrows.Key, sqlrows.Row]{}), make(chan lockstep.Event[sqlrows.Key]), make(chan error)}}
	_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{}), Tables: []Table{{Name: "t", Store: store,
		Cache: lockstep.Options[sqlrows.Key, sqlrows.Row]{Logger: slog.New(slog.DiscardHandler)}}}})
	p := dial(t, addr)
	p.hello("")
	p.ask("HGET t:1 id", "_\r\n")
	p.want(invalidated("t:1")) // nobody watches yet
	store.events <- lockstep.Event[sqlrows.Key]{}
	p.want(allInvalidated)
	p.ask("HGET t:1 id", "_\r\n")
	p.ask("PING", pong)
	store.events <- lockstep.Event[sqlrows.Key]{Changed: []lockstep.Changed[sqlrows.Key]{{Key: "1"}}}
	p.want(invalidated("t:1"))
	p.ask("HGET t:1 id", "_\r\n")
	store.events <- lockstep.Event[sqlrows.Key]{All: true}
	p.want(allInvalidated)
	p.ask("HGET t:1 id", "_\r\n")
	store.lose <- errors.New("lost")
	p.want(allInvalidated)
	p.ask("HGET t:1 id", "_\r\n")
	p.want(invalidated("t:1"))
	store.events <- lockstep.Event[sqlrows.Key]{}
	p.want(allInvalidated)
	p.ask("HGET t:1 id", "_\r\n")
	p.ask("PING", pong)
}

// TestKeysOfMegabytesAreNotHeldForTracking, of which a million would be: what they hold is
// followed by an invalidation.
func TestKeysOfMegabytesAreNotHeldForTracking(t *testing.T) {
	s, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{})})
	p := dial(t, addr)
	p.hello("")
	long := strings.Repeat("k", 1<<20)
	p.send(fmt.Sprintf("*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(long), long))
	p.want("_\r\n")
	p.want(invalidated(long))
	p.ask("GET k", "_\r\n")
	p.ask("PING", pong)
	if keys, _, _ := s.tracking.size(); keys != 1 {
		t.Errorf("%d keys are tracked", keys)
	}
}

// TestCopiesOfNothingEnd when memory does not remember any longer that there is no row.
func TestCopiesOfNothingEnd(t *testing.T) {
	for _, c := range []struct{ ttl, negative, want time.Duration }{{time.Minute, 0, time.Minute}, {time.Minute, time.Second, time.Second}, {0, time.Second, time.Second}, {time.Minute, -1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), Cache: lockstep.Options[string, Value]{TTL: c.ttl, NegativeTTL: c.negative}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Shutdown(context.Background())
			theirs, ours := net.Pipe()
			s.accept(ours)
			p := newPeer(t, theirs)
			_ = p.SetDeadline(time.Time{})
			defer p.Close()
			p.hello("")
			begin := time.Now()
			p.ask("GET k", "_\r\n")
			p.want(invalidated("k"))
			if got := time.Since(begin); got != c.want {
				t.Errorf("TTL %v, NegativeTTL %v: it was told after %v", c.ttl, c.negative, got)
			}
		})
	}
}

// TestShutdownThatGivesUpBesideWrites whose outcomes nobody knows because of that: they do not
// meet in what Shutdown waits for, which a sync.WaitGroup that begins anew would answer with a
// panic.
func TestShutdownThatGivesUpBesideWrites(t *testing.T) {
	for range 200 {
		s, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.end()
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for range 20 {
					w := &writing{tracking: s.tracking}
					w.begin("k")
					w.fail(lockstep.ErrUnknownOutcome)
					w.finish()
				}
			})
		}
		s.tracking.close()
		writers.Wait()
		s.tracking.close()
		if s.tracking.isBusy("k") {
			t.Fatal("a doubt is left")
		}
	}
}

// TestPrefixesAreBounded: a write looks for one of each length, whoever has listed them.
func TestPrefixesAreBounded(t *testing.T) {
	_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{})})
	p, writer := dial(t, addr), dial(t, addr)
	p.hello("BCAST PREFIX zz")
	long := strings.Repeat("a", longestPrefix)
	p.ask("CLIENT TRACKING ON BCAST PREFIX "+long+"a", "-ERR a prefix has at most 1024 bytes here\r\n")
	var many strings.Builder
	for i := range mostPrefixes + 1 {
		fmt.Fprintf(&many, " PREFIX %04d", i)
	}
	p.ask("CLIENT TRACKING ON BCAST"+many.String(), "-ERR a client has at most 1024 prefixes here\r\n")
	p.ask("CLIENT TRACKING ON BCAST PREFIX b PREFIX cd PREFIX "+long, "+OK\r\n")
	for _, key := range []string{"b", "c", "bc", "cd", "x", long, long + "b", long[1:]} {
		writer.ask("SET "+key+" 1", "+OK\r\n")
		if key[0] == 'b' || strings.HasPrefix(key, "cd") || len(key) >= longestPrefix {
			p.want(invalidated(key))
		}
	}
	p.ask("PING", pong)
}

// stuck is a connection whose end does not come before it is let go.
type stuck struct {
	net.Conn
	let chan struct{}
}

func (s stuck) Close() error { <-s.let; return nil }

// TestInvalidationThatWasNotTakenIsWaitedFor: there were too many, and so the connection is to be
// closed; what had been on its way before arrives, and the writer must not take that for it.
func TestInvalidationThatWasNotTakenIsWaitedFor(t *testing.T) {
	s, err := New(Options{OutputLimit: 100, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := net.Pipe()
	defer theirs.Close()
	let := make(chan struct{})
	c := newConn(s, stuck{ours, let})
	o := &c.out
	o.mu.Lock()
	o.version, o.pushing = resp.RESP3, true
	o.invalidateLocked(invalidation{key: "k"}, false)
	under := o.takeLocked()
	o.invalidateLocked(invalidation{key: strings.Repeat("l", 100)}, false)
	o.mu.Unlock()
	o.wrote(under)
	owed := func() bool {
		s.tracking.undeliveredMu.Lock()
		defer s.tracking.undeliveredMu.Unlock()
		_, has := s.tracking.undelivered[o]
		return has
	}
	if !owed() {
		t.Error("nobody waits for the end of the connection")
	}
	close(let)
	o.pushers.Wait()
	if owed() {
		t.Error("it is waited for though the connection is closed")
	}
}

// TestWhatFollowsAReplyIsBounded: it waits for the database, and writes go on. The peer is told
// in one word what would be too many.
func TestWhatFollowsAReplyIsBounded(t *testing.T) {
	const limit, writes = 16 << 10, 1000
	for _, redirected := range []bool{false, true} {
		store, addr, p := startTracked(t, Options{OutputLimit: limit}, "", "BCAST")
		w, reader, told := dial(t, addr), p, p
		if redirected {
			reader = dial(t, addr)
			reader.hello("BCAST REDIRECT 1")
			told.ask("CLIENT TRACKING OFF", "+OK\r\n")
		}
		block := store.Block(fault.AfterLoad, "slow")
		defer block.Pass()
		reader.send("GET slow\r\n")
		<-block.Reached
		for i := range writes {
			key := fmt.Sprintf("k%d", i)
			w.ask("SET "+key+" 1", "+OK\r\n")
			told.want(invalidated(key))
		}
		block.Pass()
		reader.want("_\r\n")
		told.want(allInvalidated)
		told.ask("PING", pong)
		reader.ask("PING", pong)
		// And then each is told by itself, as ever.
		w.ask("SET k 1", "+OK\r\n")
		told.want(invalidated("k"))
	}
}
