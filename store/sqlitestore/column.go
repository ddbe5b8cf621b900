package sqlitestore

import (
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

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

// Key implements mapping.Type.
func (c *column) Key(t reflect.Type) (mapping.Converter, error) {
	if !strings.EqualFold(c.collation, "BINARY") {
		return mapping.Converter{}, fmt.Errorf("its collation %s takes different keys for the same", c.collation)
	}
	need := func(a affinity) error {
		if c.affinity != a {
			return fmt.Errorf("a key of type %v needs a column of %s affinity, and it has %s", t, a, c.affinity)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		return c.textKey(), need(text)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return intConverter(), need(integer)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return uintConverter(), need(integer)
	case reflect.Float32, reflect.Float64:
		return mapping.FloatKey(t, floatConverter()), need(realNum)
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return mapping.Array(string(blob)), need(blob)
		}
	}
	return mapping.Converter{}, fmt.Errorf("a key cannot be a %v", t)
}

// textKey refuses a NUL where the driver tells of rows: it ends a text there.
func (c *column) textKey() mapping.Converter {
	key := mapping.Text(string(text))
	if !c.told {
		return key
	}
	bind := key.Bind
	key.Bind = func(v reflect.Value) (any, error) {
		if strings.Contains(v.String(), "\x00") {
			return nil, fmt.Errorf("a NUL, in a schema with triggers or foreign keys' actions")
		}
		return bind(v)
	}
	return key
}

// Version implements mapping.Type.
func (c *column) Version() error {
	if c.affinity != integer {
		return fmt.Errorf("a version needs an INTEGER column")
	}
	return nil
}

// Value implements mapping.Type.
func (c *column) Value(t reflect.Type, tag dbtag.Tag) (mapping.Converter, error) {
	conv, err := newConverter(t, tag, c.affinity)
	if err == nil && c.strict && conv.Type != "" && conv.Type != string(c.affinity) {
		err = fmt.Errorf("its %s column, of a STRICT table, refuses the %s that the field is stored as", c.affinity, conv.Type)
	}
	return conv, err
}

// newConverter returns the converter for a field in a column of that affinity.
// What it binds is one of SQLite's own types, never a time.Time or a bool, whose
// text the driver would choose; its Type is the affinity that keeps that as it is.
func newConverter(t reflect.Type, tag dbtag.Tag, a affinity) (mapping.Converter, error) {
	inner := mapping.Nullable(t)
	if tag.Unix != 0 && t != mapping.TimeType && inner != mapping.TimeType {
		return mapping.Converter{}, fmt.Errorf("a unit of time is for time.Time, and the field is %v", t)
	}
	switch {
	case tag.JSON:
		if err := wants(a, text, blob); err != nil {
			return mapping.Converter{}, err
		}
		return mapping.JSON(string(text), t)
	case t == mapping.TimeType:
		return timeConverter(tag.Unix, a)
	case inner != nil:
		c, err := newConverter(inner, tag, a)
		if err != nil {
			return c, err
		}
		return mapping.Null(t, c)
	case mapping.ConvertsItself(t):
		return mapping.SelfConverting("", plain), nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return boolConverter(), wants(a, integer, numeric, blob)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return intConverter(), wants(a, integer, numeric, blob)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return uintConverter(), wants(a, integer, numeric, blob)
	case reflect.Float32, reflect.Float64:
		// An INTEGER or NUMERIC column keeps 1.0 as 1, and Scan takes both.
		return floatConverter(), wants(a, realNum, numeric, integer, blob)
	case reflect.String:
		return mapping.Text(string(text)), wants(a, text, blob)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			stores := blob
			if a == text {
				stores = text
			}
			return mapping.Bytes(string(stores), a == text), wants(a, text, blob, numeric, integer, realNum)
		}
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return mapping.Array(string(blob)), wants(a, text, blob, numeric, integer, realNum)
		}
	}
	return mapping.Converter{}, fmt.Errorf("a column cannot hold a %v; the option json can", t)
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

func boolConverter() mapping.Converter {
	return mapping.Converter{
		Type: string(integer),
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

func intConverter() mapping.Converter { return mapping.Int(string(integer), "an INTEGER column", 64) }

func uintConverter() mapping.Converter {
	return mapping.Uint(string(integer), "an INTEGER column", 64)
}

func floatConverter() mapping.Converter {
	c := mapping.Float(string(realNum))
	c.Bind = func(v reflect.Value) (any, error) {
		if math.IsNaN(v.Float()) {
			return nil, fmt.Errorf("SQLite would store NaN as NULL")
		}
		return v.Float(), nil
	}
	return c
}

// plain makes one of SQLite's own types of what a type that converts itself stores.
func plain(x driver.Value) (any, error) {
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
}
