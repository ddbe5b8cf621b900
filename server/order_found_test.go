package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// TestWhoHearsHimselfHearsInTheOrderOfAll: his own message, between replies that are being
// built, and then one of somebody else, while he waits for the database.
func TestWhoHearsHimselfHearsInTheOrderOfAll(t *testing.T) {
	for _, subscribe := range []string{"SUBSCRIBE c", "PSUBSCRIBE c*", "SSUBSCRIBE c"} {
		store, addr, _ := startTracked(t, Options{}, "", "")
		p, other := dial(t, addr), dial(t, addr)
		publish := "PUBLISH"
		if strings.HasPrefix(subscribe, "SS") {
			publish = "SPUBLISH"
		}
		p.exchange("HELLO 3")
		p.exchange(subscribe)
		block := store.Block(fault.AfterLoad, "slow")
		defer block.Pass()
		p.send(publish + " c one\r\nGET slow\r\n")
		<-block.Reached
		other.ask(publish+" c two", ":1\r\n")
		block.Pass()
		var heard []string
		for len(heard) < 4 {
			v, err := p.replies.Decode()
			if err != nil {
				t.Fatal(err)
			}
			if len(v.Elems) > 0 {
				heard = append(heard, v.Elems[len(v.Elems)-1].Text)
			} else {
				heard = append(heard, v.String())
			}
		}
		if got := strings.Join(heard, " "); strings.Index(got, "one") > strings.Index(got, "two") || strings.Index(got, "one") > strings.Index(got, ":1") {
			t.Errorf("%s: %s", subscribe, got)
		}
	}
}

// TestMessagesAreOfTheVersionThatThePeerHasBeenTold: HELLO is in a pipeline that waits for the
// database, and a message comes before its reply.
func TestMessagesAreOfTheVersionThatThePeerHasBeenTold(t *testing.T) {
	store, addr, p := startTracked(t, Options{}, "", "")
	w := dial(t, addr)
	p.exchange("SUBSCRIBE c")
	p.ask("GET k", "_\r\n")
	running, leave := make(chan struct{}), make(chan struct{})
	commands.byName["wait"] = &command{name: "wait", full: "wait", arity: 1, whileListening: true, run: func(c *conn, _ [][]byte) {
		close(running)
		<-leave
		c.ok()
	}}
	defer delete(commands.byName, "wait")
	p.send("HELLO 2\r\nWAIT\r\n")
	<-running
	w.ask("SET k 1", "+OK\r\n")
	w.ask("PUBLISH c one", ":1\r\n")
	p.want(invalidated("k"))
	p.want(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\none\r\n")
	close(leave)
	if v, err := p.replies.Decode(); err != nil || len(v.Elems) != 14 {
		t.Fatalf("%s, %v", v, err)
	}
	p.want("+OK\r\n")
	w.ask("PUBLISH c two", ":1\r\n")
	p.want("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\ntwo\r\n")

	// And the other way: what is read after HELLO 3 is followed by its invalidation.
	q := dial(t, addr)
	q.ask("CLIENT TRACKING ON", "+OK\r\n")
	w.ask("SET l 1", "+OK\r\n")
	q.ask("GET l", text("1"))
	block := store.Block(fault.AfterLoad, "slow2")
	defer block.Pass()
	q.send("HELLO 3\r\nGET l\r\nGET slow2\r\n")
	<-block.Reached
	w.ask("SET l 2", "+OK\r\n")
	block.Pass()
	if v, err := q.replies.Decode(); err != nil || len(v.Elems) != 14 {
		t.Fatalf("%s, %v", v, err)
	}
	q.want(text("1"))
	q.want("_\r\n")
	q.want(invalidated("l"))
	q.ask("GET l", text("2"))
	w.ask("SET l 3", "+OK\r\n")
	q.want(invalidated("l"))
}

// farewell is a connection over something that says farewell when it is closed, as TLS does,
// and waits until that has been taken.
type farewell struct {
	net.Conn
	taken chan struct{}
}

func (f farewell) Close() error {
	<-f.taken
	return f.Conn.Close()
}

func (f farewell) NetConn() net.Conn { return f.Conn }

// TestNobodyWaitsForAFarewell to who does not read, when he closes the connection of somebody
// else: tls.Conn's Close may take five seconds, for each.
func TestNobodyWaitsForAFarewell(t *testing.T) {
	s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{})})
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan struct{})
	defer s.under.Wait()
	defer close(taken)
	deaf := func() {
		theirs, ours := net.Pipe()
		t.Cleanup(func() { theirs.Close() })
		s.accept(farewell{ours, taken})
		newPeer(t, theirs).ask("PING", pong)
	}
	deaf()
	theirs, ours := net.Pipe()
	defer theirs.Close()
	s.accept(ours)
	p := newPeer(t, theirs)
	p.ask("CLIENT KILL TYPE normal", ":1\r\n")
	deaf()
	ended := errors.New("no time")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ended)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	select {
	case err := <-down:
		if err != ended {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("Shutdown waits for a farewell")
	}
}

