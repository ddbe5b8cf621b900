package mysqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep"
)

const (
	// lookRows is how many changes are read at once.
	lookRows = 10_000
	// lookSpans is how many gaps a query names.
	lookSpans = 500
	// askSpans and askRows are how many gaps, and numbers, are asked about at once.
	askSpans, askRows = 2000, 10_000
	// fenceRows is how many numbers are taken away at once.
	fenceRows = 1000
)

// begin notes what is seen, and which numbers are not: what is committed from then on
// will be told. The triggers were there before, and whoever had begun to write before
// they were made had ended when they were: making them waits for that.
func (w *watcher[K]) begin(ctx context.Context, alive func()) error {
	var err error
	if w.print, err = w.printNow(ctx); err != nil {
		return err
	}
	w.printed = time.Now()
	h, err := w.log.readHorizon(ctx, w.s)
	if err != nil {
		return err
	}
	if h.highest == 0 || h.highest < h.settled {
		return errEmptied
	}
	w.last, w.gaps = h.highest, gaps{}
	err = w.log.missing(ctx, w.s, h.settled+1, h.highest, func(lo, hi int64) error {
		w.gaps.pass(lo, hi, time.Now())
		alive()
		return nil
	})
	if err != nil {
		return err
	}
	found, err := w.log.find(ctx, w.s, w.db)
	if err != nil {
		return err
	}
	if err := found.check(w.log); err != nil {
		return err
	}
	if err := checkIncrement(ctx, w.s); err != nil {
		return err
	}
	if len(found.others) > 0 {
		// A trigger may have changed the key of the row that the store has named.
		w.skip = ""
	}
	return w.check(ctx, w.s)
}

// printNow is a text that is another one when the triggers of the table are, or when it
// or the log was altered.
func (w *watcher[K]) printNow(ctx context.Context) (string, error) {
	var print strings.Builder
	note := func(row []driver.Value) error {
		for _, v := range row {
			print.WriteString(text(v) + " ")
		}
		return nil
	}
	err := w.s.query(ctx, "SELECT TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME IN (?, ?) ORDER BY 1",
		[]any{w.log.schema, w.log.table, logName}, note)
	if err == nil {
		err = w.s.query(ctx, "SELECT TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, CREATED FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ? ORDER BY 1",
			[]any{w.log.schema, w.log.table}, note)
	}
	return print.String(), err
}

// telling collects what is told.
type telling[K comparable] struct {
	w     *watcher[K]
	alive func()
	e     lockstep.Event[K]
}

func (t *telling[K]) row(text, version driver.Value) {
	b, ok := text.([]byte)
	if !ok {
		return // another table's, our own, or nobody's
	}
	k, ok := t.w.key(b)
	if !ok {
		return // what is no key of K's is in nobody's memory
	}
	c := lockstep.Changed[K]{Key: k}
	if v, ok := integer(version); ok && t.w.versions {
		c.Version = lockstep.Version(v)
	}
	if t.e.Changed = append(t.e.Changed, c); len(t.e.Changed) == watchChunk {
		t.flush()
	}
}

func (t *telling[K]) flush() {
	t.alive()
	if len(t.e.Changed) > 0 {
		t.w.f(t.e)
		t.e = lockstep.Event[K]{}
	}
}

// look tells what was committed since the last look.
func (w *watcher[K]) look(ctx context.Context, alive func()) error {
	return w.lookAt(ctx, alive, time.Now())
}

func (w *watcher[K]) lookAt(ctx context.Context, alive func(), now time.Time) error {
	tell := &telling[K]{w: w, alive: alive}
	anchored, err := w.readOn(ctx, tell, now)
	if err == nil {
		err = w.readGaps(ctx, tell)
	}
	tell.flush()
	if err != nil {
		return err
	}
	// This is read behind the changes: whatever was removed before they were read is
	// known here.
	h, err := w.log.readHorizon(ctx, w.s)
	switch {
	case err != nil:
		return err
	case h.purged > w.gaps.least(w.last):
		return errOutrun
	case !anchored:
		return errAltered
	case w.gaps.size() > maxSpans:
		return errCrowded
	}
	if err := w.askWhose(ctx, now); err != nil {
		return err
	}
	if now.Sub(w.printed) < w.db.printEvery {
		return nil
	}
	print, err := w.printNow(ctx)
	if err == nil && print != w.print {
		err = errAltered
	}
	w.printed = now
	return err
}

// selects reads rows of the log, with the keys of those that are to be told.
func (w *watcher[K]) selects(where string) string {
	skip := w.skip
	if skip == "" {
		skip = "-" // nobody's name
	}
	return fmt.Sprintf("SELECT `id`, IF(`tbl` = %s AND NOT (`writer` <=> '%s'), `key`, NULL), `version` FROM %s WHERE %s ORDER BY `id`",
		literal(w.log.table), skip, w.log.log(), where)
}

