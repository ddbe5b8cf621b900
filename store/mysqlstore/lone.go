package mysqlstore

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// alone commits a batch of one change as one statement. It reports false, with
// nothing done, for every other batch, and when the statement found nothing to
// change: then the way through together finds out why.
func (b *batch[K, V]) alone(ctx context.Context, a *attempt) (done bool, err error) {
	if len(b.Sets) != 1 {
		return false, nil
	}
	set := b.Sets[0]
	if len(set.Changes) != 1 || len(set.Checks) != 0 || set.DeleteAll {
		return false, nil
	}
	c := set.Changes[0]
	least := b.s.clock.least()
	if !c.Delete && (c.Lifetime > 0 || !c.ExpiresAt.IsZero()) || least == math.MaxInt64 {
		return false, nil // the reply would have to tell the database's clock
	}
	query, args := b.lone(c, least, a.stamp)
	if query == "" {
		return false, nil
	}
	if err := a.s.waits(ctx, impatience); err != nil {
		return false, err
	}
	a.verify = func(ctx context.Context, conn *session) (bool, error) {
		if c.Expect.Kind == lockstep.ExpectVersion {
			rows, err := b.s.readStamped(ctx, conn, b.Encoded)
			if err != nil || rows[c.Key].Version == int64(c.Expect.Version) {
				return false, err
			}
		}
		return b.found(ctx, conn, a, least)
	}
	var affected, version int64
	err = a.decisive(ctx, func() (err error) {
		affected, version, err = a.s.exec(ctx, query, args...)
		return err
	})
	switch {
	case number(err) == errDuplicate && c.Expect.Kind == lockstep.ExpectAbsent:
		return false, nil // there is a row, be it a tombstone
	case err != nil && !a.unclear && refusesRow(err):
		b.Outcomes[0].Err = invalid("key %v: %w", c.Key, err)
		a.result = b.Outcomes
		return true, nil
	case err != nil:
		return false, err
	case affected == 0:
		return false, nil
	}
	if b.s.outside != nil {
		if version, err = a.passed(ctx); err != nil {
			return false, err
		}
	}
	b.s.clock.saw(version)
	b.fold([]stamped{{State: kv.State{Known: true, Version: version, Live: !c.Delete}, now: time.Time{}}})
	a.result = b.Outcomes
	return true, nil
}

// passed is what the statement that has just committed has passed to LAST_INSERT_ID:
// where a trigger has inserted a row, as those of a watch do, the statement's own reply
// does not have it.
func (a *attempt) passed(ctx context.Context) (version int64, err error) {
	row, err := a.s.row(ctx, "SELECT LAST_INSERT_ID()")
	if err == nil {
		version, _ = integer(row[0])
	}
	if version <= 0 {
		a.unclear = true // its stamp tells, and the version with it
		if err == nil {
			err = errors.New("the version that was given is not told")
		}
	}
	return version, err
}

// lone picks the statement and its arguments.
func (b *batch[K, V]) lone(c lockstep.Change[K, V], least, stamp int64) (query string, args []any) {
	p := c.Prepared.(*kv.Prepared)
	text := b.s.sql
	switch kind := c.Expect.Kind; {
	case c.Delete && kind == lockstep.ExpectAnything:
		return text.remove, []any{least, stamp, p.Key}
	case c.Delete && kind == lockstep.ExpectVersion:
		return text.removeVersion, []any{least, stamp, p.Key, int64(c.Expect.Version)}
	case c.Delete:
		return "", nil
	case kind == lockstep.ExpectAbsent:
		return text.setAbsent, []any{p.Key, column(p.Data), least, stamp}
	case kind == lockstep.ExpectVersion:
		return text.setVersion, []any{column(p.Data), least, stamp, p.Key, int64(c.Expect.Version)}
	}
	return text.set, []any{p.Key, column(p.Data), least, stamp}
}
