package dbtag

import (
	"fmt"
	"reflect"
	"slices"
)

// Field is a mapped field of a struct.
type Field struct {
	Tag
	// Name is the field's path, for errors: "User.Address.City".
	Name string
	Type reflect.Type
	// Index leads to the field by reflect.Value.FieldByIndex; no pointer is on
	// the way.
	Index []int
}

// Fields returns the mapped fields of t, a struct, those of embedded and nested
// structs without a tag of their own included. A field of another type without a
// tag is none, and so is a pointer to a struct that is not embedded. Fields finds
// every mistake, and not just the first: a tag that does not parse, one on or in an
// unexported field, a column named twice, two versions, an embedded pointer, no tag
// at all. Fold makes two names equal that the database takes for one column.
func Fields(t reflect.Type, fold func(string) string) (fields []Field, mistakes []error) {
	if t.Kind() != reflect.Struct {
		return nil, []error{fmt.Errorf("%v is not a struct", t)}
	}
	fields, mistakes = collect(t, typeName(t), nil)
	columns := map[string]string{}
	version := ""
	for _, f := range fields {
		folded := fold(f.Column)
		if other, ok := columns[folded]; ok {
			mistakes = append(mistakes, fmt.Errorf("%s and %s are both mapped to column %s", other, f.Name, f.Column))
		}
		columns[folded] = f.Name
		if f.Version {
			if version != "" {
				mistakes = append(mistakes, fmt.Errorf("%s and %s are both the version", version, f.Name))
			}
			version = f.Name
		}
	}
	if len(fields) == 0 && len(mistakes) == 0 {
		mistakes = append(mistakes, NoneError(typeName(t)))
	}
	return fields, mistakes
}

// Fold makes two names of tables or columns equal that SQLite and MySQL take for
// one: they fold the case of ASCII, and of nothing else. PostgreSQL takes names for
// one that are equal.
func Fold(name string) string {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			folded := []byte(name)
			for j := i; j < len(folded); j++ {
				if c := folded[j]; 'A' <= c && c <= 'Z' {
					folded[j] += 'a' - 'A'
				}
			}
			return string(folded)
		}
	}
	return name
}

func typeName(t reflect.Type) string {
	if t.Name() == "" {
		return "struct"
	}
	return t.Name()
}

func collect(t reflect.Type, path string, index []int) (fields []Field, mistakes []error) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := path + "." + f.Name
		at := append(index[:len(index):len(index)], i)
		text, tagged := f.Tag.Lookup("db")
		switch {
		case !tagged && f.Type.Kind() == reflect.Struct && hasTags(f.Type, nil):
			if !f.Anonymous && !f.IsExported() {
				mistakes = append(mistakes, fmt.Errorf("%s has fields with db tags and is not exported", name))
				continue
			}
			more, wrong := collect(f.Type, name, at)
			fields, mistakes = append(fields, more...), append(mistakes, wrong...)
			continue
		case !tagged && f.Anonymous && f.Type.Kind() == reflect.Pointer && hasTags(f.Type.Elem(), nil):
			mistakes = append(mistakes, fmt.Errorf("%s: an embedded pointer cannot be mapped; embed the struct", name))
			continue
		case !tagged:
			continue
		}
		tag, err := Parse(text)
		switch {
		case err != nil:
			mistakes = append(mistakes, fmt.Errorf("%s: %w", name, err))
		case tag.Skip:
		case !f.IsExported():
			mistakes = append(mistakes, fmt.Errorf("%s has a db tag and is not exported", name))
		default:
			fields = append(fields, Field{Tag: tag, Name: name, Type: f.Type, Index: at})
		}
	}
	return fields, mistakes
}

// hasTags tells whether t is a struct with a field that has a db tag, its own or one
// of a struct in it that Fields would look into. Above are the structs around it,
// which an embedded pointer can lead back to.
func hasTags(t reflect.Type, above []reflect.Type) bool {
	if t.Kind() != reflect.Struct || slices.Contains(above, t) {
		return false
	}
	above = append(above, t)
	for f := range t.Fields() {
		inner := f.Type
		if f.Anonymous && inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if _, ok := f.Tag.Lookup("db"); ok || hasTags(inner, above) {
			return true
		}
	}
	return false
}

// NoneError says that a struct, of that name, has no field with a tag.
type NoneError string

func (e NoneError) Error() string { return fmt.Sprintf("no field of %s has a db tag", string(e)) }
