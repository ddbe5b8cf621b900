package mapping

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"time"
)

// What follows are the converters that databases share. Each takes typ for
// Converter.Type.

// TimeType is time.Time, a struct that is one value.
var TimeType = reflect.TypeFor[time.Time]()

// Mismatch is the error of a Scan that cannot take src.
func Mismatch(src driver.Value, want string) error {
	if src == nil {
		return fmt.Errorf("is NULL, and the field cannot be; use a pointer or sql.Null")
	}
	s := fmt.Sprintf("%v", src)
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return fmt.Errorf("holds %q (%T), which is no %s", s, src, want)
}

// Int is for signed integers. The column, as in "an INTEGER column", has as many
// bits; the field may have more.
func Int(typ, column string, bits int) Converter {
	least := int64(-1) << (bits - 1)
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) {
			switch n := v.Int(); {
			case n > ^least:
				return nil, fmt.Errorf("%d is more than %s can hold", n, column)
			case n < least:
				return nil, fmt.Errorf("%d is less than %s can hold", n, column)
			default:
				return n, nil
			}
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			n, ok := src.(int64)
			if !ok || dst.OverflowInt(n) {
				return Mismatch(src, dst.Type().String())
			}
			dst.SetInt(n)
			return nil
		},
	}
}

// Uint is for unsigned integers in a column of signed ones.
func Uint(typ, column string, bits int) Converter {
	most := uint64(1)<<(bits-1) - 1
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) {
			if v.Uint() > most {
				return nil, fmt.Errorf("%d is more than %s can hold", v.Uint(), column)
			}
			return int64(v.Uint()), nil
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			n, ok := src.(int64)
			if !ok || n < 0 || dst.OverflowUint(uint64(n)) {
				return Mismatch(src, dst.Type().String())
			}
			dst.SetUint(uint64(n))
			return nil
		},
	}
}

// Float takes integers, too, which some columns make of whole numbers.
func Float(typ string) Converter {
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) { return v.Float(), nil },
		Scan: func(src driver.Value, dst reflect.Value) error {
			switch n := src.(type) {
			case float64:
				dst.SetFloat(n)
			case int64:
				dst.SetFloat(float64(n))
			default:
				return Mismatch(src, "number")
			}
			return nil
		},
	}
}

// FloatKey makes c, a converter of floating-point numbers, fit for a key: -0 is 0,
// as it is to ==, NaN is refused, and a row whose key the type would round is
// unreadable, for it would come under the key of another row.
func FloatKey(t reflect.Type, c Converter) Converter {
	bind, scan := c.Bind, c.Scan
	c.Bind = func(v reflect.Value) (any, error) {
		x, err := bind(v)
		if f, ok := x.(float64); ok && err == nil {
			if math.IsNaN(f) {
				return nil, fmt.Errorf("NaN is no key, for it does not equal itself")
			}
			return f + 0, nil
		}
		return x, err
	}
	c.Scan = func(src driver.Value, dst reflect.Value) error {
		err := scan(src, dst)
		if f, ok := src.(float64); ok && err == nil && dst.Float() != f {
			err = Mismatch(src, t.String())
		}
		return err
	}
	return c
}

// Text is for strings.
func Text(typ string) Converter {
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) { return v.String(), nil },
		Scan: func(src driver.Value, dst reflect.Value) error {
			s, ok := src.(string)
			if !ok {
				return Mismatch(src, "text")
			}
			dst.SetString(s)
			return nil
		},
	}
}

// Bytes is for byte slices in a binary column, or one of text. It stores nil as
// NULL.
func Bytes(typ string, text bool) Converter {
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) {
			switch {
			case v.IsNil():
				return nil, nil
			case text:
				return string(v.Bytes()), nil
			}
			return append([]byte{}, v.Bytes()...), nil
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			switch b := src.(type) {
			case nil:
				dst.SetZero()
			case string:
				dst.SetBytes([]byte(b))
			case []byte:
				dst.SetBytes(append([]byte{}, b...))
			default:
				return Mismatch(src, "blob")
			}
			return nil
		},
	}
}

// Array is for arrays of bytes in a binary column.
func Array(typ string) Converter {
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) {
			return append([]byte{}, v.Bytes()...), nil // its bytes may have a type of their own
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			b, ok := src.([]byte)
			if !ok || len(b) != dst.Len() {
				return Mismatch(src, fmt.Sprintf("blob of %d bytes", dst.Len()))
			}
			copy(dst.Bytes(), b)
			return nil
		},
	}
}

// JSON is for any type, as JSON text. Nil is NULL, and not JSON's null.
func JSON(typ string, t reflect.Type) (Converter, error) {
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return Converter{}, fmt.Errorf("a %v is no JSON", t)
	}
	null := t.Kind() == reflect.Pointer || t.Kind() == reflect.Map || t.Kind() == reflect.Slice
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) {
			if null && v.IsNil() {
				return nil, nil
			}
			b, err := json.Marshal(v.Interface())
			return string(b), err
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			dst.SetZero()
			var data []byte
			switch b := src.(type) {
			case string:
				data = []byte(b)
			case []byte:
				data = b
			case nil:
				if null {
					return nil
				}
				return Mismatch(src, "JSON")
			default:
				return Mismatch(src, "JSON")
			}
			return json.Unmarshal(data, dst.Addr().Interface())
		},
	}, nil
}

// UnixTime is for times as integers, of which unix make a second. It rounds down
// to the unit. The column, as in "an integer", has as many bits.
func UnixTime(typ, column string, bits int, unix int64) Converter {
	number := Int(typ, column, bits)
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) {
			t := v.Interface().(time.Time)
			s := t.Unix()
			if s > math.MaxInt64/unix-1 || s < math.MinInt64/unix+1 {
				return nil, fmt.Errorf("the year %d is out of %s's reach", t.Year(), column)
			}
			return number.Bind(reflect.ValueOf(s*unix + int64(t.Nanosecond())/(1e9/unix)))
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			n, ok := src.(int64)
			if !ok {
				return Mismatch(src, "integer time")
			}
			seconds, rest := n/unix, n%unix
			dst.Set(reflect.ValueOf(time.Unix(seconds, rest*(1e9/unix)).UTC()))
			return nil
		},
	}
}
