package pgstore

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Rows that a commit changes beside those that it names, by a trigger or by a foreign
// key's action, could be in the memory of a cache, which nobody would tell. The server
// counts the rows that a transaction has changed in each table (track_counts), whoever
// has made the statement do it: so a set whose statements change rows of another
// mapped table of this Database is refused, and where a table's own foreign keys act
// on its own rows, one that changes more rows of it than it names. What a trigger
// changes in the rows of its own table is not told apart from what it does to the row
// that fired it, and passes.
//
// It is looked for where the table had triggers or such actions when it was opened.

// mappedTable is a mapped table, and those that it is partitioned into.
type mappedTable struct {
	name string
	oids []int64
}

// tally counts the rows that some work changes.
type tally struct {
	tables []mappedTable
	counts []int64 // what the server counted before the work, and may count after it
	own    int     // the place of the work's own table in tables; -1: it is not counted
}

// tally returns nil for a table that changes no rows by itself.
func (t *Table[K, V]) tally() *tally {
	if !t.shape.acts {
		return nil
	}
	w := &tally{own: -1}
	t.db.mapped.Range(func(oid, table any) bool {
		if oid == t.shape.oid {
			if t.shape.triggers {
				return true
			}
			w.own = len(w.tables)
		}
		w.tables = append(w.tables, table.(mappedTable))
		return true
	})
	w.counts = make([]int64, len(w.tables))
	return w
}

// oids are the parameters: the tables and their parts, and the place of each.
func (w *tally) oids() (oids []int64, places []int32) {
	for i, table := range w.tables {
		oids = append(oids, table.oids...)
		places = append(places, slices.Repeat([]int32{int32(i + 1)}, len(table.oids))...)
	}
	return oids, places
}

const countsSQL = `SELECT u.place, sum(pg_stat_get_xact_tuples_inserted(u.oid::oid) + pg_stat_get_xact_tuples_updated(u.oid::oid)
	+ pg_stat_get_xact_tuples_deleted(u.oid::oid))::int8 AS n FROM unnest($1::int8[], $2::int4[]) AS u(oid, place) GROUP BY u.place`

// begin reads the counts. They include what was rolled back to a savepoint.
func (w *tally) begin() []command {
	if w == nil || len(w.tables) == 0 {
		return nil
	}
	oids, places := w.oids()
	return []command{{sql: countsSQL, args: []any{oids, places}, row: func(scan func(...any) error) error {
		var place int32
		var n int64
		if err := scan(&place, &n); err != nil {
			return err
		}
		w.counts[place-1] = n
		return nil
	}}}
}

// end fails if other rows were changed than the work's own, of which there are as
// many as changed. It fails by itself, as counted does, and for the same reason.
func (w *tally) end(changed int) []command {
	if w == nil || len(w.tables) == 0 {
		return nil
	}
	if w.own >= 0 {
		w.counts[w.own] += int64(changed)
	}
	oids, places := w.oids()
	names := make([]string, len(w.tables))
	for i, table := range w.tables {
		names[i] = table.name
	}
	return []command{{sql: `SELECT CASE WHEN s.n <> w.n THEN ('` + strings.ReplaceAll(othersBegin, "'", "''") + `' || w.name || '` + othersEnd + `')::int END
FROM (` + countsSQL + `) AS s JOIN unnest($3::int8[], $4::text[]) WITH ORDINALITY AS w(n, name, place) ON w.place = s.place`,
		args: []any{oids, places, slices.Clone(w.counts), names}}}
}

// What the server says is no integer, in the words of whatever language it speaks.
const (
	othersBegin = "by a trigger, or a foreign key's action, the change would change other rows of "
	othersEnd   = ", which a cache may hold"
)

// changesOthers is what end has failed with; empty for any other error.
func changesOthers(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "22P02" {
		return ""
	}
	begin, end := strings.Index(pg.Message, othersBegin), strings.LastIndex(pg.Message, othersEnd)
	if begin < 0 || end < begin {
		return ""
	}
	return pg.Message[begin : end+len(othersEnd)]
}
