package server

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// canned is a connection on which everything has come already, in pieces.
type canned struct {
	in    []byte
	piece int
	out   bytes.Buffer
}

func (c *canned) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.in[:min(len(c.in), c.piece)])
	c.in = c.in[n:]
	return n, nil
}

func (c *canned) Write(b []byte) (int, error)      { return c.out.Write(b) }
func (c *canned) Close() error                     { return nil }
func (c *canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// panics fails the test when a panic is logged.
type panics struct{ t *testing.T }

func (p panics) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "panic") {
		p.t.Errorf("%s", b)
	}
	return len(b), nil
}

// FuzzConnection: whatever comes, no command panics, every reply is one, and the pieces in
// which it comes make no difference.
func FuzzConnection(f *testing.F) {
	for _, script := range slices.Concat(scripts, pubsubScripts, trackingScripts) {
		f.Add([]byte(strings.ReplaceAll(script, "; ", "\r\n")+"\r\n"), 3, true)
		f.Add([]byte(strings.ReplaceAll(script, "; ", "\r\n")+"\r\n"), 1000, false)
	}
	f.Fuzz(func(t *testing.T, in []byte, piece int, password bool) {
		options := Options{Logger: slog.New(slog.NewTextHandler(panics{t}, nil)), Limits: resp.Limits{MaxArgs: 1000, MaxBulk: 1000, MaxRequest: 5000}}
		if password {
			options.Users = withPassword().Users
		}
		answers := func(piece int) string {
			s, err := New(options)
			if err != nil {
				t.Fatal(err)
			}
			c := &canned{in: bytes.Clone(in), piece: piece}
			s.accept(c)
			s.under.Wait()
			return c.out.String()
		}
		whole := answers(len(in) + 1)
		d := resp.NewDecoder(strings.NewReader(whole), resp.DecodeLimits{})
		clock := false
		for {
			v, err := d.Decode()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%q is answered with %q: %v", in, whole, err)
			}
			// The time, and what CLIENT LIST says of what has come and not been read.
			clock = clock || v.Kind == resp.Array && len(v.Elems) == 2 || strings.Contains(v.Text, "id=")
		}
		if parts := answers(max(piece, 1)); parts != whole && !clock && !bytes.Contains(bytes.ToLower(in), []byte("post")) && !bytes.Contains(bytes.ToLower(in), []byte("host:")) {
			t.Fatalf("%q is answered with %q, and in pieces of %d with %q", in, whole, piece, parts)
		}
	})
}

// TestCommandsAllocateNothing, once the buffers are there.
func TestCommandsAllocateNothing(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(s, &canned{})
	requests := [][][]byte{{[]byte("PING")}, {[]byte("echo"), []byte("a")}, {[]byte("CLIENT"), []byte("id")}, {[]byte("SELECT"), []byte("0")}}
	run := func() {
		for _, request := range requests {
			c.do(request)
		}
		c.w.Reset(keptOutput)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPing(b *testing.B) {
	s, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	c := newConn(s, &canned{})
	request := [][]byte{[]byte("PING")}
	b.ReportAllocs()
	for range b.N {
		if c.do(request); c.w.Len() > keptOutput/2 {
			c.w.Reset(keptOutput)
		}
	}
}

// BenchmarkIdleConnection tells how much memory one takes that has been used, and is idle:
// its heap and its goroutine's stack, without what the kernel and the peer have.
func BenchmarkIdleConnection(b *testing.B) {
	s, err := New(Options{MaxClients: b.N})
	if err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peers := make([]net.Conn, b.N)
	for i := range peers {
		var ours net.Conn
		peers[i], ours = net.Pipe()
		s.accept(ours)
		if _, err := io.WriteString(peers[i], "PING\r\n"); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(peers[i], make([]byte, len("+PONG\r\n"))); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/float64(b.N), "B/connection")
	for _, p := range peers {
		p.Close()
	}
	s.under.Wait()
}

// BenchmarkPipeline is 16 GETs that come together, with all that a connection does for
// them but the network.
func BenchmarkPipeline(b *testing.B) {
	s, err := New(Options{Store: openStore(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Shutdown(b.Context())
	pipe := bytes.Repeat([]byte("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"), 16)
	c := newConn(s, &repeated{pipe: pipe, left: b.N})
	c.do([][]byte{[]byte("SET"), []byte("key"), bytes.Repeat([]byte("x"), 256)})
	b.ReportAllocs()
	b.ResetTimer()
	c.run()
}

// repeated is a connection on which the same comes again and again.
type repeated struct {
	canned
	pipe []byte
	left int
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	r.left--
	return copy(b, r.pipe), nil
}

func (r *repeated) Write(b []byte) (int, error) { return len(b), nil }
