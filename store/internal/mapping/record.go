package mapping

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/lockstep-cache/lockstep/internal/netstring"
	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/rows"
)

// A key or a value that is text (rows.Key, rows.Row) goes by way of a struct that is made of
// the table's columns, as a program would have written it: so everything else here is the
// same for both.

var (
	keyType = reflect.TypeFor[rows.Key]()
	rowType = reflect.TypeFor[rows.Row]()
)

// record is such a struct: a field for each column, a pointer where it may be absent.
type record struct {
	typ     reflect.Type
	columns []string
	forms   []TextForm
	index   map[string]int // by a column's name
}

// add gives the struct a field for a column, which make makes.
func (r *record) add(column string, form TextForm) (index []int) {
	if r.index == nil {
		r.index = map[string]int{}
	}
	i := len(r.columns)
	r.columns, r.forms, r.index[column] = append(r.columns, column), append(r.forms, form), i
	return []int{i}
}

func (r *record) make(types []reflect.Type) {
	fields := make([]reflect.StructField, len(types))
	for i, t := range types {
		fields[i] = reflect.StructField{Name: fmt.Sprint("F", i), Type: t}
	}
	r.typ = reflect.StructOf(fields)
}

// keyFields are the fields of a key that is text.
func (f *fit) keyFields(key []Column) (mistakes []error) {
	f.keyRecord = &record{}
	var types []reflect.Type
	for _, col := range key {
		form, err := col.Type.Text()
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("key column %s: %w", col.Name, err))
			continue
		}
		types = append(types, form.Type)
		mistakes = append(mistakes, f.mapPart(col, Field{Name: col.Name, index: f.keyRecord.add(col.Name, form)}, form.Type)...)
	}
	f.keyRecord.make(types)
	return mistakes
}

// rowFields are the fields of a value that is text: all columns.
func (f *fit) rowFields(versionColumn string) (fields []dbtag.Field, mistakes []error) {
	version := ""
	switch col := f.column(versionColumn); {
	case versionColumn == rows.NoVersion:
	case versionColumn != "" && col == nil:
		mistakes = append(mistakes, fmt.Errorf("TableOptions.VersionColumn: there is no column %s", versionColumn))
	case versionColumn != "":
		version = col.Name
	default:
		if col := f.column("version"); col != nil && col.KeyPlace == 0 && !col.Generated && col.NotNull && col.Type.Version() == nil {
			version = col.Name
		}
	}
	f.rowRecord = &record{}
	var types []reflect.Type
	for _, col := range f.t.Columns {
		form, err := col.Type.Text()
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("column %s: %w", col.Name, err))
			continue
		}
		df := dbtag.Field{Tag: dbtag.Tag{Column: col.Name, Version: col.Name == version, ReadOnly: col.Renewed && col.Name != version}, Name: col.Name, Type: reflect.PointerTo(form.Type)}
		if df.Version {
			df.Type = form.Type
		}
		df.Index = f.rowRecord.add(col.Name, form)
		types = append(types, df.Type)
		fields = append(fields, df)
	}
	f.rowRecord.make(types)
	return fields, mistakes
}

// into is a struct that is filled for k, or k itself.
func (m *Mapping[K, V]) intoKey(k *K) reflect.Value {
	if m.keyRecord == nil {
		return reflect.ValueOf(k).Elem()
	}
	return reflect.New(m.keyRecord.typ).Elem()
}

// keyFrom is the other half of intoKey.
func (m *Mapping[K, V]) keyFrom(rv reflect.Value, k *K) {
	if m.keyRecord == nil {
		return
	}
	parts := make([]string, len(m.keyRecord.forms))
	for i, form := range m.keyRecord.forms {
		parts[i] = form.format(rv.Field(i))
	}
	*any(k).(*rows.Key) = rows.JoinKey(parts...)
}

// keyStruct is what the fields of the key are in.
func (m *Mapping[K, V]) keyStruct(k *K) (reflect.Value, error) {
	rv := m.intoKey(k)
	if m.keyRecord == nil {
		return rv, nil
	}
	parts, err := any(*k).(rows.Key).Split(len(m.keyRecord.forms))
	if err != nil {
		return rv, err
	}
	for i, form := range m.keyRecord.forms {
		// Two texts of one key would be two keys for the cache, and one row.
		if !form.parse(parts[i], rv.Field(i)) || form.format(rv.Field(i)) != parts[i] {
			return rv, fmt.Errorf("column %s takes %s, in the one form in which it is read, and not %.40q", m.keyRecord.columns[i], form.Takes, parts[i])
		}
	}
	return rv, nil
}

// intoValue is a struct that is filled for v, or v itself.
func (m *Mapping[K, V]) intoValue(v *V) reflect.Value {
	if m.rowRecord == nil {
		return reflect.ValueOf(v).Elem()
	}
	return reflect.New(m.rowRecord.typ).Elem()
}

// valueFrom is the other half of intoValue.
func (m *Mapping[K, V]) valueFrom(rv reflect.Value, v *V) {
	if m.rowRecord == nil {
		return
	}
	row := []byte{'h'}
	for i, form := range m.rowRecord.forms {
		field := rv.Field(i)
		if field.Kind() == reflect.Pointer {
			if field.IsNil() {
				continue
			}
			field = field.Elem()
		} else if field.IsZero() {
			continue // a version that is not known yet
		}
		row = netstring.Append(netstring.Append(row, m.rowRecord.columns[i]), form.format(field))
	}
	*any(v).(*rows.Row) = rows.Row(row)
}

// valueStruct is what the fields of the value are in.
func (m *Mapping[K, V]) valueStruct(v *V) (reflect.Value, error) {
	rv := m.intoValue(v)
	if m.rowRecord == nil {
		return rv, nil
	}
	r := m.rowRecord
	fields, err := any(*v).(rows.Row).Fields()
	if err != nil {
		return rv, err
	}
	seen := make([]bool, len(r.columns))
	for _, f := range fields {
		i, known := r.index[f.Name]
		switch {
		case !known:
			return rv, fmt.Errorf("there is no column %.40q; there are %s", f.Name, strings.Join(r.columns, ", "))
		case seen[i]:
			return rv, fmt.Errorf("column %s comes twice", f.Name)
		}
		seen[i] = true
		field := rv.Field(i)
		if field.Kind() == reflect.Pointer {
			field.Set(reflect.New(field.Type().Elem()))
			field = field.Elem()
		}
		if !r.forms[i].parse(f.Text, field) {
			return rv, fmt.Errorf("column %s takes %s, and not %.40q", f.Name, r.forms[i].Takes, f.Text)
		}
	}
	return rv, nil
}

// Columns tells of the columns of a table whose values are text.
func (m *Mapping[K, V]) Columns() (all []rows.Column) {
	if m.rowRecord == nil {
		return nil
	}
	for i, f := range m.Value {
		form := m.rowRecord.forms[f.index[0]]
		c := rows.Column{Name: f.Column, Fixed: !f.Written, NotNull: f.Required, Number: form.Number, Takes: form.Takes}
		if part, ok := m.keyed[i]; ok {
			c.KeyPlace, c.Fixed = part+1, false
		}
		all = append(all, c)
	}
	return all
}
