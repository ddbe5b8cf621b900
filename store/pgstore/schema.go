package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// tableInfo is what the meta table knows of one of our tables.
type tableInfo struct {
	schema, name string
	key          string // keytext.Codec.Kind
	keyColumn    string
	codec        string
	text         bool
}

func (t tableInfo) qualified() string { return qualify(t.schema, t.name) }
func (t tableInfo) meta() string      { return qualify(t.schema, metaName) }

const metaName = "lockstep_tables"

// layout is the number of the last migration: the layout that this version of
// the package reads and writes.
var layout = len(migrations)

// migrations[i] are the statements that bring a table from layout i to layout i+1,
// inside the transaction that opens it; layout 0 is no table at all. A change of
// the layout is one more entry here, and never a change of an earlier one, so that
// a new table and an old one go the same way.
var migrations = []func(t tableInfo) []string{
	// No index has a column that a write of a live row without a lifetime changes:
	// such an update stays on its page (HOT), for which the fill factor leaves room,
	// and touches no index. An index on version would make every write an index
	// write. The two partial indexes let the keeper find what is over without reading
	// the table.
	func(t tableInfo) []string {
		value := "bytea"
		if t.text {
			value = "text"
		}
		return []string{
			fmt.Sprintf(`CREATE TABLE %s (
	key %s PRIMARY KEY,
	value %s,                -- NULL in a tombstone
	version bigint NOT NULL, -- grows; as a rule µs since 1970
	expires_at bigint,       -- µs since 1970; NULL: stays until deleted
	deleted_at bigint        -- µs since 1970; NULL: a row; else a tombstone, which keeps the version
) WITH (fillfactor = 85)`, t.qualified(), t.keyColumn, value),
			fmt.Sprintf(`CREATE INDEX ON %s (deleted_at) WHERE deleted_at IS NOT NULL`, t.qualified()),
			fmt.Sprintf(`CREATE INDEX ON %s (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL`, t.qualified()),
		}
	},
}

// ensureLock serializes those who make tables: CREATE TABLE IF NOT EXISTS fails for
// one of two who run it at once.
const ensureLock = 0x6c6f636b73746570 // "lockstep"

// ensureTable makes the table, or brings it to the current layout, and returns its
// floor. Nothing is written when there is nothing to do.
func (db *Database) ensureTable(ctx context.Context, t tableInfo) (floor int64, err error) {
	s, err := db.session(ctx)
	if err != nil {
		return 0, openError(err)
	}
	err = s.lease.use(func(c *pgx.Conn) error {
		at, f, err := tableLayout(ctx, c, t)
		if err != nil || at == layout {
			floor = f
			return err
		}
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ended)
		if floor, err = migrate(ctx, c, t); err != nil {
			return err
		}
		return tx.Commit(ctx)
	})
	if err == nil {
		err = s.lease.use(func(c *pgx.Conn) error { return usable(ctx, c, t) })
	}
	if err != nil {
		// What was made, if a reply was lost, is found by name the next time.
		db.drop(s)
		return 0, openError(err)
	}
	db.release(s)
	return floor, nil
}

func tableLayout(ctx context.Context, c *pgx.Conn, t tableInfo) (at int, floor int64, err error) {
	var kind, list *string
	err = c.QueryRow(ctx, `SELECT (SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)),
	(SELECT relkind::text FROM pg_class WHERE oid = to_regclass($2))`, t.qualified(), t.meta()).Scan(&kind, &list)
	if err != nil {
		return 0, 0, err
	}
	known := false
	if list != nil {
		var key, codec string
		err = c.QueryRow(ctx, fmt.Sprintf(`SELECT layout, key, codec, floor FROM %s WHERE name = $1`, t.meta()), t.name).Scan(&at, &key, &codec, &floor)
		known = err == nil
		switch {
		case errors.Is(err, pgx.ErrNoRows):
		case err != nil:
			return 0, 0, fmt.Errorf("table %s: %w", t.meta(), err)
		case at > layout:
			return 0, 0, invalid("table %s has layout %d, made by a newer version of lockstep; this one knows layouts up to %d", t.qualified(), at, layout)
		case key != t.key:
			return 0, 0, invalid("table %s has keys of kind %s, and the store's are %s", t.qualified(), key, t.key)
		case codec != t.codec:
			return 0, 0, invalid("table %s has values encoded as %s, and the store's codec is %s", t.qualified(), codec, t.codec)
		}
	}
	switch {
	case known && kind == nil:
		// The table was dropped by hand: a new one starts, above the old floor.
		return 0, floor, nil
	case !known && kind != nil:
		return 0, 0, invalid("there is a relation %s already, and it is not a key-value table of lockstep", t.qualified())
	}
	return at, floor, nil
}

