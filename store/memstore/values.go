package memstore

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// keyRule refuses the keys that a Go map does not find again, or panics on.
type keyRule[K comparable] struct {
	// dynamic: K has interfaces in it, whose contents may not be comparable.
	dynamic bool
}

func newKeyRule[K comparable]() keyRule[K] {
	return keyRule[K]{dynamic: holds(reflect.TypeFor[K](), reflect.Interface)}
}

func (r keyRule[K]) check(key K) error {
	if r.dynamic && !reflect.ValueOf(&key).Elem().Comparable() {
		return fmt.Errorf("memstore: key of type %T: %w: it cannot be compared", key, lockstep.ErrInvalid)
	}
	if same := key; key != same {
		return fmt.Errorf("memstore: key %v: %w: it holds NaN, which differs from itself", key, lockstep.ErrInvalid)
	}
	return nil
}

// holds tells whether kind occurs in t itself: in its fields and elements, but
// not behind pointers.
func holds(t reflect.Type, kind reflect.Kind) bool {
	switch t.Kind() {
	case kind:
		return true
	case reflect.Array:
		return holds(t.Elem(), kind)
	case reflect.Struct:
		for i := range t.NumField() {
			if holds(t.Field(i).Type, kind) {
				return true
			}
		}
	}
	return false
}

// valueRule is how values are copied and measured.
type valueRule[V any] struct {
	clone func(V) (V, error)
	// measure is clone, and the size of the value in bytes: of its JSON where
	// that is how it is copied, else of its numbers, strings and flat slices.
	measure func(V) (V, int, error)
}

func newValueRule[V any](clone func(V) V) valueRule[V] {
	if clone == nil && !flat(reflect.TypeFor[V]()) {
		return valueRule[V]{
			clone: func(v V) (V, error) {
				copied, _, err := throughJSON(v)
				return copied, err
			},
			measure: throughJSON[V],
		}
	}
	if clone == nil {
		clone = func(v V) V { return v }
	}
	return valueRule[V]{
		clone: func(v V) (V, error) { return clone(v), nil },
		measure: func(v V) (V, int, error) {
			return clone(v), size(reflect.ValueOf(&v).Elem()), nil
		},
	}
}

func throughJSON[V any](v V) (copied V, n int, err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return copied, 0, err
	}
	err = json.Unmarshal(data, &copied)
	return copied, len(data), err
}

var timeType = reflect.TypeFor[time.Time]()

// flat tells whether assignment copies a value of type t whole. A time.Time
// points to its location, which nobody changes.
func flat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return true
	case reflect.Array:
		return flat(t.Elem())
	case reflect.Struct:
		if t == timeType {
			return true
		}
		for i := range t.NumField() {
			if !flat(t.Field(i).Type) {
				return false
			}
		}
		return true
	default:
		return false
	}
}

// size follows slices of flat elements and nothing else, so that it ends
// whatever a value points to.
func size(v reflect.Value) int {
	n := 0
	switch v.Kind() {
	case reflect.String:
		return v.Len()
	case reflect.Slice:
		if flat(v.Type().Elem()) {
			for i := range v.Len() {
				n += size(v.Index(i))
			}
		}
		return n
	case reflect.Array:
		for i := range v.Len() {
			n += size(v.Index(i))
		}
		return n
	case reflect.Struct:
		if v.Type() == timeType {
			return int(timeType.Size())
		}
		for i := range v.NumField() {
			n += size(v.Field(i))
		}
		return n
	default:
		return int(v.Type().Size())
	}
}
