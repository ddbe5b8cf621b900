// Package keytext turns the keys of a key-value table into what its key column
// holds, and back, for every SQL store.
package keytext

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Codec turns keys into what the key column holds, and back. Two keys that
// are equal by Go's == have one encoding, two that differ have two, and the
// column compares encodings byte for byte:
//
//	Go                              form      encoding
//	string                          Text      its bytes, valid UTF-8 or not
//	int…, uint8…uint32              Integer   its value
//	uint, uint64, uintptr           Integer   its value; above MaxInt64 its two's complement
//	bool                            Integer   0 or 1
//	float32, float64                Real      its value; -0 is 0, NaN is refused
//	arrays of bytes                 Bytes     its bytes
//	other arrays, structs, complex  TEXT      a list, as in ["acme",7]; see tuple.go
//
// Types whose == looks at something that cannot be stored are refused when the
// store is opened: pointers, channels, interfaces, time.Time (whose == compares
// locations by their address), structs with unexported fields.
type Codec[K comparable] struct {
	// Kind is stored with the table, which is opened with that kind only.
	Kind string
	Form Form
	// Encode returns a string, an int64, a float64 or a []byte, as Form says. Its
	// error is ErrInvalid or ErrTooLarge, and names the key.
	Encode func(k K) (any, error)
	// Decode takes what Encode has returned. Its error is ErrDecode.
	Decode func(v any) (K, error)
}

// Form is what a key column holds.
type Form string

const (
	Text    Form = "text" // bytes that are mostly readable, and any bytes
	Integer Form = "integer"
	Real    Form = "real"
	Bytes   Form = "bytes"
)

// ErrDecode says that a column holds what no key is encoded as.
var ErrDecode = errors.New("the row does not decode")

// New returns K's codec, or an error that is ErrInvalid and names the
// part of K that cannot be a key.
func New[K comparable](maxBytes int) (Codec[K], error) {
	t := reflect.TypeFor[K]()
	c, err := plain[K](t)
	if err != nil {
		return Codec[K]{}, err
	}
	encode := c.Encode
	c.Encode = func(k K) (any, error) {
		v, err := encode(k)
		if err != nil {
			return nil, invalid("key %v: %w", k, err)
		}
		n := 0
		switch v := v.(type) {
		case string:
			n = len(v)
		case []byte:
			n = len(v)
		}
		if n > maxBytes {
			return nil, fmt.Errorf("%w: the key has %d bytes, and the limit is %d", lockstep.ErrTooLarge, n, maxBytes)
		}
		return v, nil
	}
	return c, nil
}

