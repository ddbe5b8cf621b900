package resp

import "bytes"

// Version is a version of the protocol, as HELLO numbers them.
type Version int

// The versions that there are. What is not RESP3 is taken for RESP2.
const (
	RESP2 Version = 2
	RESP3 Version = 3
)

// Writer builds replies in memory, each appended to those before it. It is for one
// goroutine, and its zero value is an empty one that speaks RESP2. It does no I/O, has no
// errors, and allocates only to grow.
//
// What RESP2 has no type for is written as Redis writes it there:
//
//	               RESP3              RESP2
//	Null           _                  the null bulk string, $-1
//	NullArray      _                  the null array, *-1
//	Map(n)         % of n pairs       array of 2n
//	Set(n)         ~                  array
//	Push(n)        >                  array
//	Double         ,                  bulk string
//	Bool           #                  integer, 1 or 0
//	BigNumber      (                  bulk string
//	Verbatim       =                  bulk string, without the format
//	Attribute(n)   | of n pairs       refused: Attribute returns false
//
// The elements of arrays, maps, sets, pushes and attributes are written after them; that
// they are as many as was said is the caller's business.
type Writer struct {
	buf     []byte
	version Version
}

// SetVersion sets the version of what is written from now on.
func (w *Writer) SetVersion(v Version) { w.version = v }

// Version returns RESP2 or RESP3.
func (w *Writer) Version() Version {
	if w.version == RESP3 {
		return RESP3
	}
	return RESP2
}

// Bytes returns what has been written, which is the writer's own and valid until the next
// call that changes it.
func (w *Writer) Bytes() []byte { return w.buf }

// Len returns how many bytes have been written.
func (w *Writer) Len() int { return len(w.buf) }

// Truncate takes back all but the first n bytes, to which Len was before. It panics if
// there are not as many.
func (w *Writer) Truncate(n int) { w.buf = w.buf[:n] }

// Reset empties the writer, which keeps its memory unless that is more than keep bytes.
// The version stays.
func (w *Writer) Reset(keep int) {
	if cap(w.buf) > keep {
		w.buf = nil
	}
	w.buf = w.buf[:0]
}

// Raw appends replies that have been built already, in the version that is spoken.
func (w *Writer) Raw(replies []byte) { w.buf = append(w.buf, replies...) }

// SimpleString writes a text without CR and LF; they become spaces.
func (w *Writer) SimpleString(text string) { w.simple('+', text) }

// Error writes an error, its code first: "ERR syntax error". CR and LF, which text of the
// peer's may have brought into it, become spaces, except at its end, where they are left
// out.
func (w *Writer) Error(text string) {
	for len(text) > 0 && (text[len(text)-1] == '\r' || text[len(text)-1] == '\n') {
		text = text[:len(text)-1]
	}
	w.simple('-', text)
}

func (w *Writer) simple(kind byte, text string) {
	w.buf = append(w.buf, kind)
	from := len(w.buf)
	w.buf = append(w.buf, text...)
	line := w.buf[from:]
	for _, end := range []byte{'\r', '\n'} {
		for i := bytes.IndexByte(line, end); i >= 0; i = bytes.IndexByte(line, end) {
			line[i] = ' '
		}
	}
	w.buf = append(w.buf, '\r', '\n')
}

// Integer writes an integer.
func (w *Writer) Integer(n int64) { w.buf = appendLine(w.buf, ':', n) }

// Bulk writes a string of any bytes; a nil slice is an empty one.
func (w *Writer) Bulk(b []byte) { w.buf = appendBulk(w.buf, '$', b) }

// BulkString is Bulk for a string.
func (w *Writer) BulkString(s string) { w.buf = appendBulk(w.buf, '$', s) }

// Null says that there is no value, where there would be a string or a number.
func (w *Writer) Null() { w.null("$-1\r\n") }

// NullArray says that there is none where there would be an array.
func (w *Writer) NullArray() { w.null("*-1\r\n") }

func (w *Writer) null(resp2 string) {
	if w.version == RESP3 {
		resp2 = "_\r\n"
	}
	w.buf = append(w.buf, resp2...)
}

// Array begins an array of n elements.
func (w *Writer) Array(n int) { w.buf = appendLine(w.buf, '*', int64(n)) }

// Map begins a map of n pairs, each a key and a value.
func (w *Writer) Map(n int) {
	if w.version != RESP3 {
		w.Array(2 * n)
		return
	}
	w.buf = appendLine(w.buf, '%', int64(n))
}

// Set begins a set of n elements.
func (w *Writer) Set(n int) { w.list('~', n) }

// Push begins a message of n elements that answers nothing. The first is its kind.
func (w *Writer) Push(n int) { w.list('>', n) }

func (w *Writer) list(kind byte, n int) {
	if w.version != RESP3 {
		kind = '*'
	}
	w.buf = appendLine(w.buf, kind, int64(n))
}

// Attribute begins n pairs that say something about the reply that follows them. RESP2 has
// no place for them: nothing is written, false is returned, and they must be left out.
func (w *Writer) Attribute(n int) bool {
	if w.version != RESP3 {
		return false
	}
	w.buf = appendLine(w.buf, '|', int64(n))
	return true
}

// Double writes a number with 17 significant digits, as Redis 7.0 does.
func (w *Writer) Double(f float64) {
	if w.version != RESP3 {
		var text [32]byte
		w.Bulk(appendDouble(text[:0], f))
		return
	}
	w.buf = append(appendDouble(append(w.buf, ','), f), '\r', '\n')
}

// Bool writes a truth value.
func (w *Writer) Bool(b bool) {
	switch {
	case w.version != RESP3 && b:
		w.Integer(1)
	case w.version != RESP3:
		w.Integer(0)
	case b:
		w.buf = append(w.buf, "#t\r\n"...)
	default:
		w.buf = append(w.buf, "#f\r\n"...)
	}
}

// BigNumber writes an integer of any size, in decimal digits.
func (w *Writer) BigNumber(digits string) {
	if w.version != RESP3 {
		w.BulkString(digits)
		return
	}
	w.simple('(', digits)
}

// Verbatim writes a text that is meant for people. The format is three bytes: "txt", "mkd".
func (w *Writer) Verbatim(format [3]byte, text string) {
	if w.version != RESP3 {
		w.BulkString(text)
		return
	}
	w.buf = appendLine(w.buf, '=', int64(len(text)+4))
	w.buf = append(append(append(w.buf, format[:]...), ':'), text...)
	w.buf = append(w.buf, '\r', '\n')
}
