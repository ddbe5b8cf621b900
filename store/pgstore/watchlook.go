package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// printSQL is a text that is another one when the triggers of the table, their
// functions, the table of that name or what it inherits are; or its columns, or the labels
// of their enums, for ALTER TABLE … TYPE … USING and ALTER TYPE … RENAME VALUE change rows
// without a trigger.
func (w *watcher[K]) printSQL() string {
	return fmt.Sprintf(`coalesce((SELECT string_agg(concat_ws(' ', g.oid, g.xmin, p.xmin), ',' ORDER BY g.oid)
	FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid WHERE g.tgrelid = %[1]d AND NOT g.tgisinternal), '') || ' ' ||
	coalesce((SELECT string_agg(a.xmin::text, ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = %[1]d AND a.attnum > 0), '') || ' ' ||
	coalesce((SELECT string_agg(e.xmin::text, ',' ORDER BY e.oid) FROM pg_catalog.pg_enum e
		WHERE e.enumtypid IN (SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = %[1]d)), '') || ' ' ||
	coalesce(to_regclass('%[2]s') = %[1]d AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = %[1]d OR i.inhparent = %[1]d), false)::text`,
		w.oid, strings.ReplaceAll(w.log.qualified(), "'", "''"))
}

// lookSQL reads what is committed and was not visible in the snapshot $1. All of it is
// one statement, and so sees one snapshot, which it returns in a row of its own.
//
// A transaction is not visible in a snapshot if it is one of those that were under way,
// or has begun later: each is a range of the index. So a transaction that goes on for
// hours is asked for by name, delays nobody, and makes nobody read again what has come
// since it began. Nothing is skipped where ids are committed out of order.
func (w *watcher[K]) lookSQL() string {
	var nulls, columns string
	for i, c := range w.keys.columns {
		nulls += ", NULL::" + w.keys.types[i]
		columns += ", " + c
	}
	return strings.NewReplacer("{log}", w.log.log(), "{horizon}", w.log.horizon(), "{tbl}", fmt.Sprint(w.oid), "{print}", w.printSQL(),
		"{nulls}", nulls, "{columns}", columns).Replace(`
SELECT pg_current_snapshot()::text, {print},
	NOT EXISTS (SELECT FROM {horizon} h WHERE h.one AND (h.purged <= pg_snapshot_xmin($1::text::pg_snapshot) OR h.purged > pg_snapshot_xmax(pg_current_snapshot()))),
	NULL::boolean, NULL::int8{nulls}
UNION ALL SELECT NULL, NULL, NULL, c.key IS NULL, c.version{columns} FROM {log} c
WHERE c.xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND c.tbl = {tbl} AND c.writer IS DISTINCT FROM $2::text
UNION ALL SELECT NULL, NULL, NULL, c.key IS NULL, c.version{columns} FROM {log} c
WHERE c.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot))) AND c.tbl = {tbl} AND c.writer IS DISTINCT FROM $2::text`)
}

var (
	errSilent  = errors.New("the server has not answered in time")
	errOutrun  = errors.New("changes that were not read yet have been removed")
	errChanged = errors.New("the table, or its triggers, were changed")
)

// look tells what was committed since the last look, and whether anything was.
func (w *watcher[K]) look(ctx context.Context) (found bool, err error) {
	// Those that have come by now are answered by this look.
	for n, err := w.conn.WaitForNotification(ended); err == nil && n != nil; {
		n, err = w.conn.WaitForNotification(ended)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(w.db.silence, func() { cancel(errSilent) })
	defer timer.Stop()
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
	}()

	rows, err := w.conn.Query(ctx, w.query, w.seen, w.skip)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	var snapshot, print *string
	var outrun, all *bool
	var version *int64
	var e lockstep.Event[K]
	cells, key := w.keys.cells()
	into := append([]any{&snapshot, &print, &outrun, &all, &version}, cells...)
	var seen string
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return false, err
		}
		switch {
		case snapshot != nil && *outrun:
			return false, errOutrun
		case snapshot != nil && *print != w.print:
			return false, errChanged
		case snapshot != nil:
			seen = *snapshot
			continue
		case *all:
			e.All = true
		default:
			// What is no key of K's is in nobody's memory.
			if k, ok := key(); ok {
				c := lockstep.Changed[K]{Key: k}
				if version != nil {
					c.Version = lockstep.Version(*version)
				}
				e.Changed = append(e.Changed, c)
			}
		}
		found = true
		if len(e.Changed) == watchChunk {
			w.f(e)
			e = lockstep.Event[K]{}
			timer.Reset(w.db.silence)
		}
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	if e.All || len(e.Changed) > 0 {
		w.f(e)
	}
	w.seen = seen
	return found, nil
}
