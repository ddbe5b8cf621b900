package mapping

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/store/rows"
)

// TextForm is how a column's values are text, by way of a Go type that holds each of them.
type TextForm struct {
	Type   reflect.Type
	Number rows.Number
	Takes  string // for errors: "a whole number"
	// parse sets v, of Type, and tells whether the text is one of it.
	parse  func(text string, v reflect.Value) bool
	format func(v reflect.Value) string
}

// TextInt is for signed integers.
func TextInt() TextForm {
	return TextForm{
		Type: reflect.TypeFor[int64](), Number: rows.Whole, Takes: "a whole number",
		parse: func(text string, v reflect.Value) bool {
			n, err := strconv.ParseInt(text, 10, 64)
			v.SetInt(n)
			return err == nil && text[0] != '+'
		},
		format: func(v reflect.Value) string { return strconv.FormatInt(v.Int(), 10) },
	}
}

// TextUint is for unsigned ones.
func TextUint() TextForm {
	return TextForm{
		Type: reflect.TypeFor[uint64](), Number: rows.Whole, Takes: "a whole number that is not negative",
		parse: func(text string, v reflect.Value) bool {
			n, err := strconv.ParseUint(text, 10, 64)
			v.SetUint(n)
			return err == nil
		},
		format: func(v reflect.Value) string { return strconv.FormatUint(v.Uint(), 10) },
	}
}

// decimal is a number as programs write it, without what only Go's parser takes.
var decimal = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)

// TextFloat is for floating-point numbers of 32 or 64 bits. Special are NaN and the
// infinities, which some columns have.
func TextFloat(bits int, special bool) TextForm {
	t := reflect.TypeFor[float64]()
	if bits == 32 {
		t = reflect.TypeFor[float32]()
	}
	return TextForm{
		Type: t, Number: rows.Real, Takes: "a number",
		parse: func(text string, v reflect.Value) bool {
			f, ok := ParseFloat(text, bits)
			if special && isSpecial(text) {
				var err error
				f, err = strconv.ParseFloat(text, bits)
				ok = err == nil
			}
			v.SetFloat(f)
			return ok
		},
		format: func(v reflect.Value) string { return FormatFloat(v.Float(), bits) },
	}
}

func isSpecial(text string) bool { return text == "NaN" || text == "Infinity" || text == "-Infinity" }

// ParseFloat reads what TextFloat takes.
func ParseFloat(text string, bits int) (float64, bool) {
	if !decimal.MatchString(text) {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, bits)
	return f, err == nil
}

// FormatFloat is the shortest text that is read as the same number, without an exponent
// where people would write none.
func FormatFloat(f float64, bits int) string {
	switch size := math.Abs(f); {
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case size != 0 && (size < 1e-6 || size >= 1e21):
		return strconv.FormatFloat(f, 'e', -1, bits)
	}
	return strconv.FormatFloat(f, 'f', -1, bits)
}

// TextDecimal is for decimal numbers with at most so many digits behind the point, which
// the column would round. Limited is false where it keeps all.
func TextDecimal(scale int, limited bool) TextForm {
	form := TextString("a decimal number")
	form.Number = rows.Real
	if limited {
		form.Takes = fmt.Sprintf("a decimal number with at most %d digits behind the point", max(scale, 0))
		if scale <= 0 {
			form.Number, form.Takes = rows.Whole, "a whole number"
		}
	}
	parse := form.parse
	form.parse = func(text string, v reflect.Value) bool {
		_, behind, _ := strings.Cut(text, ".")
		return (!limited && isSpecial(text) || decimal.MatchString(text) && !(limited && (strings.ContainsAny(text, "eE") || len(strings.TrimRight(behind, "0")) > max(scale, 0)))) && parse(text, v)
	}
	return form
}

// TextBool is for booleans: 1 and 0, as they are written by clients that know only text.
func TextBool() TextForm {
	return TextForm{
		Type: reflect.TypeFor[bool](), Takes: "1 or 0 (or true, false, t or f)",
		parse: func(text string, v reflect.Value) bool {
			switch strings.ToLower(text) {
			case "1", "t", "true":
				v.SetBool(true)
			case "0", "f", "false":
				v.SetBool(false)
			default:
				return false
			}
			return true
		},
		format: func(v reflect.Value) string {
			if v.Bool() {
				return "1"
			}
			return "0"
		},
	}
}

// TextString is for what is text already. What else there is to say against one, the
// column's converter says.
func TextString(takes string) TextForm {
	return TextForm{
		Type: reflect.TypeFor[string](), Takes: takes,
		parse:  func(text string, v reflect.Value) bool { v.SetString(text); return true },
		format: func(v reflect.Value) string { return v.String() },
	}
}

// TextBytes is for bytes.
func TextBytes() TextForm {
	return TextForm{
		Type: reflect.TypeFor[[]byte](), Takes: "bytes",
		parse:  func(text string, v reflect.Value) bool { v.SetBytes([]byte(text)); return true },
		format: func(v reflect.Value) string { return string(v.Bytes()) },
	}
}

// TextTime is for times.
func TextTime() TextForm {
	return timeForm("a time such as 2026-01-02T15:04:05Z (RFC 3339)", time.RFC3339Nano)
}

// TextDate is for days, in a time.Time.
func TextDate() TextForm { return timeForm("a date such as 2026-01-02", time.DateOnly) }

func timeForm(takes, layout string) TextForm {
	return TextForm{
		Type: TimeType, Takes: takes,
		parse: func(text string, v reflect.Value) bool {
			t, err := time.Parse(layout, text)
			t = t.UTC() // which may have become a year that has no text
			v.Set(reflect.ValueOf(t))
			return err == nil && 0 <= t.Year() && t.Year() <= 9999
		},
		format: func(v reflect.Value) string { return v.Interface().(time.Time).UTC().Format(layout) },
	}
}

// TextOf is for a type that makes text of itself, and itself of text.
func TextOf[T any](number rows.Number, takes string) TextForm {
	return TextForm{
		Type: reflect.TypeFor[T](), Number: number, Takes: takes,
		parse: func(text string, v reflect.Value) bool {
			return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)) == nil
		},
		format: func(v reflect.Value) string {
			text, err := v.Addr().Interface().(encoding.TextMarshaler).MarshalText()
			if err != nil {
				panic(err) // it was read by its own Scan
			}
			return string(text)
		},
	}
}
