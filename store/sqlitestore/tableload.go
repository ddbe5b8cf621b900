package sqlitestore

import (
	"context"
	"database/sql/driver"
	"slices"

	"github.com/lockstep-cache/lockstep"
)

// Load implements lockstep.Store, at the cost of Store.Load and the decoding of
// each column. A row that does not fit the fields, such as a NULL where none can
// be held, is an error that is ErrInvalid and names the table, the key and the
// column; it can be written and deleted like any other.
func (t *Table[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	bound, err := t.bind(keys)
	if err != nil {
		return nil, err
	}
	var rows map[K]lockstep.Row[V]
	err = t.db.read(ctx, func(c *conn) (err error) {
		rows, err = t.load(ctx, c, bound)
		return err
	})
	if err != nil {
		return nil, readError(t.db.path, err)
	}
	return rows, nil
}

// read implements Capabilities.Read.
func (t *Table[K, V]) read(ctx context.Context, tx lockstep.Txn, keys []K) (map[K]lockstep.Row[V], error) {
	bound, err := t.bind(keys)
	if err != nil {
		return nil, err
	}
	x, err := t.db.toRead(ctx, tx)
	if err != nil {
		return nil, err
	}
	rows, err := t.load(ctx, x.a.conn, bound)
	if err != nil {
		return nil, readError(t.db.path, err)
	}
	return rows, nil
}

func (t *Table[K, V]) bind(keys []K) (bound []any, err error) {
	for _, k := range keys {
		key, err := t.m.BindKey(k)
		if err != nil {
			return nil, err
		}
		bound = append(bound, key...)
	}
	return bound, nil
}

func (t *Table[K, V]) load(ctx context.Context, c *conn, bound []any) (map[K]lockstep.Row[V], error) {
	rows := make(map[K]lockstep.Row[V], len(bound)/len(t.m.Key))
	err := inChunks(bound, len(t.m.Key), func(size int, args []any) error {
		if ctx.Err() != nil {
			return gaveUp(ctx, "loading")
		}
		return c.query(t.sql.load[size], args, func(row []driver.Value) error {
			k, err := t.m.ScanKey(row)
			if err != nil {
				return err
			}
			rows[k], err = t.m.Row(k, row[len(t.m.Key):])
			return err
		})
	})
	return rows, err
}

func (t *Table[K, V]) scan(ctx context.Context, cursor any, limit int) (lockstep.Page[K, V], error) {
	if limit <= 0 {
		return lockstep.Page[K, V]{}, invalid("the page's limit is %d", limit)
	}
	query, args := t.sql.scanFirst, []any{int64(limit)}
	if cursor != nil {
		after, ok := cursor.([]any)
		if !ok || len(after) != len(t.m.Key) {
			return lockstep.Page[K, V]{}, invalid("the cursor %v is not one of table %s", cursor, t.m.Table)
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
			k, err := t.m.ScanKey(row)
			if err != nil {
				return err
			}
			r, err := t.m.Row(k, row[len(t.m.Key):])
			if err != nil {
				return err
			}
			last = last[:0]
			for _, v := range row[:len(t.m.Key)] {
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
