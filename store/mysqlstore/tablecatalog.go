package mysqlstore

import (
	"fmt"
	"strings"
)

// tableColumn is one column of an existing table.
type tableColumn struct {
	name                string
	family              family
	bits                int
	unsigned            bool
	dataType            string // as in "varchar"
	declared            string // as in "varchar(20)"
	characters          int64  // the longest text, for char and varchar
	octets              int64  // the longest text or binary
	precision, scale    int    // of a decimal
	decimals            int    // of a second
	charset, collation  string
	members             []string // of an enum or a set
	notNull, hasDefault bool
	defaults            string // in SQL, where an INSERT can have it
	autoIncrement       bool
	computed            bool // its default is not the same in every row, where the server tells which it was
	generated           bool
	renewed             bool // ON UPDATE
	keyPlace            int  // in the primary key, from 1; 0: not in it
	prefix              bool // the key has only the column's beginning
	server              *server
}

// family is what Go's values for a type have in common.
type family uint8

const (
	unknown family = iota
	integers
	floats
	texts
	padded // char(n)
	binary
	zeroed     // binary(n), which is filled up with zeros
	dates      // of a day
	datetimes  // no time zone: UTC
	timestamps // converted from and to the session's time zone, which is UTC
	decimals
	uuids
	jsons
	enums
	sets
)

var families = map[string]struct {
	family
	bits int
}{
	"tinyint": {integers, 8}, "smallint": {integers, 16}, "mediumint": {integers, 24}, "int": {integers, 32}, "bigint": {integers, 64},
	"float": {floats, 32}, "double": {floats, 64}, "decimal": {decimals, 0},
	"char": {padded, 0}, "varchar": {texts, 0}, "tinytext": {texts, 0}, "text": {texts, 0}, "mediumtext": {texts, 0}, "longtext": {texts, 0},
	"binary": {zeroed, 0}, "varbinary": {binary, 0}, "tinyblob": {binary, 0}, "blob": {binary, 0}, "mediumblob": {binary, 0}, "longblob": {binary, 0},
	"date": {dates, 0}, "datetime": {datetimes, 0}, "timestamp": {timestamps, 0},
	"uuid": {uuids, 0}, "json": {jsons, 0}, "enum": {enums, 0}, "set": {sets, 0},
}

// wire is how a column's values travel: Converter.Type.
type wire string

const (
	wireInt   wire = "int"   // an int64, or a uint64 above all of those
	wireFloat wire = "float" // a float64
	wireText  wire = "text"  // a string
	wireBytes wire = "bytes" // a []byte
)

// resolve finds out what the declaration means.
func (c *tableColumn) resolve() {
	known := families[c.dataType]
	c.family, c.bits = known.family, known.bits
	c.unsigned = strings.Contains(c.declared, "unsigned") || strings.Contains(c.declared, "zerofill")
	if c.family == enums || c.family == sets {
		c.members = membersOf(c.declared)
	}
}

// membersOf are the texts in enum('a','b') or set('a','b').
func membersOf(declared string) (members []string) {
	rest := declared
	for {
		_, quoted, ok := strings.Cut(rest, "'")
		if !ok {
			return members
		}
		var member strings.Builder
		for {
			part, after, _ := strings.Cut(quoted, "'")
			member.WriteString(part)
			if !strings.HasPrefix(after, "'") {
				rest = after
				break
			}
			member.WriteByte('\'')
			quoted = after[1:]
		}
		members = append(members, member.String())
	}
}

// reads is the column in a SELECT. A time goes by its text, because the driver makes
// of it what the DSN says.
func (c *tableColumn) reads() string {
	switch c.family {
	case dates, datetimes, timestamps:
		return "CAST(" + quote(c.name) + " AS CHAR)"
	}
	return quote(c.name)
}

// given tells whether the server fills the column, as a key, in a row that comes without
// it, and says with what. A default that is a constant does for one row.
func (c *tableColumn) given() bool {
	return c.computed || c.autoIncrement && (c.family == integers || c.server.mariadb())
}

func (c *tableColumn) wire() wire {
	switch c.family {
	case integers:
		return wireInt
	case floats:
		return wireFloat
	case binary, zeroed:
		return wireBytes
	}
	return wireText
}

func (c *tableColumn) named() string { return "a column of type " + c.declared }

func (c *tableColumn) wants(field any) error {
	return fmt.Errorf("its %s column is not for a %v", c.declared, field)
}

// nopad tells whether the collation compares bytes, and nothing else: a binary one
// that does not take "a" and "a " for the same.
func (c *tableColumn) nopad() bool {
	return strings.HasSuffix(c.collation, "_nopad_bin") || strings.HasSuffix(c.collation, "_0900_bin")
}
