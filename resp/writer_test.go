package resp

import (
	"math"
	"strings"
	"testing"
)

func TestReplies(t *testing.T) {
	for _, c := range []struct {
		name         string
		write        func(w *Writer)
		resp2, resp3 string
	}{
		{"simple string", func(w *Writer) { w.SimpleString("OK") }, "+OK\r\n", "+OK\r\n"},
		{"error", func(w *Writer) { w.Error("ERR no") }, "-ERR no\r\n", "-ERR no\r\n"},
		{"error with lines", func(w *Writer) { w.Error("ERR a\r\nb\nc\r\n\n") }, "-ERR a  b c\r\n", "-ERR a  b c\r\n"},
		{"integer", func(w *Writer) { w.Integer(-12); w.Integer(7); w.Integer(math.MinInt64) }, ":-12\r\n:7\r\n:-9223372036854775808\r\n", ":-12\r\n:7\r\n:-9223372036854775808\r\n"},
		{"bulk", func(w *Writer) { w.Bulk([]byte("a\r\n")); w.Bulk(nil); w.BulkString("x") }, "$3\r\na\r\n\r\n$0\r\n\r\n$1\r\nx\r\n", "$3\r\na\r\n\r\n$0\r\n\r\n$1\r\nx\r\n"},
		{"null", (*Writer).Null, "$-1\r\n", "_\r\n"},
		{"null array", (*Writer).NullArray, "*-1\r\n", "_\r\n"},
		{"array", func(w *Writer) { w.Array(10) }, "*10\r\n", "*10\r\n"},
		{"map", func(w *Writer) { w.Map(2) }, "*4\r\n", "%2\r\n"},
		{"set", func(w *Writer) { w.Set(2) }, "*2\r\n", "~2\r\n"},
		{"push", func(w *Writer) { w.Push(3) }, "*3\r\n", ">3\r\n"},
		{"attribute", func(w *Writer) {
			if w.Attribute(1) {
				w.Null()
				w.Null()
			}
		}, "", "|1\r\n_\r\n_\r\n"},
		{"double", func(w *Writer) { w.Double(0.1) }, "$19\r\n0.10000000000000001\r\n", ",0.10000000000000001\r\n"},
		{"infinite", func(w *Writer) { w.Double(math.Inf(-1)) }, "$4\r\n-inf\r\n", ",-inf\r\n"},
		{"bool", func(w *Writer) { w.Bool(true); w.Bool(false) }, ":1\r\n:0\r\n", "#t\r\n#f\r\n"},
		{"big number", func(w *Writer) { w.BigNumber("-123") }, "$4\r\n-123\r\n", "(-123\r\n"},
		{"verbatim", func(w *Writer) { w.Verbatim([3]byte{'t', 'x', 't'}, "a\nb") }, "$3\r\na\nb\r\n", "=7\r\ntxt:a\nb\r\n"},
		{"raw", func(w *Writer) { w.Raw([]byte("+OK\r\n")) }, "+OK\r\n", "+OK\r\n"},
	} {
		var w Writer
		c.write(&w)
		if got := string(w.Bytes()); got != c.resp2 || w.Version() != RESP2 {
			t.Errorf("%s in RESP2: %q, want %q", c.name, got, c.resp2)
		}
		w.Reset(0)
		w.SetVersion(RESP3)
		c.write(&w)
		if got := string(w.Bytes()); got != c.resp3 || w.Version() != RESP3 {
			t.Errorf("%s in RESP3: %q, want %q", c.name, got, c.resp3)
		}
	}
}

func TestWriterTakesBack(t *testing.T) {
	var w Writer
	w.SimpleString("OK")
	n := w.Len()
	w.Array(3)
	w.Truncate(n)
	w.Null()
	if got := string(w.Bytes()); got != "+OK\r\n$-1\r\n" {
		t.Errorf("%q", got)
	}
	w.BulkString(strings.Repeat("a", 1000))
	if w.Reset(2000); cap(w.buf) == 0 {
		t.Error("the memory was not kept")
	}
	if w.Reset(100); cap(w.buf) != 0 || w.Len() != 0 {
		t.Error("the memory was kept")
	}
}

func TestWritingAllocatesNothing(t *testing.T) {
	for _, version := range []Version{RESP2, RESP3} {
		var w Writer
		w.SetVersion(version)
		value := make([]byte, 256)
		write := func() {
			w.Reset(1 << 20)
			for range 16 {
				w.Bulk(value)
				w.Error("ERR no")
				w.Double(1.5)
				w.Null()
				w.Map(2)
				w.Integer(123456)
			}
		}
		write()
		if n := testing.AllocsPerRun(20, write); n != 0 {
			t.Errorf("RESP%d: %v allocations", version, n)
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	value := make([]byte, 256)
	b.ReportAllocs()
	var w Writer
	for i := range b.N {
		w.Bulk(value)
		if i%16 == 15 {
			w.Reset(1 << 20)
		}
	}
}
