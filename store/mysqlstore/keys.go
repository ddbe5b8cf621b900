package mysqlstore

import (
	"bytes"
	"cmp"
	"database/sql/driver"
)

// compareKeys is the order of the key column: of bytes, or of numbers.
func compareKeys(a, b any) int {
	switch a := a.(type) {
	case string:
		return cmp.Compare(a, b.(string))
	case []byte:
		return bytes.Compare(a, b.([]byte))
	case int64:
		if _, above := b.(uint64); above {
			return -1
		}
		return cmp.Compare(a, b.(int64))
	case uint64: // only those above the last int64
		if b, ok := b.(uint64); ok {
			return cmp.Compare(a, b)
		}
		return 1
	case float64:
		return cmp.Compare(a, b.(float64))
	}
	return 0
}

// keyLen is how many bytes of a statement a key takes.
func keyLen(key any) int {
	switch key := key.(type) {
	case string:
		return len(key)
	case []byte:
		return len(key)
	}
	return 8
}

// sameKey tells whether a row that came back has that key, byte for byte. Where it says
// no, the key may be the same in another form.
func sameKey(encoded any, came driver.Value) bool {
	switch key := encoded.(type) {
	case string:
		b, ok := came.([]byte)
		return ok && string(b) == key
	case []byte:
		b, ok := came.([]byte)
		return ok && bytes.Equal(b, key)
	case int64:
		n, ok := came.(int64)
		return ok && n == key
	}
	return false
}
