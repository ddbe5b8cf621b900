package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// keepChanges is how long a change can be read at least. A watcher that has not
	// looked for so long is told that it was outrun.
	keepChanges = time.Hour
	// purgeRows bounds a statement that removes changes.
	purgeRows = 2000
)

var errEmptied = errors.New("the log of changes has been emptied; lockstep watch install mends it")

// horizon is what is known of the log by all that read it.
type horizon struct {
	// settled: all numbers up to it are rows that are committed, and none is ever to
	// come. purged: those before it are removed, or are being removed.
	settled, purged int64
	highest         int64 // of the log; 0: it is empty
}

func (l *changeLog) readHorizon(ctx context.Context, s *session) (h horizon, err error) {
	there := false
	err = s.query(ctx, "SELECT `settled`, `purged`, (SELECT MAX(`id`) FROM "+l.log()+") FROM "+l.horizon()+" WHERE `one` = 1", nil, func(row []driver.Value) error {
		there = true
		h.settled, _ = integer(row[0])
		h.purged, _ = integer(row[1])
		h.highest, _ = integer(row[2])
		return nil
	})
	if err == nil && !there {
		err = errEmptied
	}
	return h, err
}

// missing calls f with the numbers from lo to hi that are not there, in ascending
// order.
func (l *changeLog) missing(ctx context.Context, s *session, lo, hi int64, f func(lo, hi int64) error) error {
	const counted, read = 1 << 16, 1 << 12
	for ; lo <= hi; lo += counted {
		if err := l.missingIn(ctx, s, lo, min(hi, lo+counted-1), read, f); err != nil {
			return err
		}
	}
	return nil
}

// missingIn counts, and reads the numbers only where some are missing.
func (l *changeLog) missingIn(ctx context.Context, s *session, lo, hi, read int64, f func(lo, hi int64) error) error {
	if hi-lo < read {
		next := lo
		var gone [][2]int64 // f may use the session
		err := s.query(ctx, "SELECT `id` FROM "+l.log()+" WHERE `id` BETWEEN ? AND ? ORDER BY `id`", []any{lo, hi}, func(row []driver.Value) error {
			id, _ := integer(row[0])
			if id > next {
				gone = append(gone, [2]int64{next, id - 1})
			}
			next = id + 1
			return nil
		})
		if next <= hi {
			gone = append(gone, [2]int64{next, hi})
		}
		for _, g := range gone {
			if err == nil {
				err = f(g[0], g[1])
			}
		}
		return err
	}
	var n int64
	err := s.query(ctx, "SELECT COUNT(*) FROM "+l.log()+" WHERE `id` BETWEEN ? AND ?", []any{lo, hi}, func(row []driver.Value) error {
		n, _ = integer(row[0])
		return nil
	})
	switch {
	case err != nil || n == hi-lo+1:
		return err
	case n == 0:
		return f(lo, hi)
	}
	middle := lo + (hi-lo)/2
	if err := l.missingIn(ctx, s, lo, middle, read, f); err != nil {
		return err
	}
	return l.missingIn(ctx, s, middle+1, hi, read, f)
}

// take takes numbers away from whoever may have drawn them, the first fenceRows of
// them: a row is put there that is nobody's. Where somebody has inserted one and not
// committed it, that would have to wait, and nothing is taken. Where one is committed,
// it stays.
func (l *changeLog) take(ctx context.Context, s *session, spans []span, mariadb bool) (taken []span, err error) {
	var rows strings.Builder
	left := int64(fenceRows)
	for _, sp := range spans {
		if sp.hi = min(sp.hi, sp.lo+left-1); sp.hi < sp.lo {
			break
		}
		for id := sp.lo; id <= sp.hi; id++ {
			fmt.Fprintf(&rows, ",(%d)", id)
		}
		left -= sp.hi - sp.lo + 1
		taken = append(taken, sp)
	}
	insert := "INSERT IGNORE INTO " + l.log() + " (`id`) VALUES " + rows.String()[1:]
	if mariadb {
		err = s.run(ctx, "SET STATEMENT innodb_lock_wait_timeout=0 FOR "+insert)
	} else {
		// No INSERT can be told not to wait, for less than a second. A SELECT can.
		if err = s.run(ctx, "SELECT `id` FROM "+l.log()+" WHERE "+inSpans(taken)+" FOR UPDATE NOWAIT"); err == nil {
			err = s.run(ctx, insert)
		}
	}
	if collided(err) {
		return nil, nil
	}
	return taken, err
}

// keep has the keeper settle and purge the log of a watched table's schema.
func (db *Database) keep(o *outside) {
	if o != nil {
		db.keeper.add(db.fold(o.log.log()), o.log.purge(db))
	}
}

// purge settles what was there when it was called last, and removes changes that every
// watcher has read, or should have. The log has no times. It is measured by a mark
// instead: what was settled when it was set. When the mark is an hour old, all before
// it may go, and the next one is set. That is said first, in the horizon; a watcher that
// may have missed something sees it there.
//
// A transaction that is open for hours keeps what has come since. What was never
// committed is not waited for: its numbers are taken away, and removed with the others.
// A statement that stood still, between drawing a number and inserting its row, from
// before that was done until an hour later, would not be told of; that is accepted.
func (l *changeLog) purge(db *Database) sweep {
	ripe := int64(0)
	return func(ctx context.Context) (more bool, err error) {
		s, err := db.acquire(ctx)
		if err != nil {
			return false, err
		}
		defer db.release(s)
		if err := s.waits(ctx, impatience); err != nil {
			return false, err
		}
		h, err := l.readHorizon(ctx, s)
		if err != nil || h.highest < h.settled {
			return false, err
		}
		settled, err := l.settle(ctx, s, h.settled, min(ripe, h.highest), db.server.mariadb())
		if err != nil {
			return false, err
		}
		before := fmt.Sprintf("`marked_at` < %s - %d", clockSQL, keepChanges.Microseconds())
		// Each column is assigned with what those before it have become.
		err = s.run(ctx, fmt.Sprintf("UPDATE %s SET `settled` = GREATEST(`settled`, %d), `purged` = IF(%[3]s, `mark`, `purged`), `mark` = IF(%[3]s, `settled`, `mark`), `marked_at` = IF(%[3]s, %[4]s, `marked_at`) WHERE `one` = 1",
			l.horizon(), settled, before, clockSQL))
		if err != nil {
			return false, err
		}
		if h, err = l.readHorizon(ctx, s); err != nil {
			return false, err
		}
		removed, _, err := s.exec(ctx, "DELETE FROM "+l.log()+" WHERE `id` < ? ORDER BY `id` LIMIT ?", h.purged, int64(purgeRows))
		if more = removed >= purgeRows; !more {
			ripe = h.highest
		}
		return more, err
	}
}

// errOpen: a number is an open transaction's.
var errOpen = errors.New("a change is not committed yet")

// settle returns up to where all is known, after it has taken away the numbers that are
// nobody's.
func (l *changeLog) settle(ctx context.Context, s *session, from, to int64, mariadb bool) (settled int64, err error) {
	settled = max(from, to)
	err = l.missing(ctx, s, from+1, to, func(lo, hi int64) error {
		for ; lo <= hi; lo += fenceRows {
			taken, err := l.take(ctx, s, []span{{lo: lo, hi: hi}}, mariadb)
			if err == nil && len(taken) == 0 {
				settled, err = lo-1, errOpen
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errOpen) {
		err = nil
	}
	return settled, err
}
