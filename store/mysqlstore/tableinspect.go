package mysqlstore

import (
	"context"
	"database/sql/driver"
	"slices"
	"strings"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// shape is an existing table as the database describes it.
type shape struct {
	schema, name string
	kind         string // information_schema.TABLES.TABLE_TYPE; empty for a table that does not exist
	engine       string
	columns      []tableColumn
}

// inspectTable reads the shape of a table, in a few queries. Its name is as MySQL takes
// it in SQL: with or without a database, in backquotes or not; without one it is in
// the database of the DSN. A table that does not exist, or that the user may not see,
// has no kind.
func (db *Database) inspectTable(ctx context.Context, conn *session, table string) (*shape, error) {
	s := &shape{schema: db.name}
	parts, err := tableName(table)
	if err != nil {
		return nil, dialect.Misfit(table, []error{err})
	}
	s.name = parts[len(parts)-1]
	if len(parts) == 2 {
		s.schema = parts[0]
	}
	if err := s.relation(ctx, conn, db); err != nil || s.kind == "" {
		return s, err
	}
	if err := s.readColumns(ctx, conn, &db.server); err != nil {
		return nil, err
	}
	if err := s.jsonColumns(ctx, conn, &db.server); err != nil {
		return nil, err
	}
	return s, s.primaryKey(ctx, conn)
}

// jsonColumns finds MariaDB's, which are texts with a check.
func (s *shape) jsonColumns(ctx context.Context, conn *session, sv *server) error {
	if !sv.mariadb() {
		return nil
	}
	return conn.query(ctx, "SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?",
		[]any{s.schema, s.name}, func(row []driver.Value) error {
			for i := range s.columns {
				if c := &s.columns[i]; c.family == texts && text(row[0]) == "json_valid("+quote(c.name)+")" {
					c.family, c.declared = jsons, "json"
				}
			}
			return nil
		})
}

// tableName takes a name to its parts: the database's, if it is there, and the
// table's.
func tableName(name string) (parts []string, err error) {
	rest := name
	for {
		var part string
		if strings.HasPrefix(rest, "`") {
			var quoted strings.Builder
			rest = rest[1:]
			for {
				before, after, ok := strings.Cut(rest, "`")
				if !ok {
					return nil, errNoName
				}
				quoted.WriteString(before)
				if rest = after; !strings.HasPrefix(rest, "`") {
					break
				}
				quoted.WriteByte('`')
				rest = rest[1:]
			}
			part = quoted.String()
		} else {
			end := strings.IndexFunc(rest, func(r rune) bool { return !plainName(r) })
			if end < 0 {
				end = len(rest)
			}
			part, rest = rest[:end], rest[end:]
		}
		parts = append(parts, part)
		switch {
		case part == "" || len(parts) > 2:
			return nil, errNoName
		case rest == "":
			return parts, nil
		case rest[0] != '.':
			return nil, errNoName
		}
		rest = rest[1:]
	}
}

func plainName(r rune) bool {
	return r == '_' || r == '$' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r >= 0x80
}

func (s *shape) relation(ctx context.Context, conn *session, db *Database) error {
	name, schema := s.name, s.schema
	return conn.query(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
		[]any{schema, name}, func(row []driver.Value) error {
			if db.fold(text(row[0])) == db.fold(schema) && db.fold(text(row[1])) == db.fold(name) {
				s.schema, s.name, s.kind, s.engine = text(row[0]), text(row[1]), text(row[2]), text(row[3])
			}
			return nil
		})
}

func (s *shape) readColumns(ctx context.Context, conn *session, sv *server) error {
	number := func(v driver.Value) int64 { n, _ := integer(v); return n }
	return conn.query(ctx, `SELECT COLUMN_NAME, COLUMN_DEFAULT, IS_NULLABLE, DATA_TYPE, COLUMN_TYPE, CHARACTER_MAXIMUM_LENGTH, CHARACTER_OCTET_LENGTH,
	NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, CHARACTER_SET_NAME, COLLATION_NAME, EXTRA, GENERATION_EXPRESSION
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION`,
		[]any{s.schema, s.name}, func(row []driver.Value) error {
			extra := strings.ToLower(text(row[12]))
			c := tableColumn{
				name: text(row[0]), notNull: text(row[2]) == "NO", dataType: strings.ToLower(text(row[3])), declared: text(row[4]),
				characters: number(row[5]), octets: number(row[6]), precision: int(number(row[7])), scale: int(number(row[8])),
				decimals: int(number(row[9])), charset: text(row[10]), collation: text(row[11]),
				autoIncrement: strings.Contains(extra, "auto_increment"),
				generated:     text(row[13]) != "" || strings.Contains(extra, "virtual generated") || strings.Contains(extra, "stored generated"),
				renewed:       strings.Contains(extra, "on update"),
				server:        sv,
			}
			c.hasDefault = row[1] != nil || c.autoIncrement
			if row[1] != nil && !c.generated {
				c.defaults = sv.defaultSQL(text(row[1]), extra)
			}
			c.computed = sv.mariadb() && !strings.HasPrefix(text(row[1]), "'") && strings.Contains(text(row[1]), "(")
			c.resolve()
			s.columns = append(s.columns, c)
			return nil
		})
}

func (s *shape) primaryKey(ctx context.Context, conn *session) error {
	return conn.query(ctx, "SELECT COLUMN_NAME, SEQ_IN_INDEX, SUB_PART FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND INDEX_NAME = 'PRIMARY'",
		[]any{s.schema, s.name}, func(row []driver.Value) error {
			if c := s.column(text(row[0])); c != nil {
				place, _ := integer(row[1])
				c.keyPlace, c.prefix = int(place), row[2] != nil
			}
			return nil
		})
}

func (s *shape) column(name string) *tableColumn {
	i := slices.IndexFunc(s.columns, func(c tableColumn) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return &s.columns[i]
}

// sql is the table's name in a statement.
func (s *shape) sql() string { return quote(s.schema) + "." + quote(s.name) }

func (s *shape) String() string { return s.schema + "." + s.name }

// table is the shape as a mapping takes it.
func (s *shape) table() mapping.Table {
	t := mapping.Table{Name: s.String()}
	for i := range s.columns {
		c := &s.columns[i]
		t.Columns = append(t.Columns, mapping.Column{
			Name: c.name, KeyPlace: c.keyPlace, NotNull: c.notNull, HasDefault: c.hasDefault, Default: c.defaults, Generated: c.generated, Renewed: c.renewed, Given: c.given(), Type: c,
		})
	}
	return t
}
