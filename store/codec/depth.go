package codec

import (
	"fmt"
	"reflect"
)

const (
	// maxDepth is how deep CBOR values may be nested, when written as when read. The
	// decoder counts, in both cases.
	maxDepth = 256
	// maxSteps is how deep a value in Go may be nested, with the pointers and
	// interfaces of which CBOR knows nothing.
	maxSteps = 16 * maxDepth
)

// A CBOR encoder follows a value that contains itself until the stack is full,
// which ends the program and cannot be recovered from. The walk below comes
// first, for types that can contain themselves; the others cost nothing.

// canLoop tells whether values of type t can contain values of type t, or
// anything at all.
func canLoop(t reflect.Type) bool { return loops(t, map[reflect.Type]bool{}) }

func loops(t reflect.Type, above map[reflect.Type]bool) bool {
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map, reflect.Struct:
	default:
		return false
	}
	if above[t] {
		return true
	}
	above[t] = true
	defer delete(above, t)
	switch t.Kind() {
	case reflect.Map:
		return loops(t.Key(), above) || loops(t.Elem(), above)
	case reflect.Struct:
		for f := range t.Fields() {
			if (f.IsExported() || f.Anonymous) && loops(f.Type, above) {
				return true
			}
		}
		return false
	}
	return loops(t.Elem(), above)
}

// checkDepth fails for a value that contains itself, which is nested without end.
func checkDepth(v reflect.Value, left int) error {
	if left == 0 {
		return fmt.Errorf("the value is nested deeper than %d levels, or contains itself", maxSteps)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return checkDepth(v.Elem(), left-1)
	case reflect.Slice, reflect.Array:
		if !canHold(v.Type().Elem()) {
			return nil
		}
		for i := range v.Len() {
			if err := checkDepth(v.Index(i), left-1); err != nil {
				return err
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if err := checkDepth(it.Key(), left-1); err != nil {
				return err
			}
			if err := checkDepth(it.Value(), left-1); err != nil {
				return err
			}
		}
	case reflect.Struct:
		t := v.Type()
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() || f.Anonymous {
				if err := checkDepth(v.Field(i), left-1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// canHold tells whether a value of type t can lead anywhere.
func canHold(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Array, reflect.Map, reflect.Struct:
		return true
	}
	return false
}
