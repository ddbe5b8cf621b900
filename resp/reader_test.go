package resp

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"weak"
)

// requests reads all requests of src. The arguments are copies.
func requests(r *Reader) (all [][]string, err error) {
	for {
		for {
			args, err := r.Next()
			if err != nil {
				return all, err
			}
			if args == nil {
				break
			}
			all = append(all, words(args))
		}
		if err := r.Fill(); err != nil {
			return all, err
		}
	}
}

func words(args [][]byte) []string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = string(arg)
	}
	return words
}

func authenticated(src io.Reader, limits Limits) *Reader {
	r := NewReader(src, limits)
	r.SetAuthenticated(true)
	return r
}

func same(a, b [][]string) bool { return slices.EqualFunc(a, b, slices.Equal) }

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     [][]string
		err      error
	}{
		{"nothing", "", nil, io.EOF},
		{"a request", "*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n", [][]string{{"ECHO", "\r\n"}}, io.EOF},
		{"an empty argument", "*1\r\n$0\r\n\r\n", [][]string{{""}}, io.EOF},
		{"requests without arguments", "*0\r\n*-1\r\n\r\n \t\r\n\nPING\n", [][]string{{"PING"}}, io.EOF},
		{"both forms", "a b\r\n*1\r\n$1\r\nc\r\nd\n", [][]string{{"a", "b"}, {"c"}, {"d"}}, io.EOF},
		{"the end in a header", "*1\r", nil, io.ErrUnexpectedEOF},
		{"the end in an argument", "*1\r\n$3\r\nab", nil, io.ErrUnexpectedEOF},
		{"the end in a line", "ab", nil, io.ErrUnexpectedEOF},
		{"quotes", `"a b" 'c d' e"f" "\x41\x4g\n\"" '\n\''` + "\n", [][]string{{"a b", "c d", "ef", "A" + "x4g\n\"", `\n'`}}, io.EOF},
		{"NUL by its number", `"\x00"` + "\n", [][]string{{"\x00"}}, io.EOF},
		{"a word with control characters", "a\vb\f \v c\n", [][]string{{"a\vb\f", "c"}}, io.EOF},
		{"CR in a line", "a\rb\r\r\n", [][]string{{"a", "b"}}, io.EOF},
		{"NUL in a line", "\x16\x03\x01\x02\x00", nil, errors.New("Protocol error: NUL byte in inline request")},
		{"no kind", "*1\r\n\x00\r\n", nil, errors.New("Protocol error: expected '$', got '\x00'")},
		{"the length of the usual library's panic", "*1\r\n$9223372036854775807\r\nabc", nil, errors.New("Protocol error: invalid bulk length")},
		{"more arguments than there may be", "*1048577\r\n", nil, errors.New("Protocol error: invalid multibulk length")},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, src := range []io.Reader{
				strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in)), iotest.DataErrReader(strings.NewReader(c.in)),
			} {
				got, err := requests(authenticated(src, Limits{}))
				if !same(got, c.want) || err.Error() != c.err.Error() {
					t.Errorf("%q, %v; want %q, %v", got, err, c.want, c.err)
				}
			}
		})
	}
}

func TestLimits(t *testing.T) {
	limits := Limits{MaxArgs: 3, MaxBulk: 5, MaxRequest: 36, UnauthenticatedArgs: 2, UnauthenticatedBulk: 4}
	for _, c := range []struct {
		in, open, shut string // what is wrong
	}{
		{"*2\r\n$4\r\nabcd\r\n$0\r\n\r\n", "", ""},
		{"*3\r\n$1\r\na\r\n$0\r\n\r\n$0\r\n\r\n", "", "unauthenticated multibulk length"},
		{"*4\r\n", "invalid multibulk length", "invalid multibulk length"},
		{"*1\r\n$5\r\nabcde\r\n", "", "unauthenticated bulk length"},
		{"*1\r\n$6\r\n", "invalid bulk length", "invalid bulk length"},
		{"*3\r\n$5\r\nabcde\r\n$5\r\nabcde\r\n$5\r\nabcde\r\n", "too big request", "unauthenticated multibulk length"},
		{"*3\r\n$5\r\nabcde\r\n$5\r\nabcde\r\n$5\r\nab\r\n", "too big request", "unauthenticated multibulk length"},
		{"*1\r\n$" + strings.Repeat("0", 40), "too big request", "too big request"},
		{strings.Repeat("a", MaxLine) + "\n", "", ""},
		{strings.Repeat("a", MaxLine+1), "too big inline request", "too big inline request"},
		{strings.Repeat("a", MaxLine+1) + "\n", "too big inline request", "too big inline request"},
		{"*" + strings.Repeat("1", MaxLine), "too big mbulk count string", "too big mbulk count string"},
		{"*" + strings.Repeat("1", MaxLine) + "\r\n", "too big mbulk count string", "too big mbulk count string"},
	} {
		for _, open := range []bool{true, false} {
			want := c.shut
			if open {
				want = c.open
			}
			r := NewReader(strings.NewReader(c.in), limits)
			r.SetAuthenticated(open)
			_, err := requests(r)
			got := ""
			if pe := (*ProtocolError)(nil); errors.As(err, &pe) {
				got = pe.Reason
			}
			if got != want {
				t.Errorf("%.60q, authenticated %t: %q, want %q", c.in, open, got, want)
			}
		}
	}
}

