package pgstore

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Value implements mapping.Type.
func (c *tableColumn) Value(t reflect.Type, tag dbtag.Tag) (mapping.Converter, error) {
	return c.value(t, tag)
}

// Version implements mapping.Type.
func (c *tableColumn) Version() error {
	if c.family != integers || c.bits != 64 {
		return fmt.Errorf("a version needs a bigint column, and it has %s", c.declared)
	}
	return nil
}

// value returns the converter of a field, or of an array's element.
func (c *columnType) value(t reflect.Type, tag dbtag.Tag) (mapping.Converter, error) {
	inner := mapping.Nullable(t)
	if tag.Unix != 0 && t != mapping.TimeType && inner != mapping.TimeType {
		return mapping.Converter{}, fmt.Errorf("a unit of time is for time.Time, and the field is %v", t)
	}
	switch {
	case c.family == unknown:
		return mapping.Converter{}, fmt.Errorf("its type %s cannot be mapped", c.declared)
	case tag.JSON:
		return c.jsonField(t)
	case inner != nil:
		conv, err := c.value(inner, tag)
		if err != nil {
			return conv, err
		}
		return mapping.Null(t, conv)
	case t == mapping.TimeType:
		return c.time(tag.Unix)
	case c.family == uuids && mapping.IsUUID(t):
		return mapping.UUID(string(wireText)), nil
	case mapping.ConvertsItself(t):
		return c.selfConverting(), nil
	}
	return c.plainValue(t)
}

func (c *columnType) plainValue(t reflect.Type) (mapping.Converter, error) {
	none := mapping.Converter{}
	switch t.Kind() {
	case reflect.Bool:
		if c.family == booleans {
			return boolConverter(), nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		switch {
		case c.family == integers:
			return mapping.Int(string(wireInt), c.named(), c.bits), nil
		case c.family == numerics:
			return c.numericInt(mapping.Int(string(wireText), c.named(), 64))
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		switch {
		case c.family == integers:
			return mapping.Uint(string(wireInt), c.named(), c.bits), nil
		case c.family == numerics:
			return c.numericInt(mapping.Uint(string(wireText), c.named(), 64))
		}
	case reflect.Float32, reflect.Float64:
		switch {
		case c.family == floats && c.bits == t.Bits():
			return mapping.Float(string(wireFloat)), nil
		case c.family == floats:
			return none, fmt.Errorf("its %s column has not the precision of a %v: float32 is for real, and float64 for double precision", c.declared, t)
		case c.family == numerics:
			return c.numericFloat(t)
		}
	case reflect.String:
		switch c.family {
		case texts, folded, padded, enums:
			return c.text(mapping.Text(string(wireText))), nil
		case numerics:
			return mapping.Checked(mapping.Text(string(wireText)), c.checkNumber), nil
		case uuids:
			return mapping.UUIDText(string(wireText), false), nil
		case jsons:
			return mapping.Checked(mapping.Text(string(wireText)), checkJSON), nil
		}
	case reflect.Slice:
		bytes := t.Elem().Kind() == reflect.Uint8
		switch {
		case c.family == arrays:
			return arrayConverter(t, c.elem)
		case bytes && c.family == binary:
			return mapping.Bytes(string(wireBytes), false), nil
		case bytes && c.family == jsons:
			return mapping.Checked(mapping.Bytes(string(wireText), true), checkJSON), nil
		case bytes && (c.family == texts || c.family == folded || c.family == padded):
			return c.text(mapping.Bytes(string(wireText), true)), nil
		}
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && c.family == binary {
			return mapping.Array(string(wireBytes)), nil
		}
	}
	if c.family == jsons {
		return none, fmt.Errorf("%w; the option json can hold it", c.wants(t))
	}
	return none, c.wants(t)
}

func (c *columnType) named() string { return "a column of type " + c.declared }

func boolConverter() mapping.Converter {
	return mapping.Converter{
		Type: string(wireBool),
		Bind: func(v reflect.Value) (any, error) { return v.Bool(), nil },
		Scan: func(src driver.Value, dst reflect.Value) error {
			b, ok := src.(bool)
			if !ok {
				return mapping.Mismatch(src, "boolean")
			}
			dst.SetBool(b)
			return nil
		},
	}
}

// text is for texts as the column holds them: without the spaces that char(n) is
// padded with.
func (c *columnType) text(conv mapping.Converter) mapping.Converter {
	limit := c.length()
	if c.family == padded {
		bind := conv.Bind
		conv.Bind = func(v reflect.Value) (any, error) {
			x, err := bind(v)
			if s, ok := x.(string); ok {
				return strings.TrimRight(s, " "), err
			}
			return x, err
		}
	}
	return mapping.Checked(conv, func(s string) error {
		if n := utf8.RuneCountInString(s); limit > 0 && n > limit {
			return fmt.Errorf("%d characters are more than %s(%d) can hold", n, c.declared, limit)
		}
		return checkText(s)
	})
}

func checkText(s string) error {
	switch {
	case strings.ContainsRune(s, 0):
		return fmt.Errorf("a NUL, which no text of PostgreSQL can hold")
	case !utf8.ValidString(s):
		return fmt.Errorf("the text %.40q is not valid UTF-8", s)
	}
	return nil
}

func (c *columnType) jsonField(t reflect.Type) (mapping.Converter, error) {
	if c.family != jsons && c.family != texts {
		return mapping.Converter{}, fmt.Errorf("its %s column is not for JSON", c.declared)
	}
	conv, err := mapping.JSON(string(wireText), t)
	if c.family == texts {
		return c.text(conv), err
	}
	return mapping.Checked(conv, checkText), err
}

func checkJSON(s string) error {
	if !json.Valid([]byte(s)) {
		return fmt.Errorf("%.40q is no JSON", s)
	}
	return checkText(s)
}

// checkNumber is mapping.CheckNumber but for Infinity, which a column without a
// precision takes, from version 14.
func (c *columnType) checkNumber(s string) error {
	if _, _, limited := c.precision(); !limited {
		if f, err := strconv.ParseFloat(s, 64); err == nil && math.IsInf(f, 0) {
			return nil
		}
	}
	return mapping.CheckNumber(s)
}

// numericInt goes by text, where every number of the column fits an int64.
func (c *columnType) numericInt(number mapping.Converter) (mapping.Converter, error) {
	precision, scale, ok := c.precision()
	if !ok {
		precision = mapping.AnyPrecision
	}
	return mapping.DecimalInt("numeric", number, precision, scale)
}

func (c *columnType) numericFloat(t reflect.Type) (mapping.Converter, error) {
	precision, _, ok := c.precision()
	if !ok {
		precision = mapping.AnyPrecision
	}
	return mapping.DecimalFloat("numeric", string(wireText), t, precision)
}
