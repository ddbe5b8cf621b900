package resp

import (
	"bufio"
	"bytes"
	"io"
	"unsafe"
)

// What DecodeLimits are where they say nothing.
const (
	DefaultMaxDepth  = 32
	DefaultMaxMemory = 1 << 30
)

// DecodeLimits bounds what a [Decoder] takes. Zero means the default.
type DecodeLimits struct {
	// MaxDepth is how deep values may be nested: a string has the depth 1, an array of
	// strings 2.
	MaxDepth int

	// MaxMemory is how many bytes one reply may come to, its text and some 100 for each
	// value in it.
	MaxMemory int
}

// Decoder reads replies, of both versions. It is for one goroutine, for tests and tools:
// each value is allocated.
type Decoder struct {
	src    *bufio.Reader
	limits DecodeLimits
	left   int64 // of MaxMemory
	err    error
}

// NewDecoder returns a decoder of what src says. It reads ahead.
func NewDecoder(src io.Reader, limits DecodeLimits) *Decoder {
	if limits.MaxDepth == 0 {
		limits.MaxDepth = DefaultMaxDepth
	}
	if limits.MaxMemory == 0 {
		limits.MaxMemory = DefaultMaxMemory
	}
	return &Decoder{src: bufio.NewReader(src), limits: limits}
}

// Buffered returns how many bytes have been read from the source and not been decoded.
func (d *Decoder) Buffered() int { return d.src.Buffered() }

// Decode reads one reply. A push is one, of the kind Push, and attributes are part of the
// value that follows them. Errors are the source's, io.EOF only where no reply had begun,
// or a *ProtocolError; after any of them it is not known where the next reply begins, and
// each further call returns it again.
func (d *Decoder) Decode() (Value, error) {
	if d.err != nil {
		return Value{}, d.err
	}
	if _, err := d.src.Peek(1); err != nil {
		d.err = err
		return Value{}, err
	}
	d.left = int64(d.limits.MaxMemory)
	v, err := d.value(1)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		d.err = err
		return Value{}, err
	}
	return v, nil
}

func (d *Decoder) value(depth int) (v Value, err error) {
	if depth > d.limits.MaxDepth {
		return v, protocolError("nested deeper than %d", d.limits.MaxDepth)
	}
	if err := d.spend(int64(unsafe.Sizeof(v))); err != nil {
		return v, err
	}
	for {
		line, err := d.line()
		if err != nil {
			return v, err
		}
		v.Kind, line = Kind(line[0]), line[1:]
		if v.Kind == attribute && !v.HasAttributes {
			n, ok := parseInt(line)
			if !ok || n < 0 {
				return v, protocolError("invalid number of attributes")
			}
			v.HasAttributes = true
			if v.Attributes, err = d.elems(n, 2, depth); err != nil {
				return v, err
			}
			continue
		}
		return v, d.rest(&v, line, depth)
	}
}

// rest reads the value whose first line, without the kind, is given.
func (d *Decoder) rest(v *Value, line []byte, depth int) (err error) {
	fits := true
	switch v.Kind {
	case SimpleString, Error:
	case Integer:
		_, fits = parseInt(line)
	case Null:
		fits = len(line) == 0
	case Double:
		_, fits = parseDouble(string(line))
	case Bool:
		fits = string(line) == "t" || string(line) == "f"
	case BigNumber:
		digits := bytes.TrimPrefix(line, []byte{'-'})
		fits = len(digits) > 0 && len(bytes.Trim(digits, "0123456789")) == 0
	case BulkString, BulkError, VerbatimString:
		return d.bulk(v, line)
	case Array, Set, Push, Map:
		n, ok := parseInt(line)
		if ok && n == -1 && v.Kind == Array {
			v.Absent = true
			return nil
		}
		if !ok || n < 0 {
			return protocolError("invalid number of elements")
		}
		each := 1
		if v.Kind == Map {
			each = 2
		}
		v.Elems, err = d.elems(n, each, depth)
		return err
	default:
		return protocolError("a reply begins with %q", byte(v.Kind))
	}
	if !fits {
		return protocolError("%q is no value of the kind %q", line, byte(v.Kind))
	}
	v.Text = string(line)
	return nil
}

func (d *Decoder) bulk(v *Value, line []byte) error {
	n, ok := parseInt(line)
	if ok && n == -1 && v.Kind == BulkString {
		v.Absent = true
		return nil
	}
	if !ok || n < 0 {
		return protocolError("invalid bulk length")
	}
	if err := d.spend(n); err != nil {
		return err
	}
	// What was announced is not yet there: the text grows with what comes.
	var text bytes.Buffer
	if _, err := io.CopyN(&text, d.src, n); err != nil {
		return err
	}
	var end [2]byte
	if _, err := io.ReadFull(d.src, end[:]); err != nil {
		return err
	}
	if string(end[:]) != "\r\n" {
		return protocolError("a bulk string is longer than was said")
	}
	if b := text.Bytes(); v.Kind == VerbatimString && (len(b) < 4 || b[3] != ':') {
		return protocolError("a verbatim string without a format")
	}
	v.Text = text.String()
	return nil
}

// elems reads n times as many values as each says. It reserves no place for those that
// have not come.
func (d *Decoder) elems(n int64, each, depth int) ([]Value, error) {
	elems := []Value{}
	for range n {
		for range each {
			e, err := d.value(depth + 1)
			if err != nil {
				return nil, err
			}
			elems = append(elems, e)
		}
	}
	return elems, nil
}

// line reads a line, which is valid until the next read, without its end.
func (d *Decoder) line() ([]byte, error) {
	line, err := d.src.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		long := bytes.Clone(line)
		for err == bufio.ErrBufferFull && len(long) <= MaxLine {
			line, err = d.src.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if len(line) > MaxLine+2 || err == bufio.ErrBufferFull {
		return nil, protocolError("too big a line")
	}
	if err != nil {
		return nil, err
	}
	if err := d.spend(int64(len(line))); err != nil {
		return nil, err
	}
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || len(line) == 0 || bytes.IndexByte(line, '\r') >= 0 {
		return nil, protocolError("%q is no line", line)
	}
	return line, nil
}

func (d *Decoder) spend(bytes int64) error {
	if d.left -= bytes; d.left < 0 {
		return protocolError("a reply of more than %d bytes", d.limits.MaxMemory)
	}
	return nil
}
