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
// was counts as not written. Rows that contradict each other tell nothing; nor does a row
// that is gone, as it should be, beside one that was changed since: whoever did that may
// have deleted the other, too.
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
	var yes, no, gone, changed bool
	for text, r := range last {
		switch applied, told := b.tells(r, first[text], now.rows[text]); {
		case told && applied && r.delete:
			gone = true
		case told && applied:
			yes = true
		case told:
			no = true
		default:
			changed = changed || !mapping.EqualRows(first[text], now.rows[text])
		}
	}
	switch {
	case no:
		if yes || gone {
			return false, errUntold
		}
		return false, nil
	case yes, gone && !changed:
		return true, nil
	}
	return false, errUntold
}

// tells says whether a row that was before, and is now, shows that it was written;
// told is false for a row that was changed since, or looks the same either way.
func (b *tableBatch[K, V]) tells(r *rowWrite, before, now []driver.Value) (applied, told bool) {
	same := mapping.EqualRows(before, now)
	switch {
	case r.delete && before == nil:
		return false, false
	case r.delete && now == nil:
		return true, true
	case r.delete || now == nil:
		return false, same
	case b.t.m.Versioned():
		return b.versionTells(r, before, now)
	case same:
		return false, before != nil && b.changes(r, before)
	case before != nil && b.holds(r, before, false):
		return false, false
	}
	wrote := b.holds(r, now, before == nil)
	return wrote, wrote
}

// versionTells is tells by versions. One that was counted from the row's last, by a trigger
// or because it is ahead of the clock, is the next one for everybody. One below it shows
// that whoever changed the row has not seen ours, if it has grown from what there was; a
// lower one, or a new row's, may be of somebody who gives it no version, and come after
// ours. A trigger may have given it a version of its own.
func (b *tableBatch[K, V]) versionTells(r *rowWrite, before, now []driver.Value) (applied, told bool) {
	n := len(b.t.m.Key)
	version := b.t.m.VersionOf(now[n:])
	if version == r.version {
		ours := !r.counted && !b.t.shape.triggers || b.holds(r, now, before == nil)
		return ours, ours
	}
	return false, version < r.version && before != nil && version >= b.t.m.VersionOf(before[n:]) &&
		(!b.t.shape.triggers || mapping.EqualRows(before, now))
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

// holds tells whether the row has what was written to it. One that was made for it has
// defaults where there was nothing to write.
func (b *tableBatch[K, V]) holds(r *rowWrite, row []driver.Value, made bool) bool {
	n := len(b.t.m.Key)
	return !slices.ContainsFunc(b.t.sql.set, func(place int) bool {
		if made && b.t.m.Value[place].Default != "" && r.columns[place] == nil {
			return false
		}
		return place != b.t.m.Version && !mapping.Equal(r.columns[place], row[n+place])
	})
}
