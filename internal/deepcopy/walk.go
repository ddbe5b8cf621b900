package deepcopy

import (
	"bytes"
	"reflect"
	"unsafe"
)

// maxDepth bounds the recursion, because a stack that overflows ends the
// process. It is what encoding/json allows.
const maxDepth = 10_000

// walk is one copy in the making.
type walk struct {
	depth int
	// made holds the copy of each pointer, map and slice that was met, so that
	// what was shared is shared again. An entry is made before what it points to
	// is copied, or a cycle would not end.
	made map[origin]reflect.Value
}

// origin is what was copied. The type is part of it, for a struct and its first
// field have one address, and the length, for so have a slice and its prefix.
type origin struct {
	at  unsafe.Pointer
	len int
	of  reflect.Type
}

func (w *walk) remember(o origin, copied reflect.Value) {
	if w.made == nil {
		w.made = make(map[origin]reflect.Value)
	}
	w.made[o] = copied
}

func (w *walk) enter() error {
	if w.depth++; w.depth > maxDepth {
		return refuse("nested deeper than %d levels", maxDepth)
	}
	return nil
}

func (w *walk) leave() { w.depth-- }

func partPointer(t reflect.Type, elem *plan) func(*walk, reflect.Value) error {
	return func(w *walk, v reflect.Value) error {
		if v.IsNil() {
			return nil
		}
		from := origin{at: v.UnsafePointer(), of: t}
		if copied, ok := w.made[from]; ok {
			v.Set(copied)
			return nil
		}
		copied := reflect.New(t.Elem())
		copied.Elem().Set(v.Elem())
		if t.Name() != "" {
			copied = copied.Convert(t)
		}
		w.remember(from, copied)
		v.Set(copied)
		if elem.flat() {
			return nil
		}
		if err := w.enter(); err != nil {
			return err
		}
		defer w.leave()
		return elem.part(w, copied.Elem())
	}
}

func partSlice(t reflect.Type, elem *plan) func(*walk, reflect.Value) error {
	return func(w *walk, v reflect.Value) error {
		if v.IsNil() {
			return nil
		}
		n := v.Len()
		from := origin{at: v.UnsafePointer(), len: n, of: t}
		if copied, ok := w.made[from]; ok {
			v.Set(copied)
			return nil
		}
		copied := reflect.MakeSlice(t, n, n)
		reflect.Copy(copied, v)
		v.Set(copied)
		if n == 0 || elem.flat() {
			return nil // cannot be part of a cycle
		}
		w.remember(from, copied)
		if err := w.enter(); err != nil {
			return err
		}
		defer w.leave()
		for i := range n {
			if err := elem.part(w, copied.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
}

func partBytes(_ *walk, v reflect.Value) error {
	v.SetBytes(bytes.Clone(v.Bytes()))
	return nil
}

func partMap(t reflect.Type, key, elem *plan) func(*walk, reflect.Value) error {
	return func(w *walk, v reflect.Value) error {
		if v.IsNil() {
			return nil
		}
		from := origin{at: v.UnsafePointer(), of: t}
		if copied, ok := w.made[from]; ok {
			v.Set(copied)
			return nil
		}
		copied := reflect.MakeMapWithSize(t, v.Len())
		w.remember(from, copied)
		if err := w.enter(); err != nil {
			return err
		}
		defer w.leave()
		k, e := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		for entries := v.MapRange(); entries.Next(); {
			k.SetIterKey(entries)
			e.SetIterValue(entries)
			if !key.flat() {
				if err := key.part(w, k); err != nil {
					return err
				}
			}
			if !elem.flat() {
				if err := elem.part(w, e); err != nil {
					return err
				}
			}
			copied.SetMapIndex(k, e)
		}
		v.Set(copied)
		return nil
	}
}

// partInterface plans what the interface holds when it is there to be seen.
func partInterface(w *walk, v reflect.Value) error {
	if v.IsNil() {
		return nil
	}
	t := v.Elem().Type()
	step := func(err error) error { return within("("+t.String()+")", err) }
	p, err := planFor(t)
	if err != nil {
		return step(err)
	}
	if p.flat() {
		return nil
	}
	if err := w.enter(); err != nil {
		return err
	}
	defer w.leave()
	held := reflect.New(t).Elem()
	held.Set(v.Elem())
	if err := p.part(w, held); err != nil {
		return step(err)
	}
	v.Set(held)
	return nil
}

func partArray(elem *plan) func(*walk, reflect.Value) error {
	return func(w *walk, v reflect.Value) error {
		for i := range v.Len() {
			if err := elem.part(w, v.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
}

type fieldPlan struct {
	index int
	name  string
	*plan
}

func partFields(fields []fieldPlan) func(*walk, reflect.Value) error {
	return func(w *walk, v reflect.Value) error {
		for _, f := range fields {
			if err := f.part(w, v.Field(f.index)); err != nil {
				return within(f.name, err)
			}
		}
		return nil
	}
}

// cloneMethod returns the part for a type that copies itself, and nil for
// others.
func cloneMethod(t reflect.Type) func(*walk, reflect.Value) error {
	if t.Kind() == reflect.Interface {
		return nil // what it holds is asked
	}
	if m, ok := t.MethodByName("Clone"); ok && m.Type == reflect.FuncOf([]reflect.Type{t}, []reflect.Type{t}, false) {
		return func(_ *walk, v reflect.Value) error {
			if v.Kind() == reflect.Pointer && v.IsNil() {
				return nil
			}
			v.Set(m.Func.Call([]reflect.Value{v})[0])
			return nil
		}
	}
	if t.Kind() == reflect.Pointer {
		return nil
	}
	pointer := reflect.PointerTo(t)
	m, ok := pointer.MethodByName("Clone")
	if !ok || m.Type.NumIn() != 1 || m.Type.NumOut() != 1 {
		return nil
	}
	switch m.Type.Out(0) {
	case t:
		return func(_ *walk, v reflect.Value) error {
			v.Set(m.Func.Call([]reflect.Value{v.Addr()})[0])
			return nil
		}
	case pointer:
		return func(_ *walk, v reflect.Value) error {
			copied := m.Func.Call([]reflect.Value{v.Addr()})[0]
			if copied.IsNil() {
				return refuse("Clone of %v returned nil", t)
			}
			v.Set(copied.Elem())
			return nil
		}
	default:
		return nil
	}
}
