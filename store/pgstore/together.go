package pgstore

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// work is what some sets come to, inside a transaction.
type work[K comparable, V any] struct {
	sets []int
	d    *kv.Decision[K, V]
	xact uint64
	// wrote says that rows have been written already, which DeleteAll does.
	wrote bool
}

// decide locks every row that the sets name, reads them, and decides the sets in
// order. Its first round trip begins with before.
//
// The rows are locked by one statement, in the order of their keys: an upsert that
// changes nothing of a row that is there, and puts a tombstone with version 0 where
// there is none. An absent key has no other lock, and without one two transactions
// could each find absent what the other inserts. The states are read by the next
// statement, whose snapshot has everything that was committed before the locks were
// had, and the clock after it.
func (b *batch[K, V]) decide(ctx context.Context, s *session, sets []int, out []lockstep.Outcome[V], waits *string, before ...command) (work[K, V], error) {
	w := work[K, V]{sets: sets, d: &kv.Decision[K, V]{}}
	commands := before
	for _, i := range sets {
		if b.Sets[i].DeleteAll {
			// Deleting takes the rows in no order. With nobody else writing it cannot wait
			// for somebody who waits for it.
			commands = append(commands, command{sql: b.s.sql.wait, args: []any{waits}}, command{sql: b.s.sql.lockAll})
			break
		}
	}
	places := b.named(sets)
	if len(places) > 0 {
		commands = append(commands, command{sql: b.s.sql.lock, args: []any{b.keys(places), waits}})
	}
	commands = append(commands, b.readStates(w.d, places)...)
	var now int64
	commands = append(commands, command{sql: clockXactSQL, row: func(scan func(...any) error) (err error) {
		var xact string
		if err := scan(&now, &xact); err != nil {
			return err
		}
		w.xact, err = strconv.ParseUint(xact, 10, 64)
		return err
	}})
	if err := s.run(ctx, commands...); err != nil {
		return w, err
	}
	b.s.db.heard(now, 0)
	w.d.Now, w.d.Clock = time.UnixMicro(now), max(now, b.s.least())
	for _, i := range sets {
		if b.Sets[i].DeleteAll {
			commands := append(b.flush(w), command{sql: b.s.sql.removeAll, args: []any{w.d.Clock}})
			commands = append(commands, b.readStates(w.d, places)...)
			commands = append(commands, command{sql: `SELECT ` + clockSQL, row: func(scan func(...any) error) error { return scan(&now) }})
			if err := s.run(ctx, commands...); err != nil {
				return w, err
			}
			b.s.db.heard(now, 0)
			w.wrote = true
		}
		out[i] = w.d.Apply(b.Sets[i])
	}
	return w, nil
}

const clockXactSQL = `SELECT ` + clockSQL + `, pg_current_xact_id()::text`

// readStates fills the decision's states, which it makes anew.
func (b *batch[K, V]) readStates(d *kv.Decision[K, V], places []int) []command {
	states := make([]kv.State, len(places))
	d.States = make(map[K]*kv.State, len(places))
	for i, p := range places {
		d.States[b.Keys[p]] = &states[i]
	}
	if len(places) == 0 {
		return nil
	}
	into := d.States
	return []command{{sql: b.s.sql.states, args: []any{b.keys(places)}, row: func(scan func(...any) error) error {
		var key any
		var version int64
		var expires, deleted *int64
		if err := scan(&key, &version, &expires, &deleted); err != nil {
			return err
		}
		k, err := b.s.rows.Key.Decode(key)
		if err != nil {
			return err
		}
		st := into[k]
		if st == nil {
			return fmt.Errorf("%w: asked for other keys, the table answered with %v", keytext.ErrDecode, k)
		}
		*st = rowState(version, expires, deleted)
		st.Known = true
		return nil
	}}}
}

// flush writes the states that sets have changed: no command, or one.
func (b *batch[K, V]) flush(w work[K, V]) []command {
	var places []int
	var versions []int64
	var expires, deleted []*int64
	now := w.d.Now.UnixMicro()
	values := b.s.columns(len(b.Keys))
	for _, p := range b.named(w.sets) {
		st := w.d.States[b.Keys[p]]
		if !st.Dirty {
			continue
		}
		places = append(places, p)
		b.s.db.heard(now, st.Version)
		versions = append(versions, st.Version)
		values.add(st.Data, st.Live)
		expires = append(expires, nullable(st.Expires))
		if st.Live {
			deleted = append(deleted, nil)
		} else {
			deleted = append(deleted, &now)
		}
	}
	if len(places) == 0 {
		return nil
	}
	return []command{{sql: b.s.sql.write, args: []any{b.keys(places), values.array(), versions, expires, deleted}}}
}

// together commits the batch as one transaction of two round trips.
func (b *batch[K, V]) together(ctx context.Context, a *attempt) ([]lockstep.Outcome[V], fate, error) {
	out := append([]lockstep.Outcome[V](nil), b.Outcomes...)
	waits := patience(ctx, leavesLocked(ctx, len(b.Sets)))
	w, err := b.decide(ctx, a.session, b.active(), out, &waits, command{sql: beginSQL})
	if err != nil {
		a.abandon(ctx)
		return nil, a.before(ctx, err), err
	}
	commands := b.flush(w)
	if len(commands) == 0 && !w.wrote {
		// Everything was decided under the locks. There is nothing to commit but the
		// tombstones that have locked what is absent.
		a.abandon(ctx)
		return out, 0, nil
	}
	a.xact, a.result = w.xact, out
	a.verify = func(ctx context.Context, s *session) (bool, error) { return b.found(ctx, s, w) }
	f, err := a.decisive(ctx, append(commands, commitCommand)...)
	return out, f, err
}

// found tells whether the rows that sets have written are there. A row with our
// version and our value is ours, or as good as ours; one with a lower version shows
// that nothing was applied; a higher one has been written since, and shows nothing.
func (b *batch[K, V]) found(ctx context.Context, s *session, w ...work[K, V]) (bool, error) {
	for _, w := range w {
		var places []int
		for _, p := range b.named(w.sets) {
			if w.d.States[b.Keys[p]].Dirty {
				places = append(places, p)
			}
		}
		if len(places) == 0 && !w.wrote {
			continue
		}
		if len(places) == 0 {
			// DeleteAll: a row that is older than it shows that it was not, and without one it
			// is as if it had been.
			var older bool
			err := s.run(ctx, command{sql: b.s.sql.older, args: []any{w.d.Clock}, row: func(scan func(...any) error) error { return scan(&older) }})
			return !older, err
		}
		rows, err := b.s.find(ctx, s, b.keys(places))
		if err != nil {
			return false, err
		}
		for _, p := range places {
			st := w.d.States[b.Keys[p]]
			switch r := rows[b.Keys[p]]; {
			case r.version == st.Version && r.deleted && st.Expires != 0:
				return true, nil // a sweep has ended it, which leaves the version
			case r.version == st.Version:
				return r.deleted != st.Live && bytes.Equal(r.data, st.Data), nil
			case r.version < st.Version:
				return false, nil
			}
		}
	}
	return false, errUntold
}
