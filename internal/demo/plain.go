package demo

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// What follows reads and writes tables of Lockstep's as any other program would:
// through database/sql, by their columns. Nothing here knows of the cache or its
// stores, so that what it says about them is a second opinion.

// plainRow is a row as the table has it.
type plainRow[V any] struct {
	value   V
	version lockstep.Version
	exists  bool // false for what is left of a deleted row
}

func quoted(table string) string { return `"` + strings.ReplaceAll(table, `"`, `""`) + `"` }

// readRows returns all rows, deleted ones included, or those with the keys.
func readRows[V any](ctx context.Context, db *sql.DB, table string, keys ...string) (map[string]plainRow[V], error) {
	query := "SELECT key, value, version, expires_at FROM " + quoted(table)
	args := make([]any, len(keys))
	if len(keys) > 0 {
		query += " WHERE key IN (?" + strings.Repeat(",?", len(keys)-1) + ")"
		for i, key := range keys {
			args[i] = key
		}
	}
	rows, err := db.QueryContext(ctx, query, args...)
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
	rows, err := readRows[V](ctx, s.plain, t.sql, key)
	return rows[key], err
}

// overwrite changes a row behind the cache's back. A program that shares a table
// with a cache counts the version up; one that does not is a program with a bug.
func (t *table[V]) overwrite(ctx context.Context, s *stage, key string, value V, countUp bool) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	set := "value = ?"
	if countUp {
		set += ", version = version + 1"
	}
	_, err = s.plain.ExecContext(ctx, "UPDATE "+quoted(t.sql)+" SET "+set+" WHERE key = ?", string(data), key)
	return err
}