func migrate(ctx context.Context, c *pgx.Conn, t tableInfo) (floor int64, err error) {
	if _, err := c.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(ensureLock)); err != nil {
		return 0, err
	}
	if _, err := c.Exec(ctx, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (
	name text COLLATE "C" PRIMARY KEY,
	layout integer NOT NULL,        -- how the table is laid out
	key text NOT NULL,              -- what its keys are
	codec text NOT NULL,            -- how its values are encoded
	floor bigint NOT NULL DEFAULT 0 -- the highest version that was purged
)`, t.meta())); err != nil {
		return 0, err
	}
	// Another process may have been here since the table was looked up.
	at, floor, err := tableLayout(ctx, c, t)
	if err != nil {
		return 0, err
	}
	for ; at < layout; at++ {
		for _, statement := range migrations[at](t) {
			if _, err := c.Exec(ctx, statement); err != nil {
				return 0, fmt.Errorf("table %s: %w", t.qualified(), err)
			}
		}
	}
	_, err = c.Exec(ctx, fmt.Sprintf(`INSERT INTO %s AS m (name, layout, key, codec) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET layout = excluded.layout`, t.meta()), t.name, layout, t.key, t.codec)
	return floor, err
}

// usable refuses a table that would not keep what it is given, or that we may not
// write. All that is wrong is said at once.
func usable(ctx context.Context, c *pgx.Conn, t tableInfo) error {
	var kind, persistence string
	var rules, security bool
	var triggers, actions, heirs, lacking []string
	err := c.QueryRow(ctx, `SELECT relkind::text, relpersistence::text, relhasrules, relrowsecurity AND row_security_active(c.oid),
	ARRAY(SELECT tgname::text FROM pg_trigger g WHERE tgrelid = c.oid AND NOT tgisinternal AND NOT `+ours+` ORDER BY 1),
	ARRAY(SELECT conname::text FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')) ORDER BY 1),
	ARRAY(SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = c.oid ORDER BY 1),
	ARRAY(SELECT p FROM unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE']) AS p WHERE NOT has_table_privilege(c.oid, p))
FROM pg_class c WHERE c.oid = to_regclass($1)`, t.qualified()).Scan(&kind, &persistence, &rules, &security, &triggers, &actions, &heirs, &lacking)
	if err != nil {
		return fmt.Errorf("table %s: %w", t.qualified(), err)
	}
	var faults []error
	fault := func(broken bool, format string, args ...any) {
		if broken {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(kind != "r", "it is no ordinary table (relkind %s)", kind)
	fault(persistence != "p", "it is unlogged or temporary, and would be empty after a crash")
	fault(rules, "it has rules, which may rewrite what is written")
	fault(security, "row security hides rows of it from this role")
	fault(len(triggers) > 0, "it has the triggers %s; what they make of a row would not be read back", strings.Join(triggers, ", "))
	fault(len(actions) > 0, "its foreign keys %s delete or change rows of it by themselves, without a version", strings.Join(actions, ", "))
	fault(len(heirs) > 0, "%s inherits from it, and its rows would be seen as this one's", strings.Join(heirs, ", "))
	fault(len(lacking) > 0, "the role lacks the privileges %s", strings.Join(lacking, ", "))
	if len(faults) > 0 {
		return invalid("table %s: %w", t.qualified(), errors.Join(faults...))
	}
	return nil
}

// quote makes an identifier of any name.
func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func qualify(schema, name string) string { return quote(schema) + "." + quote(name) }

// splitTable takes "table" or "schema.table" apart. A table without a schema is in
// the first schema of the search path, looked up once: a session whose search path
// is another must not send us to another table.
func (db *Database) splitTable(name string) (schema, table string, err error) {
	schema, table, dotted := strings.Cut(name, ".")
	if !dotted {
		schema, table = db.schema, name
	}
	switch {
	case !dotted && schema == "":
		return "", "", invalid("the search_path has no schema that exists; name it: schema.%s", name)
	case strings.Contains(table, "."), !validName(schema), !validName(table):
		return "", "", invalid("%q is not a table's name", name)
	case table == metaName, table == logName, table == horizonName, table == lanesName:
		return "", "", invalid("the table's name %q is reserved", name)
	}
	return schema, table, nil
}

// validName: PostgreSQL cuts longer names, and takes two that differ behind the cut
// for one.
func validName(name string) bool {
	return name != "" && len(name) <= 63 && utf8.ValidString(name) && !strings.ContainsRune(name, 0)
}

// floor is the highest version of one of our tables that was purged.
//
// A version is max(version+1, clock, floor+1). While the tombstone is there,
// version+1 keeps it growing whatever the clock does; after the purge, a day
// later, only the floor is left of it. It is read when the table is opened, and
// raised by this process's own purges. What it does not see is a purge by another
// process followed by a clock that steps back by more than a day; that is accepted.
type floor struct{ atomic.Int64 }

// floor returns the table's, which all stores over it share.
func (db *Database) floor(qualified string) *floor {
	f, _ := db.floors.LoadOrStore(qualified, &floor{})
	return f.(*floor)
}
