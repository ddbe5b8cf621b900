package pgstore

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// plan is a batch of changes that expect nothing, folded to one row a key: what
// each row becomes is decided by the last change of it alone.
//
// The statement is an upsert of all rows in the order of their keys, deletions
// included, so that all statements of this package take their locks in one order and
// cannot wait for each other in a circle. Versions and lifetimes are decided by a
// clock that is read when the row is locked. A deletion writes a tombstone, in whose
// expires_at it leaves whether there was a row: the statement can only return what
// it has written.
//
// A deletion of a key that has no row, not even a tombstone, writes nothing, if it
// is a set of its own. That there is none is read from the statement's snapshot and
// not under a lock, which is sound: the set takes effect at the moment of the
// snapshot. A set of several deletions takes effect at one moment for all of them,
// and so locks what is absent by a tombstone (sure).
type plan[K comparable, V any] struct {
	rows   []fold
	at     []int // the index in rows of each place in Keys, plus 1; 0 for none
	stride int64 // the most versions that one key needs
	plain  bool  // no change deletes, and none has an end
	late   bool  // some have a lifetime that begins with the commit
	least  int64
}

// blindRoom is what a plan is made, and told, in, and what is kept of it for the next.
type blindRoom struct {
	rows []fold
	at   []int
	got  []written
	last []int64 // plainly
}

func (r *blindRoom) forget() {
	if cap(r.at) > kv.MostKept {
		*r = blindRoom{}
	}
}

// fold is what the changes of one key come to.
type fold struct {
	place   int
	set, at int   // the last change of it
	steps   int64 // versions that it uses up
	delete  bool  // all its changes are deletions; else the first and the last are not
	live    bool
	sure    bool
}

// plan reports false for a batch with conditions, and for those whose outcomes
// depend on what a row was before in more ways than the statement can return: a set
// that mixes deletions with others, and a key of which only the first, or only the
// last, change is a deletion.
func (b *batch[K, V]) plan() (p plan[K, V], ok bool) {
	room := &b.blind
	room.rows, room.at = slices.Grow(room.rows[:0], len(b.Keys)), kv.Zeros(room.at, len(b.Keys))
	p = plan[K, V]{rows: room.rows, at: room.at, stride: 1, plain: true, least: b.s.least()}
	for i, set := range b.Sets {
		if b.Outcomes[i].Err != nil {
			continue
		}
		if set.DeleteAll || len(set.Checks) > 0 {
			return p, false
		}
		deletes := 0
		for j, c := range set.Changes {
			if c.Expect.Kind != lockstep.ExpectAnything {
				return p, false
			}
			place := b.Index(c.Key)
			if p.at[place] == 0 {
				p.rows = append(p.rows, fold{place: place, delete: c.Delete})
				p.at[place] = len(p.rows)
			}
			f := &p.rows[p.at[place]-1]
			f.set, f.at = i, j
			switch {
			case c.Delete:
				deletes++
				f.sure = f.sure || len(set.Changes) > 1
				if f.delete {
					f.steps = 1
				} else if f.live {
					f.steps++
				}
				f.live = false
			case f.delete:
				return p, false
			default:
				f.steps++
				f.live = true
			}
			// Also of a change that others of the batch cover: its outcome tells of its own row.
			p.plain = p.plain && !c.Delete && c.ExpiresAt.IsZero() && c.Lifetime <= 0
			p.stride = max(p.stride, f.steps)
		}
		if deletes > 0 && deletes < len(set.Changes) {
			return p, false
		}
	}
	for _, f := range p.rows {
		c := b.change(f)
		if c.Delete != f.delete {
			return p, false
		}
		p.late = p.late || !c.Delete && c.Lifetime > 0
	}
	return p, true
}

func (b *batch[K, V]) change(f fold) lockstep.Change[K, V] { return b.Sets[f.set].Changes[f.at] }

// written is a row as the statement returned it.
type written struct {
	there   bool
	version int64
	expires *int64
	now     int64
}

