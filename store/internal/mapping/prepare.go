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
	Columns []any // of the mapped columns; nil for those that are only read
}

// Bytes is how much the key and the columns come to.
func (p *Prepared) Bytes() (n int) {
	for _, values := range [][]any{p.Key, p.Columns} {
		for _, v := range values {
			n += size(v)
		}
	}
	return n
}

// Prepare is a Capabilities.Prepare: it binds the key and the value, and replaces
// the value by what Load would return for it, as far as that is known before the
// database has seen it.
func (m *Mapping[K, V]) Prepare(c lockstep.Change[K, V]) (lockstep.Change[K, V], int, error) {
	if err := m.takes(c); err != nil {
		return c, 0, err
	}
	p := &Prepared{}
	c.Prepared = p
	var err error
	if c.Insert {
		var none K
		c.Key = none
	} else if p.Key, err = m.BindKey(c.Key); err != nil {
		return c, 0, err
	}
	if c.Delete {
		var zero V
		c.Value = zero
		return c, 0, nil
	}
	// What is only read may be anything in a value that somebody has made: a time that is
	// zero is out of the reach of a timestamp.
	if p.Columns, err = m.bind(c.Value, m.taken); err != nil {
		return c, 0, m.d.invalid("%s: %w", of(c), err)
	}
	rv, err := m.valueStruct(&c.Value)
	if err != nil {
		return c, 0, m.d.invalid("%s: %w", of(c), err)
	}
	n := 0
	for i, part := range m.Value {
		if k, ok := m.keyed[i]; ok {
			switch given := part.of(rv); {
			case c.Insert && !given.IsZero():
				return c, 0, m.d.invalid("%s: %s is %v, and the database gives column %s", of(c), part.Name, given, part.Column)
			case !given.IsZero() && !Equal(p.Columns[i], p.Key[k]):
				return c, 0, m.d.invalid("%s: %s is %v, and column %s is part of the key", of(c), part.Name, reflect.Indirect(given), part.Column)
			case !c.Insert:
				p.Columns[i] = p.Key[k]
			}
		}
		if part.Required && p.Columns[i] == nil {
			return c, 0, m.d.invalid("%s: column %s is NOT NULL, and takes %s", of(c), part.Column, m.rowRecord.forms[part.index[0]].Takes)
		}
		n += size(p.Columns[i])
		if size(p.Columns[i]) > m.d.MaxColumnBytes {
			return c, 0, m.d.wrap(lockstep.ErrTooLarge, "%s: %s has %d bytes", of(c), part.Name, size(p.Columns[i]))
		}
	}
	if most := m.d.MaxRowBytes; most > 0 && p.Bytes() > most {
		return c, 0, m.d.wrap(lockstep.ErrTooLarge, "%s: the row has %d bytes, and can have %d", of(c), p.Bytes(), most)
	}
	if c.Value, err = m.preview(p.Columns); err != nil {
		return c, 0, m.d.invalid("%s: %w", of(c), err)
	}
	return c, n, nil
}

// of is the change's row, for people.
func of[K comparable, V any](c lockstep.Change[K, V]) string {
	if c.Insert {
		return "the new row"
	}
	return fmt.Sprintf("key %v", c.Key)
}

// takes refuses what no mapped table can do.
func (m *Mapping[K, V]) takes(c lockstep.Change[K, V]) error {
	switch {
	case m.readOnly:
		return m.d.wrap(lockstep.ErrUnsupported, "table %s was opened with ReadOnly", m.Table)
	case c.Insert && !m.Inserts:
		return m.d.wrap(lockstep.ErrUnsupported, "table %s: its primary key is not one column that the database fills", m.Table)
	case !c.ExpiresAt.IsZero() || c.Lifetime != 0:
		return m.d.wrap(lockstep.ErrUnsupported, "table %s has no column for a row's lifetime", m.Table)
	case c.Expect.Kind != lockstep.ExpectAnything && !m.Versioned():
		return m.d.wrap(lockstep.ErrUnsupported, "table %s has no version column to hold a condition against", m.Table)
	}
	return nil
}

// taken tells whether a field of the value has a say in what is written: it is written,
// or repeats the key.
func (m *Mapping[K, V]) taken(i int) bool {
	_, keyed := m.keyed[i]
	return keyed || m.Value[i].Written
}

// preview is ScanValue for the columns that are known. What is only read is not
// known before the commit; until then it is zero.
func (m *Mapping[K, V]) preview(columns []any) (v V, err error) {
	rv := m.intoValue(&v)
	for i, part := range m.Value {
		if !m.taken(i) || !part.Written && columns[i] == nil {
			continue
		}
		if err := part.read(driver.Value(columns[i]), rv); err != nil {
			return v, fmt.Errorf("%s: column %s %w", part.Name, part.Column, err)
		}
	}
	m.valueFrom(rv, &v)
	return v, nil
}
