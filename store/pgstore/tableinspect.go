package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// shape is an existing table as the database describes it.
type shape struct {
	oid          uint32
	schema, name string
	kind         string // pg_class.relkind; empty for a table that does not exist
	persistence  string // pg_class.relpersistence
	role         string // who asks
	columns      []tableColumn
	// rules rewrite INSERT, UPDATE or DELETE; heirs inherit its columns, and their rows
	// are seen as its own; strangers are its partitions on other servers.
	rules, heirs, strangers []string
	hidden                  bool // row-level security hides rows from role
	triggers                bool // it has triggers of the schema's own; those of a watch are ours
	acts                    bool // these, or a foreign key's actions, change rows by themselves
	parts                   []int64
	part                    bool // it is a partition, or inherits
	watched                 bool // it has triggers of ours
	counts                  bool // track_counts is on
	deferredKey             bool // the primary key is DEFERRABLE
	// keyIndexes are the names of its index, and of those of partitions, with their
	// schemas.
	keyIndexes []string
	privileges privileges
}

// privileges are role's on the whole table, and on its schema.
type privileges struct{ usage, remove, lock bool }

// querier is a connection, a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// inspectTable reads the shape of a table. Its name is as PostgreSQL takes it in SQL:
// with or without a schema, folded to lower case unless it is quoted; without one
// it is looked for along the session's search_path, once, here. A table that does
// not exist has no kind. It takes four queries.
func inspectTable(ctx context.Context, q querier, table string) (*shape, error) {
	s := &shape{name: table}
	err := s.relation(ctx, q, table)
	if err != nil || s.kind == "" {
		return s, err
	}
	types, err := s.types(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := s.attributes(ctx, q, types); err != nil {
		return nil, err
	}
	return s, s.primaryKey(ctx, q)
}

func (s *shape) relation(ctx context.Context, q querier, table string) error {
	// pg_partition_tree is empty for what is no partitioned table.
	rows, err := q.Query(ctx, `SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, current_user::text,
	ARRAY(SELECT r.rulename::text FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled <> 'D' ORDER BY 1),
	ARRAY(SELECT i.inhrelid::regclass::text FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid AND c.relkind = 'r' ORDER BY 1),
	ARRAY(SELECT t.relid::text FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_class f ON f.oid = t.relid
		WHERE f.relkind = 'f' AND c.relkind = 'p' ORDER BY 1),
	ARRAY(SELECT t.relid::int8 FROM pg_catalog.pg_partition_tree(c.oid) t UNION SELECT c.oid::int8),
	EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid),
	EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND `+ours+`),
	EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE NOT g.tgisinternal AND NOT (`+ours+` AND g.tgrelid = c.oid) AND
		(g.tgrelid = c.oid OR g.tgrelid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t))),
	EXISTS (SELECT FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND (f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd')) AND
		(f.confrelid = c.oid OR f.confrelid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t))),
	pg_catalog.current_setting('track_counts') = 'on',
	pg_catalog.row_security_active(c.oid),
	pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
	pg_catalog.has_table_privilege(c.oid, 'DELETE'),
	pg_catalog.has_any_column_privilege(c.oid, 'UPDATE')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass($1::text)`, table)
	if err != nil {
		return badName(table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var oid int64
		p := &s.privileges
		var actions bool
		if err := rows.Scan(&oid, &s.schema, &s.name, &s.kind, &s.persistence, &s.role, &s.rules, &s.heirs, &s.strangers,
			&s.parts, &s.part, &s.watched, &s.triggers, &actions, &s.counts, &s.hidden, &p.usage, &p.remove, &p.lock); err != nil {
			return err
		}
		s.oid, s.acts = uint32(oid), s.triggers || actions
	}
	return badName(table, rows.Err())
}

// badName tells a name that does not parse from a database that does not answer.
func badName(table string, err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && (pe.Code == "42602" || pe.Code == "42601" || pe.Code == "0A000") {
		return dialect.Misfit(table, []error{fmt.Errorf("it is no table's name (a name with capitals, spaces or dots is put in double quotes): %w", err)})
	}
	return err
}

// types reads the types of the columns, and those that they are made of.
func (s *shape) types(ctx context.Context, q querier) (map[uint32]catalogType, error) {
	rows, err := q.Query(ctx, `WITH RECURSIVE used AS (
	SELECT a.atttypid AS oid FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
	UNION
	SELECT made.oid FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid
		CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS made(oid) WHERE made.oid <> 0)
SELECT t.oid::int8, n.nspname::text, t.typname::text, t.typtype::text, t.typcategory::text, t.typelem::int8, t.typbasetype::int8,
	t.typtypmod, t.typnotnull, t.typdefault IS NOT NULL
FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace`, int64(s.oid))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	types := map[uint32]catalogType{}
	for rows.Next() {
		var t catalogType
		var oid, elem, base int64
		if err := rows.Scan(&oid, &t.schema, &t.name, &t.kind, &t.category, &elem, &base, &t.typmod, &t.notNull, &t.hasDefault); err != nil {
			return nil, err
		}
		t.elem, t.base = uint32(elem), uint32(base)
		types[uint32(oid)] = t
	}
	return types, rows.Err()
}

func (s *shape) attributes(ctx context.Context, q querier, types map[uint32]catalogType) error {
	rows, err := q.Query(ctx, `SELECT a.attname::text, a.atttypid::int8, a.atttypmod, a.attnotnull, a.atthasdef, a.attidentity::text, a.attgenerated::text,
	coalesce(l.collname::text, ''), coalesce(l.collisdeterministic, true),
	pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
	pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'INSERT'),
	pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE'),
	coalesce((SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''), '')
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, int64(s.oid))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var c tableColumn
		var oid int64
		var typmod int32
		var notNull, hasDefault bool
		if err := rows.Scan(&c.name, &oid, &typmod, &notNull, &hasDefault, &c.identity, &c.generated, &c.collation, &c.deterministic,
			&c.mayRead, &c.mayInsert, &c.mayUpdate, &c.defaults); err != nil {
			return err
		}
		c.columnType = resolve(types, uint32(oid), typmod)
		c.notNull = notNull || c.columnType.notNull
		c.hasDefault = hasDefault && c.generated == "" || c.identity != "" || c.columnType.hasDefault
		s.columns = append(s.columns, c)
	}
	return rows.Err()
}

func (s *shape) primaryKey(ctx context.Context, q querier) error {
	rows, err := q.Query(ctx, `SELECT a.attname::text, k.place, NOT i.indimmediate, o.opcdefault,
	coalesce(l.collname::text, ''), coalesce(l.collisdeterministic, true),
	ARRAY(SELECT m.nspname || '.' || x.relname FROM pg_catalog.pg_class x JOIN pg_catalog.pg_namespace m ON m.oid = x.relnamespace WHERE x.oid = i.indexrelid OR x.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(i.indexrelid) p))
FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) WITH ORDINALITY AS k(attnum, opclass, coll, place)
	JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
	JOIN pg_catalog.pg_opclass o ON o.oid = k.opclass
	LEFT JOIN pg_catalog.pg_collation l ON l.oid = k.coll
WHERE i.indrelid = $1::int8::oid AND i.indisprimary AND i.indisvalid AND k.place <= i.indnkeyatts`, int64(s.oid))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var column, collation string
		var place int64
		var deferrable, ordinary, deterministic bool
		if err := rows.Scan(&column, &place, &deferrable, &ordinary, &collation, &deterministic, &s.keyIndexes); err != nil {
			return err
		}
		s.deferredKey = deferrable
		i := slices.IndexFunc(s.columns, func(c tableColumn) bool { return c.name == column })
		c := &s.columns[i]
		c.keyPlace = int(place)
		c.oddClass = !ordinary
		// The index says which rows the table can hold, the column what WHERE finds.
		if !deterministic {
			c.collation, c.deterministic = collation, false
		}
	}
	return rows.Err()
}

func (s *shape) column(name string) *tableColumn {
	i := slices.IndexFunc(s.columns, func(c tableColumn) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return &s.columns[i]
}

// sql is the table's name in a statement, whatever the session's search_path.
func (s *shape) sql() string { return pgx.Identifier{s.schema, s.name}.Sanitize() }

func (s *shape) String() string {
	if s.kind == "" {
		return s.name
	}
	return s.schema + "." + s.name
}

// table is the shape as a mapping takes it.
func (s *shape) table() mapping.Table {
	t := mapping.Table{Name: s.String()}
	for i := range s.columns {
		c := &s.columns[i]
		t.Columns = append(t.Columns, mapping.Column{
			Name: c.name, KeyPlace: c.keyPlace, NotNull: c.notNull, HasDefault: c.hasDefault, Default: c.defaults,
			// A row is inserted with its key, and OVERRIDING SYSTEM VALUE where an identity
			// would make one.
			Generated: c.generated != "" || c.identity == "a" && c.keyPlace == 0,
			Given:     c.hasDefault,
			Type:      c,
		})
	}
	return t
}
