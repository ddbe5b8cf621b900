package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// Commit implements lockstep.Store. There are three ways, each with as few round
// trips as it can do with:
//
//   - One set with one change is one statement in autocommit mode (lone.go).
//   - On MariaDB, sets that set values and expect nothing are one statement, too
//     (blind.go).
//   - Everything else is a transaction: its rows are locked and read, the sets are
//     decided in order, and what they come to is written (together.go).
//
// The statements in autocommit mode do not wait for a row that somebody else has
// locked: they leave such a batch to the third way, which can be left by its caller
// without an unknown outcome, and which finds out which of the sets are concerned.
func (s *Store[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	var b *batch[K, V]
	one := s.single(sets)
	if one == nil {
		if b = s.borrow(sets); b.Idle() {
			return b.Outcomes, s.db.closed()
		}
	}
	result, err := s.db.write(ctx, s.outside.as(), func(ctx context.Context, a *attempt) (err error) {
		done := false
		if one != nil {
			if done, err = s.alone(ctx, a, one); !done && (err == nil || collided(err)) {
				b = s.borrow(sets)
			}
		} else {
			done, err = b.blindly(ctx, a)
		}
		if done || err != nil && !collided(err) {
			return err
		}
		return b.together(ctx, a, len(sets) == 1 && !lockstep.Parting(ctx))
	})
	switch {
	case b == nil:
	case errors.Is(err, lockstep.ErrUnknownOutcome):
		b.Own() // it is what Settle goes by
	default:
		b.giveBack()
	}
	if err != nil {
		return nil, err
	}
	return result.([]lockstep.Outcome[V]), nil
}

// batch is a call of Commit.
type batch[K comparable, V any] struct {
	kv.Batch[K, V]
	s     *Store[K, V]
	order []int // of the keys, as the table has them
	blind blindRoom[K, V]
}

// borrow makes a batch of sets that are the caller's, until giveBack or Own.
func (s *Store[K, V]) borrow(sets []lockstep.ChangeSet[K, V]) *batch[K, V] {
	b, again := s.batches.Get().(*batch[K, V])
	if !again {
		b = &batch[K, V]{s: s}
	}
	b.Borrow(&s.rows, sets)
	b.sort()
	return b
}

// giveBack keeps the batch's room for another. Nothing but its Outcomes may be in use.
func (b *batch[K, V]) giveBack() {
	b.Forget()
	b.blind.forget()
	b.s.batches.Put(b)
}

// sort finds the order of the keys: whoever locks several rows locks them in the same one.
func (b *batch[K, V]) sort() {
	b.order = b.order[:0]
	for i := range b.Keys {
		b.order = append(b.order, i)
	}
	slices.SortFunc(b.order, func(i, j int) int { return compareKeys(b.Encoded[i], b.Encoded[j]) })
}

// column is a value as the column wants it.
func column(data []byte) any {
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

// stamped is a row after a commit whose reply was lost.
type stamped struct {
	kv.State
	stamp int64
	now   time.Time
}

// readStamped reads the rows of keys, by key.
func (s *Store[K, V]) readStamped(ctx context.Context, conn *session, encoded []any) (map[K]stamped, error) {
	rows := make(map[K]stamped, len(encoded))
	err := inChunks(encoded, func(size int, args []any) error {
		return conn.query(ctx, s.sql.found[size], args, func(row []driver.Value) error {
			k, err := s.key(row[0])
			if err != nil {
				return err
			}
			st := stamped{State: stateOf(row[1], row[2], row[3])}
			micros, _ := integer(row[4])
			st.now = time.UnixMicro(micros)
			st.stamp, _ = integer(row[5])
			rows[k] = st
			return nil
		})
	})
	return rows, err
}

// found tells whether a statement in autocommit mode was applied, whose reply was
// lost, and with it the versions. A row with the attempt's stamp is the proof. A row
// with a version below least, which all that the statement gave are not, has not
// been changed since before it. Any other has, by somebody, and shows nothing. When
// all rows are as the statement left them, its outcomes are known, too; else those of the
// sets that were refused before it was sent.
func (b *batch[K, V]) found(ctx context.Context, conn *session, a *attempt, least int64) (bool, error) {
	rows, err := b.s.readStamped(ctx, conn, b.Encoded)
	if err != nil {
		return false, err
	}
	ours, unchanged := 0, false
	placed := make([]stamped, len(b.Keys))
	for i, k := range b.Keys {
		row, there := rows[k]
		placed[i] = row
		switch {
		case there && row.stamp == a.stamp:
			ours++
		case !there || row.Version < least:
			unchanged = true
		}
	}
	switch {
	case ours == len(b.Keys):
		b.fold(placed)
		a.result = b.Outcomes
		return true, nil
	case ours > 0:
		a.result = b.Outcomes
		return true, nil
	case unchanged:
		return false, nil
	}
	return false, errUntold
}

// fold makes the outcomes of sets without conditions out of what their rows have
// become, each at its key's place in Keys. Several changes of one key have cost one
// row, whose version has grown by as many.
func (b *batch[K, V]) fold(rows []stamped) {
	b.blind.left = kv.Zeros(b.blind.left, len(b.Keys))
	left, changes := b.blind.left, 0
	for i, set := range b.Sets {
		if b.Outcomes[i].Err == nil {
			changes += len(set.Changes)
			for j := range set.Changes {
				left[b.Index(set.Changes[j].Key)]++
			}
		}
	}
	all := make([]lockstep.Row[V], changes)
	for i, set := range b.Sets {
		o := &b.Outcomes[i]
		if o.Err != nil {
			continue
		}
		n := len(set.Changes)
		o.Rows, all = all[:n:n], all[n:]
		for j := range set.Changes {
			c := &set.Changes[j]
			place := b.Index(c.Key)
			row := rows[place]
			left[place]--
			st := row.State
			st.Version -= left[place]
			if left[place] > 0 {
				st.Live, st.Expires = true, kv.ExpiresAt(c.ExpiresAt, c.Lifetime, row.now)
			}
			r := &o.Rows[j]
			r.Version = lockstep.Version(st.Version)
			if r.Exists = st.Exists(row.now.UnixMicro()); r.Exists {
				r.Value = c.Value
				st.Expiry(&r.ExpiresAt, &r.Remaining, row.now)
			}
			if c.Delete {
				o.Existed = []bool{true} // a lone one: it would have changed nothing otherwise
			}
		}
	}
}
