package resp

import (
	"math"
	"strconv"
)

// parseInt reads an integer as Redis does in lengths: decimal, of 64 bits, in the one way
// in which it can be written.
func parseInt(b []byte) (int64, bool) {
	digits := b
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		digits = b[1:]
	}
	switch {
	case len(digits) == 0 || len(digits) > 19:
		return 0, false
	case digits[0] == '0':
		return 0, len(b) == 1
	}
	var n uint64 // nineteen digits fit
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n <= math.MaxInt64
}

// appendDouble writes a double as Redis 7.0 does, which is %.17g of C's printf.
func appendDouble(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "nan"...)
	case math.IsInf(f, 1):
		return append(dst, "inf"...)
	case math.IsInf(f, -1):
		return append(dst, "-inf"...)
	}
	return strconv.AppendFloat(dst, f, 'g', 17, 64)
}

// appendLine writes a header: a kind and a number.
func appendLine(dst []byte, kind byte, n int64) []byte {
	if 0 <= n && n < 10 {
		return append(dst, kind, '0'+byte(n), '\r', '\n')
	}
	dst = strconv.AppendInt(append(dst, kind), n, 10)
	return append(dst, '\r', '\n')
}

// appendBulk writes a header with the size of what follows, and that.
func appendBulk[T string | []byte](dst []byte, kind byte, text T) []byte {
	dst = append(appendLine(dst, kind, int64(len(text))), text...)
	return append(dst, '\r', '\n')
}

// AppendRequest appends a request, an array of bulk strings, to dst.
func AppendRequest[T string | []byte](dst []byte, args ...T) []byte {
	dst = appendLine(dst, '*', int64(len(args)))
	for _, arg := range args {
		dst = appendBulk(dst, '$', arg)
	}
	return dst
}
