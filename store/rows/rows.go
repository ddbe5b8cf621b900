// Package rows is for tables whose columns a program knows only when it runs. NewTable of
// every SQL store takes [Key] and [Row] in the place of types of the program's own: it maps
// all columns of the table, and their values are text.
//
//	a column of            is, as text
//	---------------------  ---------------------------------------------------------------
//	whole numbers          42
//	floating-point         0.1, 1e+21; NaN, Infinity and -Infinity where the column has them
//	decimal numbers        12.50, with as many decimals as the column keeps
//	booleans               1 and 0; true, false, t and f are taken, too
//	text, enumerations     itself
//	bytes                  the bytes
//	times                  2026-01-02T15:04:05.123456Z: RFC 3339, in UTC; with any offset taken
//	dates                  2026-01-02
//	UUIDs                  01234567-89ab-cdef-0123-456789abcdef, in lower case
//	JSON                   JSON
//
// What the columns of a database's own types are, the stores' documents say. A column of a
// type that has no such text, as an array or a geometry, is refused when the table is opened.
package rows

import (
	"fmt"
	"strings"

	"github.com/lockstep-cache/lockstep/internal/netstring"
)

// Key is a primary key as text: of one column, its text; of several, their texts in the
// order of the primary key with colons between them, in which a colon is \: and a backslash
// \\. A key has one text only: 042 is none for a whole number.
type Key string

// JoinKey returns the key of these columns' texts.
func JoinKey(parts ...string) Key {
	if len(parts) == 1 {
		return Key(parts[0])
	}
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteByte(':')
		}
		for _, c := range []byte(part) {
			if c == ':' || c == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
	}
	return Key(b.String())
}

// Split returns the texts of a key of n columns. It is an error if there are not as many, or
// something follows a backslash that needs none.
func (k Key) Split(n int) ([]string, error) {
	if n == 1 {
		return []string{string(k)}, nil
	}
	parts := make([]string, 1, n)
	for i := 0; i < len(k); i++ {
		c := k[i]
		switch {
		case c == ':':
			parts = append(parts, "")
			continue
		case c == '\\':
			if i++; i == len(k) || k[i] != ':' && k[i] != '\\' {
				return nil, fmt.Errorf(`a backslash stands before a colon or another backslash only: \: and \\`)
			}
			c = k[i]
		}
		parts[len(parts)-1] += string([]byte{c})
	}
	if len(parts) != n {
		return nil, fmt.Errorf("the key has %d parts, and the primary key %d columns; a colon is between two, and \\: is one in a part", len(parts), n)
	}
	return parts, nil
}

// Row is a row: the letter h, and then of each column that is not NULL its name and its text,
// as netstrings, in the order of the table: "h2:id,2:42,4:name,3:Ann,". It is how package
// server writes a hash. Where a row is written, its columns may be in any order, a column
// that is left out is NULL (or gets its default, in a new row), and the key's may be left out.
type Row string

// Field is a column's name and its text.
type Field struct{ Name, Text string }

// Make returns a row.
func Make(fields ...Field) Row {
	row := []byte{'h'}
	for _, f := range fields {
		row = netstring.Append(netstring.Append(row, f.Name), f.Text)
	}
	return Row(row)
}

// Fields returns a row's fields, or an error if it is none.
func (r Row) Fields() ([]Field, error) {
	if len(r) == 0 || r[0] != 'h' {
		return nil, fmt.Errorf("the row does not begin with an h")
	}
	var fields []Field
	for i := 1; i < len(r); {
		name, next := netstring.Next(string(r), i)
		if next < 0 {
			return nil, fmt.Errorf("the row is none from byte %d on, counted from 0", i)
		}
		text, end := netstring.Next(string(r), next)
		if end < 0 {
			return nil, fmt.Errorf("the row is none from byte %d on, counted from 0", next)
		}
		fields = append(fields, Field{name, text})
		i = end
	}
	return fields, nil
}

// Column is what there is to know of a column beside its values.
type Column struct {
	Name     string
	KeyPlace int  // in the primary key, from 1; 0: it is not in it
	Fixed    bool // it is read, and never written: generated, the version's, or all are
	NotNull  bool // NULL is refused
	Number   Number
	Takes    string // for errors: "a whole number"
}

// NoVersion, as TableOptions.VersionColumn of a store, says that the table has no version,
// whatever its columns are called.
const NoVersion = "-"

// Number is what can be added to a column.
type Number uint8

// The kinds of columns.
const (
	NoNumber Number = iota
	Whole           // whole numbers
	Real            // others, too
)
