package sqlitestore

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
)

// converter takes a field's value to what its column holds, and back. What bind
// returns is one of SQLite's own types, never a time.Time or a bool, whose text
// the driver would choose. Its errors say what is wrong with the value; the
// caller names the field and the column.
type converter struct {
	bind func(v reflect.Value) (any, error)
	scan func(src driver.Value, dst reflect.Value) error
	// stores is the type of what bind returns; empty where only the value tells.
	stores affinity
}

// affinity is what a column does to values that are put into it, by the rules of
// SQLite for declared types (https://sqlite.org/datatype3.html#determination_of_column_affinity).
type affinity string

const (
	text    affinity = "TEXT"    // numbers become text
	integer affinity = "INTEGER" // text that looks like a number becomes one
	numeric affinity = "NUMERIC" // the same
	realNum affinity = "REAL"    // the same, and integers become floating-point
	blob    affinity = "BLOB"    // nothing changes
)

func affinityOf(declared string, strict bool) affinity {
	d := strings.ToUpper(declared)
	switch {
	case d == "ANY" && strict: // and NUMERIC elsewhere, as whatever has no meaning
		return blob
	case strings.Contains(d, "INT"):
		return integer
	case strings.Contains(d, "CHAR"), strings.Contains(d, "CLOB"), strings.Contains(d, "TEXT"):
		return text
	case strings.Contains(d, "BLOB"), d == "":
		return blob
	case strings.Contains(d, "REAL"), strings.Contains(d, "FLOA"), strings.Contains(d, "DOUB"):
		return realNum
	}
	return numeric
}

var (
	scannerType = reflect.TypeFor[sql.Scanner]()
	valuerType  = reflect.TypeFor[driver.Valuer]()
	timeType    = reflect.TypeFor[time.Time]()
)

// newConverter returns the converter for a field in a column of that affinity,
// or says why there is none: because the type cannot be stored, or because the
// column would change its values.
func newConverter(t reflect.Type, tag dbtag.Tag, a affinity) (converter, error) {
	if tag.Unix != 0 {
		if base := baseType(t); base != timeType {
			return converter{}, fmt.Errorf("a unit of time is for time.Time, and the field is %v", t)
		}
	}
	switch {
	case tag.JSON:
		return jsonConverter(t, a)
	case t == timeType:
		return timeConverter(tag.Unix, a)
	case t.Kind() == reflect.Pointer:
		return pointerConverter(t, tag, a)
	case isSQLNull(t):
		return nullConverter(t, tag, a)
	case t.Implements(valuerType) && reflect.PointerTo(t).Implements(scannerType):
		return scannerConverter(), nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return boolConverter(), wants(a, integer, numeric, blob)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return intConverter(), wants(a, integer, numeric, blob)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return uintConverter(), wants(a, integer, numeric, blob)
	case reflect.Float32, reflect.Float64:
		// An INTEGER or NUMERIC column keeps 1.0 as 1, and scan takes both.
		return floatConverter(), wants(a, realNum, numeric, integer, blob)
	case reflect.String:
		return stringConverter(), wants(a, text, blob)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return bytesConverter(a), wants(a, text, blob, numeric, integer, realNum)
		}
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return arrayConverter(), wants(a, text, blob, numeric, integer, realNum)
		}
	}
	return converter{}, fmt.Errorf("a column cannot hold a %v; the option json can", t)
}

// wants refuses an affinity that would change values.
func wants(got affinity, ok ...affinity) error {
	for _, a := range ok {
		if a == got {
			return nil
		}
	}
	return fmt.Errorf("its %s column would change the field's values", got)
}

// baseType is what is behind a pointer or a sql.Null.
func baseType(t reflect.Type) reflect.Type {
	switch {
	case t.Kind() == reflect.Pointer:
		return t.Elem()
	case isSQLNull(t):
		return t.Field(0).Type
	}
	return t
}

func mismatch(src driver.Value, want string) error {
	if src == nil {
		return fmt.Errorf("is NULL, and the field cannot be; use a pointer or sql.Null")
	}
	s := fmt.Sprintf("%v", src)
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return fmt.Errorf("holds %q (%T), which is no %s", s, src, want)
}

func boolConverter() converter {
	return converter{
		stores: integer,
		bind: func(v reflect.Value) (any, error) {
			if v.Bool() {
				return int64(1), nil
			}
			return int64(0), nil
		},
		scan: func(src driver.Value, dst reflect.Value) error {
			n, ok := src.(int64)
			if !ok || n != 0 && n != 1 {
				return mismatch(src, "boolean")
			}
			dst.SetBool(n == 1)
			return nil
		},
	}
}

func intConverter() converter {
	return converter{
		stores: integer,
		bind:   func(v reflect.Value) (any, error) { return v.Int(), nil },
		scan: func(src driver.Value, dst reflect.Value) error {
			n, ok := src.(int64)
			if !ok || dst.OverflowInt(n) {
				return mismatch(src, dst.Type().String())
			}
			dst.SetInt(n)
			return nil
		},
	}
}

func uintConverter() converter {
	return converter{
		stores: integer,
		bind: func(v reflect.Value) (any, error) {
			if v.Uint() > math.MaxInt64 {
				return nil, fmt.Errorf("%d is more than an INTEGER column can hold", v.Uint())
			}
			return int64(v.Uint()), nil
		},
		scan: func(src driver.Value, dst reflect.Value) error {
			n, ok := src.(int64)
			if !ok || n < 0 || dst.OverflowUint(uint64(n)) {
				return mismatch(src, dst.Type().String())
			}
			dst.SetUint(uint64(n))
			return nil
		},
	}
}

