package server

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/resp"
)

// pubsubScripts are for one connection each.
var pubsubScripts = []string{
	"subscribe", "subscribe a", "subscribe a b a", "subscribe ''", "psubscribe", "psubscribe a* ?", "ssubscribe", "ssubscribe a b",
	"unsubscribe", "unsubscribe a", "unsubscribe a b", "punsubscribe", "punsubscribe a", "sunsubscribe", "sunsubscribe a", "subscribe a b; unsubscribe a; unsubscribe a; unsubscribe", "psubscribe a; punsubscribe; punsubscribe",
	"subscribe a; psubscribe b; ssubscribe c; sunsubscribe; unsubscribe; punsubscribe; ping", "ssubscribe a; subscribe b; unsubscribe b; ping; sunsubscribe a; ping",
	"subscribe a; client info", "subscribe a; client list", "subscribe a; hello", "subscribe a; hello 3; ping", "subscribe a; nosuch", "subscribe a; get", "subscribe a; ping; ping x; ping x y", "subscribe a; echo x", "subscribe a; auth x",
	"subscribe a; quit", "subscribe a; reset; ping; client info", "subscribe a b; psubscribe c; reset; pubsub channels; pubsub numpat; client info", "subscribe a; publish a x", "ssubscribe a; publish a x; unsubscribe", "psubscribe a; publish a x",
	"ssubscribe a; ping", "psubscribe a; ping; punsubscribe a; ping", "subscribe a; ping \"", "subscribe a; post", "subscribe a; select 0", "subscribe a; command count", "subscribe a; client id; unsubscribe a; client id",
	"publish", "publish a", "publish a b", "publish a b c", "publish '' ''", "spublish a", "spublish a b", "spublish a b c",
	"pubsub", "pubsub foo", "pubsub foo bar", "pubsub channels", "pubsub channels *", "pubsub channels a b", "PUBSUB CHANNELS A B", "pubsub shardchannels a b", "pubsub numsub", "pubsub numsub a b a", "pubsub numpat", "pubsub numpat x", "pubsub shardnumsub", "pubsub shardnumsub a", "pubsub shardchannels", "pubsub help", "pubsub help x", "pubsub 'a\\nb'",
	"hello 3; subscribe a; publish a x; ping", "hello 3; ping; subscribe a; publish a x; ping; unsubscribe; publish a y", "hello 3; psubscribe a*; publish ab x; publish b x", "hello 3; subscribe a; psubscribe a; publish a x; client list type normal; client info",
	"hello 3; ssubscribe a; spublish a x; publish a y; pubsub shardchannels; pubsub channels; pubsub shardnumsub a b; client info", "hello 3; subscribe a b; pubsub channels a; pubsub numsub a c; pubsub numpat; psubscribe x x y; pubsub numpat; pubsub channels",
	"hello 3; subscribe a; hello 2; ping; publish a x; unsubscribe; publish a x", "hello 3; subscribe a; reset; ping", "hello 3; subscribe a; unsubscribe b; unsubscribe; unsubscribe", "hello 3; subscribe a; get", "hello 3; subscribe a; ping; ping x", "hello 3; psubscribe ''; publish '' x; publish a x", "hello 3; psubscribe *; publish '' x; publish a x",
	"hello 3; subscribe a; client kill type pubsub skipme no; ping", "hello 3; subscribe a; client kill type normal skipme no; ping", "client kill type pubsub skipme no; ping", "subscribe a; client kill type pubsub skipme no",
	"hello 3; client reply off; subscribe a; publish a x; client reply on; ping", "hello 3; subscribe a; client reply skip; publish a x; ping", "hello 3; client reply off; subscribe a; unsubscribe a; unsubscribe; client reply on", "client reply off; subscribe a; ping; unsubscribe a; client reply on", "client reply skip; subscribe a; unsubscribe a; ping", "client reply skip; publish a x; ping",
	"subscribe \"a\\x00b\\r\\n\"; unsubscribe \"a\\x00b\\r\\n\"", "hello 3; subscribe \"a\\r\\nb\"; publish \"a\\r\\nb\" \"x\\r\\ny\"", "command getkeys ssubscribe a b", "command getkeys spublish a b", "command getkeys subscribe a", "command getkeys publish a b", "command getkeys pubsub channels a",
}

