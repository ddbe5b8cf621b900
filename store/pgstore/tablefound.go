package pgstore

import (
	"context"
	"database/sql/driver"
	"slices"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// found tells whether the rows that the batch has written are there; the works are
// given the last first. It is asked where the server no longer knows what became of the
// transaction. What a row would have become is known only as far as it was sent:
// generated columns, defaults and triggers are passed over. Without versions, two
// states that look the same are the same: a row that somebody has set back to what it
// was counts as not written. Rows that contradict each other, as where somebody has
// deleted one that was to be deleted, tell nothing.
func (b *tableBatch[K, V]) found(ctx context.Context, s *session, works ...*tableWork[K, V]) (bool, error) {
	// Of each row, the last change and what there was before the first.
	last, first := map[string]*rowWrite{}, map[string][]driver.Value{}
	var keys [][]any
	for _, w := range works {
		for text, r := range w.last {
			if last[text] == nil {
				last[text] = r
				keys = append(keys, r.key)
			}
			first[text] = w.first[text]
		}
	}
	if len(keys) == 0 {
		return false, errUntold
	}
	now := &tableWork[K, V]{b: b, rows: map[string][]driver.Value{}}
	if err := s.run(ctx, now.read(b.t.sql.read, keys)); err != nil {
		return false, err
	}
	var says [2]bool
	for text, r := range last {
		switch applied, told := b.tells(r, first[text], now.rows[text]); {
		case told && applied:
			says[1] = true
		case told:
			says[0] = true
		}
	}
	if says[0] == says[1] {
		return false, errUntold
	}
	return says[1], nil
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
		// A trigger may have given it a version of its own.
		return version == r.version, version == r.version || version < r.version && (same || !b.t.shape.triggers)
	case same:
		return false, before != nil && b.changes(r, before)
	}
	wrote := b.holds(r, now)
	return wrote, wrote
}

// changes tells whether a row that was written cannot look as it did before: that a
// column which keeps what it is sent was sent something else.
func (b *tableBatch[K, V]) changes(r *rowWrite, row []driver.Value) bool {
	n := len(b.t.m.Key)
	return !b.t.shape.triggers && slices.ContainsFunc(b.t.sql.set, func(place int) bool {
		switch b.t.shape.column(b.t.m.Value[place].Column).family {
		case numerics, jsons, arrays, padded, uuids: // they have forms of their own
			return false
		}
		return !mapping.Equal(r.columns[place], row[n+place])
	})
}

// holds tells whether the row has what was written to it.
func (b *tableBatch[K, V]) holds(r *rowWrite, row []driver.Value) bool {
	n := len(b.t.m.Key)
	return !slices.ContainsFunc(b.t.sql.set, func(place int) bool {
		return place != b.t.m.Version && !mapping.Equal(r.columns[place], row[n+place])
	})
}
