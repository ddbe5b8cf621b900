package demo

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// What follows reads and writes tables of Lockstep's as any other program would:
// through database/sql, by their columns. Nothing here knows of the cache or its
// stores, so that what it says about them is a second opinion.

// SQL is how a kind of database is told to do it. Each of them is one statement
// about tables that the demo has opened.
type SQL struct {
	// Rows selects key, value, version and end of all rows, or of those with so
	// many keys, which are its arguments. What is left of a deleted row has no
	// value. The end is in µs since 1970, and NULL for a row that stays.
	Rows func(table string, keys int) string
	// Overwrite changes the row with a key, and its version only to countUp. The
	// arguments are value and key.
	Overwrite func(table string, countUp bool) string
	// Upsert writes a row as a program without a cache would. The arguments are
	// key, value and version, which never falls.
	Upsert func(table string) string
	// Copy adds the rows of another table that is made in the same way.
	Copy func(table, other string) string
}

// plainRow is a row as the table has it.
type plainRow[V any] struct {
	value   V
	version lockstep.Version
	exists  bool // false for what is left of a deleted row
}

// readRows returns all rows, deleted ones included, or those with the keys.
func readRows[V any](ctx context.Context, s *stage, table string, keys ...string) (map[string]plainRow[V], error) {
	args := make([]any, len(keys))
	for i, key := range keys {
		args[i] = key
	}
	rows, err := s.plain.QueryContext(ctx, s.options.Database.SQL.Rows(table, len(keys)), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(map[string]plainRow[V])
	for rows.Next() {
		var key string
		var value []byte
		var row plainRow[V]
		var expires sql.NullInt64
		if err := rows.Scan(&key, &value, &row.version, &expires); err != nil {
			return nil, err
		}
		row.exists = value != nil && (!expires.Valid || expires.Int64 > time.Now().UnixMicro())
		if row.exists {
			if err := json.Unmarshal(value, &row.value); err != nil {
				return nil, fmt.Errorf("table %s, key %s: %w", table, key, err)
			}
		}
		found[key] = row
	}
	return found, rows.Err()
}

// stored is the row with the key, as the database has it.
func (t *table[V]) stored(ctx context.Context, s *stage, key string) (plainRow[V], error) {
	rows, err := readRows[V](ctx, s, t.sql, key)
	return rows[key], err
}

// overwrite changes a row behind the cache's back. A program that shares a table
// with a cache counts the version up; one that does not is a program with a bug.
func (t *table[V]) overwrite(ctx context.Context, s *stage, key string, value V, countUp bool) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = s.plain.ExecContext(ctx, s.options.Database.SQL.Overwrite(t.sql, countUp), string(data), key)
	return err
}
