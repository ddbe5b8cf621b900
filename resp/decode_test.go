package resp

import (
	"bytes"
	"errors"
	"io"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDecode(t *testing.T) {
	text := func(kind Kind, text string) Value { return Value{Kind: kind, Text: text} }
	for _, c := range []struct {
		in   string
		want Value
	}{
		{"+OK\r\n", text(SimpleString, "OK")},
		{"+\r\n", text(SimpleString, "")},
		{"-ERR no\r\n", text(Error, "ERR no")},
		{":-5\r\n", text(Integer, "-5")},
		{"$3\r\na\r\n\r\n", text(BulkString, "a\r\n")},
		{"$-1\r\n", Value{Kind: BulkString, Absent: true}},
		{"*-1\r\n", Value{Kind: Array, Absent: true}},
		{"*0\r\n", Value{Kind: Array, Elems: []Value{}}},
		{"_\r\n", text(Null, "")},
		{",-1.5e+20\r\n", text(Double, "-1.5e+20")},
		{",nan\r\n", text(Double, "nan")},
		{"#t\r\n", text(Bool, "t")},
		{"(-123456789012345678901234567890\r\n", text(BigNumber, "-123456789012345678901234567890")},
		{"!3\r\nE a\r\n", text(BulkError, "E a")},
		{"=5\r\ntxt:a\r\n", text(VerbatimString, "txt:a")},
		{"%1\r\n+a\r\n:1\r\n", Value{Kind: Map, Elems: []Value{text(SimpleString, "a"), text(Integer, "1")}}},
		{"~1\r\n*1\r\n_\r\n", Value{Kind: Set, Elems: []Value{{Kind: Array, Elems: []Value{text(Null, "")}}}}},
		{">1\r\n+a\r\n", Value{Kind: Push, Elems: []Value{text(SimpleString, "a")}}},
		{"|1\r\n+a\r\n:1\r\n+OK\r\n", Value{Kind: SimpleString, Text: "OK", HasAttributes: true,
			Attributes: []Value{text(SimpleString, "a"), text(Integer, "1")}}},
	} {
		d := NewDecoder(iotest.OneByteReader(strings.NewReader(c.in+c.in)), DecodeLimits{})
		for range 2 {
			if got, err := d.Decode(); err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q: %#v, %v", c.in, got, err)
			} else if back := string(got.AppendTo(nil)); back != c.in {
				t.Errorf("%q is written back as %q", c.in, back)
			}
		}
		if _, err := d.Decode(); err != io.EOF {
			t.Errorf("after %q: %v", c.in, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"0", 0, true}, {"-1", -1, true}, {"9223372036854775807", math.MaxInt64, true}, {"-9223372036854775808", math.MinInt64, true},
		{"9223372036854775808", 0, false}, {"-9223372036854775809", 0, false}, {"99999999999999999999", 0, false},
		{"", 0, false}, {"-", 0, false}, {"-0", 0, false}, {"01", 0, false}, {"+1", 0, false}, {"1 ", 0, false}, {"1x", 0, false}, {"--1", 0, false},
	} {
		if got, ok := parseInt([]byte(c.in)); ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %d, %t", c.in, got, ok)
		}
	}
	if n, ok := (Value{Kind: Integer, Text: "-7"}).Int(); n != -7 || !ok {
		t.Error(n, ok)
	}
	if _, ok := (Value{Kind: BulkString, Text: "7"}).Int(); ok {
		t.Error("a string is no Integer")
	}
	if f, ok := (Value{Kind: Double, Text: "-inf"}).Float(); !math.IsInf(f, -1) || !ok {
		t.Error(f, ok)
	}
	if _, ok := (Value{Kind: SimpleString, Text: "7"}).Float(); ok {
		t.Error("a string is no Double")
	}
	if !(Value{Kind: Null}).IsNull() || !(Value{Kind: Array, Absent: true}).IsNull() || (Value{Kind: Array}).IsNull() {
		t.Error("nulls are not told")
	}
}

