package deepcopy

import (
	"net/netip"
	"reflect"
	"sync"
	"time"
)

// plan is how values of one type are copied. Planning a type that contains
// itself meets its own plan half-way, so plans refer to each other by pointer.
type plan struct {
	// part makes a value that was copied by assignment private: it replaces
	// whatever the value still shares with the original. The value can be set,
	// or is an embedded struct of unexported type, whose exported fields can.
	// It is nil for a flat type.
	part func(w *walk, v reflect.Value) error
	// unfinished plans are of types that contain themselves. That takes a
	// pointer, slice or map, so they are not flat.
	unfinished bool
}

func (p *plan) flat() bool { return p.part == nil && !p.unfinished }

// planner plans one type and all that it contains.
type planner map[reflect.Type]*plan

// immutable types hold pointers, and share what they point to with everybody.
var immutable = map[reflect.Type]bool{
	reflect.TypeFor[time.Time]():      true,
	reflect.TypeFor[*time.Location](): true,
	reflect.TypeFor[netip.Addr]():     true,
	reflect.TypeFor[netip.AddrPort](): true,
	reflect.TypeFor[netip.Prefix]():   true,
}

// plans remembers every type that was planned. Programs have few types, and
// interfaces bring the same ones again and again.
var plans sync.Map // reflect.Type → *plan

func planFor(t reflect.Type) (*plan, error) {
	if p, ok := plans.Load(t); ok {
		return p.(*plan), nil
	}
	p, err := planner{}.plan(t)
	if err != nil {
		return nil, err
	}
	plans.Store(t, p)
	return p, nil
}

func (pl planner) plan(t reflect.Type) (p *plan, err error) {
	if p, ok := pl[t]; ok {
		return p, nil
	}
	p = &plan{unfinished: true}
	pl[t] = p
	if p.part = cloneMethod(t); p.part == nil {
		p.part, err = pl.partFor(t)
	}
	p.unfinished = false
	return p, err
}

func (pl planner) partFor(t reflect.Type) (part func(*walk, reflect.Value) error, err error) {
	if immutable[t] {
		return nil, nil
	}
	if isLock(t) {
		return nil, refuse("%v is a lock", t)
	}
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return nil, refuse("a %v cannot be copied", t.Kind())
	case reflect.Interface:
		return partInterface, nil
	case reflect.Struct:
		return pl.partStruct(t)
	case reflect.Array:
		if t.Len() == 0 {
			return nil, nil
		}
		elem, err := pl.plan(t.Elem())
		if err != nil || elem.flat() {
			return nil, err
		}
		return partArray(elem), nil
	case reflect.Pointer:
		elem, err := pl.plan(t.Elem())
		return partPointer(t, elem), err
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return partBytes, nil
		}
		elem, err := pl.plan(t.Elem())
		return partSlice(t, elem), err
	case reflect.Map:
		key, err := pl.plan(t.Key())
		if err != nil {
			return nil, err
		}
		elem, err := pl.plan(t.Elem())
		return partMap(t, key, elem), err
	default:
		return nil, nil
	}
}

// partStruct plans the fields that assignment leaves shared. Reflection may
// read an unexported field and not set it, so such a field must be flat; the
// exported fields of an embedded struct are the exception, for they are fields
// of the outer struct too.
func (pl planner) partStruct(t reflect.Type) (func(*walk, reflect.Value) error, error) {
	var fields []fieldPlan
	for i := range t.NumField() {
		f := t.Field(i)
		var p *plan
		var err error
		switch {
		case f.IsExported():
			p, err = pl.plan(f.Type)
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			// By structure alone: a Clone method could not set the field.
			p = new(plan)
			p.part, err = pl.partFor(f.Type)
		default:
			p, err = new(plan), requireFlat(f.Type)
		}
		if err != nil {
			return nil, within(f.Name, err)
		}
		if !p.flat() {
			fields = append(fields, fieldPlan{index: i, name: f.Name, plan: p})
		}
	}
	if len(fields) == 0 {
		return nil, nil
	}
	return partFields(fields), nil
}

// requireFlat refuses an unexported field that assignment would leave shared.
// It looks at structure alone, for a Clone method cannot be called there.
func requireFlat(t reflect.Type) error {
	switch {
	case immutable[t]:
		return nil
	case isLock(t):
		return refuse("%v is a lock", t)
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if err := requireFlat(f.Type); err != nil {
				return within(f.Name, err)
			}
		}
		return nil
	case reflect.Array:
		if t.Len() == 0 {
			return nil
		}
		return requireFlat(t.Elem())
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Interface,
		reflect.Pointer, reflect.Slice, reflect.Map:
		return refuse("an unexported %v cannot be copied from outside its package", t)
	default:
		return nil
	}
}

// isLock tells what go vet calls a lock: a value whose pointer has Lock and
// Unlock and which has not by itself, so that a copy would be another lock.
func isLock(t reflect.Type) bool {
	locker := reflect.TypeFor[sync.Locker]()
	return t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface &&
		reflect.PointerTo(t).Implements(locker) && !t.Implements(locker)
}

// typeName is a type's name without its package, where it has one.
func typeName(t reflect.Type) string {
	if t.Name() != "" {
		return t.Name()
	}
	return t.String()
}
