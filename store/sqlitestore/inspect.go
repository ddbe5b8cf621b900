package sqlitestore

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep/store/internal/dbtag"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// column is one column of an existing table.
type column struct {
	name       string
	declared   string
	affinity   affinity
	strict     bool // it refuses values of other types; never one that takes any
	notNull    bool
	hasDefault bool
	defaults   string // in SQL
	generated  bool
	place      int    // among the table's columns, hidden ones included
	pk         int    // its place in the primary key, from 1; 0: not in it
	collation  string // of a column of the primary key
	// told says that the driver tells of the column's rows when others change them.
	told bool
}

// shape is an existing table as the database describes it.
type shape struct {
	name    string // as the schema spells it
	kind    string // table, view, virtual, shadow
	columns []column
	acts    bool // the schema changes rows by itself
	// rowid: the primary key is an INTEGER PRIMARY KEY, which SQLite fills.
	rowid bool
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
	err = c.query(`SELECT name, type, "notnull", dflt_value, pk, hidden, cid FROM pragma_table_xinfo(?)`, []any{s.name},
		func(row []driver.Value) error {
			var col column
			col.name, _ = row[0].(string)
			col.declared, _ = row[1].(string)
			col.affinity = affinityOf(col.declared, strict)
			col.strict = strict && !strings.EqualFold(col.declared, "ANY")
			col.notNull = row[2] == int64(1)
			col.defaults, col.hasDefault = row[3].(string)
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
	for i := range s.columns {
		s.columns[i].told = s.acts
	}
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
	s.rowid = len(s.key()) == 1
	err := c.query(`SELECT x.name, x.coll FROM pragma_index_list(?) AS l, pragma_index_xinfo(l.name) AS x
WHERE l.origin = 'pk' AND x.key = 1`, []any{s.name},
		func(row []driver.Value) error {
			s.rowid = false
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

// table is the shape as a mapping takes it.
func (s *shape) table() mapping.Table {
	t := mapping.Table{Name: s.name}
	for i := range s.columns {
		c := &s.columns[i]
		t.Columns = append(t.Columns, mapping.Column{
			Name: c.name, KeyPlace: c.pk, NotNull: c.notNull, HasDefault: c.hasDefault, Default: c.defaults, Generated: c.generated, Type: c,
			Given: c.pk > 0 && (s.rowid || c.hasDefault),
		})
	}
	return t
}

// mappable refuses what is no table of rows.
func (s *shape) mappable() error {
	switch s.kind {
	case "table":
		return nil
	case "view":
		return invalid("%s is a view: it has no primary key; map the table behind it", s.name)
	case "":
		return invalid("there is no table %s", s.name)
	}
	return invalid("%s is a %s table", s.name, s.kind)
}

var dialect = &mapping.Dialect{Name: "sqlite", Fold: dbtag.Fold, MaxKeyBytes: defaultKeyBytes, MaxColumnBytes: sqliteBytes / 2}

// mapTo fits K and V to the table, and names everything that does not fit.
func mapTo[K comparable, V any](s *shape, opts TableOptions) (*mapping.Mapping[K, V], error) {
	if err := s.mappable(); err != nil {
		return nil, err
	}
	m, mistakes := mapping.New[K, V](dialect, s.table(), mapping.Options(opts))
	return m, dialect.Misfit(s.name, mistakes)
}