// TestRefusedReplies: each of these is an error, and so is every call after it.
func TestRefusedReplies(t *testing.T) {
	limits := DecodeLimits{MaxDepth: 3, MaxMemory: 1000}
	for _, in := range []string{
		"\r\n", "x\r\n", "+a\n", "+a\rb\r\n", ":\r\n", ":01\r\n", ":1.5\r\n", "_a\r\n", ",\r\n", ",0x1p-2\r\n", ",1_0\r\n", ",Inf\r\n", "#x\r\n",
		"(\r\n", "(-\r\n", "(1x\r\n", "$-2\r\n", "$01\r\n", "!-1\r\n", "=-1\r\n", "=3\r\ntxt\r\n", "$1\r\nabc\r\n", "*-2\r\n", "~-1\r\n", "%-1\r\n",
		"|0\r\n|0\r\n+a\r\n", "|-1\r\n", "$?\r\n", "*?\r\n", ".\r\n",
		"*1\r\n*1\r\n*1\r\n+a\r\n", "$1001\r\n", "$9223372036854775807\r\n", "*9223372036854775807\r\n" + strings.Repeat("_\r\n", 100),
		"%9223372036854775807\r\n" + strings.Repeat("_\r\n", 100), "+" + strings.Repeat("a", 1000) + "\r\n",
	} {
		d := NewDecoder(strings.NewReader(in+"+OK\r\n+OK\r\n"), limits)
		_, err := d.Decode()
		if pe := (*ProtocolError)(nil); !errors.As(err, &pe) {
			t.Errorf("%.40q: %v", in, err)
		}
		if _, again := d.Decode(); again != err {
			t.Errorf("%.40q, and once more: %v", in, again)
		}
	}
	if _, err := NewDecoder(strings.NewReader("+"+strings.Repeat("a", MaxLine+2)+"\r\n"), DecodeLimits{}).Decode(); err == nil {
		t.Error("a line beyond MaxLine was taken")
	}
	if v, err := NewDecoder(strings.NewReader("+"+strings.Repeat("a", MaxLine-1)+"\r\n"), DecodeLimits{}).Decode(); err != nil || len(v.Text) != MaxLine-1 {
		t.Errorf("a long line: %v", err)
	}
	for _, in := range []string{"+a", "$3\r\nab", "*2\r\n+a\r\n", "$1\r\na\r"} {
		if _, err := NewDecoder(strings.NewReader(in), limits).Decode(); err != io.ErrUnexpectedEOF {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// FuzzDecoder: what is accepted is written back byte for byte, and memory is bounded.
func FuzzDecoder(f *testing.F) {
	for _, seed := range []string{
		"+OK\r\n", "-ERR a\r\n", ":-1\r\n", "$-1\r\n", "$2\r\nab\r\n", "*2\r\n*-1\r\n_\r\n", "%1\r\n,1.5\r\n#t\r\n", "~1\r\n(12\r\n", ">1\r\n=5\r\ntxt:a\r\n",
		"|1\r\n+a\r\n+b\r\n!1\r\na\r\n", "*9223372036854775807\r\n", "$9223372036854775807\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const most = 10_000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d := NewDecoder(bytes.NewReader(in), DecodeLimits{MaxDepth: 5, MaxMemory: most})
		v, err := d.Decode()
		runtime.ReadMemStats(&after)
		// Elements double their place, and each depth may be doing so.
		if got := after.TotalAlloc - before.TotalAlloc; got > 20*most {
			t.Errorf("%d bytes were allocated", got)
		}
		if err != nil {
			return
		}
		text := v.AppendTo(nil)
		if !bytes.HasPrefix(in, text) {
			t.Fatalf("%q is written back as %q", in, text)
		}
		again, err := NewDecoder(bytes.NewReader(text), DecodeLimits{MaxDepth: 5, MaxMemory: most}).Decode()
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%q, read again: %v, %v", text, again, err)
		}
	})
}
