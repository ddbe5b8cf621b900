package pgstore

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// escaped wraps the codec of keys that are text. A column of type text holds
// neither NUL nor bytes that are not valid UTF-8, and Go's strings do: each such
// byte becomes \xHH, and a backslash \\. Two keys that differ have two texts, and a
// key without any of these is its own.
func escaped[K comparable](c keytext.Codec[K]) keytext.Codec[K] {
	if c.Form != keytext.Text {
		return c
	}
	encode, decode := c.Encode, c.Decode
	c.Encode = func(k K) (any, error) {
		v, err := encode(k)
		if err != nil {
			return nil, err
		}
		s := escape(v.(string))
		if len(s) > indexBytes {
			return nil, tooLarge("the key takes %d bytes with its escapes, and an index holds at most %d", len(s), indexBytes)
		}
		return s, nil
	}
	c.Decode = func(v any) (k K, err error) {
		s, ok := v.(string)
		if !ok {
			return decode(v)
		}
		if s, ok = unescape(s); !ok {
			return k, fmt.Errorf("%w: the key column holds %q, whose escapes are not ours", keytext.ErrDecode, v)
		}
		return decode(s)
	}
	return c
}

func escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsAny(s, "\\\x00") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == 0, r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// unescape reports false for what escape has not made: a row that somebody else has
// written must not pass for another one's key.
func unescape(s string) (string, bool) {
	if !strings.Contains(s, `\`) {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		var c byte
		switch {
		case strings.HasPrefix(s[i:], `\\`):
			b.WriteByte('\\')
			i++
		case len(s) >= i+4 && s[i+1] == 'x':
			if _, err := fmt.Sscanf(s[i+2:i+4], "%02x", &c); err != nil {
				return "", false
			}
			b.WriteByte(c)
			i += 3
		default:
			return "", false
		}
	}
	out := b.String()
	return out, escape(out) == s
}
