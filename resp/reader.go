package resp

import (
	"bytes"
	"io"
)

const (
	// smallBuffer is what an idle connection costs.
	smallBuffer = 1 << 10
	// fullBuffer is as far as a buffer grows for pipelines alone: more only for a request
	// that needs it.
	fullBuffer = 64 << 10
	// keptBuffer is the largest buffer that is kept for the next request. A client that
	// sends 100 KiB again and again should not cost a new buffer each time.
	keptBuffer = 1 << 20
	keptArgs   = 32 << 10
)

// Reader reads requests. It is for one goroutine.
//
//	for {
//		for {
//			args, err := r.Next()
//			… // err: answer it and close; args == nil: all that is buffered has been read
//		}
//		… // send the replies
//		if err := r.Fill(); err != nil { … }
//	}
//
// What Next returns stays as it is until the next Fill, so that all requests of a pipeline
// can be looked at together.
//
// Memory: the buffer is never more than twice what has come of the request that is being
// read, or 64 KiB if that is more; one of up to 1 MiB is kept until [Reader.Shrink]. Each
// argument takes 40 bytes besides. Reading a request allocates nothing once the buffer has
// grown to what the peer sends.
type Reader struct {
	src    io.Reader
	limits Limits
	open   bool // authenticated

	// buf[start:end] has come and was not returned; a request begins at start. Offsets
	// below are from start, so that a request can be moved.
	buf        []byte
	start, end int

	at      int    // this much of the request has been parsed
	scanned int    // of what follows at, this much has no end of a line in it
	missing int    // arguments still to come, of an array whose header has been parsed
	bulk    int    // the size of the one that is under way, -1 while it is not known
	spans   []span // the arguments that are there

	// args is where returned arguments have their headers, until the next Fill.
	args [][]byte

	err error // the protocol error, for good
}

type span struct{ from, to int }

// NewReader returns a reader of requests from src, whose Read it calls only in Fill.
func NewReader(src io.Reader, limits Limits) *Reader {
	return &Reader{src: src, limits: limits.withDefaults(), bulk: -1}
}

// SetAuthenticated tells whether the peer has said who it is, or need not. It is of effect
// from the next header that is read, so that a pipeline may begin with AUTH. A new reader's
// peer has not.
func (r *Reader) SetAuthenticated(yes bool) { r.open = yes }

// Buffered returns how many bytes have come that were not returned as part of a request.
func (r *Reader) Buffered() int { return r.end - r.start }

// Rest returns what has come and was not returned as part of a request, until the next
// Fill. After an error it says what could not be read.
func (r *Reader) Rest() []byte { return r.buf[r.start:r.end:r.end] }

