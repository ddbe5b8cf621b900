package pgstore

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
	switch {
	case c.family == folded:
		return none, fmt.Errorf("its type citext takes keys for the same that differ in case")
	case c.family == padded:
		return none, fmt.Errorf("its type char(n) takes keys for the same that differ in spaces at their end")
	case !c.deterministic:
		return none, fmt.Errorf("its collation %s is not deterministic, and takes different keys for the same", c.collation)
	case c.oddClass:
		return none, fmt.Errorf("its index compares by an operator class that is not the type's own")
	}
	need := func(f family) error {
		if c.family != f {
			return fmt.Errorf("a key of type %v is not for its type %s", t, c.declared)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		switch c.family {
		case uuids:
			return mapping.UUIDText(string(wireText), true), nil
		case enums:
			return c.text(mapping.Text(string(wireText))), nil
		}
		return c.text(mapping.Text(string(wireText))), need(texts)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return mapping.Int(string(wireInt), c.named(), max(c.bits, 1)), need(integers)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return mapping.Uint(string(wireInt), c.named(), max(c.bits, 1)), need(integers)
	case reflect.Float32, reflect.Float64:
		if c.family == floats && c.bits != t.Bits() {
			return none, fmt.Errorf("a key of type %v is not for its type %s, which rounds otherwise", t, c.declared)
		}
		return mapping.FloatKey(t, mapping.Float(string(wireFloat))), need(floats)
	case reflect.Array:
		switch {
		case mapping.IsUUID(t) && c.family == uuids:
			return mapping.UUID(string(wireText)), nil
		case t.Elem().Kind() == reflect.Uint8:
			return mapping.Array(string(wireBytes)), need(binary)
		}
	}
	return none, fmt.Errorf("a key cannot be a %v", t)
}
