package sqlitestore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// tableInfo is what the meta table knows of one of our tables.
type tableInfo struct {
	name      string
	key       string // keyCodec.kind
	keyColumn string
	codec     string
	text      bool
}

// layout is the number of the last migration: the layout that this version of
// the package reads and writes.
var layout = int64(len(migrations))

// migrations[i] brings a table from layout i to layout i+1, inside the
// transaction that opens it; layout 0 is no table at all. A change of the layout
// is one more function here, and never a change of an earlier one, so that a new
// table and an old one go the same way.
var migrations = []func(c *conn, t tableInfo) error{
	// Two partial indexes let the keeper find what is over without reading the
	// table; they cost nothing for a row that is neither deleted nor mortal. It is
	// a rowid table: with the key as a clustered primary key the values would sit in
	// the tree's inner pages, too, and make it deep.
	func(c *conn, t tableInfo) error {
		value := "BLOB"
		if t.text {
			value = "TEXT"
		}
		q := inMain(t.name)
		for _, s := range []string{
			fmt.Sprintf(`CREATE TABLE %s (
	key %s PRIMARY KEY NOT NULL,
	value %s,                            -- NULL in a tombstone
	version INTEGER NOT NULL,            -- grows; as a rule µs since 1970
	expires_at INTEGER,                  -- µs since 1970; NULL: stays until deleted
	deleted INTEGER NOT NULL DEFAULT 0   -- 1: a tombstone, which keeps the version
) STRICT`, q, t.keyColumn, value),
			fmt.Sprintf(`CREATE INDEX %s ON %s (version) WHERE deleted = 1`, inMain(indexPrefix+t.name+":tombstones"), quote(t.name)),
			fmt.Sprintf(`CREATE INDEX %s ON %s (expires_at) WHERE expires_at IS NOT NULL`, inMain(indexPrefix+t.name+":mortals"), quote(t.name)),
		} {
			if err := c.script(s); err != nil {
				return err
			}
		}
		return nil
	},
}

// indexPrefix keeps the names of indexes, which are of one kind with those of
// tables, from being those of other tables.
const indexPrefix = "lockstep:"

const metaTable = `CREATE TABLE IF NOT EXISTS main.lockstep_tables (
	name TEXT PRIMARY KEY NOT NULL,
	layout INTEGER NOT NULL,             -- how the table is laid out
	key TEXT NOT NULL,                   -- what its keys are
	codec TEXT NOT NULL,                 -- how its values are encoded
	floor INTEGER NOT NULL DEFAULT 0     -- the highest version that was purged
) STRICT`

// ensureTable makes the table, or brings it to the current layout, and returns
// its floor. Nothing is written when there is nothing to do.
func (db *Database) ensureTable(ctx context.Context, t tableInfo) (floor int64, err error) {
	ready := false
	err = db.read(ctx, func(c *conn) (err error) {
		floor, ready, err = lookupTable(c, t)
		return err
	})
	if err == nil && ready {
		return floor, nil
	}
	if err != nil {
		return 0, openError(db.path, err)
	}
	result, err := db.write(ctx, func(ctx context.Context, a *attempt) error {
		if err := a.begin(ctx); err != nil {
			return err
		}
		floor, err := migrate(a.conn, t)
		if err != nil {
			return err
		}
		a.result = floor
		// What was made is found by name the next time, whatever became of this.
		a.verify = func(c *conn) (bool, error) {
			_, ready, err := lookupTable(c, t)
			return ready, err
		}
		return a.commit()
	})
	if err != nil {
		return 0, openError(db.path, err)
	}
	return result.(int64), nil
}

// lookupTable tells whether the table is there in the current layout. An error
// says that it can never be opened as t.
func lookupTable(c *conn, t tableInfo) (floor int64, ready bool, err error) {
	at, floor, err := tableLayout(c, t)
	return floor, at == layout, err
}