// pubsubTalks are for several connections.
var pubsubTalks = []string{
	"a: subscribe x; b: publish x hello; b: publish y hello; a: unsubscribe x; b: publish x hello",
	"a: subscribe x y; b: subscribe y z; c: publish x 1; c: publish y 2; c: publish z 3; a: unsubscribe x; a: unsubscribe; c: publish y 4; c: pubsub channels y; c: pubsub numsub x y z",
	"a: psubscribe x*; b: subscribe xy; c: publish xy 1; c: publish xz 2; c: publish yx 3; c: pubsub numpat; c: pubsub channels",
	"a: subscribe x; a: get k; a: set k 1; a: unsubscribe; a: set k 1; a: get k", "a: ssubscribe x; a: mget k k; a: reset; a: get k",
	"a: psubscribe * x* ?y; b: publish xy 1; a: punsubscribe *; b: publish xy 2; a: punsubscribe x* ?y; b: publish xy 3",
	"a: ssubscribe x; a: subscribe x; b: spublish x 1; b: publish x 2; b: pubsub shardchannels; b: pubsub shardnumsub x; a: sunsubscribe; b: spublish x 3; b: publish x 4",
	"a: subscribe x; b: client list id $a; b: client list type pubsub; a: reset; b: publish x 1; b: pubsub channels; b: pubsub numsub x",
	"a: subscribe x; a: close; b: publish x 1; b: pubsub channels", "a: subscribe x; b: client kill id $a; b: publish x 1", "a: subscribe x; b: client kill type pubsub; b: publish x 1",
	"a: hello 3; a: subscribe x; b: publish x 1; a: hello 2; b: publish x 2; a: publish x 3; a: unsubscribe; a: publish x 4",
	"a: subscribe ''; b: publish '' ''; a: psubscribe ''; b: publish '' 1; b: pubsub channels; b: pubsub channels ''; b: pubsub channels *",
	"a: subscribe \"\\x00\\r\\n\"; b: publish \"\\x00\\r\\n\" \"\\r\\n\\x00\"", "a: psubscribe [a-c]x h\\\\*; b: publish bx 1; b: publish 'h*' 2; b: publish hx 3",
}

