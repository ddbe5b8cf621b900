package sqlitestore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// chunks are the numbers of keys that one SELECT asks for. A list is padded with
// its last key up to the next of them, so that a handful of prepared statements
// serves every length; SQLite finds out about a repeated key in an IN list for
// less than another statement would cost.
var chunks = [...]int{1, 4, 16, 64}

// inChunks calls f with the keys, chunk by chunk, and the chunk's index in
// chunks. A key is width values in a row.
func inChunks(keys []any, width int, f func(size int, args []any) error) error {
	for len(keys) > 0 {
		i := 0
		for i < len(chunks)-1 && chunks[i]*width < len(keys) {
			i++
		}
		n := min(len(keys), chunks[i]*width)
		args := keys[:n:n]
		for len(args) < chunks[i]*width {
			args = append(args, keys[n-width:n]...)
		}
		if err := f(i, args); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// selectChunks makes the texts of a SELECT by lists of keys out of its part up to
// WHERE and the key's columns.
func selectChunks(query string, key ...string) (out [len(chunks)]string) {
	left, one, list := key[0], "?", "IN ("
	if len(key) > 1 {
		left, one, list = "("+strings.Join(key, ", ")+")", "(?"+strings.Repeat(",?", len(key)-1)+")", "IN (VALUES "
	}
	for i, n := range chunks {
		if n == 1 {
			out[i] = fmt.Sprintf("%s WHERE %s = %s", query, left, one)
		} else {
			out[i] = fmt.Sprintf("%s WHERE %s %s%s%s)", query, left, list, one, strings.Repeat(","+one, n-1))
		}
	}
	return out
}

// Load implements lockstep.Store. One key costs one lookup of a prepared
// statement, many cost one statement for each 64 of them. It looks at ctx
// between two statements. A row that does not decode, or a key that can have no
// row, is an error that is ErrInvalid and names the key.
func (s *Store[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	encoded, err := s.encode(keys)
	if err != nil {
		return nil, err
	}
	var rows map[K]lockstep.Row[V]
	err = s.db.read(ctx, func(c *conn) (err error) {
		rows, err = s.load(ctx, c, keys, encoded)
		return err
	})
	if err != nil {
		return nil, readError(s.db.path, err)
	}
	return rows, nil
}

// read implements Capabilities.Read.
func (s *Store[K, V]) read(ctx context.Context, t lockstep.Txn, keys []K) (map[K]lockstep.Row[V], error) {
	encoded, err := s.encode(keys)
	if err != nil {
		return nil, err
	}
	x, err := s.db.toRead(ctx, t)
	if err != nil {
		return nil, err
	}
	rows, err := s.load(ctx, x.a.conn, keys, encoded)
	if err != nil {
		return nil, readError(s.db.path, err)
	}
	return rows, nil
}

func (s *Store[K, V]) encode(keys []K) ([]any, error) {
	encoded := make([]any, len(keys))
	for i, k := range keys {
		var err error
		if encoded[i], err = s.rows.Key.Encode(k); err != nil {
			return nil, err
		}
	}
	return encoded, nil
}

func (s *Store[K, V]) load(ctx context.Context, c *conn, keys []K, encoded []any) (map[K]lockstep.Row[V], error) {
	rows := make(map[K]lockstep.Row[V], len(keys))
	err := inChunks(encoded, 1, func(size int, args []any) error {
		if ctx.Err() != nil {
			return gaveUp(ctx, "loading")
		}
		return c.query(s.sql.load[size], args, func(row []driver.Value) error {
			// One key needs no decoding of what was just encoded.
			k := keys[0]
			if len(keys) > 1 {
				var err error
				if k, err = s.rows.Key.Decode(row[0]); err != nil {
					return err
				}
			}
			r, err := s.row(row, now())
			if err != nil {
				return fmt.Errorf("key %v: %w", k, err)
			}
			rows[k] = r
			return nil
		})
	})
	return rows, err
}

// readError is what a failed read says.
func readError(path string, err error) error {
	switch {
	case errors.Is(err, keytext.ErrDecode):
		return invalid("%s: %w", path, err)
	case errors.Is(err, lockstep.ErrInvalid), errors.Is(err, lockstep.ErrUnavailable), errors.Is(err, lockstep.ErrClosed):
		return err
	}
	return unavailable("%s: %w", path, err)
}

// stateOf reads the columns version, expires_at and deleted.
func stateOf(version, expires, deleted driver.Value) kv.State {
	var st kv.State
	st.Version, _ = version.(int64)
	st.Expires, _ = expires.(int64)
	st.Live = deleted == int64(0)
	return st
}

// row makes a Row of the columns key, value, version, expires_at, deleted.
func (s *Store[K, V]) row(cols []driver.Value, now time.Time) (lockstep.Row[V], error) {
	st := stateOf(cols[2], cols[3], cols[4])
	r := lockstep.Row[V]{Version: lockstep.Version(st.Version)}
	if !st.Exists(now.UnixMicro()) {
		return r, nil
	}
	var data []byte
	switch v := cols[1].(type) {
	case string:
		data = []byte(v)
	case []byte:
		data = v
	default:
		return r, fmt.Errorf("%w: the value is %T", keytext.ErrDecode, cols[1])
	}
	var err error
	if r.Value, err = s.rows.Decode(data); err != nil {
		return r, fmt.Errorf("%w: %w", keytext.ErrDecode, err)
	}
	r.Exists = true
	st.Expiry(&r.ExpiresAt, &r.Remaining, now)
	return r, nil
}

// scanCursor is where a page has ended: the encoded key of its last row.
type scanCursor struct{ key any }

// scan implements Capabilities.Scan: the rows that exist, by key.
func (s *Store[K, V]) scan(ctx context.Context, cursor any, limit int) (lockstep.Page[K, V], error) {
	if limit <= 0 {
		return lockstep.Page[K, V]{}, invalid("the page's limit is %d", limit)
	}
	query, args := s.sql.scanFirst, []any{int64(limit)}
	if cursor != nil {
		after, ok := cursor.(scanCursor)
		if !ok {
			return lockstep.Page[K, V]{}, invalid("the cursor %v is not one of table %s", cursor, s.opts.Table)
		}
		query, args = s.sql.scanNext, []any{after.key, int64(limit)}
	}
	var page lockstep.Page[K, V]
	err := s.db.read(ctx, func(c *conn) error {
		page = lockstep.Page[K, V]{}
		seen := 0
		var last any
		err := c.query(query, args, func(row []driver.Value) error {
			if seen%64 == 63 && ctx.Err() != nil {
				return gaveUp(ctx, "scanning")
			}
			seen++
			last = row[0]
			k, err := s.rows.Key.Decode(row[0])
			if err != nil {
				return err
			}
			r, err := s.row(row, now())
			if err != nil {
				return fmt.Errorf("key %v: %w", k, err)
			}
			if r.Exists {
				page.Keys = append(page.Keys, k)
				page.Rows = append(page.Rows, r)
			}
			return nil
		})
		if seen == limit {
			page.Next = scanCursor{last}
		}
		return err
	})
	if err != nil {
		return lockstep.Page[K, V]{}, readError(s.db.path, err)
	}
	return page, nil
}
