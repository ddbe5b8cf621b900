package sqlitestore

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// Commit implements lockstep.Store. A batch is one transaction: its rows are
// read, the sets are decided in order, and what they come to is written. One set
// with one change is one statement in autocommit mode, which saves a lone writer
// a fifth of the time. It waits for other writers within ctx; an error that is
// ErrUnavailable says that it waited in vain.
func (s *Store[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	b := s.newBatch(sets)
	if b.Idle() {
		select {
		case <-s.db.closing:
			return nil, lockstep.ErrClosed
		default:
			return b.Outcomes, nil
		}
	}
	result, err := s.db.write(ctx, func(ctx context.Context, a *attempt) error {
		if done, err := b.alone(ctx, a); done || err != nil {
			return err
		}
		return b.together(ctx, a)
	})
	if err != nil {
		return nil, err
	}
	return result.([]lockstep.Outcome[V]), nil
}

// batch is a call of Commit.
type batch[K comparable, V any] struct {
	kv.Batch[K, V]
	s *Store[K, V]
}

func (s *Store[K, V]) newBatch(sets []lockstep.ChangeSet[K, V]) *batch[K, V] {
	return &batch[K, V]{s: s, Batch: kv.NewBatch(&s.rows, sets)}
}

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
	p := c.Prepared.(*kv.Prepared)
	query, args, ok := b.s.lone(c.Delete, c.Expect.Kind)
	if !ok {
		return false, nil
	}
	var at time.Time
	st := kv.State{}
	params := make([]any, args)
	params[0] = p.Key
	var version int64
	a.verify = func(conn *conn) (bool, error) {
		// What version it would have got is not known: the row itself must tell.
		return b.foundAlone(conn, c, params[2].(int64))
	}
	err = retryBusy(ctx, b.s.db.closing, func() error {
		if err := a.left(ctx); err != nil {
			return err
		}
		at = now()
		st = kv.State{Live: !c.Delete, Data: p.Data}
		params[2] = b.s.clock.read()
		params[1], params[3] = nil, nil
		if !c.Delete {
			st.Expires = kv.ExpiresAt(c.ExpiresAt, c.Lifetime, at)
			params[1], params[3] = b.s.column(p.Data), nullable(st.Expires)
		}
		if args > 4 {
			params[4] = at.UnixMicro()
		}
		if args > 5 {
			params[5] = int64(c.Expect.Version)
		}
		err := a.decisive(func() error {
			return a.conn.query(query, params, func(row []driver.Value) error {
				version, _ = row[0].(int64)
				return nil
			})
		})
		if err != nil && !a.unclear && !errors.Is(err, errAbandoned) {
			// Nothing was committed, and the caller can leave again.
			a.phase.CompareAndSwap(committing, working)
		}
		return err
	})
	if err != nil {
		return true, err
	}
	if version == 0 {
		a.phase.CompareAndSwap(committing, working)
		return false, nil
	}
	r := lockstep.Row[V]{Version: lockstep.Version(version), Exists: st.Exists(at.UnixMicro())}
	if r.Exists {
		r.Value = c.Value
		st.Expiry(&r.ExpiresAt, &r.Remaining, at)
	}
	o := &b.Outcomes[0]
	o.Rows = []lockstep.Row[V]{r}
	if c.Delete {
		o.Existed = []bool{true}
	}
	a.result = b.Outcomes
	return true, nil
}

// lone picks the statement and the number of its parameters.
func (s *Store[K, V]) lone(remove bool, expect lockstep.ExpectKind) (query string, args int, ok bool) {
	switch {
	case remove && expect == lockstep.ExpectAnything:
		return s.sql.remove, 5, true
	case remove && expect == lockstep.ExpectVersion:
		return s.sql.removeVersion, 6, true
	case remove:
		return "", 0, false
	case expect == lockstep.ExpectAbsent:
		return s.sql.setAbsent, 5, true
	case expect == lockstep.ExpectVersion:
		return s.sql.setVersion, 6, true
	}
	return s.sql.set, 4, true
}

// column is a value as the column wants it.
func (s *Store[K, V]) column(data []byte) any {
	if s.rows.Values.Text() {
		return string(data)
	}
	if data == nil {
		data = []byte{} // a nil slice would be NULL
	}
	return data
}

func nullable(us int64) any {
	if us == 0 {
		return nil
	}
	return us
}

// together commits the batch as one transaction.
func (b *batch[K, V]) together(ctx context.Context, a *attempt) error {
	if err := a.begin(ctx); err != nil {
		return err
	}
	d, err := b.decide(ctx, a)
	if err != nil {
		return err
	}
	if err := b.flush(ctx, a, d); err != nil {
		return err
	}
	if err := a.left(ctx); err != nil {
		return err
	}
	a.verify = func(c *conn) (bool, error) { return b.found(c, d) }
	a.result = b.Outcomes
	return a.commit()
}