// readOn reads from the last number that was seen, whose row must be there: it stays
// until it is purged, in a log that is still the same. One that was emptied begins to
// count anew.
func (w *watcher[K]) readOn(ctx context.Context, tell *telling[K], now time.Time) (anchored bool, err error) {
	query := w.selects("`id` >= ?") + " LIMIT ?"
	for more := true; more; {
		n := 0
		anchored, more = false, false
		err := w.s.query(ctx, query, []any{w.last, int64(lookRows)}, func(row []driver.Value) error {
			id, _ := integer(row[0])
			if n++; id == w.last {
				anchored = true
				return nil
			}
			w.gaps.pass(w.last+1, id-1, now)
			w.last = id
			tell.row(row[1], row[2])
			return nil
		})
		if err != nil || !anchored {
			return false, err
		}
		more = n == lookRows
	}
	return true, nil
}

// readGaps reads what has come to be visible of what was passed before.
func (w *watcher[K]) readGaps(ctx context.Context, tell *telling[K]) error {
	for asked := w.gaps.lookedFor(); len(asked) > 0; {
		var seen []int64
		err := w.bySpans(ctx, asked, "", func(spans string) string { return w.selects(spans) }, func(row []driver.Value) error {
			id, _ := integer(row[0])
			seen = append(seen, id)
			tell.row(row[1], row[2])
			return nil
		})
		if err != nil {
			return err
		}
		asked = nil
		for _, conn := range w.gaps.landed(func(id int64) bool { _, ok := slices.BinarySearch(seen, id); return ok }) {
			asked = append(asked, without(w.gaps.part(conn), seen)...)
		}
		w.gaps.fill(seen)
		sortSpans(asked)
	}
	if len(w.gaps.flights) == 0 {
		return nil
	}
	return w.partGone(ctx)
}

// partGone takes flights apart whose first number is not there any more: the
// transaction was rolled back, or to a savepoint.
func (w *watcher[K]) partGone(ctx context.Context) error {
	var first []span
	for _, f := range w.gaps.flights {
		lo, _ := f.ends()
		first = append(first, span{lo: lo, hi: lo})
	}
	sortSpans(first)
	there := map[int64]bool{}
	err := w.uncommitted(ctx, first, func(id, _ int64) { there[id] = true })
	if err != nil {
		return err
	}
	for conn, f := range w.gaps.flights {
		if lo, _ := f.ends(); !there[lo] {
			w.gaps.part(conn)
		}
	}
	return nil
}

// uncommitted reads numbers and connections of rows, committed or not.
func (w *watcher[K]) uncommitted(ctx context.Context, spans []span, f func(id, conn int64)) error {
	return w.bySpans(ctx, spans, "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", func(where string) string {
		return "SELECT `id`, `conn` FROM " + w.log.log() + " WHERE " + where + " ORDER BY `id`"
	}, func(row []driver.Value) error {
		id, _ := integer(row[0])
		conn, _ := integer(row[1])
		f(id, conn)
		return nil
	})
}

// bySpans runs a query for some numbers, in as many pieces as it takes, each after a
// statement, if there is one.
func (w *watcher[K]) bySpans(ctx context.Context, spans []span, before string, query func(where string) string, f func(row []driver.Value) error) error {
	for chunk := range slices.Chunk(spans, lookSpans) {
		if before != "" {
			if err := w.s.run(ctx, before); err != nil {
				return err
			}
		}
		if err := w.s.stream(ctx, query(inSpans(chunk)), f); err != nil {
			return err
		}
	}
	return nil
}

// inSpans is a condition on id.
func inSpans(spans []span) string {
	var b strings.Builder
	for i, s := range spans {
		if i > 0 {
			b.WriteString(" OR ")
		}
		if s.lo == s.hi {
			fmt.Fprintf(&b, "`id` = %d", s.lo)
		} else {
			fmt.Fprintf(&b, "`id` BETWEEN %d AND %d", s.lo, s.hi)
		}
	}
	return b.String()
}

// askWhose finds out whose the numbers are that have been missing for a while: an open
// transaction's, which are put together where there are many, or nobody's, which are
// taken away.
func (w *watcher[K]) askWhose(ctx context.Context, now time.Time) error {
	ripe := w.gaps.ripe(now, askSpans)
	if len(ripe) == 0 {
		return nil
	}
	// What is beyond is asked about when these are settled.
	left := int64(askRows)
	for i := range ripe {
		ripe[i].hi = min(ripe[i].hi, ripe[i].lo+left-1)
		if left -= ripe[i].hi - ripe[i].lo + 1; left == 0 {
			ripe = ripe[:i+1]
			break
		}
	}
	var there []int64
	owned := map[int64][]int64{}
	err := w.uncommitted(ctx, ripe, func(id, conn int64) {
		there = append(there, id)
		owned[conn] = append(owned[conn], id)
	})
	if err != nil {
		return err
	}
	if w.gaps.crowded() {
		for conn, ids := range owned {
			if len(ids) > 1 || w.gaps.flights[conn] != nil {
				w.gaps.join(conn, ids, now)
			}
		}
	}
	nobodys := without(ripe, there)
	if len(nobodys) == 0 {
		return nil
	}
	taken, err := w.log.take(ctx, w.s, nobodys, w.db.server.mariadb())
	if err != nil {
		return err
	}
	for _, s := range taken {
		w.gaps.soon(s.hi+1, now)
	}
	return nil
}