func tableLayout(c *conn, t tableInfo) (at, floor int64, err error) {
	kind, err := c.value("SELECT type FROM sqlite_schema WHERE name = ? COLLATE NOCASE AND type IN ('table','view')", t.name)
	if err != nil {
		return 0, 0, err
	}
	known := false
	there, ours, err := lookupList(c)
	if err == nil && there && !ours {
		err = invalid("there is a table lockstep_tables already, and it is not the list of tables that lockstep keeps under that name")
	}
	if err == nil && ours {
		err = c.query("SELECT layout, key, codec, floor FROM main.lockstep_tables WHERE name = ? COLLATE NOCASE", []any{t.name},
			func(row []driver.Value) error {
				known = true
				at, _ = row[0].(int64)
				floor, _ = row[3].(int64)
				switch {
				case at > layout:
					return invalid("table %s has layout %d, made by a newer version of lockstep; this one knows layouts up to %d", t.name, at, layout)
				case row[1] != t.key:
					return invalid("table %s has keys of kind %v, and the store's are %s", t.name, row[1], t.key)
				case row[2] != t.codec:
					return invalid("table %s has values encoded as %v, and the store's codec is %s", t.name, row[2], t.codec)
				}
				return nil
			})
	}
	switch {
	case err != nil:
		return 0, 0, err
	case known && kind == nil:
		// The table was dropped by hand: a new one starts, above the old floor.
		return 0, floor, nil
	case !known && kind != nil:
		return 0, 0, invalid("there is a %v %s already, and it is not a key-value table of lockstep; NewTable maps existing tables", kind, t.name)
	}
	return at, floor, refuseTriggers(c, t.name)
}

// lookupList tells whether there is a table lockstep_tables, and whether it is
// ours.
func lookupList(c *conn) (there, ours bool, err error) {
	err = c.query(`SELECT count(*) > 0, count(iif(name IN ('name', 'layout', 'key', 'codec', 'floor'), 1, NULL)) = 5
FROM pragma_table_xinfo('lockstep_tables', 'main')`, nil, func(row []driver.Value) error {
		there, ours = row[0] == int64(1), row[1] == int64(1)
		return nil
	})
	return there, ours, err
}

// isOurs tells whether a table is a key-value table of lockstep.
func isOurs(c *conn, table string) (bool, error) {
	_, ours, err := lookupList(c)
	if err != nil || !ours {
		return false, err
	}
	n, err := c.integer("SELECT count(*) FROM main.lockstep_tables WHERE name = ? COLLATE NOCASE", table)
	return n > 0, err
}

// refuseTriggers fails for a table of ours that has triggers. What they make of a
// row is not read back, and what they refuse would take a whole batch with it: the
// table is ours because nobody else changes what we write.
func refuseTriggers(c *conn, table string) error {
	v, err := c.value("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE", table)
	if err == nil && v != nil {
		err = invalid("table %s has the trigger %v, and a key-value table of lockstep can have none; NewTable maps tables that have triggers", table, v)
	}
	return err
}

func migrate(c *conn, t tableInfo) (floor int64, err error) {
	if err := c.script(metaTable); err != nil {
		return 0, err
	}
	// Another process may have been here since lookupTable.
	at, floor, err := tableLayout(c, t)
	if err != nil {
		return 0, err
	}
	for ; at < layout; at++ {
		if err := migrations[at](c, t); err != nil {
			return 0, err
		}
	}
	// The list may spell the name otherwise.
	changed, err := c.exec("UPDATE main.lockstep_tables SET layout = ? WHERE name = ? COLLATE NOCASE", layout, t.name)
	if err == nil && changed == 0 {
		_, err = c.exec("INSERT INTO main.lockstep_tables (name, layout, key, codec) VALUES (?,?,?,?)", t.name, layout, t.key, t.codec)
	}
	return floor, err
}

// quote makes an identifier of any name.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// inMain names a table or an index of the file itself. A name alone could be that
// of a temporary table, which somebody's SQL has made on the same connection.
func inMain(name string) string { return "main." + quote(name) }

var errTableName = errors.New("not a table's name")

func checkTableName(name string) error {
	lower := strings.ToLower(name)
	switch {
	case name == "" || len(name) > 128 || !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return invalid("%w: %q", errTableName, name)
	case strings.HasPrefix(lower, "sqlite_") || strings.HasPrefix(lower, indexPrefix) || lower == "lockstep_tables":
		return invalid("%w: %q is reserved", errTableName, name)
	}
	return nil
}
