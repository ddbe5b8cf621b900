// Package nils tells nil from something, also where an interface hides it.
package nils

import "reflect"

// Is tells whether v is nil, or an interface around a nil pointer, map, function,
// slice or channel, whose methods would most likely panic.
func Is(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Interface, reflect.Slice, reflect.Chan:
		return r.IsNil()
	}
	return false
}
