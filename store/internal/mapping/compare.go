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

// Admits decides whether a set's checks and expectations hold; row is what the
// mapped columns of a key's row hold, nil where there is none. Its error is a
// *lockstep.ConflictError, or ErrInvalid.
func (m *Mapping[K, V]) Admits(changes []lockstep.Change[K, V], checks []lockstep.Check[K], row func(k K) []driver.Value) error {
	conflict := func(k K, columns []driver.Value) error {
		e := &lockstep.ConflictError{Key: k, Exists: columns != nil}
		if columns != nil {
			e.Version = lockstep.Version(m.VersionOf(columns))
		}
		return e
	}
	for _, c := range checks {
		columns := row(c.Key)
		ok := c.Absent == (columns == nil)
		if ok && columns != nil {
			var err error
			if ok, err = m.Unchanged(c, columns); err != nil {
				return err
			}
		}
		if !ok {
			return conflict(c.Key, columns)
		}
	}
	for _, c := range changes {
		columns := row(c.Key)
		switch {
		case c.Expect.Kind == lockstep.ExpectAbsent && columns != nil,
			c.Expect.Kind == lockstep.ExpectVersion && (columns == nil || m.VersionOf(columns) != int64(c.Expect.Version)):
			return conflict(c.Key, columns)
		}
	}
	return nil
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
