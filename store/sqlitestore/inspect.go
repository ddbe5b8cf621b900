package sqlitestore

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
)

// column is one column of an existing table.
type column struct {
	name       string
	affinity   affinity
	strict     bool // it refuses values of other types; never one that takes any
	notNull    bool
	hasDefault bool
	generated  bool
	place      int    // among the table's columns, hidden ones included
	pk         int    // its place in the primary key, from 1; 0: not in it
	collation  string // of a column of the primary key
}

// shape is an existing table as the database describes it.
type shape struct {
	name    string // as the schema spells it
	kind    string // table, view, virtual, shadow
	columns []column
	acts    bool // the schema changes rows by itself
}

// inspect reads the shape of a table of the main database. A table that does not
// exist has no kind.
func inspect(c *conn, table string) (*shape, error) {
	s := &shape{name: table}
	strict := false
	err := c.query("SELECT name, type, strict FROM pragma_table_list WHERE schema = 'main' AND name = ? COLLATE NOCASE", []any{table},
		func(row []driver.Value) error {
			s.name, _ = row[0].(string)
			s.kind, _ = row[1].(string)
			strict = row[2] == int64(1)
			return nil
		})
	if err != nil || s.kind == "" {
		return s, err
	}
	err = c.query(`SELECT name, type, "notnull", dflt_value IS NOT NULL, pk, hidden, cid FROM pragma_table_xinfo(?)`, []any{s.name},
		func(row []driver.Value) error {
			var col column
			col.name, _ = row[0].(string)
			declared, _ := row[1].(string)
			col.affinity = affinityOf(declared, strict)
			col.strict = strict && !strings.EqualFold(declared, "ANY")
			col.notNull = row[2] == int64(1)
			col.hasDefault = row[3] == int64(1)
			pk, _ := row[4].(int64)
			col.pk = int(pk)
			col.collation = "BINARY"
			hidden, _ := row[5].(int64)
			place, _ := row[6].(int64)
			col.place = int(place)
			col.generated = hidden == 2 || hidden == 3
			if hidden != 1 {
				s.columns = append(s.columns, col)
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	acts, err := c.integer(actsQuery)
	if err != nil {
		return nil, err
	}
	s.acts = acts == 1
	if err := s.collations(c); err != nil {
		return nil, err
	}
	return s, nil
}

// collations finds out how the columns of the primary key compare: by the index
// that keeps them apart, and by the column itself, which decides what WHERE finds.
// No pragma tells of the latter; a UNION compares as its first column does.
func (s *shape) collations(c *conn) error {
	// An INTEGER PRIMARY KEY has no index, and nothing to collate.
	err := c.query(`SELECT x.name, x.coll FROM pragma_index_list(?) AS l, pragma_index_xinfo(l.name) AS x
WHERE l.origin = 'pk' AND x.key = 1`, []any{s.name},
		func(row []driver.Value) error {
			for i := range s.columns {
				if s.columns[i].name == row[0] {
					s.columns[i].collation, _ = row[1].(string)
				}
			}
			return nil
		})
	if err != nil {
		return err
	}
	distinct := strings.Repeat(" UNION SELECT ?", len(collated))
	for _, col := range s.key() {
		if col.affinity != text {
			continue
		}
		n, err := c.integer(fmt.Sprintf("SELECT count(*) FROM (SELECT %s FROM %s WHERE 0%s)", quote(col.name), inMain(s.name), distinct), collated...)
		if err != nil {
			return err
		}
		if n != int64(len(collated)) && strings.EqualFold(col.collation, "BINARY") {
			col.collation = "of the column, not of its index,"
		}
	}
	return nil
}

// collated are texts of which a collation other than BINARY takes some for equal.
var collated = []any{"a", "A", "a ", "á", "a\u0301", "Á", "ä", "Ä", "ae", "ß", "ss", "1", "01", "a-b", "ab", "a\x00"}

func (s *shape) column(name string) *column {
	for i := range s.columns {
		if dbtag.Fold(s.columns[i].name) == dbtag.Fold(name) {
			return &s.columns[i]
		}
	}
	return nil
}

// key returns the columns of the primary key, in its order.
func (s *shape) key() []*column {
	var key []*column
	for i := range s.columns {
		if s.columns[i].pk > 0 {
			key = append(key, &s.columns[i])
		}
	}
	slices.SortFunc(key, func(a, b *column) int { return a.pk - b.pk })
	return key
}

// mapped is a column and the field it is mapped to.
type mapped struct {
	column string
	field  string // for errors; empty for a version without a field
	index  []int  // nil: the whole key
	converter
	written bool // by the store, from the field
	place   int  // column.place, of a key's column
}

// mapping is how K and V lie in a table.
type mapping struct {
	table string
	key   []mapped
	value []mapped
	// keyed are the fields of V that repeat a part of the key: value index to key
	// index.
	keyed map[int]int
	// version is the index into value of the version's column; -1 without one.
	version int
}

// mapTo fits K and V to the table, and names everything that does not fit.
func mapTo(s *shape, k, v reflect.Type, opts TableOptions) (*mapping, error) {
	switch s.kind {
	case "table":
	case "view":
		return nil, invalid("%s is a view: it has no primary key; map the table behind it", s.name)
	case "":
		return nil, invalid("there is no table %s", s.name)
	default:
		return nil, invalid("%s is a %s table", s.name, s.kind)
	}
	m := &mapping{table: s.name, keyed: map[int]int{}, version: -1}
	mistakes := m.mapKey(s, k)
	mistakes = append(mistakes, m.mapValue(s, v)...)
	if opts.VersionColumn != "" {
		mistakes = append(mistakes, m.mapVersion(s, opts.VersionColumn)...)
	}
	if !opts.ReadOnly {
		mistakes = append(mistakes, m.unmapped(s)...)
	}
	if len(mistakes) > 0 {
		return nil, invalid("table %s does not fit: %w", s.name, errors.Join(mistakes...))
	}
	return m, nil
}

// mapKey fits K to the primary key: K itself to a key of one column, the fields
// of a struct to one of several.
func (m *mapping) mapKey(s *shape, k reflect.Type) (mistakes []error) {
	key := s.key()
	if len(key) == 0 {
		return []error{fmt.Errorf("it has no primary key")}
	}
	if k.Kind() != reflect.Struct || k == timeType {
		if len(key) > 1 {
			return []error{fmt.Errorf("its primary key has %d columns, and the key is one %v; use a struct with db tags", len(key), k)}
		}
		c, err := keyConverter(k, key[0])
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("key column %s: %w", key[0].name, err))
		}
		m.key = []mapped{{column: key[0].name, field: k.String(), converter: c, place: key[0].place}}
		return mistakes
	}
	fields, mistakes := dbtag.Fields(k)
	for f := range k.Fields() {
		// A field outside the row would make two keys of one row.
		if tag, ok := f.Tag.Lookup("db"); !ok || tag == "-" {
			mistakes = append(mistakes, fmt.Errorf("%s.%s is part of the key and not mapped", k.Name(), f.Name))
		}
	}
	for _, col := range key {
		i := slices.IndexFunc(fields, func(f dbtag.Field) bool { return dbtag.Fold(f.Column) == dbtag.Fold(col.name) })
		if i < 0 {
			mistakes = append(mistakes, fmt.Errorf("key column %s has no field in %v", col.name, k))
			continue
		}
		f := fields[i]
		if f.Version || f.ReadOnly || f.JSON || f.Unix != 0 {
			mistakes = append(mistakes, fmt.Errorf("%s: a key takes no options", f.Name))
			continue
		}
		c, err := keyConverter(f.Type, col)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("key column %s: %w", col.name, err))
		}
		m.key = append(m.key, mapped{column: col.name, field: f.Name, index: f.Index, converter: c, place: col.place})
	}
	for _, f := range fields {
		if !slices.ContainsFunc(key, func(c *column) bool { return dbtag.Fold(c.name) == dbtag.Fold(f.Column) }) {
			mistakes = append(mistakes, fmt.Errorf("%s: column %s is not in the primary key", f.Name, f.Column))
		}
	}
	return mistakes
}

