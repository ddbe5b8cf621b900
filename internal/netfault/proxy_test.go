package netfault_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockstep-cache/lockstep/internal/netfault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proxy is one that ends with the test.
func proxy(t *testing.T, server string) *netfault.Proxy {
	t.Helper()
	p, err := netfault.New(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func rule(t *testing.T) func(*netfault.Rule, error) *netfault.Rule {
	return func(r *netfault.Rule, err error) *netfault.Rule {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// echo is a server that answers each line with the line, and tells of those that
// it has read.
func echo(t *testing.T) (addr string, heard <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	lines := make(chan string, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					lines <- line
					io.WriteString(conn, line)
				}
			}()
		}
	}()
	return l.Addr().String(), lines
}

// client is a connection to a server that answers in lines.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{conn, t, bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) answered(line string) {
	c.t.Helper()
	if got, err := c.r.ReadString('\n'); got != line || err != nil {
		c.t.Fatalf("answered %q, %v; want %q", got, err, line)
	}
}

func (c *client) closed() {
	c.t.Helper()
	if got, err := c.r.ReadString('\n'); got != "" || err == nil {
		c.t.Fatalf("answered %q, %v; want the connection closed, and no answer", got, err)
	}
}

func TestCutReplyLosesTheAnswerToWhatArrived(t *testing.T) {
	server, heard := echo(t)
	p := proxy(t, server)
	c, other := dial(t, p.Addr()), dial(t, p.Addr())
	cut := rule(t)(p.CutReply("COMMIT")).Happened()
	c.send("BEGIN\n")
	c.answered("BEGIN\n")
	select {
	case <-cut:
		t.Fatal("cut before the match")
	default:
	}
	c.send("COMMIT\n")
	c.closed()
	<-cut
	if lines := <-heard + <-heard; lines != "BEGIN\nCOMMIT\n" {
		t.Errorf("the server was sent %q", lines)
	}
	// Once, and on that connection alone.
	for range 2 {
		other.send("COMMIT\n")
		other.answered("COMMIT\n")
	}
}

func TestCutRequestKeepsTheServerFromIt(t *testing.T) {
	server, heard := echo(t)
	p := proxy(t, server)
	c := dial(t, p.Addr())
	cut := rule(t)(p.CutRequest("COMMIT")).Happened()
	c.send("BEGIN\n")
	c.answered("BEGIN\n")
	c.send("COMMIT\n")
	c.closed()
	<-cut
	next := dial(t, p.Addr())
	next.send("COMMIT\n")
	next.answered("COMMIT\n")
	if lines := <-heard + <-heard; lines != "BEGIN\nCOMMIT\n" {
		t.Errorf("the server was sent %q", lines)
	}
}

func TestHoldReplyLetsTheAnswerWait(t *testing.T) {
	server, heard := echo(t)
	p := proxy(t, server)
	c, other := dial(t, p.Addr()), dial(t, p.Addr())
	r := rule(t)(p.HoldReply("COMMIT"))
	held, release := r.Happened(), r.Release
	c.send("COMMIT\n")
	<-held
	if line := <-heard; line != "COMMIT\n" {
		t.Errorf("the server was sent %q", line)
	}
	answer := make(chan string)
	go func() {
		line, err := c.r.ReadString('\n')
		answer <- fmt.Sprint(line, err)
	}()
	// The proxy goes on with others meanwhile.
	other.send("COMMIT\n")
	other.answered("COMMIT\n")
	select {
	case line := <-answer:
		t.Fatalf("answered %q before release", line)
	default:
	}
	release()
	release()
	if line := <-answer; line != "COMMIT\n<nil>" {
		t.Errorf("after release the answer is %q", line)
	}
}

func TestAClientThatGoesAwayDoesNotTakeBackWhatItSent(t *testing.T) {
	server, heard := echo(t)
	p := proxy(t, server)
	c := dial(t, p.Addr())
	r := rule(t)(p.HoldReply("COMMIT"))
	held, release := r.Happened(), r.Release
	c.send("COMMIT\n")
	c.Close()
	<-held
	if line := <-heard; line != "COMMIT\n" {
		t.Errorf("the server was sent %q", line)
	}
	release()
}

func TestCutAllClosesTheConnectionsThereAre(t *testing.T) {
	server, _ := echo(t)
	p := proxy(t, server)
	a, b := dial(t, p.Addr()), dial(t, p.Addr())
	for _, c := range []*client{a, b} {
		c.send("x\n") // so that the proxy has reached the server
		c.answered("x\n")
	}
	held := rule(t)(p.HoldReply("y")).Happened()
	b.send("y\n")
	<-held
	p.CutAll()
	a.closed()
	b.closed()
	next := dial(t, p.Addr())
	next.send("x\n")
	next.answered("x\n")
}

