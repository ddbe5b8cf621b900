package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/resp"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// startTracked returns the store of a server over memory, whose calls can be stopped, and a client of it that
// speaks RESP3 and tracks in that mode.
func startTracked(t *testing.T, options Options, script, mode string) (*fault.Store[string, Value], string, *peer) {
	t.Helper()
	parsed, err := fault.ParseScript(script)
	if err != nil {
		t.Fatal(err)
	}
	store := fault.Inject[string, Value](memstore.New(memstore.Options[string, Value]{}), parsed, 1)
	options.Store, options.Cache.Logger = store, slog.New(slog.DiscardHandler)
	_, addr := start(t, options)
	p := dial(t, addr)
	p.hello(mode)
	return store, addr, p
}

func (p *peer) hello(mode string) {
	p.t.Helper()
	p.send("HELLO 3\r\nCLIENT TRACKING ON " + mode + "\r\n")
	if _, err := p.replies.Decode(); err != nil {
		p.t.Fatal(err)
	}
	p.want("+OK\r\n")
}

func invalidated(key string) string {
	return fmt.Sprintf(">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n", len(key), key)
}

const (
	allInvalidated = ">2\r\n$10\r\ninvalidate\r\n_\r\n"
	pong           = "+PONG\r\n"
)

func text(value string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(value), value) }

// TestInvalidationTravelsWhileTheDatabaseCommits, and what is read meanwhile is followed by
// another one at once, in each mode.
func TestInvalidationTravelsWhileTheDatabaseCommits(t *testing.T) {
	for _, mode := range []string{"", "BCAST", "BCAST PREFIX k", "OPTIN"} {
		t.Run(mode, func(t *testing.T) {
			store, addr, p := startTracked(t, Options{}, "", mode)
			w := dial(t, addr)
			w.ask("SET k old", "+OK\r\n")
			if strings.HasPrefix(mode, "BCAST") {
				p.want(invalidated("k"))
			}
			get := func() {
				if mode == "OPTIN" {
					p.ask("CLIENT CACHING YES", "+OK\r\n")
				}
				p.send("GET k\r\n")
			}
			get()
			p.want(text("old"))
			block := store.Block(fault.BeforeCommit)
			defer block.Pass()
			w.send("SET k new\r\n")
			<-block.Reached
			p.want(invalidated("k"))
			for range 2 {
				get()
				p.want(text("old"))
				p.want(invalidated("k"))
			}
			p.ask("GET other", "_\r\n") // which is not being written
			block.Pass()
			w.want("+OK\r\n")
			get()
			p.want(text("new"))
			p.ask("PING", pong)
		})
	}
}

// TestReplyThatWasBuiltBeforeTheInvalidationIsFollowedByAnother: a pipeline has read the
// key, and waits for something else, when it is written.
func TestReplyThatWasBuiltBeforeTheInvalidationIsFollowedByAnother(t *testing.T) {
	for _, mode := range []string{"", "BCAST"} {
		store, addr, p := startTracked(t, Options{}, "", mode)
		w := dial(t, addr)
		w.ask("SET k old", "+OK\r\n")
		if mode == "BCAST" {
			p.want(invalidated("k"))
		}
		p.ask("GET k", text("old"))
		block := store.Block(fault.AfterLoad, "slow")
		defer block.Pass()
		p.send("GET k\r\nGET slow\r\nGET k\r\n")
		<-block.Reached
		w.ask("SET k new", "+OK\r\n")
		p.want(invalidated("k")) // at once, and
		block.Pass()
		p.want(text("old"))
		p.want("_\r\n")
		p.want(text("new"))
		p.want(invalidated("k")) // behind what was read before
		p.ask("PING", pong)
	}
}

// TestReaderIsPutDownBeforeItReads: the write begins, and is answered, while the value is on
// its way from the database.
func TestReaderIsPutDownBeforeItReads(t *testing.T) {
	store, addr, p := startTracked(t, Options{}, "", "")
	w := dial(t, addr)
	block := store.Block(fault.AfterLoad, "k")
	defer block.Pass()
	p.send("GET k\r\n")
	<-block.Reached
	w.ask("SET k new", "+OK\r\n")
	p.want(invalidated("k"))
	block.Pass()
	p.want(text("new"))
	p.want(invalidated("k"))
	p.ask("PING", pong)
}

