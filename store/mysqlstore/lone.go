package mysqlstore

import (
	"context"
	"errors"
	"math"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// single is the change, prepared, of a batch that is nothing but one, and which needs nothing of
// what a batch is made of; nil for every other, and for one that cannot be prepared.
func (s *Store[K, V]) single(sets []lockstep.ChangeSet[K, V]) *lockstep.Change[K, V] {
	if len(sets) != 1 || len(sets[0].Changes) != 1 || len(sets[0].Checks) != 0 || sets[0].DeleteAll {
		return nil
	}
	c := &sets[0].Changes[0]
	if !c.Delete && (c.Lifetime > 0 || !c.ExpiresAt.IsZero()) {
		return nil // the reply would have to tell the database's clock
	}
	if _, ready := c.Prepared.(*kv.Prepared); !ready {
		prepared, _, err := s.rows.Prepare(*c)
		if err != nil {
			return nil
		}
		return &prepared
	}
	return c
}

// alone commits one change as one statement. It reports false, with nothing done, when the
// statement found nothing to change, or is none that there is: then the way through
// together finds out why.
func (s *Store[K, V]) alone(ctx context.Context, a *attempt, c *lockstep.Change[K, V]) (done bool, err error) {
	least := s.clock.least()
	query, args := s.lone(c, least, a.stamp)
	if query == "" || least == math.MaxInt64 {
		return false, nil
	}
	if err := a.s.waits(ctx, impatience); err != nil {
		return false, err
	}
	p, outcome := c.Prepared.(*kv.Prepared), loneOutcome[V]{value: c.Value, delete: c.Delete}
	expect := c.Expect
	a.verify = func(ctx context.Context, conn *session) (bool, error) {
		return s.foundAlone(ctx, conn, a, p.Key, expect, least, outcome)
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
		a.result = []lockstep.Outcome[V]{{Err: invalid("key %v: %w", c.Key, err)}}
		return true, nil
	case err != nil:
		return false, err
	case affected == 0:
		return false, nil
	}
	if s.outside != nil {
		if version, err = a.passed(ctx); err != nil {
			return false, err
		}
	}
	s.clock.saw(version)
	a.result = outcome.of(version)
	return true, nil
}

// loneOutcome makes the outcome of a change that was made.
type loneOutcome[V any] struct {
	value  V
	delete bool
}

func (o loneOutcome[V]) of(version int64) []lockstep.Outcome[V] {
	row := lockstep.Row[V]{Version: lockstep.Version(version)}
	if o.delete { // where there was no row, it would have changed nothing
		return []lockstep.Outcome[V]{{Rows: []lockstep.Row[V]{row}, Existed: []bool{true}}}
	}
	row.Value, row.Exists = o.value, true
	return []lockstep.Outcome[V]{{Rows: []lockstep.Row[V]{row}}}
}

// foundAlone is found, for a change that was alone.
func (s *Store[K, V]) foundAlone(ctx context.Context, conn *session, a *attempt, key any, expect lockstep.Expect, least int64, outcome loneOutcome[V]) (bool, error) {
	rows, err := s.readStamped(ctx, conn, []any{key})
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		switch {
		case row.stamp == a.stamp:
			a.result = outcome.of(row.Version)
			return true, nil
		case row.Version < least, expect.Kind == lockstep.ExpectVersion && row.Version == int64(expect.Version):
			return false, nil
		}
		return false, errUntold
	}
	return false, nil
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
func (s *Store[K, V]) lone(c *lockstep.Change[K, V], least, stamp int64) (query string, args []any) {
	p := c.Prepared.(*kv.Prepared)
	text := s.sql
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
