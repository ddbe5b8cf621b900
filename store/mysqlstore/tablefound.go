package mysqlstore

import (
	"context"
	"database/sql/driver"

	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// found tells whether the rows that the work has written are there, when the session
// is gone. A row that was set, and has not been changed since, tells for sure; with a
// version, so does one that has the version. One that was deleted is asked last, for
// somebody else may have deleted it since: it tells that it was not applied if it is as
// it was.
//
// Without versions, two states that look the same are the same: another program that
// writes, within the moment between the commit and this look, just what was to be
// written, is taken for us.
func (w *tableWork[K, V]) found(ctx context.Context, conn *session) (applied bool, err error) {
	var keys [][]any
	for _, r := range w.Last {
		keys = append(keys, r.Key)
	}
	now := map[string][]driver.Value{}
	err = w.t.sql.read.byKeys(keys, func(query string, args []any) error {
		return conn.query(ctx, query, args, func(cols []driver.Value) error {
			row := w.t.normal(cols)
			now[mapping.KeyText(row[:w.t.sql.keys])] = row
			return nil
		})
	})
	if err != nil {
		return false, err
	}
	gone := false
	for text, r := range w.Last {
		switch applied, told := w.M.Tells(r, w.First[text], now[text]); {
		case !told:
		case r.Delete && applied:
			gone = true
		default:
			return applied, nil
		}
	}
	if !gone {
		return false, errUntold
	}
	return true, nil
}