func plain[K comparable](t reflect.Type) (Codec[K], error) {
	if t == reflect.TypeFor[time.Time]() {
		return Codec[K]{}, invalid("time.Time cannot be a key: its == compares locations; use its UnixNano or a string")
	}
	switch t.Kind() {
	case reflect.String:
		return Codec[K]{
			Kind: "text", Form: Text,
			Encode: func(k K) (any, error) {
				if s, ok := any(k).(string); ok {
					return s, nil
				}
				return reflect.ValueOf(k).String(), nil
			},
			Decode: func(v any) (k K, err error) {
				s, ok := v.(string)
				if !ok {
					return k, wrongKey(v, t)
				}
				if p, ok := any(&k).(*string); ok {
					*p = s
					return k, nil
				}
				reflect.ValueOf(&k).Elem().SetString(s)
				return k, nil
			},
		}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return integerKeys(t, "integer",
			func(v reflect.Value) int64 { return v.Int() },
			func(v reflect.Value, n int64) bool { v.SetInt(n); return v.Int() == n },
			func(k *K) *int64 { p, _ := any(k).(*int64); return p }), nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return integerKeys(t, "integer",
			func(v reflect.Value) int64 { return int64(v.Uint()) },
			func(v reflect.Value, n int64) bool { v.SetUint(uint64(n)); return n >= 0 && v.Uint() == uint64(n) },
			func(*K) *int64 { return nil }), nil
	case reflect.Uint, reflect.Uint64, reflect.Uintptr:
		return integerKeys(t, "unsigned",
			func(v reflect.Value) int64 { return int64(v.Uint()) },
			func(v reflect.Value, n int64) bool { v.SetUint(uint64(n)); return v.Uint() == uint64(n) },
			func(*K) *int64 { return nil }), nil
	case reflect.Bool:
		return integerKeys(t, "bool",
			func(v reflect.Value) int64 {
				if v.Bool() {
					return 1
				}
				return 0
			},
			func(v reflect.Value, n int64) bool { v.SetBool(n == 1); return n == 0 || n == 1 },
			func(*K) *int64 { return nil }), nil
	case reflect.Float32, reflect.Float64:
		return Codec[K]{
			Kind: "real", Form: Real,
			Encode: func(k K) (any, error) {
				f := reflect.ValueOf(k).Float()
				if math.IsNaN(f) {
					return nil, errNaN
				}
				return f + 0, nil // -0 + 0 is 0
			},
			Decode: func(v any) (k K, err error) {
				f, ok := v.(float64)
				if !ok {
					return k, wrongKey(v, t)
				}
				rv := reflect.ValueOf(&k).Elem()
				rv.SetFloat(f)
				if rv.Float() != f {
					return k, wrongKey(v, t)
				}
				return k, nil
			},
		}, nil
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return Codec[K]{
				Kind: fmt.Sprintf("blob(%d)", t.Len()), Form: Bytes,
				Encode: func(k K) (any, error) {
					return bytes.Clone(reflect.ValueOf(&k).Elem().Bytes()), nil
				},
				Decode: func(v any) (k K, err error) {
					b, ok := v.([]byte)
					if !ok || len(b) != t.Len() {
						return k, wrongKey(v, t)
					}
					copy(reflect.ValueOf(&k).Elem().Bytes(), b)
					return k, nil
				},
			}, nil
		}
	}
	shape, err := tupleShape(t, t.String())
	if err != nil {
		return Codec[K]{}, err
	}
	return Codec[K]{
		Kind: shape, Form: Text,
		Encode: func(k K) (any, error) {
			b, err := appendTuple(nil, reflect.ValueOf(k))
			return string(b), err
		},
		Decode: func(v any) (k K, err error) {
			s, ok := v.(string)
			if !ok {
				return k, wrongKey(v, t)
			}
			if err := parseTuple(s, reflect.ValueOf(&k).Elem()); err != nil {
				return k, fmt.Errorf("%w: %w", wrongKey(v, t), err)
			}
			return k, nil
		},
	}, nil
}

// integerKeys makes the codec of a type that is stored as an integer. Direct
// returns k's own address where K is int64 itself, the common case, which then
// needs no reflection.
func integerKeys[K comparable](t reflect.Type, kind string, get func(reflect.Value) int64,
	set func(reflect.Value, int64) bool, direct func(*K) *int64) Codec[K] {
	return Codec[K]{
		Kind: kind, Form: Integer,
		Encode: func(k K) (any, error) {
			if p := direct(&k); p != nil {
				return *p, nil
			}
			return get(reflect.ValueOf(k)), nil
		},
		Decode: func(v any) (k K, err error) {
			n, ok := v.(int64)
			if !ok {
				return k, wrongKey(v, t)
			}
			if p := direct(&k); p != nil {
				*p = n
				return k, nil
			}
			if !set(reflect.ValueOf(&k).Elem(), n) {
				var zero K
				return zero, wrongKey(v, t)
			}
			return k, nil
		},
	}
}

var errNaN = fmt.Errorf("NaN is not equal to itself")

func wrongKey(v any, t reflect.Type) error {
	return fmt.Errorf("%w: the key column holds %#v, which is no %v", ErrDecode, v, t)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", lockstep.ErrInvalid, fmt.Errorf(format, args...))
}
