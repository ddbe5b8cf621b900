package keytext

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A key that is a struct, an array or a complex number is stored as a list of
// its parts, in their order: ["acme",7]. It is JSON, so that a database's
// JSON functions work on it, except where JSON could not tell two Go values apart:
// infinities are Inf and -Inf, and a byte that is not part of valid UTF-8 is
// \xNN, with two digits.
//
// There is exactly one text for each value: no spaces, decimal integers, the
// shortest text that gives a float back, and a \u escape only for the control
// characters that have no shorter one. parseTuple accepts nothing else, which it
// ensures by encoding again what it has read.

// tupleShape describes t for the meta table, or says why it cannot be a key.
func tupleShape(t reflect.Type, path string) (string, error) {
	if t == reflect.TypeFor[time.Time]() {
		return "", invalid("%s: time.Time cannot be part of a key: its == compares locations", path)
	}
	switch t.Kind() {
	case reflect.String:
		return "text", nil
	case reflect.Bool:
		return "bool", nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return "integer", nil
	case reflect.Float32, reflect.Float64:
		return "real", nil
	case reflect.Complex64, reflect.Complex128:
		return "(real,real)", nil
	case reflect.Array:
		elem, err := tupleShape(t.Elem(), path+"[]")
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s*%d", elem, t.Len()), nil
	case reflect.Struct:
		var parts []string
		for f := range t.Fields() {
			if !f.IsExported() {
				return "", invalid("%s.%s is not exported, and the key cannot be stored without it", path, f.Name)
			}
			part, err := tupleShape(f.Type, path+"."+f.Name)
			if err != nil {
				return "", err
			}
			parts = append(parts, part)
		}
		return "(" + strings.Join(parts, ",") + ")", nil
	}
	return "", invalid("%s is a %v, which cannot be stored as a key", path, t)
}

// appendTuple appends the text of v, whose type tupleShape has accepted.
func appendTuple(b []byte, v reflect.Value) ([]byte, error) {
	switch v.Kind() {
	case reflect.String:
		return appendQuoted(b, v.String()), nil
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case reflect.Float32, reflect.Float64:
		return appendFloat(b, v.Float())
	case reflect.Complex64, reflect.Complex128:
		c := v.Complex()
		b, err := appendFloat(append(b, '['), real(c))
		if err != nil {
			return nil, err
		}
		if b, err = appendFloat(append(b, ','), imag(c)); err != nil {
			return nil, err
		}
		return append(b, ']'), nil
	}
	n, part := v.NumField, v.Field
	if v.Kind() == reflect.Array {
		n, part = v.Len, v.Index
	}
	b = append(b, '[')
	for i := range n() {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendTuple(b, part(i)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendFloat(b []byte, f float64) ([]byte, error) {
	switch {
	case math.IsNaN(f):
		return nil, errNaN
	case math.IsInf(f, 1):
		return append(b, "Inf"...), nil
	case math.IsInf(f, -1):
		return append(b, "-Inf"...), nil
	}
	return strconv.AppendFloat(b, f+0, 'g', -1, 64), nil
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = fmt.Appendf(b, `\x%02x`, s[i])
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ' || r == 0x7f:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return append(b, '"')
}

var errTuple = errors.New("not the text of such a key")

// parseTuple sets v, whose type tupleShape has accepted, to what s says.
func parseTuple(s string, v reflect.Value) error {
	rest, err := parsePart(s, v)
	if err != nil {
		return err
	}
	again, err := appendTuple(nil, v)
	if err != nil || rest != "" || string(again) != s {
		return errTuple
	}
	return nil
}

func parsePart(s string, v reflect.Value) (rest string, err error) {
	switch v.Kind() {
	case reflect.String:
		text, rest, ok := unquote(s)
		if !ok {
			return "", errTuple
		}
		v.SetString(text)
		return rest, nil
	case reflect.Complex64, reflect.Complex128:
		var parts [2]float64
		rest, err := parseList(s, 2, func(i int) reflect.Value { return reflect.ValueOf(&parts[i]).Elem() })
		v.SetComplex(complex(parts[0], parts[1]))
		return rest, err
	case reflect.Array:
		return parseList(s, v.Len(), v.Index)
	case reflect.Struct:
		return parseList(s, v.NumField(), v.Field)
	}
	word, rest := s, ""
	if i := strings.IndexAny(s, ",]"); i >= 0 {
		word, rest = s[:i], s[i:]
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(word == "true")
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(word, v.Type().Bits())
		if err != nil {
			return "", errTuple
		}
		v.SetFloat(f)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(word, 10, v.Type().Bits())
		if err != nil {
			return "", errTuple
		}
		v.SetInt(n)
	default:
		n, err := strconv.ParseUint(word, 10, v.Type().Bits())
		if err != nil {
			return "", errTuple
		}
		v.SetUint(n)
	}
	return rest, nil
}

func parseList(s string, n int, part func(int) reflect.Value) (rest string, err error) {
	for i := range n {
		sep := byte(',')
		if i == 0 {
			sep = '['
		}
		if s == "" || s[0] != sep {
			return "", errTuple
		}
		if s, err = parsePart(s[1:], part(i)); err != nil {
			return "", err
		}
	}
	if n == 0 {
		s = strings.TrimPrefix(s, "[")
	}
	if s == "" || s[0] != ']' {
		return "", errTuple
	}
	return s[1:], nil
}

// unquote reads what appendQuoted has written.
func unquote(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] != '\\':
			b.WriteByte(s[i])
			i++
			continue
		case i+1 == len(s):
			return "", "", false
		}
		digits := 0
		switch c := s[i+1]; c {
		case '"', '\\':
			b.WriteByte(c)
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		default:
			return "", "", false
		}
		i += 2
		if digits > 0 {
			if i+digits > len(s) {
				return "", "", false
			}
			// Both escapes stand for one byte: \u is for control characters.
			n, err := strconv.ParseUint(s[i:i+digits], 16, 8)
			if err != nil {
				return "", "", false
			}
			b.WriteByte(byte(n))
			i += digits
		}
	}
	return "", "", false
}