// blindly commits a plan as one statement in autocommit mode.
func (b *batch[K, V]) blindly(ctx context.Context, a *attempt, p plan[K, V]) ([]lockstep.Outcome[V], fate, error) {
	if len(p.rows) == 0 { // sets without changes
		a.over(false)
		a.db.release(a.session)
		return b.result(p, nil), 0, nil
	}
	b.blind.got = kv.Zeros(b.blind.got, len(p.rows)) // as rows
	got := b.blind.got
	var (
		key    any
		w      = written{there: true}
		into   = []any{&key, &w.version, &w.expires, &w.now}
		broken error
	)
	m := b.statement(ctx, a.session, p)
	m.row = func(scan func(...any) error) error {
		if err := scan(into...); err != nil {
			return err
		}
		// That a key does not come back as it went must not pass for a failure of the
		// statement, which commits all the same.
		k, err := b.s.rows.Key.Decode(key)
		if err != nil {
			broken = errors.Join(broken, err)
		} else if place, known := b.Place(k); known && p.at[place] > 0 {
			got[p.at[place]-1] = w
		}
		return nil
	}
	a.result = b.leftOut()
	a.verify = func(ctx context.Context, s *session) (bool, error) { return b.foundBlind(ctx, s, p) }
	f, err := a.decisive(ctx, m)
	if err != nil {
		return nil, f, err
	}
	if broken != nil {
		return nil, fateUnknown, &unknownOutcome{attempt: a, cause: decodeError(broken)}
	}
	return b.result(p, got), 0, nil
}

// statement makes the statement of a plan.
func (b *batch[K, V]) statement(ctx context.Context, s *session, p plan[K, V]) command {
	wait := patience(ctx, leavesLocked(ctx, len(b.Sets)))
	if p.plain && s.id.prepares {
		query := b.s.sql.set
		if len(p.rows) == 1 {
			query = b.s.sql.setOne
		}
		return command{sql: query, binary: b.binary(p, wait)}
	}
	places := make([]int, len(p.rows))
	values := b.s.columns(len(p.rows))
	var expires, lifetimes []*int64
	var sure []bool
	for i, f := range p.rows {
		c := b.change(f)
		places[i] = f.place
		values.add(c.Prepared.(*kv.Prepared).Data, !c.Delete)
		if p.plain {
			continue
		}
		var at, life *int64
		switch {
		case c.Delete:
		case c.Lifetime > 0:
			// A lifetime below the clock's step ends at once, and must not end never.
			us := c.Lifetime.Microseconds()
			life = &us
		default:
			at = nullable(kv.ExpiresAt(c.ExpiresAt, 0, time.Time{}))
		}
		expires, lifetimes, sure = append(expires, at), append(lifetimes, life), append(sure, f.sure)
	}
	query, args := b.s.sql.set, []any{b.keys(places), values.array(), p.least, p.stride, wait}
	if !p.plain {
		query, args = b.s.sql.change, append(args, expires, lifetimes, sure)
	}
	if p.late {
		query = b.s.sql.changeLate
	}
	if p.plain && len(places) == 1 {
		query, args[0], args[1] = b.s.sql.setOne, b.Encoded[places[0]], values.one()
	}
	return command{sql: query, args: args}
}

// leftOut are the outcomes of a statement whose reply was lost: that the other sets
// were committed must not be taken to mean those that it did not have. It is nil where
// it had them all.
func (b *batch[K, V]) leftOut() any {
	if len(b.active()) == len(b.Outcomes) {
		return nil
	}
	return slices.Clone(b.Outcomes)
}

// result makes the outcomes, of what the statement has returned for each row.
func (b *batch[K, V]) result(p plan[K, V], got []written) []lockstep.Outcome[V] {
	for _, w := range got {
		b.s.db.heard(w.now, w.version)
	}
	if p.plain {
		return b.plainly(p, got)
	}
	return b.played(p, got)
}

// plainly is result where all rows are set, and stay: the versions of a row's changes
// end with the one that was returned.
func (b *batch[K, V]) plainly(p plan[K, V], got []written) []lockstep.Outcome[V] {
	out := b.Outcomes
	b.blind.last = kv.Zeros(b.blind.last, len(got))
	changes, last := 0, b.blind.last
	for i, f := range p.rows {
		last[i] = got[i].version - f.steps
		changes += int(f.steps)
	}
	rows := make([]lockstep.Row[V], changes)
	for i, set := range b.Sets {
		if out[i].Err != nil {
			continue
		}
		n := len(set.Changes)
		out[i].Rows, rows = rows[:n:n], rows[n:]
		for j, c := range set.Changes {
			r := p.at[b.Index(c.Key)] - 1
			if !got[r].there {
				out[i] = ignored[V](c.Key)
				break
			}
			last[r]++
			out[i].Rows[j] = lockstep.Row[V]{Value: c.Value, Version: lockstep.Version(last[r]), Exists: true}
		}
	}
	return out
}