// TestTrackingThatBeginsDuringAWriteMissesNothing.
func TestTrackingThatBeginsDuringAWriteMissesNothing(t *testing.T) {
	store, addr, _ := startTracked(t, Options{}, "", "")
	w, p := dial(t, addr), dial(t, addr)
	w.ask("SET k old", "+OK\r\n")
	block := store.Block(fault.BeforeCommit)
	defer block.Pass()
	w.send("SET k new\r\n")
	<-block.Reached
	p.hello("")
	p.ask("GET k", text("old"))
	p.want(invalidated("k"))
	block.Pass()
	w.want("+OK\r\n")
	p.ask("PING", pong)
}

// TestUnknownOutcomes: who has the key is told, whatever he reads until it is settled is
// followed by an invalidation, and the settlement is one more; the writer is told though
// he does not want to hear of his own writes.
func TestUnknownOutcomes(t *testing.T) {
	for _, c := range []struct{ request, inv string }{{"SET k new", invalidated("k")}, {"MSET k new", invalidated("k")}, {"INCR k", invalidated("k")}, {"FLUSHALL", allInvalidated}} {
		t.Run(c.request, func(t *testing.T) {
			store, addr, p := startTracked(t, Options{}, "commit 1: lose reply", "")
			w := dial(t, addr)
			w.hello("NOLOOP")
			p.ask("GET k", "_\r\n")
			w.ask("GET k", "_\r\n")
			block := store.Block(fault.BeforeSettle)
			defer block.Pass()
			w.send(c.request + "\r\n")
			p.want(c.inv)
			if v, err := w.replies.Decode(); err != nil || !strings.HasPrefix(v.Text, "UNKNOWN ") {
				t.Fatalf("%s, %v", v, err)
			}
			w.want(c.inv)
			for range 2 {
				p.send("GET k\r\n")
				if v, err := p.replies.Decode(); err != nil || v.Kind == resp.Push || v.Kind == resp.Error {
					t.Fatalf("%s, %v", v, err)
				}
				p.want(invalidated("k"))
			}
			block.Pass()
			p.want(c.inv)
			p.ask("PING", pong)
			// And then it is a key like any other.
			p.send("GET k\r\nPING\r\n")
			_, _ = p.replies.Decode()
			p.want(pong)
		})
	}
}

// TestFlushInvalidatesEverything also what is read while it is under way.
func TestFlushInvalidatesEverything(t *testing.T) {
	store, addr, p := startTracked(t, Options{}, "", "")
	w := dial(t, addr)
	w.ask("MSET k 1 l 2", "+OK\r\n")
	p.ask("GET k", text("1"))
	block := store.Block(fault.BeforeCommit)
	defer block.Pass()
	w.send("FLUSHALL\r\n")
	<-block.Reached
	p.want(allInvalidated)
	p.ask("MGET k l", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n")
	p.want(invalidated("k"))
	p.want(invalidated("l"))
	block.Pass()
	w.want("+OK\r\n")
	p.ask("MGET k l", "*2\r\n_\r\n_\r\n")
	p.ask("PING", pong)
}

// TestKeysThatEndAreInvalidated when they do, also for who tracks by prefix and has read
// them; one whose end was moved is not, and one that memory answers for no longer is.
func TestKeysThatEndAreInvalidated(t *testing.T) {
	for _, mode := range []string{"", "BCAST PREFIX k"} {
		synctest.Test(t, func(t *testing.T) {
			s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{})})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Shutdown(context.Background())
			connect := func() *peer {
				theirs, ours := net.Pipe()
				s.accept(ours)
				return &peer{theirs, t, resp.NewDecoder(theirs, resp.DecodeLimits{})}
			}
			w, p := connect(), connect()
			defer w.Close()
			defer p.Close()
			w.ask("SET k 1 PX 1500", "+OK\r\n")
			w.ask("SET k2 1 EX 100", "+OK\r\n")
			begin := time.Now()
			p.hello(mode)
			p.ask("MGET k k2", "*2\r\n$1\r\n1\r\n$1\r\n1\r\n")
			p.want(invalidated("k"))
			if got := time.Since(begin); got != 1500*time.Millisecond {
				t.Errorf("it was told after %v", got)
			}
			p.ask("GET k", "_\r\n")
			go w.send("PERSIST k2\r\n")
			p.want(invalidated("k2"))
			w.want(":1\r\n")
			time.Sleep(time.Hour)
			p.ask("PING", pong)
		})
	}
}

