package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// withPassword is Options with the password "secret".
func withPassword() Options {
	return Options{Users: func(name string) (User, bool) {
		return User{Passwords: []PasswordHash{HashPassword("old"), HashPassword("secret")}}, name == defaultUser
	}}
}

// TestPipelineIsAnsweredWithOneWrite: replies are built whole before a byte is sent.
func TestPipelineIsAnsweredWithOneWrite(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := net.Pipe()
	writes := 0
	s.accept(&observed{ours, func() { writes++ }})
	p := newPeer(t, theirs)
	go func() { _, _ = io.WriteString(p, strings.Repeat("PING\r\n", 100)) }()
	for range 100 {
		p.want("+PONG\r\n")
	}
	p.Close()
	s.under.Wait()
	if writes != 1 {
		t.Errorf("100 replies were sent with %d writes", writes)
	}
}

// TestRepliesAreSentBeforeTheyAreTooMany: a pipeline of a few KiB may ask for many MiB.
func TestRepliesAreSentBeforeTheyAreTooMany(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(s, &canned{in: []byte(strings.Repeat("COMMAND\r\n", 2000)), piece: 100_000})
	most := 0
	c.nc = &observed{c.nc, func() { most = max(most, c.w.Len()) }}
	c.run()
	if most < flushAt || most > flushAt+64<<10 {
		t.Errorf("%d bytes of replies were held", most)
	}
}

// observed tells of each Write before it is made.
type observed struct {
	net.Conn
	writing func()
}

func (o *observed) Write(b []byte) (int, error) {
	o.writing()
	return o.Conn.Write(b)
}

func TestPasswords(t *testing.T) {
	users := map[string]User{
		"default":  {Passwords: []PasswordHash{HashPassword("old"), HashPassword("secret")}},
		"anybody":  {NoPassword: true},
		"disabled": {},
	}
	s, err := New(Options{Users: func(name string) (User, bool) { u, ok := users[name]; return u, ok }})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, password string
		want           bool
	}{
		{"default", "secret", true}, {"default", "old", true}, {"default", "", false}, {"default", "wrong", false},
		{"anybody", "", true}, {"anybody", "x", true}, {"disabled", "", false}, {"disabled", "x", false}, {"nobody", "", false}, {"nobody", "secret", false},
	} {
		if _, got := s.authenticates([]byte(c.name), []byte(c.password)); got != c.want {
			t.Errorf("%s with %q: %t", c.name, c.password, got)
		}
	}
}

// TestWrongPasswordAThousandTimes: each is an error, the limits before authentication hold,
// and the right one is still taken.
func TestWrongPasswordAThousandTimes(t *testing.T) {
	_, addr := start(t, withPassword())
	p := dial(t, addr)
	go func() { _, _ = io.WriteString(p, strings.Repeat("AUTH wrong\r\n", 1000)) }()
	for range 1000 {
		p.want("-" + wrongPassword + "\r\n")
	}
	p.ask("PING", "-NOAUTH Authentication required.\r\n")
	big := strings.Repeat("x", resp.DefaultUnauthenticatedBulk+1)
	p.send(string(resp.AppendRequest(resp.AppendRequest(nil, "AUTH", "secret"), "ECHO", big)))
	p.want("+OK\r\n")
	p.want(fmt.Sprintf("$%d\r\n%s\r\n", len(big), big))
	p.ask("RESET", "+RESET\r\n")
	p.send("*11\r\n")
	p.want("-ERR Protocol error: unauthenticated multibulk length\r\n")
	p.wantEnd()
}

func TestTooManyClientsAreTold(t *testing.T) {
	_, addr := start(t, Options{MaxClients: 2})
	a, b := dial(t, addr), dial(t, addr)
	a.ask("PING", "+PONG\r\n")
	b.ask("PING", "+PONG\r\n")
	c := dial(t, addr)
	c.want("-ERR max number of clients reached\r\n")
	c.wantEnd()
	a.ask("QUIT", "+OK\r\n")
	a.wantEnd()
	a.Close()
	// a's place is free when its goroutine has ended, which nobody tells.
	for {
		d := dial(t, addr)
		d.send("PING\r\n")
		if v, err := d.replies.Decode(); err == nil && v.Text == "PONG" {
			return
		}
		d.Close()
	}
}

