package mysqlstore

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Value implements mapping.Type.
func (c *tableColumn) Value(t reflect.Type, tag dbtag.Tag) (mapping.Converter, error) {
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
		conv, err := c.Value(inner, tag)
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

// Version implements mapping.Type.
func (c *tableColumn) Version() error {
	if c.family != integers || c.bits != 64 || c.unsigned {
		return fmt.Errorf("a version needs a signed bigint column, and it has %s", c.declared)
	}
	return nil
}

func (c *tableColumn) plainValue(t reflect.Type) (mapping.Converter, error) {
	none := mapping.Converter{}
	switch t.Kind() {
	case reflect.Bool:
		if strings.HasPrefix(c.declared, "tinyint(1)") {
			return boolean(), nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		switch c.family {
		case integers:
			return c.signed(), nil
		case decimals:
			return c.check(mapping.DecimalInt("decimal", mapping.Int(string(wireText), c.named(), 64), c.precision, c.scale))
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		switch c.family {
		case integers:
			return c.whole(), nil
		case decimals:
			return c.check(mapping.DecimalInt("decimal", mapping.Uint(string(wireText), c.named(), 64), c.precision, c.scale))
		}
	case reflect.Float32, reflect.Float64:
		switch {
		case c.family == floats && c.bits == t.Bits():
			return c.float(), nil
		case c.family == floats:
			return none, fmt.Errorf("its %s column has not the precision of a %v: float32 is for float, and float64 for double", c.declared, t)
		case c.family == decimals:
			return c.check(mapping.DecimalFloat("decimal", string(wireText), t, c.precision))
		}
	case reflect.String:
		switch c.family {
		case texts, padded, decimals, jsons, enums, sets:
			return c.check(mapping.Text(string(wireText)), nil)
		case uuids:
			return mapping.UUIDText(string(wireText), false), nil
		}
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			break
		}
		switch c.family {
		case binary, zeroed:
			return c.bytes(mapping.Bytes(string(wireBytes), false)), nil
		case texts, padded, jsons:
			return c.check(mapping.Bytes(string(wireText), true), nil)
		}
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && (c.family == binary || c.family == zeroed) {
			return c.array(t)
		}
	}
	if c.family == jsons || c.family == texts {
		return none, fmt.Errorf("%w; the option json can hold it", c.wants(t))
	}
	return none, c.wants(t)
}

func boolean() mapping.Converter {
	return mapping.Converter{
		Type: string(wireInt),
		Bind: func(v reflect.Value) (any, error) {
			if v.Bool() {
				return int64(1), nil
			}
			return int64(0), nil
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			n, ok := src.(int64)
			if !ok || n != 0 && n != 1 {
				return mapping.Mismatch(src, "boolean")
			}
			dst.SetBool(n == 1)
			return nil
		},
	}
}

// bounds are those of the column; what is above the last int64 is told apart by most.
func (c *tableColumn) bounds() (least int64, most uint64) {
	if c.unsigned {
		return 0, math.MaxUint64 >> (64 - c.bits)
	}
	return -1 << (c.bits - 1), 1<<(c.bits-1) - 1
}

// signed is for the signed integers of Go.
func (c *tableColumn) signed() mapping.Converter {
	least, most := c.bounds()
	conv := mapping.Int(string(wireInt), c.named(), 64)
	conv.Bind = func(v reflect.Value) (any, error) {
		switch n := v.Int(); {
		case n > 0 && uint64(n) > most:
			return nil, fmt.Errorf("%d is more than %s can hold", n, c.named())
		case n < least:
			return nil, fmt.Errorf("%d is less than %s can hold", n, c.named())
		default:
			return n, nil
		}
	}
	return conv
}

// whole is for the unsigned integers of Go. Those above the last int64 travel as
// uint64, all others as int64.
func (c *tableColumn) whole() mapping.Converter {
	_, most := c.bounds()
	return mapping.Converter{
		Type: string(wireInt),
		Bind: func(v reflect.Value) (any, error) {
			n := v.Uint()
			if n > most {
				return nil, fmt.Errorf("%d is more than %s can hold", n, c.named())
			}
			return integerOf(n), nil
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			var n uint64
			switch x := src.(type) {
			case uint64:
				n = x
			case int64:
				if x < 0 {
					return mapping.Mismatch(src, dst.Type().String())
				}
				n = uint64(x)
			default:
				return mapping.Mismatch(src, dst.Type().String())
			}
			if dst.OverflowUint(n) {
				return mapping.Mismatch(src, dst.Type().String())
			}
			dst.SetUint(n)
			return nil
		},
	}
}

func integerOf(n uint64) any {
	if n <= math.MaxInt64 {
		return int64(n)
	}
	return n
}

func (c *tableColumn) float() mapping.Converter {
	conv := mapping.Float(string(wireFloat))
	bind := conv.Bind
	conv.Bind = func(v reflect.Value) (any, error) {
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%v is not in %s", f, c.named())
		}
		return bind(v)
	}
	return conv
}

// check refuses texts that the column would refuse, or change: one bad one must not
// stop the statement that writes it with others.
func (c *tableColumn) check(conv mapping.Converter, err error) (mapping.Converter, error) {
	if err != nil {
		return conv, err
	}
	bind := conv.Bind
	conv.Bind = func(v reflect.Value) (any, error) {
		x, err := bind(v)
		if s, ok := x.(string); ok && err == nil {
			return c.text(s)
		}
		return x, err
	}
	return conv, nil
}

// text is what the column makes of a text, or why it does not take it.
func (c *tableColumn) text(s string) (any, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("the text %.40q is not valid UTF-8", s)
	}
	switch c.family {
	case decimals:
		if strings.Contains(strings.ToLower(s), "nan") {
			return nil, fmt.Errorf("%.40q is no number", s)
		}
		return exactly(s, c.scale), mapping.CheckNumber(s)
	case jsons:
		if !json.Valid([]byte(s)) {
			return nil, fmt.Errorf("%.40q is no JSON", s)
		}
		return s, nil
	case enums:
		if !slices.Contains(c.members, s) {
			return nil, fmt.Errorf("%.40q is not one of %s", s, c.declared)
		}
		return s, nil
	case sets:
		return c.set(s)
	case padded:
		s = strings.TrimRight(s, " ")
		fallthrough
	case texts:
		n := int64(utf8.RuneCountInString(s))
		if limit := c.characters; (c.dataType == "char" || c.dataType == "varchar") && n > limit {
			return nil, fmt.Errorf("%d characters are more than %s can hold", n, c.declared)
		}
		if c.dataType != "char" && c.dataType != "varchar" && int64(len(s)) > c.octets && strings.HasPrefix(c.charset, "utf8") {
			return nil, fmt.Errorf("%d bytes are more than %s can hold", len(s), c.declared)
		}
	}
	return s, nil
}