// TestAMatchMayStraddlePackets sends a match in pieces. Each but the last is a
// line, and its answer shows that the proxy has passed it on.
func TestAMatchMayStraddlePackets(t *testing.T) {
	server, heard := echo(t)
	p := proxy(t, server)
	long := strings.Repeat("z", 1022)
	for _, c := range []struct {
		match  string
		pieces []string
	}{
		{"O\nM", []string{"a CO\n", "MMIT\n"}},
		{"C\nO\nM", []string{"C\n", "O\n", "M"}},
		{"C\nOM", []string{"C\n", "C\n", "OM\n"}},
		{"C\nOM", []string{"C\n", "OC\n", "OM\n"}},
		{long + "\nz", []string{long + "\n", "z"}},
	} {
		client := dial(t, p.Addr())
		cut := rule(t)(p.CutRequest(c.match)).Happened()
		last := len(c.pieces) - 1
		for _, piece := range c.pieces[:last] {
			client.send(piece)
			client.answered(piece)
			if line := <-heard; line != piece {
				t.Fatalf("the server was sent %q, want %q", line, piece)
			}
		}
		client.send(c.pieces[last])
		client.closed()
		<-cut
	}
	// What was sent before the rule was made does not count.
	c := dial(t, p.Addr())
	c.send("C\n")
	c.answered("C\n")
	cut := rule(t)(p.CutRequest("C\nO")).Happened()
	c.send("O\n")
	c.answered("O\n")
	c.send("C\nO\n")
	c.closed()
	<-cut
}

func TestAProxyWithoutItsServerClosesConnections(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p := proxy(t, l.Addr().String())
	dial(t, p.Addr()).closed()
	if counts := p.Counts(); counts != (netfault.Counts{Unreachable: 1}) {
		t.Errorf("%+v", counts)
	}
}

func TestAMatchThatIsEmptyOrTooLongIsRefused(t *testing.T) {
	server, _ := echo(t)
	p := proxy(t, server)
	for _, match := range []string{"", strings.Repeat("z", 1025)} {
		for _, make := range []func(string) (*netfault.Rule, error){p.CutReply, p.CutRequest, p.HoldReply} {
			if r, err := make(match); r != nil || err == nil || !strings.Contains(err.Error(), fmt.Sprint(len(match), " bytes")) {
				t.Errorf("%v, %v", r, err)
			}
		}
	}
}

// serving is a server that does what the test has it do: each connection is the test's.
func serving(t *testing.T) (addr string, next func() *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), func() *net.TCPConn {
		t.Helper()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn.(*net.TCPConn)
	}
}

// soon is how long a byte of the loopback may take that is not held.
const soon = 30 * time.Millisecond