// TestKilledClientsAreClosed: by its address, by its number, and all but oneself.
func TestKilledClientsAreClosed(t *testing.T) {
	_, addr := start(t, Options{})
	killer := dial(t, addr)
	killer.ask("CLIENT SETNAME killer", "+OK\r\n")
	for _, how := range []struct {
		command func(victim *peer) string
		reply   string
	}{
		{func(v *peer) string { return "CLIENT KILL " + v.LocalAddr().String() }, "+OK\r\n"},
		{func(v *peer) string { return "CLIENT KILL ADDR " + v.LocalAddr().String() }, ":1\r\n"},
		{func(v *peer) string {
			v.send("CLIENT ID\r\n")
			id, err := v.replies.Decode()
			if err != nil {
				t.Fatal(err)
			}
			return "CLIENT KILL ID " + id.Text
		}, ":1\r\n"},
		{func(v *peer) string {
			return "CLIENT KILL LADDR " + v.RemoteAddr().String() + " USER default TYPE normal"
		}, ":1\r\n"},
		{func(v *peer) string { return "CLIENT KILL SKIPME yes" }, ":1\r\n"},
	} {
		victim := dial(t, addr)
		victim.ask("CLIENT SETNAME victim", "+OK\r\n")
		killer.send("CLIENT LIST\r\n")
		list, err := killer.replies.Decode()
		if err != nil || strings.Count(list.Text, "\n") != 2 || !strings.Contains(list.Text, "name=victim ") || !strings.Contains(list.Text, "cmd=client|setname ") {
			t.Fatalf("%s, %v", list, err)
		}
		killer.ask(how.command(victim), how.reply)
		victim.wantEnd()
		killer.send("CLIENT LIST\r\n")
		if list, err := killer.replies.Decode(); err != nil || strings.Count(list.Text, "\n") != 1 || !strings.Contains(list.Text, "name=killer ") {
			t.Fatalf("%s, %v", list, err)
		}
	}
}

func TestLibraryNames(t *testing.T) {
	_, addr := start(t, Options{})
	p := dial(t, addr)
	p.ask("CLIENT SETINFO LIB-NAME some-client", "+OK\r\n")
	p.ask("CLIENT SETINFO lib-ver 1.2.3", "+OK\r\n")
	p.ask("CLIENT SETINFO lib-ver '1 2'", "-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n")
	p.ask("CLIENT SETINFO other x", "-ERR Unrecognized option 'other'\r\n")
	p.ask("CLIENT SETINFO lib-ver", "-ERR wrong number of arguments for 'client|setinfo' command\r\n")
	p.ask("CLIENT NO-TOUCH on", "+OK\r\n")
	p.ask("CLIENT NO-TOUCH x", "-ERR syntax error\r\n")
	p.send("CLIENT INFO\r\n")
	if v, err := p.replies.Decode(); err != nil || !strings.Contains(v.Text, " flags=T ") || !strings.HasSuffix(v.Text, " lib-name=some-client lib-ver=1.2.3\n") {
		t.Errorf("%s, %v", v, err)
	}
}

