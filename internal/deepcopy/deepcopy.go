// Package deepcopy makes private copies of values whose type is only known to
// the program that uses the cache.
//
// What a type needs is decided once, by [For]. Three things can come out of it:
// assignment is a copy already; a copy is made, by the type's own Clone method
// or field by field; or the type cannot be copied from outside, and the error
// names the field that is in the way.
//
// # What is copied, and what is shared
//
// Numbers, booleans, strings, and arrays and structs of those are flat:
// assignment copies them. So are time.Time, *time.Location and the address
// types of net/netip, which hold pointers and never change what they point to.
//
// Pointers, slices, maps and interfaces are followed, an interface by the type
// of what it holds. Two pointers to one value, or one map in two places, are
// again one in the copy, and so a cycle stays a cycle. Slices that overlap in
// one array do not overlap any more, and a pointer into the middle of another
// value points to a copy of its own. Nil stays nil, and empty stays empty.
//
// A type T with a method Clone() T, or a *T with Clone() T or Clone() *T, is
// copied by that method, wherever it is met in an exported place; a nil
// pointer is not asked. What Clone returns is believed, and a panic in it is
// the program's own.
//
// # What is refused
//
// Functions, channels and unsafe pointers, because there is no copy of them;
// locks and whatever contains one by value (anything with Lock and Unlock on
// its pointer, as go vet has it), because a copied lock guards nothing; and
// unexported fields that are not flat, because nobody but their package knows
// whether what they point to may be shared.
package deepcopy

import (
	"bytes"
	"reflect"
)

// Copier copies values of one type. It may be used from many goroutines at
// once, as long as nobody changes the value meanwhile.
type Copier[V any] struct {
	// Flat says that assignment is a copy, and that Copy does nothing but that.
	Flat bool
	// Copy returns a copy that shares nothing with v that could be changed.
	//
	// It fails only for what a type cannot tell beforehand: an interface that
	// holds something that For would refuse, a value nested deeper than 10,000
	// levels, or a Clone method that returns nil. For types without interfaces,
	// pointers to themselves and Clone methods it never fails.
	//
	// A flat value costs nothing, a []byte one allocation; any other type is
	// walked by reflection, at 100 to 300 ns for every pointer, slice and map.
	Copy func(v V) (V, error)
}

// For decides how values of type V are copied. The error says which field
// stands in the way, as in "User.Friends.mu: sync.Mutex is a lock".
func For[V any]() (Copier[V], error) {
	if f, ok := any(cloneBytes).(func(V) (V, error)); ok {
		return Copier[V]{Copy: f}, nil
	}
	t := reflect.TypeFor[V]()
	p, err := planFor(t)
	if err != nil {
		return Copier[V]{}, within(typeName(t), err)
	}
	if p.flat() {
		return Copier[V]{Flat: true, Copy: func(v V) (V, error) { return v, nil }}, nil
	}
	return Copier[V]{Copy: func(v V) (V, error) {
		var w walk
		if err := p.part(&w, reflect.ValueOf(&v).Elem()); err != nil {
			var none V
			return none, within(typeName(t), err)
		}
		return v, nil
	}}, nil
}

func cloneBytes(v []byte) ([]byte, error) { return bytes.Clone(v), nil }
