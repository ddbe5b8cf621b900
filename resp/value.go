package resp

import (
	"math"
	"strconv"
)

// Kind is the type of a value: the byte that it begins with.
type Kind byte

// The kinds of RESP2, and those that RESP3 adds.
const (
	SimpleString Kind = '+'
	Error        Kind = '-'
	Integer      Kind = ':'
	BulkString   Kind = '$'
	Array        Kind = '*'

	Null           Kind = '_'
	Double         Kind = ','
	Bool           Kind = '#'
	BigNumber      Kind = '('
	BulkError      Kind = '!'
	VerbatimString Kind = '='
	Map            Kind = '%'
	Set            Kind = '~'
	Push           Kind = '>'
)

// attribute is a kind that is no value: pairs that are said about the one that follows.
const attribute Kind = '|'

// Value is a reply. Which fields mean something depends on its kind.
type Value struct {
	Kind Kind

	// Text is what a string, an error, a number or a truth value consists of, as it was
	// sent: "t" and "f" for a Bool, the format, a colon and the text for a VerbatimString.
	Text string

	// Elems are the elements of an Array, a Set, a Push and a Map, which has twice as
	// many as pairs.
	Elems []Value

	// Absent marks the nulls of RESP2: a BulkString or an Array of the length -1.
	Absent bool

	// Attributes are what was said about the value before it, a key and a value in turn.
	// HasAttributes tells whether anything was: it may have been no pair.
	Attributes    []Value
	HasAttributes bool
}

// IsNull tells whether this is RESP3's null or one of RESP2's.
func (v Value) IsNull() bool { return v.Kind == Null || v.Absent }

// Int returns the number of an Integer; for other kinds it returns false.
func (v Value) Int() (int64, bool) {
	if v.Kind != Integer {
		return 0, false
	}
	return parseInt([]byte(v.Text))
}

// Float returns the number of a Double; for other kinds it returns false.
func (v Value) Float() (float64, bool) {
	if v.Kind != Double {
		return 0, false
	}
	return parseDouble(v.Text)
}

// parseDouble reads inf, nan and decimal numbers, and nothing else that Go would.
func parseDouble(text string) (float64, bool) {
	switch text {
	case "inf":
		return math.Inf(1), true
	case "-inf":
		return math.Inf(-1), true
	case "nan", "-nan": // as C may print it
		return math.NaN(), true
	}
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil
}

// AppendTo appends the value as it was sent to dst.
func (v Value) AppendTo(dst []byte) []byte {
	if v.HasAttributes {
		dst = appendLine(dst, byte(attribute), int64(len(v.Attributes)/2))
		for _, a := range v.Attributes {
			dst = a.AppendTo(dst)
		}
	}
	switch v.Kind {
	case BulkString, BulkError, VerbatimString:
		if v.Absent {
			return appendLine(dst, byte(v.Kind), -1)
		}
		return appendBulk(dst, byte(v.Kind), v.Text)
	case Array, Set, Push, Map:
		n := len(v.Elems)
		if v.Absent {
			n = -1
		} else if v.Kind == Map {
			n /= 2
		}
		dst = appendLine(dst, byte(v.Kind), int64(n))
		for _, e := range v.Elems {
			dst = e.AppendTo(dst)
		}
		return dst
	}
	dst = append(append(dst, byte(v.Kind)), v.Text...)
	return append(dst, '\r', '\n')
}

// String is the value as it was sent, quoted.
func (v Value) String() string { return strconv.Quote(string(v.AppendTo(nil))) }