// TestListenerThatDoesNotReadDoesNotKeepShutdown, nor the end of his connection: what is on its way
// to him has a second.
func TestListenerThatDoesNotReadDoesNotKeepShutdown(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := socketPair(t)
	s.accept(ours)
	newPeer(t, theirs).ask("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
	o := &s.clients()[0].out
	for message := make([]byte, 1<<20); !o.full(); runtime.Gosched() {
		if o.waiting() == 0 {
			s.hub.publish(channels, []byte("c"), message)
		}
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience/2)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("%v, after %v", err, time.Since(begin))
	}
}

// TestShutdownUnderLoadAnswersWhatItDoes: what is in the database then is what was answered, of each
// writer, who reads to the end; and somebody is told of all that.
func TestShutdownUnderLoadAnswersWhatItDoes(t *testing.T) {
	const writers = 20
	store := memstore.New(memstore.Options[string, Value]{})
	s, addr := start(t, Options{Store: store})
	told := dial(t, addr)
	told.hello("BCAST")
	go func() { _, _ = io.Copy(io.Discard, told); told.Close() }()
	var all sync.WaitGroup
	var begun atomic.Int64
	started := make(chan struct{})
	answered := make([]int, writers)
	for i := range writers {
		p := dial(t, addr)
		ahead, gone := make(chan struct{}, 20), make(chan struct{})
		all.Go(func() {
			go func() {
				for n := 1; ; n++ {
					select {
					case ahead <- struct{}{}:
					case <-gone:
						return
					}
					request := fmt.Sprintf("SET k%d %d\r\n", i, n)
					switch n % 3 {
					case 1:
						request = fmt.Sprintf("MULTI\r\nSET k%d %d\r\nEXEC\r\n", i, n)
					case 2:
						request = fmt.Sprintf("MSET k%d %d\r\n", i, n)
					}
					if _, err := io.WriteString(p, request); err != nil {
						return
					}
				}
			}()
			for {
				v, err := p.replies.Decode()
				if err != nil {
					p.Close()
					close(gone)
					return // the end, or a reset because of what had come and was not read
				}
				if v.Text == "OK" && answered[i]%3 != 0 || len(v.Elems) == 1 {
					answered[i]++
					<-ahead
				}
				if answered[i] == 10 && begun.Add(1) == writers {
					close(started)
				}
			}
		})
	}
	<-started
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	all.Wait()
	for i, n := range answered {
		rows, err := store.Load(t.Context(), []string{fmt.Sprint("k", i)})
		if err != nil {
			t.Fatal(err)
		}
		if got := rows[fmt.Sprint("k", i)].Value; got != NewString(fmt.Sprint(n)) {
			t.Errorf("writer %d was answered %d times, and the database has %s", i, n, got)
		}
	}
}