// exactly is a decimal as the column writes it, if the column has to round nothing.
func exactly(s string, scale int) string {
	sign, digits := "", strings.TrimPrefix(s, "+")
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	whole, rest, _ := strings.Cut(digits, ".")
	if len(rest) > scale || whole+rest == "" || strings.Trim(whole+rest, "0123456789") != "" {
		return s
	}
	if whole = strings.TrimLeft(whole, "0"); whole == "" {
		whole = "0"
	}
	if strings.Trim(whole+rest, "0") == "" {
		sign = ""
	}
	if scale == 0 {
		return sign + whole
	}
	return sign + whole + "." + rest + strings.Repeat("0", scale-len(rest))
}

// set puts the members in the column's order.
func (c *tableColumn) set(s string) (any, error) {
	if s == "" {
		return s, nil
	}
	given := strings.Split(s, ",")
	for _, m := range given {
		if !slices.Contains(c.members, m) {
			return nil, fmt.Errorf("%.40q is not one of %s", m, c.declared)
		}
	}
	var ordered []string
	for _, m := range c.members {
		if slices.Contains(given, m) {
			ordered = append(ordered, m)
		}
	}
	return strings.Join(ordered, ","), nil
}

// bytes fills a binary(n) up, as the server would.
func (c *tableColumn) bytes(conv mapping.Converter) mapping.Converter {
	bind := conv.Bind
	conv.Bind = func(v reflect.Value) (any, error) {
		x, err := bind(v)
		b, ok := x.([]byte)
		if !ok || err != nil {
			return x, err
		}
		if int64(len(b)) > c.octets {
			return nil, fmt.Errorf("%d bytes are more than %s can hold", len(b), c.declared)
		}
		if c.family == zeroed {
			b = append(b, make([]byte, int(c.octets)-len(b))...)
		}
		return b, nil
	}
	return conv
}

func (c *tableColumn) array(t reflect.Type) (mapping.Converter, error) {
	n := int64(t.Len())
	if n > c.octets || c.family == zeroed && n != c.octets {
		return mapping.Converter{}, fmt.Errorf("its %s column is not for %d bytes", c.declared, n)
	}
	return mapping.Array(string(wireBytes)), nil
}

func (c *tableColumn) jsonField(t reflect.Type) (mapping.Converter, error) {
	if c.family != jsons && c.family != texts {
		return mapping.Converter{}, fmt.Errorf("its %s column is not for JSON", c.declared)
	}
	return c.check(mapping.JSON(string(wireText), t))
}
