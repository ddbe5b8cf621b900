package mapping

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// BindKey returns what the key's columns hold for k. Its error is ErrInvalid or
// ErrTooLarge and names the key or the column.
func (m *Mapping[K, V]) BindKey(k K) ([]any, error) {
	rv, err := m.keyStruct(&k)
	if err != nil {
		return nil, m.d.invalid("key %s: %w", name(k), err)
	}
	out := make([]any, len(m.Key))
	for i, part := range m.Key {
		if out[i], err = part.Bind(part.of(rv)); err != nil {
			return nil, m.d.invalid("key %s: column %s: %w", name(k), part.Column, err)
		}
		if n := size(out[i]); n > m.d.MaxKeyBytes {
			return nil, m.d.wrap(lockstep.ErrTooLarge, "the key's column %s would have %d bytes, and the limit is %d", part.Column, n, m.d.MaxKeyBytes)
		}
	}
	return out, nil
}

// name is a key in an error, where a control character would spoil a log's line.
func name(k any) string {
	s := fmt.Sprint(k)
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) {
		return strconv.Quote(s)
	}
	return s
}

// ScanKey makes a key of the key's columns. Its error is ErrDecode and names the
// table and the column.
func (m *Mapping[K, V]) ScanKey(columns []driver.Value) (k K, err error) {
	rv := m.intoKey(&k)
	for i, part := range m.Key {
		if err := part.Scan(columns[i], part.of(rv)); err != nil {
			return k, fmt.Errorf("table %s: %w: key column %s %w", m.Table, keytext.ErrDecode, part.Column, err)
		}
	}
	m.keyFrom(rv, &k)
	return k, nil
}

// BindValue returns what the mapped columns would hold for v; nil for a version
// without a field, and for a part of the key that a field leaves out, whose zero the
// column may not take. Its error is ErrInvalid and names the field and the column.
func (m *Mapping[K, V]) BindValue(v V) ([]any, error) {
	columns, err := m.bind(v, func(int) bool { return true })
	if err != nil {
		return nil, m.d.invalid("%w", err)
	}
	return columns, nil
}

// bind binds those of the mapped columns that are wanted. Its error names the field and
// the column.
func (m *Mapping[K, V]) bind(v V, wanted func(i int) bool) ([]any, error) {
	rv, err := m.valueStruct(&v)
	if err != nil {
		return nil, err
	}
	out := make([]any, len(m.Value))
	for i, part := range m.Value {
		if _, keyed := m.keyed[i]; part.Name == "" || !wanted(i) || keyed && part.of(rv).IsZero() {
			continue
		}
		if out[i], err = part.write(rv); err != nil {
			return nil, fmt.Errorf("%s: column %s: %w", part.Name, part.Column, err)
		}
	}
	return out, nil
}

// ScanValue makes a value of the mapped columns. Its error is ErrDecode and names
// the column.
func (m *Mapping[K, V]) ScanValue(columns []driver.Value) (v V, err error) {
	rv := m.intoValue(&v)
	for i, part := range m.Value {
		if part.Name == "" || i == m.Version && columns[i] == nil {
			continue // without a field, or of a row from before the column was there
		}
		if _, keyed := m.keyed[i]; keyed && columns[i] == nil {
			continue // see BindValue
		}
		if err := part.read(columns[i], rv); err != nil {
			var zero V
			return zero, fmt.Errorf("%w: column %s %w", keytext.ErrDecode, part.Column, err)
		}
	}
	m.valueFrom(rv, &v)
	return v, nil
}

// Row makes a Row of the mapped columns. A version is unreadable like any other
// column: taken for 0, it would be the version of every state that the row has.
func (m *Mapping[K, V]) Row(k K, columns []driver.Value) (lockstep.Row[V], error) {
	v, err := m.ScanValue(columns)
	if err == nil && m.Versioned() && columns[m.Version] != nil {
		if _, ok := columns[m.Version].(int64); !ok {
			err = fmt.Errorf("%w: column %s %w", keytext.ErrDecode, m.Value[m.Version].Column, Mismatch(columns[m.Version], "version"))
		}
	}
	if err != nil {
		return lockstep.Row[V]{}, fmt.Errorf("table %s: key %v: %w", m.Table, k, err)
	}
	return lockstep.Row[V]{Value: v, Exists: true, Version: lockstep.Version(m.VersionOf(columns))}, nil
}

// Versioned tells whether a column holds the version.
func (m *Mapping[K, V]) Versioned() bool { return m.Version >= 0 }

// VersionOf is the version in the mapped columns; 0 where there is none, or none
// that can be read.
func (m *Mapping[K, V]) VersionOf(columns []driver.Value) int64 {
	if !m.Versioned() {
		return 0
	}
	n, _ := columns[m.Version].(int64)
	return n
}

// Clone copies a value by way of its columns. It is a Capabilities.Clone.
func (m *Mapping[K, V]) Clone(v V) (V, error) {
	columns, err := m.BindValue(v)
	if err != nil {
		return v, err
	}
	row := make([]driver.Value, len(columns))
	for i, c := range columns {
		row[i] = c
	}
	return m.ScanValue(row)
}

func (f Field) of(rv reflect.Value) reflect.Value {
	if f.index == nil {
		return rv
	}
	return rv.FieldByIndex(f.index)
}

// write and read are Bind and Scan, where a panic in the field's own methods is an
// error like any other. A commit runs them for the rows of many callers, of whom
// one alone has to do with it.
func (f Field) write(rv reflect.Value) (_ any, err error) {
	defer kv.Panicked(&err, "makes its type panic")
	return f.Bind(f.of(rv))
}

func (f Field) read(src driver.Value, rv reflect.Value) (err error) {
	defer kv.Panicked(&err, "makes its type panic")
	return f.Scan(src, f.of(rv))
}

func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	}
	return 8
}