func ignored[V any](key any) lockstep.Outcome[V] {
	return lockstep.Outcome[V]{Err: invalid("key %v: a trigger has ignored the change", key)}
}

// played is result by playing the sets on what is known now: each row's last version,
// and of those that were deleted whether they had been there.
func (b *batch[K, V]) played(p plan[K, V], got []written) []lockstep.Outcome[V] {
	d := kv.Decision[K, V]{States: make(map[K]*kv.State, len(p.rows)), Clock: math.MinInt64}
	var now int64
	for i, f := range p.rows {
		w := got[i]
		st := &kv.State{Version: w.version}
		switch {
		case !f.delete:
			st.Version -= f.steps
		case w.expires != nil:
			st.Version, st.Live = w.version-1, true
		}
		d.States[b.Keys[f.place]] = st
		now = max(now, w.now)
	}
	d.Now = time.UnixMicro(now)
	out := make([]lockstep.Outcome[V], len(b.Sets))
	for i, set := range b.Sets {
		if out[i] = b.Outcomes[i]; out[i].Err != nil {
			continue
		}
		out[i] = d.Apply(set)
		if len(set.Changes) > 0 && !set.Changes[0].Delete {
			out[i].Existed = nil // whether a row was replaced is not known
		}
	}
	for i, f := range p.rows {
		if f.delete {
			continue
		}
		// What the row says of its end is what the server has made of it.
		w, c := got[i], b.change(f)
		if !w.there {
			out[f.set] = ignored[V](c.Key)
			continue
		}
		st := kv.State{Version: w.version, Live: true}
		if w.expires != nil {
			st.Expires = *w.expires
		}
		r := lockstep.Row[V]{Version: lockstep.Version(w.version), Exists: st.Exists(w.now)}
		if r.Exists {
			r.Value = c.Value
			st.Expiry(&r.ExpiresAt, &r.Remaining, time.UnixMicro(w.now))
		}
		if out[f.set].Err == nil {
			out[f.set].Rows[f.at] = r
		}
	}
	return out
}

// foundBlind tells whether the rows of a plan are there, of whose versions only
// the least is known. A row with a lower version shows that nothing was applied. A
// row that is as we would have made it is ours, or as good as ours; but it shows
// nothing for another row, which somebody has changed since: then it cannot be told.
// A deletion that found nothing leaves nothing to be found.
func (b *batch[K, V]) foundBlind(ctx context.Context, s *session, p plan[K, V]) (bool, error) {
	places := make([]int, len(p.rows))
	for i, f := range p.rows {
		places[i] = f.place
	}
	rows, err := b.s.find(ctx, s, b.keys(places))
	if err != nil {
		return false, err
	}
	untold := false
	for _, f := range p.rows {
		r, there := rows[b.Keys[f.place]]
		c := b.change(f)
		switch {
		case c.Delete && (!there || r.deleted):
		case !there || r.version < p.least:
			return false, nil
		case c.Delete || r.deleted || !bytes.Equal(r.data, c.Prepared.(*kv.Prepared).Data) || !endsAs(c, r, p.least):
			untold = true
		}
	}
	if untold {
		return false, errUntold
	}
	return true, nil
}

// endsAs tells whether a row ends as a change of it asks. A lifetime that began before
// the commit is somebody else's: the server's clock was at least least then, or as much
// less as versions may be ahead of it.
func endsAs[K comparable, V any](c lockstep.Change[K, V], r foundRow, least int64) bool {
	if c.Lifetime > 0 {
		return r.expires-c.Lifetime.Microseconds() >= least-ahead.Microseconds()
	}
	return r.expires == kv.ExpiresAt(c.ExpiresAt, 0, time.Time{})
}

// foundRow is a row as a settlement finds it.
type foundRow struct {
	version int64
	data    []byte
	expires int64 // 0: never
	deleted bool
}

// find reads the rows of keys, which are as the driver wants them.
func (s *Store[K, V]) find(ctx context.Context, on *session, keys any) (map[K]foundRow, error) {
	rows := map[K]foundRow{}
	err := on.run(ctx, command{sql: s.sql.found, args: []any{keys}, row: func(scan func(...any) error) error {
		var key any
		var r foundRow
		var expires, deleted *int64
		if err := scan(&key, &r.version, &r.data, &expires, &deleted); err != nil {
			return err
		}
		if expires != nil {
			r.expires = *expires
		}
		r.deleted = deleted != nil
		k, err := s.rows.Key.Decode(key)
		rows[k] = r
		return err
	}})
	return rows, err
}