func floatConverter() converter {
	return converter{
		stores: realNum,
		bind: func(v reflect.Value) (any, error) {
			if math.IsNaN(v.Float()) {
				return nil, fmt.Errorf("SQLite would store NaN as NULL")
			}
			return v.Float(), nil
		},
		scan: func(src driver.Value, dst reflect.Value) error {
			switch n := src.(type) {
			case float64:
				dst.SetFloat(n)
			case int64:
				dst.SetFloat(float64(n))
			default:
				return mismatch(src, "number")
			}
			return nil
		},
	}
}

func stringConverter() converter {
	return converter{
		stores: text,
		bind:   func(v reflect.Value) (any, error) { return v.String(), nil },
		scan: func(src driver.Value, dst reflect.Value) error {
			s, ok := src.(string)
			if !ok {
				return mismatch(src, "text")
			}
			dst.SetString(s)
			return nil
		},
	}
}

// bytesConverter stores nil as NULL, and as text where the column is for text.
func bytesConverter(a affinity) converter {
	stores := blob
	if a == text {
		stores = text
	}
	return converter{
		stores: stores,
		bind: func(v reflect.Value) (any, error) {
			switch {
			case v.IsNil():
				return nil, nil
			case a == text:
				return string(v.Bytes()), nil
			}
			return append([]byte{}, v.Bytes()...), nil
		},
		scan: func(src driver.Value, dst reflect.Value) error {
			switch b := src.(type) {
			case nil:
				dst.SetZero()
			case string:
				dst.SetBytes([]byte(b))
			case []byte:
				dst.SetBytes(append([]byte{}, b...))
			default:
				return mismatch(src, "blob")
			}
			return nil
		},
	}
}

func arrayConverter() converter {
	return converter{
		stores: blob,
		bind: func(v reflect.Value) (any, error) {
			return append([]byte{}, v.Bytes()...), nil // its bytes may have a type of their own
		},
		scan: func(src driver.Value, dst reflect.Value) error {
			b, ok := src.([]byte)
			if !ok || len(b) != dst.Len() {
				return mismatch(src, fmt.Sprintf("blob of %d bytes", dst.Len()))
			}
			copy(dst.Bytes(), b)
			return nil
		},
	}
}

func jsonConverter(t reflect.Type, a affinity) (converter, error) {
	if err := wants(a, text, blob); err != nil {
		return converter{}, err
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return converter{}, fmt.Errorf("a %v is no JSON", t)
	}
	null := t.Kind() == reflect.Pointer || t.Kind() == reflect.Map || t.Kind() == reflect.Slice
	return converter{
		stores: text,
		bind: func(v reflect.Value) (any, error) {
			if null && v.IsNil() {
				return nil, nil
			}
			b, err := json.Marshal(v.Interface())
			return string(b), err
		},
		scan: func(src driver.Value, dst reflect.Value) error {
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
				return mismatch(src, "JSON")
			default:
				return mismatch(src, "JSON")
			}
			return json.Unmarshal(data, dst.Addr().Interface())
		},
	}, nil
}

func pointerConverter(t reflect.Type, tag dbtag.Tag, a affinity) (converter, error) {
	if t.Elem().Kind() == reflect.Pointer {
		return converter{}, fmt.Errorf("a pointer to a pointer cannot be told from a pointer to NULL")
	}
	inner, err := newConverter(t.Elem(), tag, a)
	return converter{
		stores: inner.stores,
		bind: func(v reflect.Value) (any, error) {
			if v.IsNil() {
				return nil, nil
			}
			return inner.bind(v.Elem())
		},
		scan: func(src driver.Value, dst reflect.Value) error {
			if src == nil {
				dst.SetZero()
				return nil
			}
			p := reflect.New(t.Elem())
			if err := inner.scan(src, p.Elem()); err != nil {
				return err
			}
			dst.Set(p)
			return nil
		},
	}, err
}

// isSQLNull tells whether t is sql.Null[T], sql.NullString or one of their kin: a
// value and whether it is valid.
func isSQLNull(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.PkgPath() == "database/sql" && t.NumField() == 2 &&
		t.Field(1).Name == "Valid" && t.Field(1).Type.Kind() == reflect.Bool
}

// nullConverter does not go through their Scan, which cannot make a time out of
// SQLite's text.
func nullConverter(t reflect.Type, tag dbtag.Tag, a affinity) (converter, error) {
	inner, err := newConverter(t.Field(0).Type, tag, a)
	return converter{
		stores: inner.stores,
		bind: func(v reflect.Value) (any, error) {
			if !v.Field(1).Bool() {
				return nil, nil
			}
			return inner.bind(v.Field(0))
		},
		scan: func(src driver.Value, dst reflect.Value) error {
			dst.SetZero()
			if src == nil {
				return nil
			}
			dst.Field(1).SetBool(true)
			return inner.scan(src, dst.Field(0))
		},
	}, err
}

// scannerConverter is for types that convert themselves. They choose what they
// store, and are trusted to read it back.
func scannerConverter() converter {
	return converter{
		bind: func(v reflect.Value) (any, error) {
			x, err := driver.DefaultParameterConverter.ConvertValue(v.Interface())
			if err != nil {
				return nil, err
			}
			switch x := x.(type) {
			case bool:
				if x {
					return int64(1), nil
				}
				return int64(0), nil
			case time.Time:
				return formatTime(x)
			}
			return x, nil
		},
		scan: func(src driver.Value, dst reflect.Value) error {
			dst.SetZero()
			return dst.Addr().Interface().(sql.Scanner).Scan(src)
		},
	}
}