// TestPanicClosesItsConnectionOnly, and is logged.
func TestPanicClosesItsConnectionOnly(t *testing.T) {
	var log locked
	_, addr := start(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	bad := &command{name: "bad", full: "bad", arity: 1, run: func(*conn, [][]byte) { panic("at the disco") }}
	commands.byName["bad"] = bad
	defer delete(commands.byName, "bad")
	other, p := dial(t, addr), dial(t, addr)
	other.ask("PING", "+PONG\r\n")
	p.send("BAD\r\n")
	p.wantEnd()
	other.ask("PING", "+PONG\r\n")
	if !strings.Contains(log.String(), "at the disco") {
		t.Errorf("the log is %q", log.String())
	}
}

type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestTLSMeetsPlain: a handshake on the plain port ends at once, and a plain request on a
// TLS port does.
func TestTLSMeetsPlain(t *testing.T) {
	var log locked
	logger := slog.New(slog.NewTextHandler(&log, nil))
	_, addr := start(t, Options{Logger: logger})
	for range 10 {
		client := tls.Client(dial(t, addr), &tls.Config{InsecureSkipVerify: true})
		if err := client.Handshake(); err == nil {
			t.Error("there was a handshake on the plain port")
		}
	}
	if n := strings.Count(log.String(), "does not speak TLS"); n != 1 { // once a second
		t.Errorf("said %d times: %s", n, log.String())
	}

	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	s, err := New(Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(tls.NewListener(plain, certificate.TLS)) }()
	p := dial(t, plain.Addr().String())
	p.send("PING\r\n")
	p.want("-ERR this address speaks TLS, and the connection does not\r\n")
	p.wantEnd()
	if !strings.Contains(log.String(), "a TLS handshake failed") {
		t.Error(log.String())
	}
	secure := newPeer(t, tls.Client(dial(t, plain.Addr().String()), &tls.Config{InsecureSkipVerify: true}))
	secure.ask("PING", "+PONG\r\n")
	secure.ask("QUIT", "+OK\r\n")
	secure.wantEnd()
	secure.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestShutdownAnswersWhatWasAccepted: a request under way is answered, idle connections
// end, nobody is accepted, and Serve returns nil.
func TestShutdownAnswersWhatWasAccepted(t *testing.T) {
	s, addr := start(t, Options{})
	running, leave := make(chan struct{}), make(chan struct{})
	commands.byName["wait"] = &command{name: "wait", full: "wait", arity: 1, run: func(c *conn, _ [][]byte) {
		close(running)
		<-leave
		c.ok()
	}}
	defer delete(commands.byName, "wait")
	idle, partial, busy := dial(t, addr), dial(t, addr), dial(t, addr)
	idle.ask("PING", "+PONG\r\n")
	partial.ask("PING", "+PONG\r\n")
	partial.send("PIN")
	busy.send("WAIT\r\nPING\r\n")
	<-running
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	idle.wantEnd()
	partial.wantEnd()
	select {
	case err := <-stopped:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	close(leave)
	busy.want("+OK\r\n")
	busy.want("+PONG\r\n")
	busy.wantEnd()
	for _, p := range []*peer{idle, partial, busy} {
		p.Close()
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		defer conn.Close()
		t.Error("somebody was accepted afterwards")
	}
}

// TestShutdownWaitsForNothingElse: no deadline that was set before or after keeps it, neither
// where a connection is idle nor where it has just answered.
func TestShutdownWaitsForNothingElse(t *testing.T) {
	for _, busy := range []bool{false, true} {
		bubble(t, Options{}, func(t *testing.T, s *Server, p *peer) {
			running, leave := make(chan struct{}), make(chan struct{})
			commands.byName["wait"] = &command{name: "wait", full: "wait", arity: 1, run: func(c *conn, _ [][]byte) {
				close(running)
				<-leave
				c.ok()
			}}
			defer delete(commands.byName, "wait")
			time.Sleep(3 * restful)
			if busy {
				p.send("WAIT\r\n")
				<-running
			}
			begin := time.Now()
			stopped := make(chan error, 1)
			go func() { stopped <- s.Shutdown(context.Background()) }()
			synctest.Wait()
			close(leave)
			if busy {
				p.want("+OK\r\n")
			}
			p.wantEnd()
			if err := <-stopped; err != nil || time.Since(begin) != 0 {
				t.Errorf("busy %t: %v after %v", busy, err, time.Since(begin))
			}
		})
	}
}

// TestKilledClientIsNoneThoughItStillRuns: a command that is under way in it goes on.
func TestKilledClientIsNoneThoughItStillRuns(t *testing.T) {
	_, addr := start(t, Options{})
	running, leave := make(chan struct{}), make(chan struct{})
	commands.byName["wait"] = &command{name: "wait", full: "wait", arity: 1, run: func(*conn, [][]byte) {
		close(running)
		<-leave
	}}
	defer delete(commands.byName, "wait")
	defer close(leave)
	killer, victim := dial(t, addr), dial(t, addr)
	victim.send("WAIT\r\n")
	<-running
	killer.ask("CLIENT KILL TYPE normal", ":1\r\n")
	victim.wantEnd()
	killer.ask("CLIENT KILL TYPE normal", ":0\r\n")
	killer.send("CLIENT LIST\r\n")
	if list, err := killer.replies.Decode(); err != nil || strings.Count(list.Text, "\n") != 1 {
		t.Errorf("%s, %v", list, err)
	}
}

// TestShutdownEndsWithItsContext: a command that does not end does not keep Shutdown.
func TestShutdownEndsWithItsContext(t *testing.T) {
	s, addr := start(t, Options{})
	running, leave := make(chan struct{}), make(chan struct{})
	commands.byName["wait"] = &command{name: "wait", full: "wait", arity: 1, run: func(*conn, [][]byte) {
		close(running)
		<-leave
	}}
	defer delete(commands.byName, "wait")
	p := dial(t, addr)
	p.send("WAIT\r\n")
	<-running
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no time left")
	cancel(why)
	if err := s.Shutdown(ctx); err != why {
		t.Errorf("%v", err)
	}
	p.wantEnd()
	close(leave)
}

// flaky fails once, as a process without file descriptors does, and then for good.
type flaky struct {
	net.Listener
	errors []error
}

func (f *flaky) Accept() (net.Conn, error) {
	err := f.errors[0]
	f.errors = f.errors[1:]
	return nil, err
}

func TestAcceptingIsTriedAgain(t *testing.T) {
	s, err := New(Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	f := &flaky{listener, []error{syscall.EMFILE, syscall.EMFILE, gone}}
	if err := s.Serve(f); !errors.Is(err, gone) || len(f.errors) != 0 {
		t.Errorf("%v with %d errors left", err, len(f.errors))
	}
}

// bubble has a connection, without a network, in a bubble of fake time.
func bubble(t *testing.T, options Options, f func(t *testing.T, s *Server, p *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := New(options)
		if err != nil {
			t.Fatal(err)
		}
		theirs, ours := net.Pipe()
		s.accept(ours)
		p := &peer{theirs, t, resp.NewDecoder(theirs, resp.DecodeLimits{})}
		f(t, s, p)
		p.Close()
		s.under.Wait()
	})
}

// lasts tells how long it takes until the server closes the connection.
func (p *peer) lasts() time.Duration {
	begin := time.Now()
	p.wantEnd()
	return time.Since(begin)
}

func TestIdleConnectionsEnd(t *testing.T) {
	bubble(t, Options{IdleTimeout: time.Hour}, func(t *testing.T, s *Server, p *peer) {
		for range 3 {
			time.Sleep(50 * time.Minute)
			p.ask("PING", "+PONG\r\n")
		}
		if got := p.lasts(); got != time.Hour {
			t.Errorf("an idle connection lasted %v", got)
		}
	})
	bubble(t, Options{}, func(t *testing.T, s *Server, p *peer) {
		time.Sleep(1000 * time.Hour)
		p.ask("PING", "+PONG\r\n")
	})
}

// TestIdleConnectionsGiveTheirBuffersBack, and are there again when something comes.
func TestIdleConnectionsGiveTheirBuffersBack(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *Server, p *peer) {
		big := strings.Repeat("x", 100_000)
		go p.send("ECHO " + big[:60_000] + "\r\n")
		p.want(fmt.Sprintf("$60000\r\n%s\r\n", big[:60_000]))
		c := s.clients()[0]
		for range 2 {
			time.Sleep(2 * restful)
			synctest.Wait()
			if n := c.r.Memory() + cap(c.w.Bytes()); n > 3<<10 {
				t.Errorf("an idle connection has %d bytes", n)
			}
			p.ask("PING", "+PONG\r\n")
		}
	})
}

// TestByteAtATimeEnds: neither bytes of a request nor empty lines make a connection last.
func TestByteAtATimeEnds(t *testing.T) {
	for _, c := range []struct {
		piece string
		least time.Duration
	}{{"P", 5 * time.Minute}, {"\r\n", time.Hour}} {
		bubble(t, Options{IdleTimeout: time.Hour}, func(t *testing.T, s *Server, p *peer) {
			p.ask("PING", "+PONG\r\n")
			begin := time.Now()
			for {
				if _, err := io.WriteString(p, c.piece); err != nil {
					break
				}
				time.Sleep(time.Second)
			}
			if got := time.Since(begin); got < c.least || got > c.least+2*time.Second {
				t.Errorf("%q a second: it lasted %v", c.piece, got)
			}
		})
	}
}

// TestStrangersEnd: who does not say who it is has a minute, after RESET too.
func TestStrangersEnd(t *testing.T) {
	bubble(t, withPassword(), func(t *testing.T, s *Server, p *peer) {
		time.Sleep(30 * time.Second)
		p.ask("PING", "-NOAUTH Authentication required.\r\n")
		if got := p.lasts(); got != 30*time.Second {
			t.Errorf("a stranger lasted %v more", got)
		}
	})
	bubble(t, withPassword(), func(t *testing.T, s *Server, p *peer) {
		p.ask("AUTH secret", "+OK\r\n")
		time.Sleep(time.Hour)
		p.ask("RESET", "+RESET\r\n")
		if got := p.lasts(); got != time.Minute {
			t.Errorf("after RESET it lasted %v", got)
		}
	})
}

// TestPeerThatNeverReadsEnds, and holds no more than the replies that were to be sent.
func TestPeerThatNeverReadsEnds(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *Server, p *peer) {
		begin := time.Now()
		request := "ECHO " + strings.Repeat("x", 60_000) + "\r\n"
		sent := 0
		for ; ; sent++ {
			if _, err := io.WriteString(p, request); err != nil {
				break
			}
		}
		if got := time.Since(begin); got < DefaultWriteTimeout/2 || got > DefaultWriteTimeout {
			t.Errorf("it lasted %v", got)
		}
		if sent > 3 {
			t.Errorf("%d requests were read while nobody read the replies", sent)
		}
	})
}

