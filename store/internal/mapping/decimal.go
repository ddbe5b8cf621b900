package mapping

import (
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// Checked adds a condition, of the text that is sent, to a converter's.
func Checked(c Converter, check func(s string) error) Converter {
	bind := c.Bind
	c.Bind = func(v reflect.Value) (any, error) {
		x, err := bind(v)
		if s, ok := x.(string); ok && err == nil {
			err = check(s)
		}
		return x, err
	}
	return c
}

// AnyPrecision is that of a decimal column without a limit.
const AnyPrecision = math.MaxInt

// CheckNumber accepts what a decimal column does, so that one bad text does not stop
// the statement that writes it with others.
func CheckNumber(s string) error {
	_, err := strconv.ParseFloat(s, 64)
	infinite := strings.Contains(strings.ToLower(s), "inf")
	if err != nil && err.(*strconv.NumError).Err != strconv.ErrRange || strings.ContainsAny(s, "xXpP_") || infinite {
		return fmt.Errorf("%.40q is no number", s)
	}
	return nil
}

// DecimalInt lets number, a converter of int64, go by the text of a decimal column,
// which may hold nothing that does not fit an int64.
func DecimalInt(name string, number Converter, precision, scale int) (Converter, error) {
	if scale != 0 || precision > 18 {
		return number, fmt.Errorf("its %s column can hold more than an integer; use a string, or a type that converts itself", name)
	}
	return viaText(number, func(x any) string { return strconv.FormatInt(x.(int64), 10) },
		func(s string) (any, error) { return strconv.ParseInt(s, 10, 64) }), nil
}

// DecimalFloat goes by the text of a decimal column. It is refused where two numbers
// of the column would be one in Go: a value that is read and written again would be
// another.
func DecimalFloat(name, typ string, t reflect.Type, precision int) (Converter, error) {
	number := Float(typ)
	digits := 15
	if t.Bits() == 32 {
		digits = 6
	}
	if precision > digits {
		return number, fmt.Errorf("its %s column can hold more digits than a %v, which has %d; use a string, or a type that converts itself", name, t, digits)
	}
	bind := number.Bind
	number.Bind = func(v reflect.Value) (any, error) {
		if f := v.Float(); math.IsInf(f, 0) {
			return nil, fmt.Errorf("%v is more than a %s column can hold", f, name)
		}
		return bind(v)
	}
	return viaText(number, func(x any) string { return strconv.FormatFloat(x.(float64), 'g', -1, t.Bits()) },
		func(s string) (any, error) { return strconv.ParseFloat(s, t.Bits()) }), nil
}

// viaText lets a converter's values travel as text.
func viaText(c Converter, format func(any) string, parse func(string) (any, error)) Converter {
	bind, scan := c.Bind, c.Scan
	c.Bind = func(v reflect.Value) (any, error) {
		x, err := bind(v)
		if err != nil {
			return nil, err
		}
		return format(x), nil
	}
	c.Scan = func(src driver.Value, dst reflect.Value) error {
		s, ok := src.(string)
		if !ok {
			return Mismatch(src, "number")
		}
		x, err := parse(s)
		if err != nil {
			return Mismatch(src, dst.Type().String())
		}
		return scan(x, dst)
	}
	return c
}
