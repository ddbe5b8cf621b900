package sqlitestore

import (
	"database/sql/driver"
	"fmt"
	"reflect"
	"strings"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// bindKey returns what the key's columns hold for k.
func (t *Table[K, V]) bindKey(k K) ([]any, error) {
	rv := reflect.ValueOf(&k).Elem()
	out := make([]any, len(t.m.key))
	for i, part := range t.m.key {
		var err error
		if out[i], err = part.bind(part.of(rv)); err != nil {
			return nil, invalid("key %v: column %s: %w", k, part.column, err)
		}
		// The driver ends a text at a NUL when it tells of a row.
		if s, ok := out[i].(string); ok && t.acts && strings.Contains(s, "\x00") {
			return nil, invalid("key %q: column %s: a NUL, in a schema with triggers or foreign keys' actions", fmt.Sprint(k), part.column)
		}
		if n := size(out[i]); n > defaultKeyBytes {
			return nil, tooLarge("the key's column %s would have %d bytes, and the limit is %d", part.column, n, defaultKeyBytes)
		}
	}
	return out, nil
}

func (t *Table[K, V]) scanKey(row []driver.Value) (k K, err error) {
	rv := reflect.ValueOf(&k).Elem()
	for i, part := range t.m.key {
		if err := part.scan(row[i], part.of(rv)); err != nil {
			return k, fmt.Errorf("table %s: %w: key column %s %w", t.m.table, keytext.ErrDecode, part.column, err)
		}
	}
	return k, nil
}

// bindValue returns what the mapped columns would hold for v.
func (t *Table[K, V]) bindValue(v V) ([]any, error) {
	rv := reflect.ValueOf(&v).Elem()
	out := make([]any, len(t.m.value))
	for i, part := range t.m.value {
		if part.field == "" {
			continue
		}
		var err error
		if out[i], err = part.write(rv); err != nil {
			return nil, invalid("%s: column %s: %w", part.field, part.column, err)
		}
	}
	return out, nil
}

// scanValue makes a value of the mapped columns.
func (t *Table[K, V]) scanValue(columns []driver.Value) (v V, err error) {
	rv := reflect.ValueOf(&v).Elem()
	for i, part := range t.m.value {
		if part.field == "" || i == t.m.version && columns[i] == nil {
			continue // without a field, or of a row from before the column was there
		}
		if err := part.read(columns[i], rv); err != nil {
			var zero V
			return zero, fmt.Errorf("%w: column %s %w", keytext.ErrDecode, part.column, err)
		}
	}
	return v, nil
}

func (m mapped) of(rv reflect.Value) reflect.Value {
	if m.index == nil {
		return rv
	}
	return rv.FieldByIndex(m.index)
}

// write and read are bind and scan, where a panic in the field's own methods is an
// error like any other. A commit runs them for the rows of many callers, of whom
// one alone has to do with it.
func (m mapped) write(rv reflect.Value) (_ any, err error) {
	defer kv.Panicked(&err, "makes its type panic")
	return m.bind(m.of(rv))
}

func (m mapped) read(src driver.Value, rv reflect.Value) (err error) {
	defer kv.Panicked(&err, "makes its type panic")
	return m.scan(src, m.of(rv))
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

// preparedRow is what prepare leaves in a change for Commit.
type preparedRow struct {
	key     []any
	columns []any // of every mapped column; only the written ones matter
}

func (t *Table[K, V]) prepare(c lockstep.Change[K, V]) (lockstep.Change[K, V], int, error) {
	if t.opts.ReadOnly {
		return c, 0, unsupported("table %s was opened with ReadOnly", t.m.table)
	}
	if !c.ExpiresAt.IsZero() || c.Lifetime != 0 {
		return c, 0, unsupported("table %s has no column for a row's lifetime", t.m.table)
	}
	if c.Expect.Kind != lockstep.ExpectAnything && !t.versioned() {
		return c, 0, unsupported("table %s has no version column to hold a condition against", t.m.table)
	}
	key, err := t.bindKey(c.Key)
	if err != nil {
		return c, 0, err
	}
	p := &preparedRow{key: key}
	c.Prepared = p
	if c.Delete {
		var zero V
		c.Value = zero
		return c, 0, nil
	}
	if p.columns, err = t.bindValue(c.Value); err != nil {
		return c, 0, fmt.Errorf("key %v: %w", c.Key, err)
	}
	rv := reflect.ValueOf(&c.Value).Elem()
	n := 0
	for i, part := range t.m.value {
		if k, ok := t.m.keyed[i]; ok {
			if given := part.of(rv); !given.IsZero() && !equalColumn(p.columns[i], key[k]) {
				return c, 0, invalid("key %v: %s is %v, and column %s is part of the key", c.Key, part.field, given, part.column)
			}
			p.columns[i] = key[k]
		}
		n += size(p.columns[i])
		if size(p.columns[i]) > sqliteBytes/2 {
			return c, 0, tooLarge("key %v: %s has %d bytes", c.Key, part.field, size(p.columns[i]))
		}
	}
	// What is only read is not known before the commit; until then it is zero.
	known := make([]driver.Value, len(p.columns))
	for i, part := range t.m.value {
		if _, keyed := t.m.keyed[i]; part.written || keyed {
			known[i] = p.columns[i]
		}
	}
	if c.Value, err = t.preview(known); err != nil {
		return c, 0, invalid("key %v: %w", c.Key, err)
	}
	return c, n, nil
}

// preview is scanValue for the columns that are known.
func (t *Table[K, V]) preview(columns []driver.Value) (v V, err error) {
	rv := reflect.ValueOf(&v).Elem()
	for i, part := range t.m.value {
		if _, keyed := t.m.keyed[i]; !part.written && !keyed {
			continue
		}
		if err := part.read(columns[i], rv); err != nil {
			return v, fmt.Errorf("%s: column %s %w", part.field, part.column, err)
		}
	}
	return v, nil
}

// clone copies a value by way of its columns.
func (t *Table[K, V]) clone(v V) (V, error) {
	columns, err := t.bindValue(v)
	if err != nil {
		return v, err
	}
	row := make([]driver.Value, len(columns))
	for i, c := range columns {
		row[i] = c
	}
	return t.scanValue(row)
}