func TestCopiesAreNoOlderThanMemorys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), Cache: lockstep.Options[string, Value]{TTL: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Shutdown(context.Background())
		theirs, ours := net.Pipe()
		s.accept(ours)
		p := &peer{theirs, t, resp.NewDecoder(theirs, resp.DecodeLimits{})}
		defer p.Close()
		p.ask("SET k 1", "+OK\r\n")
		begin := time.Now()
		p.hello("")
		p.ask("GET k", text("1"))
		p.want(invalidated("k"))
		if got := time.Since(begin); got != time.Minute {
			t.Errorf("it was told after %v", got)
		}
	})
}

// TestWriterIsAnsweredWhenTheInvalidationIsWithTheKernel, and not before; or when the
// connection is closed that does not take it.
func TestWriterIsAnsweredWhenTheInvalidationIsWithTheKernel(t *testing.T) {
	for _, reads := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var log locked
			s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{}), InvalidationTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Shutdown(context.Background())
			connect := func() *peer {
				theirs, ours := net.Pipe()
				s.accept(ours)
				return &peer{theirs, t, resp.NewDecoder(theirs, resp.DecodeLimits{})}
			}
			w, other, p := connect(), connect(), connect()
			defer w.Close()
			defer other.Close()
			defer p.Close()
			p.hello("")
			p.ask("GET k", "_\r\n")
			begin := time.Now()
			w.send("SET k 1\r\n")
			answered := make(chan time.Duration, 2)
			for _, writer := range []*peer{w, other} {
				go func() {
					writer.want("+OK\r\n")
					answered <- time.Since(begin)
				}()
			}
			synctest.Wait()
			other.send("SET k 2\r\n") // which finds nobody down for the key
			synctest.Wait()
			if len(answered) != 0 {
				t.Fatal("a writer was answered before the invalidation was taken")
			}
			if reads {
				time.Sleep(time.Second / 2)
				p.want(invalidated("k"))
			}
			want := map[bool]time.Duration{true: time.Second / 2, false: time.Second}[reads]
			for range 2 {
				if got := <-answered; got != want {
					t.Errorf("reads %t: a writer was answered after %v", reads, got)
				}
			}
			if reads {
				p.ask("PING", pong)
				return
			}
			p.wantEnd()
			if !strings.Contains(log.String(), "does not take an invalidation") {
				t.Errorf("the log is %q", log.String())
			}
		})
	}
}

// TestTrackedKeysAreBounded: for one more some key is invalidated, and nothing is known of
// connections that are gone.
func TestTrackedKeysAreBounded(t *testing.T) {
	const limit, keys = 100, 2000
	_, addr, p := startTracked(t, Options{TrackedKeys: limit}, "", "")
	go func() {
		for i := range keys {
			_, _ = fmt.Fprintf(p, "GET k%d\r\n", i)
		}
		_, _ = io.WriteString(p, "PING\r\n")
	}()
	dropped := map[string]bool{}
	for {
		v, err := p.replies.Decode()
		if err != nil {
			t.Fatal(err)
		}
		if v.Text == "PONG" {
			break
		}
		if v.Kind == resp.Push {
			dropped[v.Elems[1].Elems[0].Text] = true
		}
	}
	if n := keys - len(dropped); n > limit+trackingShards {
		t.Errorf("%d keys are tracked", n)
	}
	w := dial(t, addr)
	for i := range keys {
		w.ask(fmt.Sprintf("SET k%d 1", i), "+OK\r\n")
	}
	p.send("PING\r\n")
	for n := 0; ; n++ {
		v, err := p.replies.Decode()
		if err != nil {
			t.Fatal(err)
		}
		if v.Text == "PONG" {
			if n < keys-len(dropped) {
				t.Errorf("%d keys were still tracked, and %d invalidations came", keys-len(dropped), n)
			}
			break
		}
	}
}

