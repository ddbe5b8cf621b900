package server

import "strings"

// Value is what a key's row holds: a byte that says of what kind it is, and its bytes. It
// is text and not a slice, so that whoever has it cannot change what all readers share: a
// GET appends it to the reply from where the cache keeps it. A table of a SQL store is to
// be opened with the codec raw, which keeps it as it is.
type Value string

// kind is what a value is. More may come: a kind that this version does not know is of the
// wrong type for every command.
type kind byte

const (
	stringKind kind = 's'
	hashKind   kind = 'h'
)

// stringOf makes a string's value of several parts.
func stringOf(parts ...[]byte) Value {
	n := 1
	for _, part := range parts {
		n += len(part)
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteByte(byte(stringKind))
	for _, part := range parts {
		b.Write(part)
	}
	return Value(b.String())
}

// NewString returns the Value of a string, for programs that use the table beside the
// server.
func NewString(text string) Value { return Value(string(rune(stringKind)) + text) }

// kind is 0 for a row that no server has written.
func (v Value) kind() kind {
	if v == "" {
		return 0
	}
	return kind(v[0])
}

// text is a string's bytes.
func (v Value) text() string { return string(v[1:]) }

// typeName is the answer to TYPE.
func (v Value) typeName() string {
	switch v.kind() {
	case stringKind:
		return "string"
	case hashKind:
		return "hash"
	}
	return "unknown"
}