// TestPipelineMayBeginWithAuth: the limits of the second request are those after the first.
func TestPipelineMayBeginWithAuth(t *testing.T) {
	big := strings.Repeat("v", DefaultUnauthenticatedBulk+1)
	r := NewReader(bytes.NewReader(AppendRequest(AppendRequest(nil, "AUTH", "secret"), "SET", "k", big)), Limits{})
	for {
		if args, err := r.Next(); err != nil {
			t.Fatal(err)
		} else if args != nil {
			break
		}
		if err := r.Fill(); err != nil {
			t.Fatal(err)
		}
	}
	r.SetAuthenticated(true)
	got, err := requests(r)
	if len(got) != 1 || got[0][2] != big || err != io.EOF {
		t.Errorf("%d requests, %v", len(got), err)
	}
}

// TestArgumentsStayUntilTheNextFill: all requests of a pipeline can be looked at together,
// and changed without harm to each other.
func TestArgumentsStayUntilTheNextFill(t *testing.T) {
	var in []byte
	var want [][]string
	for i := range 200 {
		request := []string{"SET", strings.Repeat("k", i%7), strings.Repeat("v", i%11)}
		in, want = AppendRequest(in, request...), append(want, request)
	}
	r := authenticated(bytes.NewReader(in), Limits{})
	var got [][][]byte
	for fills := 0; len(got) < len(want); fills++ {
		if err := r.Fill(); err != nil {
			t.Fatal(err)
		}
		from := len(got)
		for {
			args, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if args == nil {
				break
			}
			got = append(got, args)
		}
		for i := from; i < len(got); i++ {
			if g := words(got[i]); !slices.Equal(g, want[i]) {
				t.Fatalf("request %d is %q, want %q", i, g, want[i])
			}
			_ = append(got[i], []byte("one more"))
			for j := range got[i] {
				_ = append(got[i][j], "written where the next argument is"...)
			}
		}
	}
}

// TestWhatIsAnnouncedAllocatesNothing: memory follows what has come, not what a length says.
func TestWhatIsAnnouncedAllocatesNothing(t *testing.T) {
	for _, in := range []string{
		"*1048576\r\n", "*1\r\n$536870912\r\n", "*1\r\n$536870912\r\n" + strings.Repeat("a", 100_000),
		"*1048576\r\n" + strings.Repeat("$0\r\n\r\n", 5000),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := requests(authenticated(iotest.HalfReader(strings.NewReader(in)), Limits{}))
		runtime.ReadMemStats(&after)
		// A buffer that doubles comes to four times its contents, and arguments have spans.
		if got := int(after.TotalAlloc - before.TotalAlloc); err != io.ErrUnexpectedEOF || got > 8*len(in)+2*fullBuffer+500_000 {
			t.Errorf("%.30q, %d bytes: %v, %d allocated", in, len(in), err, got)
		}
	}
}

// TestBigBuffersAreGivenBack: neither a large request nor a pipeline is remembered by an
// idle connection.
func TestBigBuffersAreGivenBack(t *testing.T) {
	in := AppendRequest(nil, "SET", "k", strings.Repeat("v", 4<<20))
	in = append(in, "PING\r\n"...)
	r := authenticated(bytes.NewReader(in), Limits{})
	if got, err := requests(r); len(got) != 2 || err != io.EOF {
		t.Fatalf("%d requests, %v", len(got), err)
	}
	if len(r.buf) > fullBuffer {
		t.Errorf("after a large request the buffer has %d bytes", len(r.buf))
	}
	r.Shrink()
	if len(r.buf) != 0 || r.args != nil {
		t.Errorf("%d bytes and %d arguments are kept", len(r.buf), cap(r.args))
	}
	r.src = strings.NewReader("PING\r\nPI")
	if got, err := requests(r); len(got) != 1 || err != io.ErrUnexpectedEOF {
		t.Errorf("%q, %v", got, err)
	}
	r.Shrink()
	r.src = strings.NewReader("NG\r\n")
	if got, err := requests(r); !same(got, [][]string{{"PING"}}) || err != io.EOF {
		t.Errorf("the rest of a request after Shrink: %q, %v", got, err)
	}
}

// TestBigBuffersAreNotKeptByOldArguments: where arguments were is used again, and must not
// point to a buffer that is gone.
func TestBigBuffersAreNotKeptByOldArguments(t *testing.T) {
	in := AppendRequest(nil, "SET", "k", strings.Repeat("v", 4<<20))
	r := authenticated(bytes.NewReader(append(in, "PING\r\n"...)), Limits{})
	var big weak.Pointer[byte]
	for big == (weak.Pointer[byte]{}) {
		if err := r.Fill(); err != nil {
			t.Fatal(err)
		}
		if args, err := r.Next(); err != nil {
			t.Fatal(err)
		} else if args != nil {
			big = weak.Make(&args[2][0])
		}
	}
	if _, err := requests(r); err != io.EOF {
		t.Fatal(err)
	}
	runtime.GC()
	if big.Value() != nil {
		t.Error("the buffer of a large request is still there")
	}
	runtime.KeepAlive(r)
}

