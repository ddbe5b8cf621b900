package mapping

import (
	"database/sql/driver"
	"fmt"
	"reflect"

	"github.com/lockstep-cache/lockstep"
)

// Prepared is what Prepare leaves in a change for Commit.
type Prepared struct {
	Key     []any
	Columns []any // of every mapped column; only the written ones matter
}

// Prepare is a Capabilities.Prepare: it binds the key and the value, and replaces
// the value by what Load would return for it, as far as that is known before the
// database has seen it.
func (m *Mapping[K, V]) Prepare(c lockstep.Change[K, V]) (lockstep.Change[K, V], int, error) {
	if err := m.takes(c); err != nil {
		return c, 0, err
	}
	key, err := m.BindKey(c.Key)
	if err != nil {
		return c, 0, err
	}
	p := &Prepared{Key: key}
	c.Prepared = p
	if c.Delete {
		var zero V
		c.Value = zero
		return c, 0, nil
	}
	if p.Columns, err = m.BindValue(c.Value); err != nil {
		return c, 0, fmt.Errorf("key %v: %w", c.Key, err)
	}
	rv := reflect.ValueOf(&c.Value).Elem()
	n := 0
	for i, part := range m.Value {
		if k, ok := m.keyed[i]; ok {
			if given := part.of(rv); !given.IsZero() && !Equal(p.Columns[i], key[k]) {
				return c, 0, m.d.invalid("key %v: %s is %v, and column %s is part of the key", c.Key, part.Name, given, part.Column)
			}
			p.Columns[i] = key[k]
		}
		n += size(p.Columns[i])
		if size(p.Columns[i]) > m.d.MaxColumnBytes {
			return c, 0, m.d.wrap(lockstep.ErrTooLarge, "key %v: %s has %d bytes", c.Key, part.Name, size(p.Columns[i]))
		}
	}
	if c.Value, err = m.preview(p.Columns); err != nil {
		return c, 0, m.d.invalid("key %v: %w", c.Key, err)
	}
	return c, n, nil
}

// takes refuses what no mapped table can do.
func (m *Mapping[K, V]) takes(c lockstep.Change[K, V]) error {
	switch {
	case m.readOnly:
		return m.d.wrap(lockstep.ErrUnsupported, "table %s was opened with ReadOnly", m.Table)
	case !c.ExpiresAt.IsZero() || c.Lifetime != 0:
		return m.d.wrap(lockstep.ErrUnsupported, "table %s has no column for a row's lifetime", m.Table)
	case c.Expect.Kind != lockstep.ExpectAnything && !m.Versioned():
		return m.d.wrap(lockstep.ErrUnsupported, "table %s has no version column to hold a condition against", m.Table)
	}
	return nil
}

// preview is ScanValue for the columns that are known. What is only read is not
// known before the commit; until then it is zero.
func (m *Mapping[K, V]) preview(columns []any) (v V, err error) {
	rv := reflect.ValueOf(&v).Elem()
	for i, part := range m.Value {
		if _, keyed := m.keyed[i]; !part.Written && !keyed {
			continue
		}
		if err := part.read(driver.Value(columns[i]), rv); err != nil {
			return v, fmt.Errorf("%s: column %s %w", part.Name, part.Column, err)
		}
	}
	return v, nil
}
