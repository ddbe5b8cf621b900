package mapping

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"reflect"
)

// Nullable returns what may be absent in a t that can hold NULL, a pointer, a
// sql.Null[T], a sql.NullString or one of their kin; nil for other types.
func Nullable(t reflect.Type) reflect.Type {
	switch {
	case t.Kind() == reflect.Pointer:
		return t.Elem()
	case isSQLNull(t):
		return t.Field(0).Type
	}
	return nil
}

// isSQLNull tells whether t is a value and whether it is valid.
func isSQLNull(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.PkgPath() == "database/sql" && t.NumField() == 2 &&
		t.Field(1).Name == "Valid" && t.Field(1).Type.Kind() == reflect.Bool
}

// Null makes the converter of t of the one for its Nullable.
func Null(t reflect.Type, inner Converter) (Converter, error) {
	if t.Kind() != reflect.Pointer {
		return sqlNull(inner), nil
	}
	if t.Elem().Kind() == reflect.Pointer {
		return Converter{}, fmt.Errorf("a pointer to a pointer cannot be told from a pointer to NULL")
	}
	return pointer(t.Elem(), inner), nil
}

func pointer(elem reflect.Type, inner Converter) Converter {
	return Converter{
		Type: inner.Type,
		Bind: func(v reflect.Value) (any, error) {
			if v.IsNil() {
				return nil, nil
			}
			return inner.Bind(v.Elem())
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			if src == nil {
				dst.SetZero()
				return nil
			}
			p := reflect.New(elem)
			if err := inner.Scan(src, p.Elem()); err != nil {
				return err
			}
			dst.Set(p)
			return nil
		},
	}
}

// sqlNull does not go through their Scan, which knows only the forms of drivers.
func sqlNull(inner Converter) Converter {
	return Converter{
		Type: inner.Type,
		Bind: func(v reflect.Value) (any, error) {
			if !v.Field(1).Bool() {
				return nil, nil
			}
			return inner.Bind(v.Field(0))
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			dst.SetZero()
			if src == nil {
				return nil
			}
			dst.Field(1).SetBool(true)
			return inner.Scan(src, dst.Field(0))
		},
	}
}

var (
	scannerType = reflect.TypeFor[sql.Scanner]()
	valuerType  = reflect.TypeFor[driver.Valuer]()
)

// ConvertsItself tells whether t has the methods that SelfConverting needs.
func ConvertsItself(t reflect.Type) bool {
	return t.Implements(valuerType) && reflect.PointerTo(t).Implements(scannerType)
}

// SelfConverting is for types that convert themselves. They choose what they
// store, and are trusted to read it back. Plain turns a value of any of the
// driver's types into one that Bind may return.
func SelfConverting(typ string, plain func(driver.Value) (any, error)) Converter {
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) {
			x, err := driver.DefaultParameterConverter.ConvertValue(v.Interface())
			if err != nil {
				return nil, err
			}
			return plain(x)
		},
		Scan: func(src driver.Value, dst reflect.Value) error {
			dst.SetZero()
			return dst.Addr().Interface().(sql.Scanner).Scan(src)
		},
	}
}
