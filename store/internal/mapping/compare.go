package mapping

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep"
)

// TakeCheck binds a check's key, and refuses a check that Unchanged could not
// answer.
func (m *Mapping[K, V]) TakeCheck(c lockstep.Check[K]) (key []any, err error) {
	if key, err = m.BindKey(c.Key); err != nil {
		return nil, err
	}
	if _, ok := c.Value.(V); !ok && !c.Absent && !m.Versioned() {
		return nil, m.d.invalid("key %v: the check has a %T to compare, and the table's values are %T", c.Key, c.Value, *new(V))
	}
	return key, nil
}

// Unchanged compares a row with what was read of it: by version, or column by
// column as the value would be stored.
func (m *Mapping[K, V]) Unchanged(c lockstep.Check[K], columns []driver.Value) (bool, error) {
	if m.Versioned() {
		return m.VersionOf(columns) == int64(c.Version), nil
	}
	read, err := m.BindValue(c.Value.(V))
	if err != nil {
		return false, err
	}
	// The row goes through the fields, too, so that both have lost the same.
	v, err := m.ScanValue(columns)
	if err != nil {
		return false, nil // what was read did decode
	}
	held, err := m.BindValue(v)
	if err != nil {
		return false, err
	}
	return slices.EqualFunc(read, held, Equal), nil
}

// Equal compares what two columns hold. NaN is what NaN is: a row that holds one
// would else have changed whenever it is looked at.
func Equal(a, b any) bool {
	x, ok := a.([]byte)
	y, both := b.([]byte)
	if ok || both {
		return ok && both && bytes.Equal(x, y)
	}
	return a == b || isNaN(a) && isNaN(b)
}

func isNaN(v any) bool {
	f, ok := v.(float64)
	return ok && f != f
}

// EqualRows compares two rows; nil is no row.
func EqualRows(a, b []driver.Value) bool {
	return (a == nil) == (b == nil) && slices.EqualFunc(a, b, func(x, y driver.Value) bool { return Equal(x, y) })
}

// KeyText tells the bound keys of one table apart.
func KeyText[T any](key []T) string {
	if len(key) == 1 {
		if s, ok := any(key[0]).(string); ok {
			return s
		}
	}
	var b strings.Builder
	for _, part := range key {
		fmt.Fprintf(&b, "%#v,", part)
	}
	return b.String()
}