// Fill reads once from the source, which may block, and makes what Next returned before
// invalid. Its errors are the source's; the end inside a request is io.ErrUnexpectedEOF.
// After one that was not for good, a time-out for instance, it may be called again.
func (r *Reader) Fill() error {
	if r.err != nil {
		return r.err
	}
	r.makeRoom()
	for range 100 {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n > 0 {
			// Whoever returns an error with bytes returns it again without any.
			return nil
		}
		if err == io.EOF && r.start < r.end {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// makeRoom has the request that is under way at the beginning of the buffer, and a place
// behind it.
func (r *Reader) makeRoom() {
	filled := r.end == len(r.buf) // there may be more than there was room for
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	size := len(r.buf)
	switch {
	case size == 0:
		size = smallBuffer
	case r.end == 0 && size > keptBuffer:
		size = fullBuffer
	case filled && (r.end == size || size < fullBuffer):
		size = max(2*size, smallBuffer)
		// The last doubling for a large argument stops at its end.
		if need := r.at + r.bulk + 2; r.bulk >= 0 && need > r.end && need > fullBuffer {
			size = min(size, need)
		}
	}
	if cap(r.args) > keptArgs {
		r.args = nil
	}
	if size != len(r.buf) {
		buf := make([]byte, size)
		copy(buf, r.buf[:r.end])
		r.buf = buf
		clear(r.args[:cap(r.args)]) // they would keep the old buffer
	}
	r.args = r.args[:0]
	if r.end == 0 && cap(r.spans) > keptArgs {
		r.spans = nil
	}
}

// Shrink gives back memory that an idle peer does not need. Like Fill it makes what Next
// returned before invalid.
func (r *Reader) Shrink() {
	var rest []byte
	if r.start < r.end {
		rest = bytes.Clone(r.buf[r.start:r.end])
	}
	r.args, r.buf = nil, rest[:len(rest):len(rest)]
	r.start, r.end = 0, len(rest)
	if len(r.spans) == 0 {
		r.spans = nil
	}
}

// Next returns the arguments of the next request that is buffered as a whole, the
// command's name first, and nil when there is none. They may be changed, and appended to,
// without harm to each other. An error is a *ProtocolError, and final.
func (r *Reader) Next() ([][]byte, error) {
	for r.err == nil && (r.missing > 0 || r.start < r.end) {
		var args [][]byte
		var whole bool
		switch {
		case r.missing > 0:
			args, whole = r.bulks()
		case r.buf[r.start] == '*':
			whole = r.header()
		default:
			args, whole = r.inline()
		}
		if !whole {
			if r.err == nil && r.missing > 0 && r.Buffered() > r.limits.MaxRequest {
				r.fail("too big request")
			}
			break
		}
		if args != nil {
			return args, r.err
		}
	}
	return nil, r.err
}

// fail is final. It returns false, for what has failed is not whole.
func (r *Reader) fail(format string, args ...any) bool {
	r.err = protocolError(format, args...)
	return false
}

// next ends the request, which was so long.
func (r *Reader) next(length int) {
	r.start += length
	r.at, r.scanned, r.bulk = 0, 0, -1
}

// header reads the line that says how many arguments there are. It is whole also where it
// says that there are none.
func (r *Reader) header() bool {
	line, ok := r.line("mbulk")
	if !ok {
		return false
	}
	n, ok := parseInt(line[1:])
	switch {
	case !ok || n > int64(r.limits.MaxArgs):
		return r.fail("invalid multibulk length")
	case !r.open && n > int64(r.limits.UnauthenticatedArgs):
		return r.fail("unauthenticated multibulk length")
	case n <= 0:
		r.next(r.at)
	default:
		r.missing = int(n)
	}
	return true
}

// line returns the header that begins at at, and moves at behind it.
func (r *Reader) line(what string) ([]byte, bool) {
	rest := r.buf[r.start+r.at : r.end]
	n := bytes.IndexByte(rest[r.scanned:], '\r')
	if n < 0 {
		r.scanned = len(rest)
		if len(rest) > MaxLine {
			r.fail("too big %s count string", what)
		}
		return nil, false
	}
	n += r.scanned
	if n > MaxLine {
		return nil, r.fail("too big %s count string", what)
	}
	if n+2 > len(rest) {
		r.scanned = n
		return nil, false
	}
	r.at, r.scanned = r.at+n+2, 0
	return rest[:n], true
}

// bulks reads arguments until all are there.
func (r *Reader) bulks() ([][]byte, bool) {
	for r.missing > 0 {
		if r.bulk < 0 && !r.bulkHeader() {
			return nil, false
		}
		if r.Buffered()-r.at < r.bulk+2 {
			return nil, false
		}
		r.spans = append(r.spans, span{r.at, r.at + r.bulk})
		r.at += r.bulk + 2
		r.bulk = -1
		r.missing--
	}
	args := r.take()
	r.next(r.at)
	return args, true
}

func (r *Reader) bulkHeader() bool {
	line, ok := r.line("bulk")
	if !ok {
		return false
	}
	if len(line) == 0 {
		line = []byte{'\r'} // which Redis takes for the kind
	}
	if line[0] != '$' {
		return r.fail("expected '$', got '%s'", line[:1])
	}
	n, ok := parseInt(line[1:])
	switch {
	case !ok || n < 0 || n > int64(r.limits.MaxBulk):
		return r.fail("invalid bulk length")
	case !r.open && n > int64(r.limits.UnauthenticatedBulk):
		return r.fail("unauthenticated bulk length")
	case int64(r.at)+n+2 > int64(r.limits.MaxRequest):
		return r.fail("too big request")
	}
	r.bulk = int(n)
	return true
}

// take makes arguments of the spans.
func (r *Reader) take() [][]byte {
	first := len(r.args)
	for _, s := range r.spans {
		from, to := r.start+s.from, r.start+s.to
		r.args = append(r.args, r.buf[from:to:to])
	}
	r.spans = r.spans[:0]
	return r.args[first:len(r.args):len(r.args)]
}

// Memory returns how many bytes the reader has for itself.
func (r *Reader) Memory() int { return len(r.buf) + 24*cap(r.args) + 16*cap(r.spans) }