// keyConverter accepts only what makes Go's == and the column's comparison the
// same.
func keyConverter(t reflect.Type, col *column) (converter, error) {
	if !strings.EqualFold(col.collation, "BINARY") {
		return converter{}, fmt.Errorf("its collation %s takes different keys for the same", col.collation)
	}
	need := func(a affinity) error {
		if col.affinity != a {
			return fmt.Errorf("a key of type %v needs a column of %s affinity, and it has %s", t, a, col.affinity)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		return stringConverter(), need(text)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return intConverter(), need(integer)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return uintConverter(), need(integer)
	case reflect.Float32, reflect.Float64:
		c := floatConverter()
		bind := c.bind
		c.bind = func(v reflect.Value) (any, error) {
			x, err := bind(v)
			if f, ok := x.(float64); ok {
				return f + 0, err // -0 is 0
			}
			return x, err
		}
		scan := c.scan
		c.scan = func(src driver.Value, dst reflect.Value) error {
			err := scan(src, dst)
			if f, ok := src.(float64); ok && err == nil && dst.Float() != f {
				err = mismatch(src, t.String()) // rounded, it would be the key of another row
			}
			return err
		}
		return c, need(realNum)
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return arrayConverter(), need(blob)
		}
	}
	return converter{}, fmt.Errorf("a key cannot be a %v", t)
}