// TestPeersThatMisbehaveStopNobody: many of each kind, and a client beside them that is
// answered.
func TestPeersThatMisbehaveStopNobody(t *testing.T) {
	_, addr := start(t, Options{})
	pipeline := bytes.Repeat(resp.AppendRequest(nil, "ECHO", strings.Repeat("x", 10_000)), 1000)
	for i := range 20 {
		never := dial(t, addr)
		go func() { _, _ = never.Write(pipeline) }() // and never reads
		dial(t, addr).send("*1048576\r\n$536870912\r\nabc")
		dial(t, addr).send("PI")
		dial(t, addr).send(strings.Repeat("x", 1000*i))
		garbage := dial(t, addr)
		garbage.send("*1\r\n$x\r\n")
		garbage.want("-ERR Protocol error: invalid bulk length\r\n")
	}
	p := dial(t, addr)
	for range 100 {
		p.ask("PING", "+PONG\r\n")
	}
}

// TestHalfClosedPeerIsAnswered: what it sent before it closed its half.
func TestHalfClosedPeerIsAnswered(t *testing.T) {
	_, addr := start(t, Options{})
	p := dial(t, addr)
	p.send("PING\r\nECHO a\r\nPI")
	if err := p.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.want("+PONG\r\n")
	p.want("$1\r\na\r\n")
	p.wantEnd()
}

