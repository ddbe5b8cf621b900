package server

import (
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// INCR key
func incr(r *request) { r.add(1) }

// DECR key
func decr(r *request) { r.add(-1) }

// INCRBY key increment
func incrBy(r *request) {
	if n, ok := r.number(r.args[2]); ok {
		r.add(n)
	}
}

// DECRBY key decrement
func decrBy(r *request) {
	n, ok := r.number(r.args[2])
	switch {
	case !ok:
	case n == math.MinInt64:
		r.error("ERR decrement would overflow")
	default:
		r.add(-n)
	}
}

func (r *request) add(n int64) {
	var sum int64
	err := r.keys.change(r.ctx, r.key(), func(old row) (next, error) {
		text, err := old.text()
		if err != nil {
			return next{}, err
		}
		before := int64(0)
		if old.exists {
			var ok bool
			if before, ok = integer([]byte(text)); !ok {
				return next{}, reply(notAnInteger)
			}
		}
		if n < 0 && before < math.MinInt64-n || n > 0 && before > math.MaxInt64-n {
			return next{}, reply("ERR increment or decrement would overflow")
		}
		sum = before + n
		return next{put: true, value: stringOf(strconv.AppendInt(nil, sum, 10)), end: old.end}, nil
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.w.Integer(sum)
}

// INCRBYFLOAT key increment
func incrByFloat(r *request) {
	var sum []byte
	err := r.keys.change(r.ctx, r.key(), func(old row) (next, error) {
		text, err := old.text()
		if err != nil {
			return next{}, err
		}
		if !old.exists {
			text = "0"
		}
		a, ok := parseFloat(text)
		b, good := parseFloat(string(r.args[2]))
		if !ok || !good {
			return next{}, reply("ERR value is not a valid float")
		}
		if a.IsInf() || b.IsInf() {
			return next{}, reply(noFloat)
		}
		c := newFloat().Add(a, b)
		if c.MantExp(nil) > floatExponents {
			return next{}, reply(noFloat)
		}
		sum = formatFloat(c)
		return next{put: true, value: stringOf(sum), end: old.end}, nil
	})
	if err != nil {
		r.fail(err)
		return
	}
	r.w.Bulk(sum)
}

const (
	noFloat = "ERR increment would produce NaN or Infinity"
	// Redis adds in C's long double, which on amd64 has 64 bits and exponents of 15: 1.1
	// and 2.2 are 3.3, and not 3.3000000000000003.
	floatBits      = 64
	floatExponents = 16384
	longestFloat   = 5 * 1024
)

var (
	decimalFloat = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
	hexFloat     = regexp.MustCompile(`^[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)([pP][+-]?[0-9]+)?$`)
	infinite     = regexp.MustCompile(`^(?i)([+-]?)inf(inity)?$`)
)

func newFloat() *big.Float { return new(big.Float).SetPrec(floatBits) }

// parseFloat reads what C's strtold takes, less what Redis refuses: a space before it, not
// a number, and what is too large or too small to be one.
func parseFloat(text string) (*big.Float, bool) {
	base := 10
	switch {
	case len(text) >= longestFloat:
		return nil, false
	case infinite.MatchString(text):
		return newFloat().SetInf(text[0] == '-'), true
	case hexFloat.MatchString(text):
		base = 0
	case !decimalFloat.MatchString(text):
		return nil, false
	}
	f, _, err := newFloat().Parse(text, base)
	if err != nil || f.IsInf() {
		return nil, false
	}
	if f.Sign() == 0 {
		// 1e-99999 has become zero, which is too small; 0e5 is zero.
		mantissa := strings.TrimPrefix(strings.ToLower(strings.TrimLeft(text, "+-")), "0x")
		if i := strings.IndexAny(mantissa, map[int]string{0: "p", 10: "e"}[base]); i >= 0 {
			mantissa = mantissa[:i]
		}
		return f, strings.Trim(mantissa, "0.") == ""
	}
	exponent := f.MantExp(nil)
	return f, exponent <= floatExponents && exponent > -floatExponents-floatBits+2
}

// formatFloat writes a number with at most 17 digits behind the point, as Redis does.
func formatFloat(f *big.Float) []byte {
	text := f.Append(nil, 'f', 17)
	text = []byte(strings.TrimRight(string(text), "0"))
	text = []byte(strings.TrimSuffix(string(text), "."))
	if string(text) == "-0" {
		return []byte("0")
	}
	return text
}
