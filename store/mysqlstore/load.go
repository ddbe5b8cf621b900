package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// Load implements lockstep.Store. It costs a round trip for each 256 keys. A row
// that does not decode, or a key that can have no row, is an error that is
// ErrInvalid and names the key.
func (s *Store[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	encoded, err := s.encode(keys)
	if err != nil {
		return nil, err
	}
	rows := make(map[K]lockstep.Row[V], len(keys))
	if len(keys) == 0 {
		return rows, s.db.closed()
	}
	if err := s.db.read(ctx, func(conn *session) error { return s.read(ctx, conn, keys, encoded, rows) }); err != nil {
		return nil, s.readError(err)
	}
	return rows, nil
}

// readIn implements Capabilities.Read.
func (s *Store[K, V]) readIn(ctx context.Context, t lockstep.Txn, keys []K) (map[K]lockstep.Row[V], error) {
	encoded, err := s.encode(keys)
	if err != nil {
		return nil, err
	}
	x, err := s.db.opened(t)
	if err != nil {
		return nil, err
	}
	rows := make(map[K]lockstep.Row[V], len(keys))
	if len(keys) == 0 {
		return rows, nil
	}
	err = x.reading(ctx, s.db.qualified(s.opts.Table), func() error { return s.read(ctx, x.a.s, keys, encoded, rows) })
	if err != nil {
		return nil, s.readError(err)
	}
	return rows, nil
}

func (s *Store[K, V]) encode(keys []K) (encoded []any, err error) {
	encoded = make([]any, len(keys))
	for i, k := range keys {
		if encoded[i], err = s.rows.Key.Encode(k); err != nil {
			return nil, err
		}
	}
	return encoded, nil
}

// read reads the rows of keys, one at least, in a session.
func (s *Store[K, V]) read(ctx context.Context, conn *session, keys []K, encoded []any, rows map[K]lockstep.Row[V]) error {
	return inChunks(encoded, func(size int, args []any) error {
		if ctx.Err() != nil {
			return gaveUp(ctx, "loading")
		}
		return conn.query(ctx, s.sql.load[size], args, func(row []driver.Value) error {
			// One key needs no decoding of what was just encoded.
			k := keys[0]
			if len(keys) > 1 {
				var err error
				if k, err = s.key(row[0]); err != nil {
					return err
				}
			}
			r, err := s.row(row)
			if err != nil {
				return fmt.Errorf("key %v: %w", k, err)
			}
			rows[k] = r
			return nil
		})
	})
}

func (s *Store[K, V]) readError(err error) error {
	if errors.Is(err, keytext.ErrDecode) {
		return invalid("table %s: %w", s.opts.Table, err)
	}
	return unasked(err)
}

// key decodes a key column.
func (s *Store[K, V]) key(v driver.Value) (K, error) {
	return s.rows.Key.Decode(keyValue(s.rows.Key.Form, v))
}

// stateOf reads the columns version, expires_at and deleted. What a tombstone has as
// its end is when it is purged.
func stateOf(version, expires, deleted driver.Value) kv.State {
	var st kv.State
	st.Version, _ = integer(version)
	gone, _ := integer(deleted)
	if st.Live = gone == 0; st.Live {
		st.Expires, _ = integer(expires)
	}
	return st
}

// row makes a Row of the columns key, value, version, expires_at, deleted and the
// clock.
func (s *Store[K, V]) row(cols []driver.Value) (lockstep.Row[V], error) {
	st := stateOf(cols[2], cols[3], cols[4])
	micros, _ := integer(cols[5])
	r := lockstep.Row[V]{Version: lockstep.Version(st.Version)}
	if !st.Exists(micros) {
		return r, nil
	}
	data, ok := cols[1].([]byte)
	if !ok {
		return r, fmt.Errorf("%w: the value is %T", keytext.ErrDecode, cols[1])
	}
	var err error
	if r.Value, err = s.rows.Decode(data); err != nil {
		return r, fmt.Errorf("%w: %w", keytext.ErrDecode, err)
	}
	r.Exists = true
	st.Expiry(&r.ExpiresAt, &r.Remaining, time.UnixMicro(micros))
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
	err := s.db.read(ctx, func(conn *session) error {
		seen := 0
		var last any
		err := conn.query(ctx, query, args, func(row []driver.Value) error {
			seen++
			last = keep(row[:1])[0]
			k, err := s.key(row[0])
			if err != nil {
				return err
			}
			r, err := s.row(row)
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
		return lockstep.Page[K, V]{}, s.readError(err)
	}
	return page, nil
}
