package pgstore

import (
	"context"
	"database/sql/driver"
	"slices"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// found tells whether the rows that the batch has written are there, the last work
// first. It is asked where the server no longer knows what became of the
// transaction. What a row would have become is known only as far as it was sent:
// generated columns, defaults and triggers are passed over. Without versions, two
// states that look the same are the same: a row that somebody has set back to what it
// was counts as not written.
func (b *tableBatch[K, V]) found(ctx context.Context, s *session, works ...*tableWork[K, V]) (bool, error) {
	for _, w := range works {
		var keys [][]any
		for _, r := range w.last {
			keys = append(keys, r.key)
		}
		if len(keys) == 0 {
			continue
		}
		now := &tableWork[K, V]{b: b, rows: map[string][]driver.Value{}}
		if err := s.run(ctx, now.read(b.t.sql.read, keys)); err != nil {
			return false, err
		}
		for text, r := range w.last {
			if applied, told := b.tells(r, w.first[text], now.rows[text]); told {
				return applied, nil
			}
		}
	}
	return false, errUntold
}

// tells says whether a row that was before, and is now, shows that it was written;
// told is false for a row that was changed since, or looks the same either way.
func (b *tableBatch[K, V]) tells(r *rowWrite, before, now []driver.Value) (applied, told bool) {
	n := len(b.t.m.Key)
	same := mapping.EqualRows(before, now)
	switch {
	case r.delete && before == nil:
		return false, false
	case r.delete && now == nil:
		return true, true
	case r.delete || now == nil:
		return false, same
	case b.t.m.Versioned():
		version := b.t.m.VersionOf(now[n:])
		return version == r.version, version <= r.version
	}
	wrote := b.holds(r, now)
	switch {
	case same && !(before != nil && b.holds(r, before)):
		return false, true
	case wrote && !same:
		return true, true
	}
	return false, false
}

// holds tells whether the row has what was written to it.
func (b *tableBatch[K, V]) holds(r *rowWrite, row []driver.Value) bool {
	n := len(b.t.m.Key)
	return !slices.ContainsFunc(b.t.sql.set, func(place int) bool {
		return place != b.t.m.Version && !mapping.Equal(r.columns[place], row[n+place])
	})
}
