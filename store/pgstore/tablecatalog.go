package pgstore

import (
	"fmt"

	"github.com/jackc/pgx/v5"
)

// tableColumn is one column of an existing table.
type tableColumn struct {
	name string
	columnType
	notNull, hasDefault           bool
	defaults                      string // in SQL; "" where a domain or an identity gives it
	identity                      string // "a": ALWAYS, "d": BY DEFAULT
	generated                     string // "s": STORED
	keyPlace                      int    // in the primary key, from 1; 0: not in it
	collation                     string
	deterministic                 bool
	oddClass                      bool // its index compares by an operator class of its own
	mayRead, mayInsert, mayUpdate bool
}

// catalogType is a row of pg_type.
type catalogType struct {
	schema, name        string
	kind, category      string // typtype, typcategory
	elem, base          uint32
	typmod              int32
	notNull, hasDefault bool
}

// family is what Go's values for a type have in common.
type family uint8

const (
	unknown family = iota
	integers
	floats
	booleans
	texts
	padded // char(n)
	folded // citext
	binary
	zoned // timestamp with time zone
	local // timestamp without one
	dates
	numerics
	uuids
	jsons // json and jsonb
	enums
	arrays
)

var families = map[string]struct {
	family
	bits int
}{
	"int2": {integers, 16}, "int4": {integers, 32}, "int8": {integers, 64}, "float4": {floats, 32}, "float8": {floats, 64},
	"bool": {booleans, 0}, "text": {texts, 0}, "varchar": {texts, 0}, "bpchar": {padded, 0}, "bytea": {binary, 0},
	"timestamptz": {zoned, 0}, "timestamp": {local, 0}, "date": {dates, 0}, "numeric": {numerics, 0}, "uuid": {uuids, 0},
	"json": {jsons, 0}, "jsonb": {jsons, 0},
}

// columnType is a type as far as its values go: what is under its domains.
type columnType struct {
	family
	bits int
	// declared is the type as the schema names it, cast the base type in SQL. That has
	// no length or precision: with one, a cast cuts or rounds in silence, and an
	// assignment to the column does what the column does.
	declared, cast      string
	typmod              int32
	elem                *columnType // of an array
	notNull, hasDefault bool        // by a domain
}

// resolve finds the type under domains. A domain's own constraints are checked where
// its base type is assigned to the column.
func resolve(types map[uint32]catalogType, oid uint32, typmod int32) columnType {
	t := types[oid]
	c := columnType{declared: t.name, typmod: typmod, notNull: t.notNull, hasDefault: t.hasDefault}
	for t.kind == "d" {
		c.typmod = t.typmod
		t = types[t.base]
		c.notNull = c.notNull || t.notNull
		c.hasDefault = c.hasDefault || t.hasDefault
	}
	c.cast = pgx.Identifier{t.schema, t.name}.Sanitize()
	known := families[t.name]
	switch {
	case t.kind == "e":
		c.family = enums
	case t.name == "citext":
		c.family = folded
	case t.schema != "pg_catalog" && t.category != "A":
	case t.category == "A" && t.elem != 0:
		elem := resolve(types, t.elem, c.typmod)
		if elem.family != unknown && elem.family != arrays {
			c.family, c.elem = arrays, &elem
		}
	default:
		c.family, c.bits = known.family, known.bits
	}
	return c
}

// length is the n of varchar(n) and char(n); 0 without one.
func (c *columnType) length() int {
	if c.typmod < 4 {
		return 0
	}
	return int(c.typmod - 4)
}

// precision and scale are those of numeric(precision, scale); 0 and false without
// them.
func (c *columnType) precision() (precision, scale int, ok bool) {
	if c.typmod < 4 {
		return 0, 0, false
	}
	n := c.typmod - 4
	scale = int(n & 0x7ff) // of 11 bits, signed
	if scale >= 1<<10 {
		scale -= 1 << 11
	}
	return int(n >> 16 & 0xffff), scale, true
}

// decimals is how many of a second's digits a timestamp column keeps.
func (c *columnType) decimals() int {
	if c.typmod < 0 || c.typmod > 6 {
		return 6
	}
	return int(c.typmod)
}

func (c *columnType) wants(field any) error {
	return fmt.Errorf("its %s column is not for a %v", c.declared, field)
}
