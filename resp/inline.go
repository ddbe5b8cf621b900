package resp

import "bytes"

// inline reads a request that a person typed: words between blanks on a line, which LF or
// CRLF ends. A line without words is whole and has no arguments.
func (r *Reader) inline() ([][]byte, bool) {
	rest := r.buf[r.start:r.end]
	n := bytes.IndexByte(rest[r.scanned:], '\n')
	seen := rest[r.scanned:]
	if n >= 0 {
		seen = seen[:n]
	}
	if bytes.IndexByte(seen, 0) >= 0 {
		return nil, r.fail("NUL byte in inline request")
	}
	if r.scanned+len(seen) > MaxLine {
		return nil, r.fail("too big inline request")
	}
	if n < 0 {
		r.scanned = len(rest)
		return nil, false
	}
	n += r.scanned
	line := bytes.TrimSuffix(rest[:n], []byte{'\r'})
	if !r.split(line) {
		return nil, r.fail("unbalanced quotes in request")
	}
	var args [][]byte
	if len(r.spans) > 0 {
		args = r.take()
	}
	r.next(n + 1)
	return args, true
}

// split finds the words of a line, and tells whether its quotes are in order. A word is
// unquoted where it stands: it does not get longer. Redis ends a word outside quotes at
// fewer characters than those that it passes over before one.
func (r *Reader) split(line []byte) bool {
	at := func(i int) byte { // NUL where the line ends, which has none inside
		if i < len(line) {
			return line[i]
		}
		return 0
	}
	for i := 0; ; {
		for blank(at(i)) {
			i++
		}
		if i == len(line) {
			return true
		}
		from := i
		to := i
		for quote := byte(0); ; i++ {
			c := at(i)
			switch {
			case quote != 0 && c == 0:
				r.spans = r.spans[:0]
				return false
			case quote != 0 && c == quote:
				if next := at(i + 1); next != 0 && !blank(next) {
					r.spans = r.spans[:0]
					return false
				}
				i++ // the word ends with its quotes
				c = 0
			case quote == '"' && c == '\\' && at(i+1) == 'x' && hex(at(i+2)) >= 0 && hex(at(i+3)) >= 0:
				c = byte(hex(at(i+2))<<4 | hex(at(i+3)))
				i += 3
				line[to] = c
				to++
				continue
			case quote == '"' && c == '\\' && at(i+1) != 0:
				i++
				c = escaped(at(i))
			case quote == '\'' && c == '\\' && at(i+1) == '\'':
				i++
				c = '\''
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
				continue
			case quote == 0 && (c == ' ' || c == '\n' || c == '\r' || c == '\t'):
				c = 0
			}
			if c == 0 {
				break
			}
			line[to] = c
			to++
		}
		r.spans = append(r.spans, span{from, to})
	}
}

func blank(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func hex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func escaped(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}