// TestLastReplyArrivesThoughMoreHadCome: a connection that is closed while something unread
// has come is reset, unless one waits for the peer to understand.
func TestLastReplyArrivesThoughMoreHadCome(t *testing.T) {
	_, addr := start(t, Options{})
	p := dial(t, addr)
	more := strings.Repeat("x", 100_000)
	go func() { _, _ = io.WriteString(p, "*1\r\n$x\r\n"+more) }()
	p.want("-ERR Protocol error: invalid bulk length\r\n")
	p.wantEnd()
}

func TestWrongOptionsAreNamed(t *testing.T) {
	for name, o := range map[string]Options{
		"MaxClients": {MaxClients: -1}, "IdleTimeout": {IdleTimeout: -1}, "AuthTimeout": {AuthTimeout: -1}, "RequestTimeout": {RequestTimeout: -1}, "WriteTimeout": {WriteTimeout: -1},
		"OutputLimit": {OutputLimit: -1}, "InvalidationTimeout": {InvalidationTimeout: -1}, "TrackedKeys": {TrackedKeys: -1},
		"Limits.MaxArgs": {Limits: resp.Limits{MaxArgs: -1}}, "Limits.MaxBulk": {Limits: resp.Limits{MaxBulk: -1}}, "Limits.MaxRequest": {Limits: resp.Limits{MaxRequest: -1}},
		"Limits.UnauthenticatedArgs": {Limits: resp.Limits{UnauthenticatedArgs: -1}}, "Limits.UnauthenticatedBulk": {Limits: resp.Limits{UnauthenticatedBulk: -1}},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "Options."+name+" is -1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
