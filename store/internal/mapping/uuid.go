package mapping

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
)

// IsUUID is for uuid.UUID of every library: sixteen bytes. Their own methods are
// passed over, for the bytes say it all.
func IsUUID(t reflect.Type) bool {
	return t.Kind() == reflect.Array && t.Len() == 16 && t.Elem().Kind() == reflect.Uint8
}

// UUID is for sixteen bytes in a column of UUIDs, which travels as text.
func UUID(typ string) Converter {
	return Converter{
		Type: typ,
		Bind: func(v reflect.Value) (any, error) { return formatUUID(v.Bytes()), nil },
		Scan: func(src driver.Value, dst reflect.Value) error {
			s, _ := src.(string)
			b, ok := parseUUID(s)
			if !ok {
				return Mismatch(src, "UUID")
			}
			copy(dst.Bytes(), b)
			return nil
		},
	}
}

// UUIDText is for strings in the databases' own form: in lower case, with hyphens. A
// key has to have it already, for two forms of one UUID are two strings.
func UUIDText(typ string, key bool) Converter {
	c := Text(typ)
	c.Bind = func(v reflect.Value) (any, error) {
		b, ok := parseUUID(v.String())
		if !ok {
			return nil, fmt.Errorf("%.40q is no UUID of the form 01234567-89ab-cdef-0123-456789abcdef", v.String())
		}
		s := formatUUID(b)
		if key && s != v.String() {
			return nil, fmt.Errorf("%q is another string than %q, and the same UUID; keys are in lower case", v.String(), s)
		}
		return s, nil
	}
	return c
}

func formatUUID(b []byte) string {
	s := hex.EncodeToString(b)
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

func parseUUID(s string) ([]byte, bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return nil, false
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return b, err == nil && len(b) == 16
}
