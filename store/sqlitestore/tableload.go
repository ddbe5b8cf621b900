package sqlitestore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// Load implements lockstep.Store, at the cost of Store.Load and the decoding of
// each column. A row that does not fit the fields, such as a NULL where none can
// be held, is an error that is ErrInvalid and names the table, the key and the
// column; it can be written and deleted like any other.
func (t *Table[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	var bound []any
	for _, k := range keys {
		key, err := t.bindKey(k)
		if err != nil {
			return nil, err
		}
		bound = append(bound, key...)
	}
	var rows map[K]lockstep.Row[V]
	err := t.db.read(ctx, func(c *conn) error {
		rows = make(map[K]lockstep.Row[V], len(keys))
		return inChunks(bound, len(t.m.key), func(size int, args []any) error {
			if ctx.Err() != nil {
				return gaveUp(ctx, "loading")
			}
			return c.query(t.sql.load[size], args, func(row []driver.Value) error {
				k, err := t.scanKey(row)
				if err != nil {
					return err
				}
				rows[k], err = t.row(k, row[len(t.m.key):])
				return err
			})
		})
	})
	if err != nil {
		return nil, readError(t.db.path, err)
	}
	return rows, nil
}

// row makes a Row of the mapped columns. A version is unreadable like any other
// column: taken for 0, it would be the version of every state that the row has.
func (t *Table[K, V]) row(k K, columns []driver.Value) (lockstep.Row[V], error) {
	v, err := t.scanValue(columns)
	if err == nil && t.versioned() && columns[t.m.version] != nil {
		if _, ok := columns[t.m.version].(int64); !ok {
			err = fmt.Errorf("%w: column %s %w", keytext.ErrDecode, t.m.value[t.m.version].column, mismatch(columns[t.m.version], "version"))
		}
	}
	if err != nil {
		return lockstep.Row[V]{}, fmt.Errorf("table %s: key %v: %w", t.m.table, k, err)
	}
	return lockstep.Row[V]{Value: v, Exists: true, Version: lockstep.Version(t.versionOf(columns))}, nil
}

func (t *Table[K, V]) versionOf(columns []driver.Value) int64 {
	if !t.versioned() {
		return 0
	}
	n, _ := columns[t.m.version].(int64)
	return n
}

func (t *Table[K, V]) scan(ctx context.Context, cursor any, limit int) (lockstep.Page[K, V], error) {
	if limit <= 0 {
		return lockstep.Page[K, V]{}, invalid("the page's limit is %d", limit)
	}
	query, args := t.sql.scanFirst, []any{int64(limit)}
	if cursor != nil {
		after, ok := cursor.([]any)
		if !ok || len(after) != len(t.m.key) {
			return lockstep.Page[K, V]{}, invalid("the cursor %v is not one of table %s", cursor, t.m.table)
		}
		query, args = t.sql.scanNext, append(slices.Clone(after), int64(limit))
	}
	var page lockstep.Page[K, V]
	err := t.db.read(ctx, func(c *conn) error {
		page = lockstep.Page[K, V]{}
		var last []any
		err := c.query(query, args, func(row []driver.Value) error {
			if len(page.Keys)%64 == 63 && ctx.Err() != nil {
				return gaveUp(ctx, "scanning")
			}
			k, err := t.scanKey(row)
			if err != nil {
				return err
			}
			r, err := t.row(k, row[len(t.m.key):])
			if err != nil {
				return err
			}
			last = last[:0]
			for _, v := range row[:len(t.m.key)] {
				last = append(last, v)
			}
			page.Keys = append(page.Keys, k)
			page.Rows = append(page.Rows, r)
			return nil
		})
		if len(page.Keys) == limit {
			page.Next = last
		}
		return err
	})
	if err != nil {
		return lockstep.Page[K, V]{}, readError(t.db.path, err)
	}
	return page, nil
}
