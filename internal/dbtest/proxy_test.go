package dbtest_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
)

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
	p := dbtest.NewProxy(t, server)
	c, other := dial(t, p.Addr()), dial(t, p.Addr())
	cut := p.CutReply("COMMIT")
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
	p := dbtest.NewProxy(t, server)
	c := dial(t, p.Addr())
	cut := p.CutRequest("COMMIT")
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
	p := dbtest.NewProxy(t, server)
	c, other := dial(t, p.Addr()), dial(t, p.Addr())
	held, release := p.HoldReply("COMMIT")
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
	p := dbtest.NewProxy(t, server)
	c := dial(t, p.Addr())
	held, release := p.HoldReply("COMMIT")
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
	p := dbtest.NewProxy(t, server)
	a, b := dial(t, p.Addr()), dial(t, p.Addr())
	for _, c := range []*client{a, b} {
		c.send("x\n") // so that the proxy has reached the server
		c.answered("x\n")
	}
	held, _ := p.HoldReply("y")
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
	p := dbtest.NewProxy(t, server)
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
		cut := p.CutRequest(c.match)
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
	cut := p.CutRequest("C\nO")
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
	dial(t, dbtest.NewProxy(t, l.Addr().String()).Addr()).closed()
}

// recorder is a test that records its failures, and ends when told.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool     { return false }
func (r *recorder) Errorf(format string, a ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, a...))
}

func TestARuleThatDidNotComeAboutFailsTheTest(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := &recorder{TB: t}
	p := dbtest.NewProxy(r, l.Addr().String())
	c := dial(t, p.Addr())
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p.CutReply("unanswered")
	p.CutReply("unsent")
	c.send("unanswered")
	if _, err := io.ReadFull(server, make([]byte, len("unanswered"))); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.cleanups {
		f()
	}
	want := []string{
		`dbtest: proxy: nothing contained "unsent"`,
		`dbtest: proxy: the server did not answer what contained "unanswered"`,
	}
	if !slices.Equal(r.errors, want) {
		t.Errorf("the failures are %q, want %q", r.errors, want)
	}
}

// TestCommitsThroughTheProxy breaks the commits of real drivers.
func TestCommitsThroughTheProxy(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		url := k.database(t)
		p, via := dbtest.Via(t, url)
		direct, db := k.open(t, url), k.open(t, via)
		exec(t, direct, "CREATE TABLE t (a VARCHAR(20))")
		rows := func(want string) {
			t.Helper()
			if n := read(t, direct, "SELECT COUNT(*) FROM t"); n != want {
				t.Errorf("there are %s rows, want %s", n, want)
			}
		}

		cut := p.CutRequest(k.commit)
		tx := begin(t, db)
		exec(t, tx, "INSERT INTO t VALUES ('1')")
		if err := tx.Commit(); err == nil {
			t.Error("a commit that did not arrive has succeeded")
		}
		<-cut
		rows("0")

		cut = p.CutReply(k.commit)
		tx = begin(t, db)
		exec(t, tx, "INSERT INTO t VALUES ('2')")
		if err := tx.Commit(); err == nil {
			t.Error("a commit whose answer was lost has succeeded")
		}
		<-cut
		rows("1")

		held, release := p.HoldReply(k.commit)
		tx = begin(t, db)
		exec(t, tx, "INSERT INTO t VALUES ('3')")
		committed := make(chan error)
		go func() { committed <- tx.Commit() }()
		<-held
		rows("2")
		select {
		case err := <-committed:
			t.Errorf("Commit has returned %v before its answer came", err)
		default:
		}
		release()
		if err := <-committed; err != nil {
			t.Error(err)
		}

		// A prepared statement is known by its arguments.
		insert, err := db.Prepare(strings.ReplaceAll("INSERT INTO t VALUES (?)", "?", k.parameter))
		if err != nil {
			t.Fatal(err)
		}
		defer insert.Close()
		if _, err := insert.Exec("other"); err != nil {
			t.Fatal(err)
		}
		cut = p.CutReply("the marker")
		if _, err := insert.Exec("with the marker"); err == nil {
			t.Error("a statement whose answer was lost has succeeded")
		}
		<-cut
		rows("4")
	})
}
