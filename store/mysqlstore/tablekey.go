package mysqlstore

import (
	"fmt"
	"reflect"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Key implements mapping.Type. Two keys that differ by Go's == must be two for the
// column, whose index keeps the rows apart, and two that the column takes for one
// must be one in Go.
func (c *tableColumn) Key(t reflect.Type) (mapping.Converter, error) {
	none := mapping.Converter{}
	if c.prefix {
		return none, fmt.Errorf("the primary key has only its beginning, and takes keys for the same that begin alike")
	}
	need := func(f family) error {
		if c.family != f {
			return fmt.Errorf("a key of type %v is not for its type %s", t, c.declared)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		return c.textKey(t)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		c.bits = max(c.bits, 1)
		return c.signed(), need(integers)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		c.bits = max(c.bits, 1)
		return c.whole(), need(integers)
	case reflect.Float64:
		if c.family == floats && c.bits == 32 {
			return none, fmt.Errorf("a key of type float64 is not for its type %s, which rounds", c.declared)
		}
		return mapping.FloatKey(t, c.float()), need(floats)
	case reflect.Float32:
		return none, fmt.Errorf("a key cannot be a float32: the server compares a float column as doubles")
	case reflect.Array:
		switch {
		case mapping.IsUUID(t) && c.family == uuids:
			return mapping.UUID(string(wireText)), nil
		case t.Elem().Kind() == reflect.Uint8 && (c.family == binary || c.family == zeroed):
			return c.array(t)
		case t.Elem().Kind() == reflect.Uint8:
			return none, need(binary)
		}
	}
	return none, fmt.Errorf("a key cannot be a %v", t)
}

// textKey is for strings. A key of another character set than the session's would be
// converted for each comparison, and the index would not find it.
func (c *tableColumn) textKey(t reflect.Type) (mapping.Converter, error) {
	none := mapping.Converter{}
	switch {
	case c.family == uuids:
		return mapping.UUIDText(string(wireText), true), nil
	case c.family == binary:
		// VARBINARY is compared byte for byte; it is read as bytes, and is a text all the
		// same.
		conv := mapping.Text(string(wireText))
		bind := conv.Bind
		conv.Bind = func(v reflect.Value) (any, error) {
			if int64(v.Len()) > c.octets {
				return nil, fmt.Errorf("%d bytes are more than %s can hold", v.Len(), c.declared)
			}
			return bind(v)
		}
		return conv, nil
	case c.family == padded:
		return none, fmt.Errorf("its type %s takes keys for the same that differ in spaces at their end; varchar with the collation %s does not, nor does varbinary", c.declared, c.server.nopadName())
	case c.family == enums || c.family == sets:
		return none, fmt.Errorf("its type %s is ordered by number and compared as text", c.declared)
	case c.family != texts:
		return none, fmt.Errorf("a key of type %v is not for its type %s", t, c.declared)
	case !c.nopad():
		return none, fmt.Errorf("its collation %s takes different keys for the same, be it only in spaces at their end; it must be %s, or the column varbinary; ALTER TABLE … MODIFY %s %s CHARACTER SET utf8mb4 COLLATE %[2]s NOT NULL changes it",
			c.collation, c.server.nopadName(), quote(c.name), c.declared)
	case c.charset != "utf8mb4":
		return none, fmt.Errorf("its character set is %s, and must be utf8mb4, or the column varbinary", c.charset)
	}
	return c.check(mapping.Text(string(wireText)), nil)
}

// nopadName is the collation that compares as Go does.
func (sv *server) nopadName() string {
	if sv.mariadb() {
		return "utf8mb4_nopad_bin"
	}
	return "utf8mb4_0900_bin"
}
