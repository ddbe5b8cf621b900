// Package netstring reads and writes netstrings (https://cr.yp.to/proto/netstrings.txt): a
// length in decimal digits, a colon, so many bytes, and a comma: "3:Ann,". A length is
// written in one way only, so that what is read is what is written of it.
package netstring

import "strconv"

// Next reads the one that begins at i, and returns where it ends, or -1.
func Next(s string, i int) (text string, end int) {
	from, n := i, 0
	for ; i < len(s); i++ {
		digit := s[i] - '0'
		if digit > 9 {
			break
		}
		if n = n*10 + int(digit); n > len(s) || n == 0 && i > from {
			return "", -1
		}
	}
	if i == from || i == len(s) || s[i] != ':' || s[from] == '0' && i > from+1 {
		return "", -1
	}
	i++
	if n >= len(s)-i || s[i+n] != ',' {
		return "", -1
	}
	return s[i : i+n], i + n + 1
}

// Size is how many bytes one of so many has.
func Size(n int) int {
	size := n + len("0:,")
	for ; n > 9; n /= 10 {
		size++
	}
	return size
}

// Append appends one to dst.
func Append[T string | []byte](dst []byte, text T) []byte {
	dst = append(strconv.AppendInt(dst, int64(len(text)), 10), ':')
	return append(append(dst, text...), ',')
}
