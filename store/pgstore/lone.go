package pgstore

import (
	"bytes"
	"context"
	endian "encoding/binary"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// A lone value for a row that is there costs the server least as an UPDATE that
// returns nothing, to a version that is proposed here: what the server's clock says
// by now, as far as is known. The row is changed only if its own version is lower,
// which is decided under its lock; so versions grow in the order of the commits,
// whatever this machine's clock does, and the count of rows is the whole answer. A row
// that is absent, newer or locked is not changed, and goes the way of all others,
// which asks the clock itself.
//
// So does one that is deleted. A proposal may be late, and its version lower than what
// others have heard the server's clock say by then; and a deletion that finds its row
// deleted already leaves the version alone. A row that came back with such a version
// would look, to who settles a deletion, as if that had never been.
//
// An upsert locks the row before it changes it, and what a statement returns is kept
// until it is complete. What that and the clock come to is in docs/design/postgres.md.

// proposals decides whether to propose. Each costs a row that is not there one more
// round trip: so after one that came to nothing, some are not tried.
type proposals struct{ skip atomic.Int32 }

// proposalsSkipped is how many. A program that only inserts pays for one in as many.
const proposalsSkipped = 16

func (p *proposals) worthwhile() bool { return p.skip.Load() <= 0 || p.skip.Add(-1) < 0 }
func (p *proposals) failed()          { p.skip.Store(proposalsSkipped) }

// propose commits sets that are nothing but one value. It reports false, with
// nothing done, for all others, and when the proposal has come to nothing,
// for whatever reason: the next way finds it out again. It needs nothing of what a
// batch is made of.
func (s *Store[K, V]) propose(ctx context.Context, sets []lockstep.ChangeSet[K, V]) (out []lockstep.Outcome[V], done bool, err error) {
	if len(sets) != 1 || len(sets[0].Changes) != 1 || len(sets[0].Checks) > 0 || sets[0].DeleteAll {
		return nil, false, nil
	}
	c := sets[0].Changes[0]
	if s.db.lanes != nil || c.Delete || c.Expect.Kind != lockstep.ExpectAnything || c.Lifetime > 0 || !c.ExpiresAt.IsZero() {
		return nil, false, nil
	}
	p, ready := c.Prepared.(*kv.Prepared)
	if !ready {
		if c, _, err = s.prepare(c); err != nil {
			return nil, false, nil
		}
		p = c.Prepared.(*kv.Prepared)
	}
	now, known := s.db.clock.now()
	if !known || len(p.Data)+encodedSize(p.Key) > s.db.room || !s.proposals.worthwhile() {
		return nil, false, nil
	}
	version := max(now, s.least())
	a, err := s.db.attempt(ctx)
	if err != nil {
		return nil, false, err
	}
	if !a.session.id.prepares { // as a rule none of the pool's does
		a.over(false)
		a.db.release(a.session)
		s.proposals.failed()
		return nil, false, nil
	}
	changed := false
	f, err := a.decisive(ctx, command{sql: s.sql.propose, binary: proposal(p, version), tag: func(tag pgconn.CommandTag) error {
		changed = tag.RowsAffected() == 1
		return nil
	}})
	outcome := func() []lockstep.Outcome[V] {
		return []lockstep.Outcome[V]{{Rows: []lockstep.Row[V]{{Value: c.Value, Version: lockstep.Version(version), Exists: true}}}}
	}
	switch {
	case err == nil && changed:
		s.db.noted(now, version)
		return outcome(), true, nil
	case err != nil && f == fateUnknown:
		a.result = outcome()
		a.verify = func(ctx context.Context, on *session) (bool, error) { return s.foundProposed(ctx, on, p, version) }
		return nil, false, err
	}
	s.proposals.failed()
	return nil, false, nil
}

// proposal makes the arguments of the statement.
func proposal(p *kv.Prepared, version int64) *arguments {
	a := newArguments(encodedSize(p.Key) + len(p.Data) + 8)
	a.add(func(buf []byte) []byte { return appendEncoded(buf, p.Key) })
	a.add(func(buf []byte) []byte { return append(buf, p.Data...) })
	a.add(func(buf []byte) []byte { return endian.BigEndian.AppendUint64(buf, uint64(version)) })
	return a
}

// foundProposed tells whether a proposal whose reply was lost has changed its row. Once
// it has, the row's version is no lower than the proposal's. Where it is the same with
// another value, another program may have had the same idea, or somebody has edited the
// row by hand since, who leaves the version alone: then it cannot be told.
func (s *Store[K, V]) foundProposed(ctx context.Context, on *session, p *kv.Prepared, version int64) (bool, error) {
	rows, err := s.find(ctx, on, keyArray([]any{p.Key}))
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		switch {
		case r.version == version && !r.deleted && r.expires == 0 && bytes.Equal(r.data, p.Data):
			return true, nil
		case r.version >= version:
			return false, errUntold
		}
	}
	return false, nil
}

// serverClock is the server's clock, carried on by ours since it was last read.
type serverClock struct {
	// ahead is how far it was ahead of our own clock, and read when that was, in µs
	// since started. They are stored one after the other, and either may be of another
	// reading: both are right within what the clocks differ by in a second.
	ahead, read atomic.Int64
}

// started is on the monotonic clock, which nobody sets.
var started = time.Now()

// clockAge is how old a reading may be. Two clocks differ by less than a millisecond
// after that; and one that was set is noticed.
const clockAge = time.Second

// heard notes a reading that has just arrived, so that now is behind the server's
// clock by what the answer took, and not ahead of it.
func (c *serverClock) heard(server int64) {
	now := time.Since(started).Microseconds()
	c.ahead.Store(server - now)
	c.read.Store(now + 1)
}

// now is what the server's clock says, in µs since 1970; false if it was not read for too
// long.
func (c *serverClock) now() (micros int64, known bool) {
	now, read := time.Since(started).Microseconds(), c.read.Load()
	return now + c.ahead.Load(), read > 0 && now-read <= clockAge.Microseconds()
}