// TestClosedConnectionsAreForgotten where a key that is never written is read by ever new
// connections.
func TestClosedConnectionsAreForgotten(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		f := &follower{}
		f.conn.Store(newConn(s, &canned{}))
		s.tracking.register(f, "k")
		f.conn.Store(nil)
	}
	if n := len(s.tracking.shard("k").keys["k"].readers); n > 2 {
		t.Errorf("%d are down for the key", n)
	}
}

// TestEveryWriteOfTheCacheIsNoted: a method of the cache that changes rows, and that
// rowCache does not have, would be made without telling anybody.
func TestEveryWriteOfTheCacheIsNoted(t *testing.T) {
	inner := reflect.TypeFor[*lockstep.Cache[string, Value]]()
	noted := strings.Fields("Set Delete SetMany DeleteMany DeleteAll Update")
	harmless := strings.Fields("Audit Close Exists Get GetEntry GetMany Invalidate InvalidateAll Peek Refresh Scan ScanPage Stats Warm " +
		"In InJoined Insert " + // transactions are noted by rows; there is no Insert with such keys
		"Flush Rejected GetWith WriteWith") // of modes that the server refuses
	for i := range inner.NumMethod() {
		name := inner.Method(i).Name
		if !slices.Contains(noted, name) && !slices.Contains(harmless, name) {
			t.Errorf("is %s a write that is to be noted?", name)
		}
	}
	server, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{})})
	p := dial(t, addr)
	p.hello("BCAST")
	keys := server.keys.cache
	ctx := context.Background()
	for name, write := range map[string]func() error{
		"Set":     func() error { _, err := keys.Set(ctx, "k", "s1"); return err },
		"SetMany": func() error { return keys.SetMany(ctx, map[string]Value{"k": "s2"}) },
		"Update": func() error {
			_, err := keys.Update(ctx, "k", func(Value, bool) (Value, error) { return "s3", nil })
			return err
		},
		"Delete":     func() error { _, err := keys.Delete(ctx, "k"); return err },
		"DeleteMany": func() error { return keys.DeleteMany(ctx, []string{"k"}) },
		"DeleteAll":  func() error { return keys.DeleteAll(ctx) },
	} {
		if err := write(); err != nil {
			t.Fatal(name, err)
		}
		if want := invalidated("k"); name == "DeleteAll" {
			p.want(allInvalidated)
		} else {
			p.want(want)
		}
		p.ask("PING", pong)
	}
}

// overseen is a store whose table others write, and that is watched as the test says.
type overseen[K comparable, V any] struct {
	*memstore.Store[K, V]
	events chan lockstep.Event[K]
	lose   chan error
}

func (s overseen[K, V]) Capabilities() lockstep.Capabilities[K, V] {
	caps := s.Store.Capabilities()
	caps.Watch = func(ctx context.Context, f func(lockstep.Event[K])) error {
		for {
			select {
			case e := <-s.events:
				f(e)
			case err := <-s.lose:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return caps
}

// TestWhatOthersChangeIsInvalidated where the table is watched; while it is not, whatever
// is read is followed by an invalidation.
func TestWhatOthersChangeIsInvalidated(t *testing.T) {
	store := overseen[string, Value]{memstore.New(memstore.Options[string, Value]{}), make(chan lockstep.Event[string]), make(chan error)}
	_, addr := start(t, Options{Store: store, Cache: lockstep.Options[string, Value]{Logger: slog.New(slog.DiscardHandler)}})
	p := dial(t, addr)
	p.hello("")
	p.ask("GET k", "_\r\n")
	p.want(invalidated("k")) // nobody watches yet
	store.events <- lockstep.Event[string]{}
	p.want(allInvalidated)
	p.ask("GET k", "_\r\n")
	p.ask("PING", pong)
	store.events <- lockstep.Event[string]{Changed: []lockstep.Changed[string]{{Key: "k"}}}
	p.want(invalidated("k"))
	p.ask("GET k", "_\r\n")
	store.events <- lockstep.Event[string]{All: true}
	p.want(allInvalidated)
	p.ask("GET k", "_\r\n")
	store.lose <- errors.New("lost")
	p.want(allInvalidated)
	p.ask("GET k", "_\r\n")
	p.want(invalidated("k"))
	store.events <- lockstep.Event[string]{}
	p.want(allInvalidated)
	p.ask("GET k", "_\r\n")
	p.ask("PING", pong)
}
