// Package codec turns values into the bytes that a key-value table holds, and
// back. JSON is what a person can read in the database's own shell, CBOR is
// smaller and faster, Raw stores []byte and string as they are.
package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// Any is a Codec whose type of values is not known yet: an option that has to be
// written down before it is. A store takes it for its own type of values, and
// refuses it at open if it is of another.
type Any interface {
	Name() string
	Text() bool
}

// For returns the codec for values of type V: c itself, or JSON where c is nil.
// It fails for a codec of other values.
func For[V any](c Any) (Codec[V], error) {
	if c == nil {
		return JSON[V](), nil
	}
	typed, ok := c.(Codec[V])
	if !ok {
		return nil, fmt.Errorf("codec: %T does not encode values of type %v", c, reflect.TypeFor[V]())
	}
	return typed, nil
}

// Codec encodes values of one type. Its methods may be called from many
// goroutines at once. What Decode makes of Encode's output is what every reader
// of the row gets: a field that does not survive the round trip is lost at the
// write, and not first at some later load.
type Codec[V any] interface {
	// Name is stored with the table, which is opened with that codec only.
	Name() string
	// Text tells whether the encoded bytes are UTF-8 text, to be stored as such.
	Text() bool
	// Encode appends the encoded value to dst and returns the result. It fails
	// for a value that the encoding cannot express.
	Encode(dst []byte, v V) ([]byte, error)
	// Decode returns the value that data holds. It keeps no reference to data,
	// and returns an error, never a panic, for bytes that Encode did not make.
	Decode(data []byte) (V, error)
}

// Sharing is a Codec whose values may share the memory of what they were decoded
// from, where that is never changed again.
type Sharing[V any] interface {
	DecodeShared(data []byte) (V, error)
}

// JSON is encoding/json: fields by `json` tags, text that can be read anywhere.
func JSON[V any]() Codec[V] { return jsonCodec[V]{} }

type jsonCodec[V any] struct{}

func (jsonCodec[V]) Name() string { return "json" }
func (jsonCodec[V]) Text() bool   { return true }

func (jsonCodec[V]) Encode(dst []byte, v V) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	enc := json.NewEncoder(buf)
	// HTML escapes would only make the rows harder to read.
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return dst, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte{'\n'}), nil
}

func (jsonCodec[V]) Decode(data []byte) (v V, err error) {
	if err = json.Unmarshal(data, &v); err != nil {
		var zero V
		return zero, err
	}
	return v, nil
}

// CBOR is RFC 8949 in its core deterministic encoding, with the same `json` (or
// `cbor`) tags. Times keep their nanoseconds and come back in UTC.
func CBOR[V any]() Codec[V] { return cborCodec[V]{walk: canLoop(reflect.TypeFor[V]())} }

type cborCodec[V any] struct{ walk bool }

var (
	cborEnc, cborDec = cborModes()
)

func cborModes() (cbor.EncMode, cbor.DecMode) {
	opts := cbor.CoreDetEncOptions()
	opts.Time = cbor.TimeRFC3339NanoUTC
	enc, err := opts.EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxArrayElements: 1 << 24,
		MaxMapPairs:      1 << 24,
		MaxNestedLevels:  maxDepth,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return enc, dec
}

func (cborCodec[V]) Name() string { return "cbor" }
func (cborCodec[V]) Text() bool   { return false }

func (c cborCodec[V]) Encode(dst []byte, v V) ([]byte, error) {
	if c.walk {
		if err := checkDepth(reflect.ValueOf(&v).Elem(), maxSteps); err != nil {
			return dst, err
		}
	}
	buf := bytes.NewBuffer(dst)
	if err := cborEnc.NewEncoder(buf).Encode(v); err != nil {
		return dst, err
	}
	if c.walk {
		if err := cborDec.Wellformed(buf.Bytes()[len(dst):]); err != nil {
			return dst, err // it is nested too deep to be read again
		}
	}
	return buf.Bytes(), nil
}

func (cborCodec[V]) Decode(data []byte) (v V, err error) {
	if len(data) == 0 {
		return v, io.ErrUnexpectedEOF
	}
	if err = cborDec.Unmarshal(data, &v); err != nil {
		var zero V
		return zero, err
	}
	return v, nil
}

// Raw stores a V whose underlying type is []byte or string byte for byte. A nil
// slice comes back empty. It fails for any other V.
func Raw[V any]() (Codec[V], error) {
	t := reflect.TypeFor[V]()
	switch {
	case t.Kind() == reflect.String:
		return rawString[V]{}, nil
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return rawBytes[V]{}, nil
	}
	return nil, fmt.Errorf("codec: Raw stores []byte and string, not %v", t)
}

type rawString[V any] struct{}

func (rawString[V]) Name() string { return "raw" }
func (rawString[V]) Text() bool   { return false }

func (rawString[V]) Encode(dst []byte, v V) ([]byte, error) {
	if s, ok := any(v).(string); ok {
		return append(dst, s...), nil
	}
	return append(dst, reflect.ValueOf(v).String()...), nil
}

func (rawString[V]) Decode(data []byte) (v V, err error) {
	if s, ok := any(&v).(*string); ok {
		*s = string(data)
		return v, nil
	}
	reflect.ValueOf(&v).Elem().SetString(string(data))
	return v, nil
}

type rawBytes[V any] struct{}

func (rawBytes[V]) Name() string { return "raw" }
func (rawBytes[V]) Text() bool   { return false }

func (rawBytes[V]) Encode(dst []byte, v V) ([]byte, error) {
	if b, ok := any(v).([]byte); ok {
		return append(dst, b...), nil
	}
	return append(dst, reflect.ValueOf(v).Bytes()...), nil
}

func (c rawBytes[V]) Decode(data []byte) (v V, err error) {
	b := make([]byte, len(data))
	copy(b, data)
	return c.DecodeShared(b)
}

func (rawBytes[V]) DecodeShared(data []byte) (v V, err error) {
	b := data[:len(data):len(data)]
	if p, ok := any(&v).(*[]byte); ok {
		*p = b
		return v, nil
	}
	reflect.ValueOf(&v).Elem().SetBytes(b)
	return v, nil
}

// Named returns the codec called name: "json", which is also meant by the empty
// string, "cbor" or "raw".
func Named[V any](name string) (Codec[V], error) {
	switch name {
	case "", "json":
		return JSON[V](), nil
	case "cbor":
		return CBOR[V](), nil
	case "raw":
		return Raw[V]()
	}
	return nil, fmt.Errorf("codec: %q is none of json, cbor, raw", name)
}