// silent tells that nothing comes, not even the connection's end.
func silent(t *testing.T, who string, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if n, err := conn.Read(make([]byte, 100)); n > 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%s has %d bytes, %v; want nothing", who, n, err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// A hold stops both directions, new connections and the ends of connections, and then
// lets all of it come about.
func TestHoldLetsEverythingWait(t *testing.T) {
	addr, next := serving(t)
	p := proxy(t, addr)
	c := dial(t, p.Addr())
	server := next()
	c.send("a\n")
	received(t, server, "a\n")
	again := p.Hold()
	release := p.Hold()
	fresh := dial(t, p.Addr())
	c.send("b\n")
	fresh.send("f\n")
	if _, err := io.WriteString(server, "c\n"); err != nil {
		t.Fatal(err)
	}
	silent(t, "the server", server)
	silent(t, "the client", c.Conn)
	silent(t, "a new client", fresh.Conn)
	release()
	release()
	silent(t, "with one of two holds over, the client", c.Conn)
	again()
	received(t, server, "b\n")
	c.answered("c\n")
	other := next()
	received(t, other, "f\n")
	release = p.Hold()
	server.Close()
	fresh.Close()
	silent(t, "while the server goes, the client", c.Conn)
	silent(t, "while the client goes, the server", other)
	release()
	c.closed()
	if said, err := io.ReadAll(other); len(said) > 0 || err != nil {
		t.Errorf("the server has %q, %v; want the end", said, err)
	}
	if counts := p.Counts(); counts.Holds != 3 || counts.Connections != 2 {
		t.Errorf("%+v", counts)
	}
}

func received(t *testing.T, server net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(server, got); err != nil || string(got) != text {
		t.Fatalf("the server has %q, %v; want %q", got, err, text)
	}
}

// What waits for a hold to end can be cut, and then arrives nowhere.
func TestCutAllReachesWhatIsHeld(t *testing.T) {
	addr, next := serving(t)
	p := proxy(t, addr)
	c := dial(t, p.Addr())
	server := next()
	c.send("a\n")
	received(t, server, "a\n")
	release := p.Hold()
	c.send("b\n")
	silent(t, "the server", server)
	p.CutAll()
	c.closed()
	release()
	if said, err := io.ReadAll(server); len(said) > 0 || err != nil {
		t.Errorf("the server has %q, %v", said, err)
	}
	p.CutAll()
	if counts := p.Counts(); counts.ConnectionsCut != 1 {
		t.Errorf("%+v", counts)
	}
}

// A session that is at work when its client goes is there until it has done its work.
func TestAConnectionCountsUntilTheServerHasClosedIt(t *testing.T) {
	for name, leave := range map[string]func(*netfault.Proxy, *client){
		"ClientCloses": func(_ *netfault.Proxy, c *client) { c.Close() },
		"CutAll":       func(p *netfault.Proxy, _ *client) { p.CutAll() },
		"CutReply":     func(p *netfault.Proxy, c *client) { c.closed() },
	} {
		t.Run(name, func(t *testing.T) {
			addr, next := serving(t)
			p := proxy(t, addr)
			if err := p.AwaitServer(t.Context()); err != nil {
				t.Errorf("with no connection: %v", err)
			}
			c := dial(t, p.Addr())
			server := next()
			if name == "CutReply" {
				rule(t)(p.CutReply("COMMIT"))
			}
			c.send("COMMIT\n")
			received(t, server, "COMMIT\n")
			if name == "CutReply" {
				if _, err := io.WriteString(server, "done\n"); err != nil {
					t.Fatal(err)
				}
			}
			leave(p, c)
			if said, err := io.ReadAll(server); len(said) > 0 || err != nil {
				t.Fatalf("the server has %q, %v; want the end", said, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			if err := p.AwaitServer(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 of 1") {
				t.Errorf("with the server at work: %v", err)
			}
			if n := p.Connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
			// What it says goes nowhere, and does not hold it up.
			if _, err := server.Write(make([]byte, 8<<20)); err != nil {
				t.Error(err)
			}
			done := make(chan error)
			go func() { done <- p.AwaitServer(t.Context()) }()
			select {
			case err := <-done:
				t.Fatalf("with the server at work: %v", err)
			case <-time.After(soon):
			}
			server.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if n := p.Connections(); n != 0 {
				t.Errorf("%d connections after the server has closed them", n)
			}
		})
	}
}

func TestCountsAndRulesTellWhatHasHappened(t *testing.T) {
	addr, next := serving(t)
	p := proxy(t, addr)
	cutRequest, cutReply, held := rule(t)(p.CutRequest("one")), rule(t)(p.CutReply("two")), rule(t)(p.HoldReply("three"))
	never := rule(t)(p.CutReply("never"))
	for _, message := range []string{"one", "two", "three"} {
		c := dial(t, p.Addr())
		server := next()
		c.send(message + "\n")
		if message == "one" {
			<-cutRequest.Happened()
			continue
		}
		received(t, server, message+"\n")
		var outstanding []string
		for _, err := range p.Outstanding() {
			outstanding = append(outstanding, err.Error())
		}
		if want := fmt.Sprintf("the server did not answer what contained %q", message); !slices.Contains(outstanding, want) ||
			!slices.Contains(outstanding, `nothing contained "never"`) {
			t.Errorf("outstanding: %q", outstanding)
		}
		if _, err := io.WriteString(server, "answer\n"); err != nil {
			t.Fatal(err)
		}
	}
	<-cutReply.Happened()
	<-held.Happened()
	if !never.Withdraw() || never.Withdraw() || held.Withdraw() {
		t.Error("a rule can be withdrawn that was not there to be met, or one cannot that was")
	}
	held.Release()
	if rules := p.Outstanding(); len(rules) > 0 {
		t.Errorf("outstanding: %v", rules)
	}
	if counts, want := p.Counts(), (netfault.Counts{Connections: 3, RequestsCut: 1, RepliesCut: 1, RepliesHeld: 1}); counts != want {
		t.Errorf("%+v, want %+v", counts, want)
	}
}