// decide reads the states and decides every set.
func (b *batch[K, V]) decide(ctx context.Context, a *attempt) (*kv.Decision[K, V], error) {
	at := now()
	d := &kv.Decision[K, V]{Now: at, Clock: b.s.clock.read()}
	if err := b.readStates(ctx, a, d); err != nil {
		return nil, err
	}
	for i, set := range b.Sets {
		if b.Outcomes[i].Err != nil {
			continue
		}
		if set.DeleteAll {
			if err := b.flush(ctx, a, d); err != nil {
				return nil, err
			}
			if _, err := a.conn.exec(b.s.sql.removeAll, d.Clock); err != nil {
				return nil, err
			}
			if err := b.readStates(ctx, a, d); err != nil {
				return nil, err
			}
		}
		b.Outcomes[i] = d.Apply(set)
	}
	return d, nil
}

func (b *batch[K, V]) readStates(ctx context.Context, a *attempt, d *kv.Decision[K, V]) error {
	states := make([]kv.State, len(b.Keys))
	d.States = make(map[K]*kv.State, len(b.Keys))
	for i, k := range b.Keys {
		d.States[k] = &states[i]
	}
	return inChunks(b.Encoded, 1, func(size int, args []any) error {
		if err := a.left(ctx); err != nil {
			return err
		}
		return a.conn.query(b.s.sql.state[size], args, func(row []driver.Value) error {
			k, err := b.s.rows.Key.Decode(row[0])
			if err != nil {
				return err
			}
			st := d.States[k]
			if st == nil {
				return fmt.Errorf("%w: asked for other keys, the table answered with %v", keytext.ErrDecode, k)
			}
			*st = stateOf(row[1], row[2], row[3])
			st.Known = true
			st.ID, _ = row[4].(int64)
			return nil
		})
	})
}

// flush writes the states that sets have changed.
func (b *batch[K, V]) flush(ctx context.Context, a *attempt, d *kv.Decision[K, V]) error {
	for i, k := range b.Keys {
		st := d.States[k]
		if !st.Dirty {
			continue
		}
		if i%16 == 15 {
			if err := a.left(ctx); err != nil {
				return err
			}
		}
		var value any
		deleted := int64(1)
		if st.Live {
			value, deleted = b.s.column(st.Data), 0
		}
		var changed int64
		var err error
		if st.Known {
			changed, err = a.conn.exec(b.s.sql.update, value, st.Version, nullable(st.Expires), deleted, st.ID)
		} else {
			changed, err = a.conn.exec(b.s.sql.insert, b.Encoded[i], value, st.Version, nullable(st.Expires), deleted)
		}
		if err != nil {
			return fmt.Errorf("key %v: %w", k, err)
		}
		if changed != 1 {
			return invalid("key %v: a trigger has ignored the change", k)
		}
	}
	return nil
}

// found tells whether the rows that the batch has written are there. A row with
// our version and our value is ours, or as good as ours; one with a lower version
// shows that nothing was applied; a higher one has been written since, and shows
// nothing.
func (b *batch[K, V]) found(c *conn, d *kv.Decision[K, V]) (bool, error) {
	for i, k := range b.Keys {
		st := d.States[k]
		if !st.Dirty {
			continue
		}
		version, data, deleted, err := b.foundRow(c, b.Encoded[i])
		switch {
		case err != nil:
			return false, err
		case version == st.Version && deleted && st.Live && st.Expires != 0:
			// The sweep may have ended it, which keeps the version: it tells nothing.
		case version == st.Version:
			return deleted != st.Live && bytes.Equal(data, st.Data), nil
		case version < st.Version:
			return false, nil
		}
	}
	return false, errUntold
}

// foundAlone is found for a lone statement, of whose version only the least is
// known.
func (b *batch[K, V]) foundAlone(c *conn, ch lockstep.Change[K, V], least int64) (bool, error) {
	p := ch.Prepared.(*kv.Prepared)
	version, data, deleted, err := b.foundRow(c, p.Key)
	switch {
	case err != nil:
		return false, err
	case version < least, ch.Expect.Kind == lockstep.ExpectVersion && version == int64(ch.Expect.Version):
		return false, nil
	case deleted == ch.Delete && bytes.Equal(data, p.Data):
		return true, nil
	}
	return false, errUntold
}

func (b *batch[K, V]) foundRow(c *conn, key any) (version int64, data []byte, deleted bool, err error) {
	err = c.query(b.s.sql.found, []any{key}, func(row []driver.Value) error {
		version, _ = row[0].(int64)
		switch v := row[1].(type) {
		case string:
			data = []byte(v)
		case []byte:
			data = v
		}
		deleted = row[2] == int64(1)
		return nil
	})
	return version, data, deleted, err
}