func (m *mapping) mapValue(s *shape, v reflect.Type) (mistakes []error) {
	fields, mistakes := dbtag.Fields(v)
	for _, f := range fields {
		col := s.column(f.Column)
		if col == nil {
			mistakes = append(mistakes, fmt.Errorf("%s: there is no column %s", f.Name, f.Column))
			continue
		}
		c, err := newConverter(f.Type, f.Tag, col.affinity)
		if err == nil && col.strict && c.stores != "" && c.stores != col.affinity {
			err = fmt.Errorf("its %s column, of a STRICT table, refuses the %s that the field is stored as", col.affinity, c.stores)
		}
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: column %s: %w", f.Name, col.name, err))
			continue
		}
		at := len(m.value)
		part := slices.IndexFunc(m.key, func(k mapped) bool { return k.column == col.name })
		switch {
		case f.Version && part >= 0:
			mistakes = append(mistakes, fmt.Errorf("%s: column %s is in the primary key", f.Name, col.name))
			continue
		case f.Version:
			mistakes = append(mistakes, versionMistakes(f, col)...)
			m.version = at
		case part >= 0:
			m.keyed[at] = part
		}
		m.value = append(m.value, mapped{
			column: col.name, field: f.Name, index: f.Index, converter: c,
			written: !f.ReadOnly && !col.generated && !f.Version && part < 0,
		})
	}
	return mistakes
}

// mapVersion takes a column for the version that no field is mapped to.
func (m *mapping) mapVersion(s *shape, name string) (mistakes []error) {
	const option = "TableOptions.VersionColumn"
	col := s.column(name)
	switch {
	case col == nil:
		return []error{fmt.Errorf("%s: there is no column %s", option, name)}
	case m.version >= 0:
		return []error{fmt.Errorf("%s is %s, and %s is the version already", option, name, m.value[m.version].field)}
	case col.pk > 0 || slices.ContainsFunc(m.value, func(v mapped) bool { return v.column == col.name }):
		return []error{fmt.Errorf("%s: column %s is mapped to a field already", option, col.name)}
	}
	m.version = len(m.value)
	m.value = append(m.value, mapped{column: col.name})
	return versionMistakes(dbtag.Field{Name: option, Type: reflect.TypeFor[int64]()}, col)
}

func versionMistakes(f dbtag.Field, col *column) (mistakes []error) {
	wrong := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("%s: column %s: "+format, append([]any{f.Name, col.name}, args...)...))
	}
	switch f.Type.Kind() {
	case reflect.Int, reflect.Int64, reflect.Uint, reflect.Uint64:
		if f.Type.Size() < 8 {
			wrong("a version needs 64 bits, and the field is %v", f.Type)
		}
	default:
		wrong("a version needs 64 bits, and the field is %v", f.Type)
	}
	if col.affinity != integer {
		wrong("a version needs an INTEGER column")
	}
	if col.generated {
		wrong("a version cannot be a generated column")
	}
	return mistakes
}

// unmapped finds the columns that an insertion would leave without a value.
func (m *mapping) unmapped(s *shape) (mistakes []error) {
	for _, col := range s.columns {
		if !col.notNull || col.hasDefault || col.generated || col.pk > 0 {
			continue
		}
		i := slices.IndexFunc(m.value, func(v mapped) bool { return v.column == col.name })
		switch {
		case i < 0:
			mistakes = append(mistakes, fmt.Errorf("column %s is NOT NULL without a default, and no field is mapped to it", col.name))
		case !m.value[i].written && i != m.version:
			mistakes = append(mistakes, fmt.Errorf("column %s is NOT NULL without a default, and %s is read only", col.name, m.value[i].field))
		}
	}
	return mistakes
}
