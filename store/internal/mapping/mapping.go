// Package mapping is how a key and a value in Go lie in a table that exists, for
// every SQL store: the fields with `db` tags are fitted to the columns, and rows
// are bound, read, copied and compared by them. It knows no database and does no
// I/O. What a table is, a store finds out; what a column makes of a Go type, the
// store's Type says; names, limits and errors are its Dialect's.
package mapping

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
)

// Dialect is what a mapping knows of its database beside the columns.
type Dialect struct {
	// Name is the database's, for errors: "sqlite".
	Name string
	// Fold makes two names equal that the database takes for one column; nil where
	// it takes none but the equal ones.
	Fold func(name string) string
	// MaxKeyBytes bounds each column of a key, MaxColumnBytes each other one, and
	// MaxRowBytes, unless it is 0, all columns together.
	MaxKeyBytes, MaxColumnBytes, MaxRowBytes int
}

// Table is a table as its database describes it.
type Table struct {
	Name    string // as the schema spells it
	Columns []Column
}

// Column is one column of a table.
type Column struct {
	Name string // as the schema spells it
	// KeyPlace is its place in the primary key, from 1; 0: it is not in it.
	KeyPlace   int
	NotNull    bool
	HasDefault bool
	Default    string // in SQL, where it can stand in an INSERT
	Generated  bool   // the database alone writes it
	// Renewed: the database writes it whenever a row is changed, unless the statement does.
	Renewed bool
	// Given: the database fills it in a row that comes without it.
	Given bool
	Type  Type
}

// Type is what a column makes of Go's values. Its errors say what is wrong with the
// column for them; the caller names the field and the column.
type Type interface {
	// Key returns the converter of a key of type t. It accepts only what makes Go's ==
	// and the column's comparison the same.
	Key(t reflect.Type) (Converter, error)
	// Value returns the converter of a field, or says why there is none: because the
	// type cannot be stored, or because the column would change its values.
	Value(t reflect.Type, tag dbtag.Tag) (Converter, error)
	// Version says why the column cannot hold every int64; nil if it can.
	Version() error
	// Text is how all of the column's values are text, or why they are not.
	Text() (TextForm, error)
}

// Converter takes a field's value to what its column holds, and back. Bind returns
// nil, an int64, a float64, a bool, a string or a []byte: what compares by Equal,
// and means the same to every driver, which a time.Time does not. Neither keeps a
// reference to what it was given. Their errors say what is wrong with the value;
// the caller names the field and the column.
type Converter struct {
	Bind func(v reflect.Value) (any, error)
	Scan func(src driver.Value, dst reflect.Value) error
	// Type is what the database calls the type of what Bind returns and Scan takes;
	// empty where only the value tells.
	Type string
}

// Field is a column and the field that it is mapped to.
type Field struct {
	Column string
	Name   string // for errors; empty for a version without a field
	Converter
	// Written by the store, from the field.
	Written bool
	// Default is what a new row gets whose value is nil, in SQL; and Required says that nil
	// is refused. They are of values that are text, of which each may leave columns out.
	Default  string
	Required bool
	index    []int // nil: the whole key
}

// Mapping is how K and V lie in a table. It does not change, and may be used from
// many goroutines at once.
type Mapping[K comparable, V any] struct {
	Table string
	Key   []Field // in the order of the primary key
	Value []Field
	// Version is the index into Value of the version's column; -1 without one.
	Version int

	// Inserts: the key is one column, which the database fills in a new row.
	Inserts bool

	d *Dialect
	// keyed are the fields of V that repeat a part of the key: value index to key
	// index.
	keyed    map[int]int
	readOnly bool

	keyRecord, rowRecord *record // of a key, and a value, that is text
}

// Options are those of NewTable.
type Options struct {
	ReadOnly      bool
	VersionColumn string
}

// New fits K and V to the table. The mistakes are everything that does not fit; with
// any, the mapping is good only for finding more, and Misfit makes an error of them
// all.
func New[K comparable, V any](d *Dialect, t Table, opts Options) (*Mapping[K, V], []error) {
	f := fit{d: d, t: t}
	mistakes := f.mapKey(reflect.TypeFor[K]())
	mistakes = append(mistakes, f.mapValue(reflect.TypeFor[V](), opts.VersionColumn)...)
	if opts.VersionColumn != "" && f.rowRecord == nil {
		mistakes = append(mistakes, f.mapVersion(opts.VersionColumn)...)
	}
	// Without a single tag every column is unmapped, which is said already.
	none := func(err error) bool { return errors.As(err, new(dbtag.NoneError)) }
	if !opts.ReadOnly && !slices.ContainsFunc(mistakes, none) {
		mistakes = append(mistakes, f.unmapped()...)
	}
	key := t.keyColumns()
	m := &Mapping[K, V]{
		Inserts: len(key) == 1 && key[0].Given,
		Table:   t.Name, Key: f.key, Value: f.value, Version: -1,
		d: d, keyed: f.keyed, readOnly: opts.ReadOnly, keyRecord: f.keyRecord, rowRecord: f.rowRecord,
	}
	if f.version != nil {
		m.Version = *f.version
	}
	return m, mistakes
}

// Misfit is the error of a table that does not fit; nil without mistakes.
func (d *Dialect) Misfit(table string, mistakes []error) error {
	if len(mistakes) == 0 {
		return nil
	}
	return d.invalid("table %s does not fit: %w", table, errors.Join(mistakes...))
}

func (d *Dialect) fold(name string) string {
	if d.Fold == nil {
		return name
	}
	return d.Fold(name)
}

func (d *Dialect) wrap(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", kind, d.Name, fmt.Errorf(format, args...))
}

func (d *Dialect) invalid(format string, args ...any) error {
	return d.wrap(lockstep.ErrInvalid, format, args...)
}
