package mysqlstore

import (
	"context"
	"database/sql/driver"
	"math"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// statementBytes bounds the keys and values of a statement of many rows.
const statementBytes = 4 << 20

// statementRoom is the same, where the server takes less. The quarter is for what goes
// with the values, and for rows that are there twice.
func (db *Database) statementRoom() int {
	return int(min(statementBytes, (db.server.maxPacket-packetRoom)/4*3))
}

// blindRoom is what blindly works in, and keeps for the next batch. All but args is as
// Keys.
type blindRoom[K comparable, V any] struct {
	last  []*lockstep.Change[K, V]
	times []int64
	rows  []stamped
	left  []int64 // fold
	args  []any
}

func (r *blindRoom[K, V]) forget() {
	if cap(r.last) > maxRows {
		*r = blindRoom[K, V]{}
		return
	}
	clear(r.last)
	clear(r.args)
}

// blindly commits sets that set values and expect nothing as one statement in
// autocommit mode, on a server that gives back what became of the rows. It reports
// false, with nothing done, for every other batch, and when a row is locked.
//
// ON DUPLICATE KEY UPDATE would hit a row of another key through a second unique
// index; the table has none, which is checked when it is opened.
func (b *batch[K, V]) blindly(ctx context.Context, a *attempt) (done bool, err error) {
	if !b.s.db.server.mariadb() {
		return false, nil
	}
	room := &b.blind
	room.last, room.times = kv.Zeros(room.last, len(b.Keys)), kv.Zeros(room.times, len(b.Keys))
	last, times := room.last, room.times
	mortal := false
	for i, set := range b.Sets {
		if b.Outcomes[i].Err != nil {
			continue
		}
		if set.DeleteAll || len(set.Checks) > 0 {
			return false, nil
		}
		for j := range set.Changes {
			c := &set.Changes[j]
			if c.Delete || c.Expect.Kind != lockstep.ExpectAnything {
				return false, nil
			}
			mortal = mortal || c.Lifetime > 0 || !c.ExpiresAt.IsZero()
			place := b.Index(c.Key)
			last[place] = c
			times[place]++
		}
	}
	step, size, short := int64(1), 0, -1
	shortest := math.MaxInt
	for at, i := range b.order {
		c := last[i]
		if c == nil {
			return false, nil // a set that was refused has named it
		}
		step = max(step, times[i])
		data := len(c.Prepared.(*kv.Prepared).Data)
		size += data + keyLen(b.Encoded[i])
		if data < shortest {
			short, shortest = at, data
		}
	}
	least := b.s.clock.least()
	if n := len(last); n == 0 || n > maxRows || size > b.s.db.statementRoom() || least > math.MaxInt64-step {
		return false, nil
	}
	// The list is padded with the row that is shortest. To write it twice is to give
	// its version another step.
	rowSize, _ := slices.BinarySearch(rowSizes[:], len(b.order))
	pad := rowSizes[rowSize] - len(b.order)
	query, width := b.s.sql.blind[rowSize], 4
	if mortal {
		query, width = b.s.sql.blindMortal[rowSize], 6
	}
	args := slices.Grow(room.args[:0], rowSizes[rowSize]*width+1)
	version, stamp := any(least+step-1), any(a.stamp)
	for at, i := range b.order {
		c, from := last[i], len(args)
		args = append(args, b.Encoded[i], column(c.Prepared.(*kv.Prepared).Data), version)
		if mortal {
			args = append(args, expiry(*c)...)
		}
		args = append(args, stamp)
		if at == short {
			for to := len(args); pad > 0; pad-- {
				args = append(args, args[from:to]...)
			}
		}
	}
	args = append(args, step)
	room.args = args
	if err := a.s.waits(ctx, impatience); err != nil {
		return false, err
	}
	a.verify = func(ctx context.Context, conn *session) (bool, error) { return b.found(ctx, conn, a, least) }
	room.rows = kv.Zeros(room.rows, len(last))
	rows := room.rows
	back := 0 // how many of order have come back
	err = a.decisive(ctx, func() error {
		return a.s.query(ctx, query, args, func(row []driver.Value) error {
			place, named, err := b.cameBack(row[0], &back)
			if err != nil {
				return err
			}
			st := stamped{State: kv.State{Known: true, Live: true}}
			st.Version, _ = integer(row[1])
			if mortal {
				st.Expires, _ = integer(row[2])
				micros, _ := integer(row[3])
				st.now = time.UnixMicro(micros)
				b.s.db.clock.read(micros)
			}
			if named {
				rows[place] = st
			}
			return nil
		})
	})
	switch {
	case err != nil && !a.unclear && refusesRow(err):
		return false, nil // together finds out whose row it is
	case err != nil:
		return false, err
	}
	for i, k := range b.Keys {
		st := rows[i]
		if !st.Known {
			a.unclear = true
			return false, invalid("key %v: the statement that has written its row has not given it back", k)
		}
		b.s.clock.saw(st.Version)
	}
	b.fold(rows)
	a.result = b.Outcomes
	return true, nil
}

// cameBack finds the place of a key that the statement returns, where back of order have
// come already. As a rule they come as they went, one of them perhaps again for the
// padding, and need not be decoded.
func (b *batch[K, V]) cameBack(key driver.Value, back *int) (place int, named bool, err error) {
	for _, at := range [...]int{*back, *back - 1} {
		if 0 <= at && at < len(b.order) && sameKey(b.Encoded[b.order[at]], key) {
			*back = at + 1
			return b.order[at], true, nil
		}
	}
	k, err := b.s.key(key)
	if err != nil {
		return 0, false, err
	}
	place, named = b.Place(k)
	return place, named, nil
}

// expiry are the two parameters, m and n, of a row whose lifetime ends at clock*m +
// n.
func expiry[K comparable, V any](c lockstep.Change[K, V]) []any {
	switch {
	case c.Lifetime > 0:
		return []any{int64(1), c.Lifetime.Microseconds()}
	case c.ExpiresAt.IsZero():
		return []any{int64(0), nil}
	}
	return []any{int64(0), kv.ExpiresAt(c.ExpiresAt, 0, time.Time{})}
}
