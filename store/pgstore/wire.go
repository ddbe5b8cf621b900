package pgstore

import (
	"database/sql/driver"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// wire is the type in which a column travels: as the element type of the arrays that
// a batch is sent in, one a column, and as the type that the column is cast to where
// it is read. There are few of them, all of PostgreSQL's own, so that
//
//   - a batch of any size is one statement with one parameter a column
//     (unnest($1::int8[], $2::text[], …)), whose types pgx knows without asking
//     the server, in its extended and in its simple protocol;
//   - whatever has no counterpart in Go, as numeric and enums, goes by its text, whose
//     form no setting of the session changes;
//   - times go by pgx's own encoding, for their text depends on DateStyle and
//     TimeZone, and extract(epoch) fails at infinity;
//   - arrays go as JSON: unnest would flatten them, and in their own text the form of
//     the elements depends on the session.
//
// In the simple protocol, and in pgx's mode exec, everything comes as text, of which
// pgx reads only PostgreSQL's defaults for DateStyle and bytea_output: sessions with
// others are refused there (inspection.check).
//
// In Go each is one of the types of mapping.Converter: times and dates are
// microseconds since 1970.
type wire string

const (
	wireInt   wire = "int8"
	wireFloat wire = "float8"
	wireBool  wire = "bool"
	wireText  wire = "text"
	wireBytes wire = "bytea"
	wireZoned wire = "timestamptz"
	wireLocal wire = "timestamp"
	wireDate  wire = "date"
	wireArray wire = "json" // an array, as its JSON's text
)

func (c *columnType) wire() wire {
	switch c.family {
	case integers:
		return wireInt
	case floats:
		return wireFloat
	case booleans:
		return wireBool
	case binary:
		return wireBytes
	case zoned:
		return wireZoned
	case local:
		return wireLocal
	case dates:
		return wireDate
	case arrays:
		return wireArray
	}
	return wireText
}

// parameter is the type of a column's parameter, as in $1::int8[].
func (w wire) parameter() string {
	if w == wireArray {
		w = wireText
	}
	return "pg_catalog." + string(w) + "[]"
}

// read is the SQL that reads a column, given the SQL that names it.
func (c *columnType) read(w wire, column string) string {
	if w == wireArray {
		return fmt.Sprintf("pg_catalog.array_to_json(%s::%s)::pg_catalog.text", column, c.cast)
	}
	return fmt.Sprintf("%s::pg_catalog.%s", column, w)
}

// assign is the SQL that makes what the column takes of a parameter's element.
func (c *columnType) assign(w wire, element string) string {
	if w == wireArray {
		return fmt.Sprintf("CASE WHEN %[1]s IS NOT NULL THEN ARRAY(SELECT a.e FROM pg_catalog.json_array_elements_text(%[1]s::pg_catalog.json) "+
			"WITH ORDINALITY AS a(e, i) ORDER BY a.i)::%[2]s END", element, c.cast)
	}
	return element + "::" + c.cast
}

// pack makes the parameter of a column of a batch.
func (w wire) pack(values []any) any {
	switch w {
	case wireInt:
		return packed(values, func(n int64) pgtype.Int8 { return pgtype.Int8{Int64: n, Valid: true} })
	case wireFloat:
		return packed(values, func(f float64) pgtype.Float8 { return pgtype.Float8{Float64: f, Valid: true} })
	case wireBool:
		return packed(values, func(b bool) pgtype.Bool { return pgtype.Bool{Bool: b, Valid: true} })
	case wireBytes:
		return packed(values, func(b []byte) []byte { return b })
	case wireZoned:
		return packed(values, func(us int64) pgtype.Timestamptz {
			return pgtype.Timestamptz{Time: time.UnixMicro(us).UTC(), Valid: true}
		})
	case wireLocal:
		return packed(values, func(us int64) pgtype.Timestamp {
			return pgtype.Timestamp{Time: time.UnixMicro(us).UTC(), Valid: true}
		})
	case wireDate:
		return packed(values, func(us int64) pgtype.Date { return pgtype.Date{Time: time.UnixMicro(us).UTC(), Valid: true} })
	}
	return packed(values, func(s string) pgtype.Text { return pgtype.Text{String: s, Valid: true} })
}

func packed[T, P any](values []any, of func(T) P) []P {
	out := make([]P, len(values))
	for i, v := range values {
		if v != nil {
			out[i] = of(v.(T))
		}
	}
	return out
}

// cell is where pgx puts a column of a row.
type cell struct {
	into  any
	value func() driver.Value
}

func (w wire) cell() cell {
	switch w {
	case wireInt:
		var x pgtype.Int8
		return cell{&x, func() driver.Value { return valid(x.Int64, x.Valid) }}
	case wireFloat:
		var x pgtype.Float8
		return cell{&x, func() driver.Value { return valid(x.Float64, x.Valid) }}
	case wireBool:
		var x pgtype.Bool
		return cell{&x, func() driver.Value { return valid(x.Bool, x.Valid) }}
	case wireBytes:
		var x []byte
		return cell{&x, func() driver.Value { return valid(x, x != nil) }}
	case wireZoned:
		var x pgtype.Timestamptz
		return cell{&x, func() driver.Value { return micros(x.Time, x.InfinityModifier, x.Valid) }}
	case wireLocal:
		var x pgtype.Timestamp
		return cell{&x, func() driver.Value { return micros(x.Time, x.InfinityModifier, x.Valid) }}
	case wireDate:
		var x pgtype.Date
		return cell{&x, func() driver.Value { return micros(x.Time, x.InfinityModifier, x.Valid) }}
	}
	var x pgtype.Text
	return cell{&x, func() driver.Value { return valid(x.String, x.Valid) }}
}

func valid[T any](v T, ok bool) driver.Value {
	if !ok {
		return nil
	}
	return v
}

// micros is a text where no number of microseconds is the time: no field can hold
// it, and the error shows it.
func micros(t time.Time, infinity pgtype.InfinityModifier, ok bool) driver.Value {
	switch {
	case !ok:
		return nil
	case infinity != pgtype.Finite:
		return infinity.String()
	case t.Year() > lastYear:
		return t.Format(time.RFC3339)
	}
	return t.UnixMicro()
}

// firstYear is PostgreSQL's, 4713 BC, and lastYear that of the microseconds.
const (
	firstYear = -4712
	lastYear  = math.MaxInt64/1_000_000/31_556_952 + 1970 - 1
)