// TestPublishingIsRedis has a real Redis and a Server take part in the same conversations.
func TestPublishingIsRedis(t *testing.T) {
	u, err := url.Parse(dbtest.StartRedis(t, "databases 1").URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	_, addr := start(t, Options{Store: openStore(t), Users: func(name string) (User, bool) {
		return User{Passwords: []PasswordHash{HashPassword(password)}}, name == defaultUser
	}})
	sameConversations(t, []talk{
		{"messages of several patterns come in any order", regexp.MustCompile(`psubscribe \* x`), anyOrder, true},
		{"addresses, ages and memory are each server's own", regexp.MustCompile(`client list`), maskLines, false},
	}, target{u.Host, password}, target{addr, password}, pubsubTalks)
}

// TestMessagesKeepTheirOrder: of each publisher to each listener, none lost, none inside of
// a reply, though the listener asks for large replies meanwhile; and all listeners get those
// of all publishers in the same order.
func TestMessagesKeepTheirOrder(t *testing.T) {
	const listeners, publishers, each = 4, 4, 200
	_, addr := start(t, Options{Store: openStore(t)})
	large := strings.Repeat("v", 20_000)
	dial(t, addr).ask("SET large "+large, "+OK\r\n")
	var all sync.WaitGroup
	got := make([][]string, listeners)
	for i := range got {
		p := dial(t, addr)
		p.send("HELLO 3\r\nSUBSCRIBE c\r\n")
		for range 2 {
			if _, err := p.replies.Decode(); err != nil {
				t.Fatal(err)
			}
		}
		all.Go(func() {
			replies := 0
			if i%2 == 0 {
				go func() {
					for range each {
						_, _ = io.WriteString(p, "GET large\r\nECHO "+large[:100]+"\r\n")
					}
				}()
			} else {
				replies = 2 * each
			}
			for len(got[i]) < publishers*each || replies < 2*each {
				v, err := p.replies.Decode()
				switch {
				case err != nil:
					t.Error(err)
					return
				case v.Kind == resp.Push:
					got[i] = append(got[i], v.Elems[2].Text)
				case v.Text != large && v.Text != large[:100]:
					t.Errorf("%.100s is no reply", v)
					return
				default:
					replies++
				}
			}
		})
	}
	for i := range publishers {
		p := dial(t, addr)
		all.Go(func() {
			for n := range each {
				_, _ = fmt.Fprintf(p, "PUBLISH c %d-%d\r\n", i, n)
				if v, err := p.replies.Decode(); err != nil || v.Text != fmt.Sprint(listeners) {
					t.Errorf("%s, %v", v, err)
				}
			}
		})
	}
	all.Wait()
	next := make([]int, publishers)
	for k, text := range got[0] {
		var i, n int
		if _, err := fmt.Sscanf(text, "%d-%d", &i, &n); err != nil || n != next[i] {
			t.Fatalf("message %d is %s, and the next of that publisher was %d", k, text, next[i])
		}
		next[i]++
		for j := range got {
			if got[j][k] != text {
				t.Fatalf("message %d is %s for one, and %s for another", k, text, got[j][k])
			}
		}
	}
}

// TestListenerThatDoesNotReadIsClosed, says the log; the publisher never waits for it, and
// others get everything.
func TestListenerThatDoesNotReadIsClosed(t *testing.T) {
	var log locked
	s, addr := start(t, Options{OutputLimit: 256 << 10, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	deaf, listener, publisher := dial(t, addr), dial(t, addr), dial(t, addr)
	if err := deaf.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	deaf.ask("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
	listener.ask("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
	text := strings.Repeat("x", 64<<10)
	for left := false; !left; {
		publisher.send("PUBLISH c " + text[:60<<10] + "\r\n")
		v, err := publisher.replies.Decode()
		if err != nil {
			t.Fatal(err)
		}
		left = v.Text == "1"
		if m, err := listener.replies.Decode(); err != nil || len(m.Elems) != 3 || len(m.Elems[2].Text) != 60<<10 {
			t.Fatalf("%.100s, %v", m, err)
		}
	}
	if _, err := io.Copy(io.Discard, deaf); err == nil {
		// What was in the kernel's buffers may still come, and then the end, or a reset.
		t.Log("the end came without a reset")
	}
	if !strings.Contains(log.String(), "does not read what it is sent") || !strings.Contains(log.String(), "OutputLimit=262144") {
		t.Errorf("the log is %q", log.String())
	}
	if n := len(s.clients()); n != 2 {
		t.Errorf("%d clients", n)
	}
}

// TestFirstMessageComesAfterTheSubscription, and none is missed by who has been told.
func TestFirstMessageComesAfterTheSubscription(t *testing.T) {
	_, addr := start(t, Options{})
	publisher := dial(t, addr)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, _ = io.WriteString(publisher, "PUBLISH c noise\r\n")
			if _, err := publisher.replies.Decode(); err != nil {
				return
			}
		}
	}()
	p, other := dial(t, addr), dial(t, addr)
	p.send("HELLO 3\r\n")
	if _, err := p.replies.Decode(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		p.send("PING\r\nSUBSCRIBE c\r\n")
		p.want("+PONG\r\n")
		p.want(">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
		other.send("PUBLISH c signal\r\n")
		if v, err := other.replies.Decode(); err != nil || v.Text != "1" {
			t.Fatalf("%s, %v", v, err)
		}
		p.send("UNSUBSCRIBE c\r\nPING\r\n")
		signal := false
		for {
			v, err := p.replies.Decode()
			if err != nil {
				t.Fatal(err)
			}
			if v.Kind == resp.Push && v.Elems[0].Text == "unsubscribe" {
				break
			}
			signal = signal || v.Elems[2].Text == "signal"
		}
		if !signal {
			t.Fatal("a message that was published after the subscription was told is missing")
		}
		p.want("+PONG\r\n") // and no message behind the end of the subscription
	}
	close(stop)
	<-stopped
}

// TestListenersAreNotIdle, as with Redis.
func TestListenersAreNotIdle(t *testing.T) {
	bubble(t, Options{IdleTimeout: time.Hour}, func(t *testing.T, s *Server, p *peer) {
		p.ask("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
		time.Sleep(100 * time.Hour)
		p.ask("UNSUBSCRIBE c", "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n")
		if got := p.lasts(); got != time.Hour {
			t.Errorf("it lasted %v", got)
		}
	})
}

// BenchmarkPublish is of one message to a thousand listeners, until all have it.
func BenchmarkPublish(b *testing.B) {
	const listeners = 1000
	_, addr := start(b, Options{})
	var all sync.WaitGroup
	for range listeners {
		p := dial(b, addr)
		p.ask("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
		all.Go(func() {
			for range b.N {
				if _, err := p.replies.Decode(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	p := dial(b, addr)
	b.ResetTimer()
	for range b.N {
		p.ask("PUBLISH c hello", fmt.Sprintf(":%d\r\n", listeners))
	}
	all.Wait()
}

// TestALongPatternIsRefused, with all others of its request: each publisher would have to
// match it, at a cost of its length times the channel's.
func TestALongPatternIsRefused(t *testing.T) {
	_, addr := start(t, Options{})
	p := dial(t, addr)
	longest := strings.Repeat("a", longestPattern)
	p.ask("PSUBSCRIBE b* "+longest+"a", "-ERR a pattern has at most 1024 bytes here\r\n")
	p.ask("PUBSUB NUMPAT", ":0\r\n")
	p.ask("PSUBSCRIBE "+longest, "*3\r\n$10\r\npsubscribe\r\n$1024\r\n"+longest+"\r\n:1\r\n")
	other := dial(t, addr)
	other.ask("PUBLISH "+longest+" m", ":1\r\n")
	p.want("*4\r\n$8\r\npmessage\r\n$1024\r\n" + longest + "\r\n$1024\r\n" + longest + "\r\n$1\r\nm\r\n")
	p.ask("PUNSUBSCRIBE", "*3\r\n$12\r\npunsubscribe\r\n$1024\r\n"+longest+"\r\n:0\r\n")
	other.ask("PUBLISH "+longest+" m", ":0\r\n")
}
