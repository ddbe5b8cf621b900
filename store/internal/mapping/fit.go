package mapping

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
)

// fit is a mapping in the making.
type fit struct {
	d       *Dialect
	t       Table
	key     []Field
	value   []Field
	keyed   map[int]int
	version *int // index into value

	keyRecord, rowRecord *record // of a key, and a value, that is text
}

func (f *fit) column(name string) *Column {
	i := slices.IndexFunc(f.t.Columns, func(c Column) bool { return f.d.fold(c.Name) == f.d.fold(name) })
	if i < 0 {
		return nil
	}
	return &f.t.Columns[i]
}

// keyColumns returns the columns of the primary key, in its order.
func (t *Table) keyColumns() (key []Column) {
	for _, c := range t.Columns {
		if c.KeyPlace > 0 {
			key = append(key, c)
		}
	}
	slices.SortFunc(key, func(a, b Column) int { return a.KeyPlace - b.KeyPlace })
	return key
}

// mapKey fits K to the primary key: K itself to a key of one column, the fields
// of a struct to one of several.
func (f *fit) mapKey(k reflect.Type) (mistakes []error) {
	key := f.t.keyColumns()
	if len(key) == 0 {
		return []error{fmt.Errorf("it has no primary key")}
	}
	if k == keyType {
		return f.keyFields(key)
	}
	if k.Kind() != reflect.Struct || k == TimeType {
		if len(key) > 1 {
			return []error{fmt.Errorf("its primary key has %d columns, and the key is one %v; use a struct with db tags", len(key), k)}
		}
		return f.mapPart(key[0], Field{Name: k.String()}, k)
	}
	fields, mistakes := dbtag.Fields(k, f.d.fold)
	for sf := range k.Fields() {
		// A field outside the row would make two keys of one row.
		if tag, ok := sf.Tag.Lookup("db"); !ok || tag == "-" {
			mistakes = append(mistakes, fmt.Errorf("%s.%s is part of the key and not mapped", k.Name(), sf.Name))
		}
	}
	for _, col := range key {
		i := slices.IndexFunc(fields, func(df dbtag.Field) bool { return f.d.fold(df.Column) == f.d.fold(col.Name) })
		if i < 0 {
			mistakes = append(mistakes, fmt.Errorf("key column %s has no field in %v", col.Name, k))
			continue
		}
		df := fields[i]
		if df.Version || df.ReadOnly || df.JSON || df.Unix != 0 {
			mistakes = append(mistakes, fmt.Errorf("%s: a key takes no options", df.Name))
			continue
		}
		mistakes = append(mistakes, f.mapPart(col, Field{Name: df.Name, index: df.Index}, df.Type)...)
	}
	for _, df := range fields {
		if !slices.ContainsFunc(key, func(c Column) bool { return f.d.fold(c.Name) == f.d.fold(df.Column) }) {
			mistakes = append(mistakes, fmt.Errorf("%s: column %s is not in the primary key", df.Name, df.Column))
		}
	}
	return mistakes
}

// mapPart maps one column of the key.
func (f *fit) mapPart(col Column, part Field, t reflect.Type) (mistakes []error) {
	c, err := col.Type.Key(t)
	if err != nil {
		mistakes = append(mistakes, fmt.Errorf("key column %s: %w", col.Name, err))
	}
	if col.Generated {
		mistakes = append(mistakes, fmt.Errorf("key column %s: it is generated, and a row is written by its key", col.Name))
	}
	part.Column, part.Converter = col.Name, c
	f.key = append(f.key, part)
	return mistakes
}

func (f *fit) mapValue(v reflect.Type, versionColumn string) (mistakes []error) {
	f.keyed = map[int]int{}
	var fields []dbtag.Field
	if v == rowType {
		fields, mistakes = f.rowFields(versionColumn)
	} else {
		fields, mistakes = dbtag.Fields(v, f.d.fold)
	}
	for _, df := range fields {
		col := f.column(df.Column)
		if col == nil {
			mistakes = append(mistakes, fmt.Errorf("%s: there is no column %s", df.Name, df.Column))
			continue
		}
		c, err := col.Type.Value(df.Type, df.Tag)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: column %s: %w", df.Name, col.Name, err))
			continue
		}
		at := len(f.value)
		part := slices.IndexFunc(f.key, func(k Field) bool { return k.Column == col.Name })
		switch {
		case df.Version && part >= 0:
			mistakes = append(mistakes, fmt.Errorf("%s: column %s is in the primary key", df.Name, col.Name))
			continue
		case df.Version:
			mistakes = append(mistakes, versionMistakes(df, col)...)
			f.version = &at
		case part >= 0:
			f.keyed[at] = part
		}
		field := Field{
			Column: col.Name, Name: df.Name, index: df.Index, Converter: c,
			Written: !df.ReadOnly && !col.Generated && !df.Version && part < 0,
		}
		if f.rowRecord != nil && field.Written {
			field.Default, field.Required = col.Default, col.NotNull && col.Default == ""
		}
		f.value = append(f.value, field)
	}
	return mistakes
}

// mapVersion takes a column for the version that no field is mapped to.
func (f *fit) mapVersion(name string) (mistakes []error) {
	const option = "TableOptions.VersionColumn"
	col := f.column(name)
	switch {
	case col == nil:
		return []error{fmt.Errorf("%s: there is no column %s", option, name)}
	case f.version != nil:
		return []error{fmt.Errorf("%s is %s, and %s is the version already", option, name, f.value[*f.version].Name)}
	case col.KeyPlace > 0 || slices.ContainsFunc(f.value, func(v Field) bool { return v.Column == col.Name }):
		return []error{fmt.Errorf("%s: column %s is mapped to a field already", option, col.Name)}
	}
	df := dbtag.Field{Name: option, Type: reflect.TypeFor[int64]()}
	mistakes = versionMistakes(df, col)
	c, err := col.Type.Value(df.Type, dbtag.Tag{})
	if err != nil && mistakes == nil {
		mistakes = []error{fmt.Errorf("%s: column %s: %w", option, col.Name, err)}
	}
	at := len(f.value)
	f.version = &at
	f.value = append(f.value, Field{Column: col.Name, Converter: c})
	return mistakes
}

func versionMistakes(df dbtag.Field, col *Column) (mistakes []error) {
	wrong := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("%s: column %s: "+format, append([]any{df.Name, col.Name}, args...)...))
	}
	switch df.Type.Kind() {
	case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint64:
		if df.Type.Size() < 8 {
			wrong("a version needs 64 bits, and the field is %v", df.Type)
		}
	default:
		wrong("a version needs 64 bits, and the field is %v", df.Type)
	}
	if err := col.Type.Version(); err != nil {
		wrong("%w", err)
	}
	if col.Generated {
		wrong("a version cannot be a generated column")
	}
	return mistakes
}

// unmapped finds the columns that an insertion would leave without a value.
func (f *fit) unmapped() (mistakes []error) {
	for _, col := range f.t.Columns {
		if !col.NotNull || col.HasDefault || col.Generated || col.KeyPlace > 0 {
			continue
		}
		i := slices.IndexFunc(f.value, func(v Field) bool { return v.Column == col.Name })
		switch {
		case i < 0:
			mistakes = append(mistakes, fmt.Errorf("column %s is NOT NULL without a default, and no field is mapped to it", col.Name))
		case !f.value[i].Written && (f.version == nil || i != *f.version):
			mistakes = append(mistakes, fmt.Errorf("column %s is NOT NULL without a default, and %s is read only", col.Name, f.value[i].Name))
		}
	}
	return mistakes
}