// TestTimeOutIsNotTheEnd: what came before it is still there.
func TestTimeOutIsNotTheEnd(t *testing.T) {
	r := authenticated(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("PING\r\n"))), Limits{})
	if got, err := requests(r); got != nil || err != iotest.ErrTimeout {
		t.Fatalf("%q, %v", got, err)
	}
	if r.Buffered() != 1 {
		t.Errorf("%d bytes are buffered", r.Buffered())
	}
	if got, err := requests(r); !same(got, [][]string{{"PING"}}) || err != io.EOF {
		t.Errorf("%q, %v", got, err)
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	var in []byte
	for range 64 {
		in = AppendRequest(in, "SET", "key:000000000001", strings.Repeat("v", 256))
		in = append(in, "GET 'key'\r\n"...)
	}
	src := bytes.NewReader(in)
	r := authenticated(src, Limits{})
	round := func() {
		src.Reset(in)
		if err := drain(r); err != io.EOF {
			t.Fatal(err)
		}
	}
	for range 10 {
		round()
	}
	if n := testing.AllocsPerRun(20, round); n != 0 {
		t.Errorf("%v allocations in a round", n)
	}
}

func drain(r *Reader) error {
	for {
		for {
			args, err := r.Next()
			if err != nil {
				return err
			}
			if args == nil {
				break
			}
		}
		if err := r.Fill(); err != nil {
			return err
		}
	}
}

// pieces gives what it has in pieces of random length.
type pieces struct {
	rest []byte
	rnd  *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:1+p.rnd.IntN(min(len(p.rest), 1+p.rnd.IntN(100)))])
	p.rest = p.rest[n:]
	return n, nil
}

// FuzzReader: whatever comes, and in whatever pieces, the requests are the same, memory is
// bounded, and what was read can be written and read again.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n", "*1\r\n$9223372036854775807\r\nabc", "PING 'a b' \"\\x41\"\r\n\r\n*0\r\n", "*-1\r\n*3\r\n$1\rX",
		"*1\r\n$-1\r\n", "*11\r\n", "*2\r\n$0\r\n\r\n$70\r\n", "\x16\x03\x01\x02\x00", "*1\r\n:1\r\n", "\"", "'a'b\n",
		"*4\r\n$20\r\naaaaaaaaaaaaaaaaaaaa\r\n$20\r\nbbbbbbbbbbbbbbbbbbbb\r\n$20\r\ncccccccccccccccccccc\r\n$20\r\ndddddddddddddddddddd\r\n",
	} {
		f.Add([]byte(seed), uint64(len(seed)), true)
		f.Add([]byte(seed), uint64(len(seed)), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, open bool) {
		limits := Limits{MaxArgs: 20, MaxBulk: 1000, MaxRequest: 2000, UnauthenticatedArgs: 4, UnauthenticatedBulk: 50}
		read := func(src io.Reader) ([][]string, string, *Reader) {
			r := NewReader(src, limits)
			r.SetAuthenticated(open)
			all, err := requests(r)
			return all, err.Error(), r
		}
		whole, wholeErr, _ := read(bytes.NewReader(in))
		parts, partsErr, r := read(&pieces{bytes.Clone(in), rand.New(rand.NewPCG(seed, 0))})
		if !same(whole, parts) || wholeErr != partsErr {
			t.Fatalf("as a whole:  %q, %s\nin pieces:   %q, %s", whole, wholeErr, parts, partsErr)
		}
		if len(in) <= fullBuffer && len(r.buf) > 2*fullBuffer || cap(r.args) > keptArgs {
			t.Fatalf("%d bytes and %d arguments are held", len(r.buf), cap(r.args))
		}
		var again []byte
		for _, request := range whole {
			if len(request) == 0 {
				t.Fatal("a request without arguments")
			}
			again = AppendRequest(again, request...)
		}
		limits = Limits{}
		open = true
		if got, err, _ := read(bytes.NewReader(again)); !same(got, whole) || err != "EOF" {
			t.Fatalf("%q, written and read again: %q, %s", whole, got, err)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	for _, c := range []struct {
		name string
		in   []byte
		n    int
	}{
		{"GET", AppendRequest(nil, "GET", "key:000000000001"), 1},
		{"SET256", AppendRequest(nil, "SET", "key:000000000001", strings.Repeat("v", 256)), 1},
		{"GETx16", bytes.Repeat(AppendRequest(nil, "GET", "key:000000000001"), 16), 16},
		{"inline", []byte("GET key:000000000001\r\n"), 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			src := bytes.NewReader(c.in)
			r := authenticated(src, Limits{})
			b.ReportAllocs()
			b.SetBytes(int64(len(c.in) / c.n))
			for i := 0; i < b.N; i += c.n {
				src.Reset(c.in)
				if err := drain(r); err != io.EOF {
					b.Fatal(err)
				}
			}
		})
	}
}
