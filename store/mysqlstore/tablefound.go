package mysqlstore

import (
	"context"
	"database/sql/driver"
	"slices"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// trail is what a transaction has written to a mapped table: each row as it was first
// found, and its last change.
type trail struct {
	first map[string][]driver.Value
	last  map[string]*mapping.Write
	clock int64 // the database's, under the locks
	// given are the versions that it has given each row: a savepoint of the program's may
	// have taken back the last one.
	given map[string][]int64
}

// trail adds the work's changes to its table's in the transaction, and tells whether
// they are the first.
func (w *tableWork[K, V]) trail(x *txn) (all *trail, first bool) {
	all = x.trails[w.t]
	if all == nil {
		first = true
		all = &trail{map[string][]driver.Value{}, map[string]*mapping.Write{}, 0, map[string][]int64{}}
		if x.trails == nil {
			x.trails = map[any]*trail{}
		}
		x.trails[w.t] = all
	}
	all.clock = max(all.clock, w.now)
	for text, r := range w.Last {
		if all.last[text] == nil {
			all.first[text] = w.First[text]
		}
		all.last[text] = r
		if !r.Lowered { // or a trigger counts, and gives anybody the next one
			all.given[text] = append(all.given[text], r.Version)
		}
	}
	return all, first
}

// found tells whether the rows that a transaction has written are there, when the
// session is gone. A row that was set, and has not been changed since, tells for sure;
// with a version, so does one that has the version. One that was deleted is asked last,
// for somebody else may have deleted it since: it tells that it was not applied if it
// is as it was, and that it was if it is gone and no other row was changed since.
//
// Without versions, two states that look the same are the same: another program that
// writes, within the moment between the commit and this look, just what was to be
// written, is taken for us.
func (t *Table[K, V]) found(ctx context.Context, conn *session, wrote *trail) (evidence, error) {
	var keys [][]any
	for _, r := range wrote.last {
		keys = append(keys, r.Key)
	}
	now := map[string][]driver.Value{}
	err := t.sql.read.byKeys(keys, func(query string, args []any) error {
		return conn.query(ctx, query, args, func(cols []driver.Value) error {
			row := t.normal(cols)
			now[mapping.KeyText(row[:t.sql.keys])] = row
			return nil
		})
	})
	if err != nil {
		return showsNothing, err
	}
	shown := showsNothing
	for text, r := range wrote.last {
		row := now[text]
		asWritten := (row == nil) == r.Delete && (r.Delete || t.m.Holds(r, row, wrote.first[text] == nil))
		if t.m.Versioned() && row != nil {
			if v := t.m.VersionOf(row[t.sql.keys:]); v <= wrote.clock && slices.Contains(wrote.given[text], v) {
				return showsApplied, nil
			}
		}
		switch applied, told := t.m.Tells(r, wrote.first[text], row); {
		case !told, applied && !asWritten && t.m.Versioned() && (r.Version > wrote.clock || r.Lowered):
			// A version that is ahead of the clock, or that a trigger has counted, is the next
			// one of that row for everybody, and not only for us.
			if !asWritten {
				shown = max(shown, showsChanged)
			}
		case r.Delete && applied:
			shown = max(shown, showsGone)
		case applied:
			return showsApplied, nil
		default:
			shown = max(shown, showsRefused)
		}
	}
	return shown, nil
}
