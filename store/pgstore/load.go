package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
)

// Load implements lockstep.Store, in one round trip however many keys there are. A
// row that does not decode, or a key that can have no row, is an error that is
// ErrInvalid and names the key.
func (s *Store[K, V]) Load(ctx context.Context, keys []K) (map[K]lockstep.Row[V], error) {
	query, arg, err := s.loading(keys)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return map[K]lockstep.Row[V]{}, nil
	}
	loaded, err := s.read(ctx, query, arg)
	if err != nil {
		return nil, err
	}
	return byKey(loaded), nil
}

// readIn implements Capabilities.Read.
func (s *Store[K, V]) readIn(ctx context.Context, t lockstep.Txn, keys []K) (map[K]lockstep.Row[V], error) {
	query, arg, err := s.loading(keys)
	if err != nil {
		return nil, err
	}
	x, err := s.db.open(ctx, t)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return map[K]lockstep.Row[V]{}, nil
	}
	loaded, err := s.readBy(ctx, x.a.session, query, []any{arg})
	if err != nil {
		return nil, readError(err)
	}
	return byKey(loaded), nil
}

// loading is the query for some keys, and its argument.
func (s *Store[K, V]) loading(keys []K) (query string, arg any, err error) {
	encoded := make([]any, len(keys))
	for i, k := range keys {
		if encoded[i], err = s.rows.Key.Encode(k); err != nil {
			return "", nil, err
		}
	}
	if len(keys) == 1 {
		return s.sql.loadOne, encoded[0], nil
	}
	return s.sql.load, keyArray(encoded), nil
}

func byKey[K comparable, V any](loaded []loaded[K, V]) map[K]lockstep.Row[V] {
	rows := make(map[K]lockstep.Row[V], len(loaded))
	for _, l := range loaded {
		rows[l.key] = l.row
	}
	return rows
}

type loaded[K comparable, V any] struct {
	key     K
	encoded any
	row     lockstep.Row[V]
}

// read runs a query for the columns key, value, version, expires_at, deleted_at and
// the clock.
func (s *Store[K, V]) read(ctx context.Context, query string, args ...any) ([]loaded[K, V], error) {
	for try := 1; ; try++ {
		rows, again, err := s.readOnce(ctx, query, args, try)
		if !again {
			return rows, readError(err)
		}
	}
}

func (s *Store[K, V]) readOnce(ctx context.Context, query string, args []any, try int) (rows []loaded[K, V], again bool, err error) {
	session, err := s.db.session(ctx)
	if err != nil {
		return nil, false, err
	}
	defer session.forsake()
	rows, err = s.readBy(ctx, session, query, args)
	if err != nil && !errors.Is(err, keytext.ErrDecode) {
		s.db.drop(session)
	} else {
		s.db.release(session)
	}
	return rows, session.readAgain(ctx, err, try), err
}

func (s *Store[K, V]) readBy(ctx context.Context, session *session, query string, args []any) (rows []loaded[K, V], err error) {
	err = session.run(ctx, command{sql: query, args: args, row: func(scan func(...any) error) error {
		var key any
		var data []byte
		var version, now int64
		var expires, deleted *int64
		if err := scan(&key, &data, &version, &expires, &deleted, &now); err != nil {
			return err
		}
		k, err := s.rows.Key.Decode(key)
		if err != nil {
			return err
		}
		s.db.heard(now, version)
		st := rowState(version, expires, deleted)
		r := lockstep.Row[V]{Version: lockstep.Version(version)}
		if st.Exists(now) {
			if data == nil {
				return fmt.Errorf("key %v: %w: the value is NULL", k, keytext.ErrDecode)
			}
			if r.Value, err = s.rows.Decode(data); err != nil {
				return fmt.Errorf("key %v: %w: %w", k, keytext.ErrDecode, err)
			}
			r.Exists = true
			st.Expiry(&r.ExpiresAt, &r.Remaining, time.UnixMicro(now))
		}
		rows = append(rows, loaded[K, V]{k, key, r})
		return nil
	}})
	return rows, err
}

// readError is what a failed read says.
func readError(err error) error {
	switch {
	case err == nil, named(err):
		return err
	case errors.Is(err, keytext.ErrDecode):
		return invalid("%w", err)
	}
	return unavailable("%w", err)
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
			return lockstep.Page[K, V]{}, invalid("the cursor %v is not one of table %s", cursor, s.table.qualified())
		}
		query, args = s.sql.scanNext, append(args, after.key)
	}
	var page lockstep.Page[K, V]
	loaded, err := s.read(ctx, query, args...)
	if err != nil {
		return page, err
	}
	for _, l := range loaded {
		if l.row.Exists {
			page.Keys = append(page.Keys, l.key)
			page.Rows = append(page.Rows, l.row)
		}
	}
	if len(loaded) == limit {
		page.Next = scanCursor{loaded[limit-1].encoded}
	}
	return page, nil
}
