package mysqlstore

import (
	"context"
	"database/sql/driver"
	"math"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

const (
	// impatience is how long, in seconds, a statement waits for a row that would
	// rather not wait at all. It is the least that MySQL knows. On MariaDB such
	// statements say 0 by themselves, see newStatements: as the session's setting it
	// made SELECT … SKIP LOCKED fail now and then (10.11.19, "error 1 during
	// COMMIT").
	impatience = 1
	// patience is how long, in seconds, a statement of a patient transaction waits
	// for a row before the transaction begins again: servers whose deadlock detection
	// is off need an end.
	patience = 5
)

// skipPauses are how long a batch of several sets waits for the rows that somebody
// else has locked. It holds its own locks meanwhile, but never waits in the
// database, so that no two can wait for each other.
var skipPauses = []time.Duration{2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond}

// lock reads the rows of all keys under their locks, in the order of the keys, and
// the clock after that.
func (w *work[K, V]) lock(ctx context.Context) error {
	states := make([]kv.State, len(w.Keys))
	w.d = &kv.Decision[K, V]{States: make(map[K]*kv.State, len(w.Keys))}
	w.blocked, w.placed = map[K]bool{}, map[K]bool{}
	for k := range w.barred {
		w.blocked[k] = true
	}
	for i, k := range w.Keys {
		w.d.States[k] = &states[i]
	}
	wait, query := impatience, w.s.sql.stateSkip[:]
	if w.patient {
		wait, query = lockPatience(ctx, w.retries), w.s.sql.state[:]
	}
	if err := w.a.s.waits(ctx, wait); err != nil {
		return err
	}
	var now int64
	keys := make([]any, 0, len(w.Keys))
	for _, i := range w.order {
		keys = append(keys, w.Encoded[i])
	}
	if err := w.lockKeys(ctx, query, keys, &now); err != nil {
		return err
	}
	if !w.patient {
		for _, pause := range append(slices.Clip(skipPauses), 0) {
			var err error
			if keys, err = w.held(ctx); err != nil {
				return err
			}
			if len(keys) == 0 || pause == 0 {
				break
			}
			if err := sleep(ctx, pause); err != nil {
				return gaveUp(ctx, "waiting for locked rows")
			}
			if err := w.lockKeys(ctx, query, keys, &now); err != nil {
				return err
			}
		}
		for _, key := range keys {
			k, err := w.s.rows.Key.Decode(key)
			if err != nil {
				return err
			}
			w.blocked[k] = true
		}
		if w.probing {
			if err := w.probe(ctx); err != nil {
				return err
			}
		}
	}
	if now == 0 {
		err := w.a.s.query(ctx, w.s.sql.clock, nil, func(row []driver.Value) error {
			now, _ = integer(row[0])
			return nil
		})
		if err != nil {
			return err
		}
	}
	w.s.db.clock.read(now)
	w.d.Now = time.UnixMicro(now)
	w.d.Clock = max(now, w.s.clock.least())
	return nil
}

// lockPatience is how long a statement may wait for a row, in whole seconds. A
// transaction that can begin again need not stake everything on one wait.
func lockPatience(ctx context.Context, retries bool) int {
	seconds := 24 * 60 * 60
	if retries {
		seconds = patience
	}
	if deadline, ok := ctx.Deadline(); ok {
		seconds = min(seconds, int(math.Ceil(time.Until(deadline).Seconds())))
	}
	return max(seconds, 1)
}

func (w *work[K, V]) lockKeys(ctx context.Context, query []string, keys []any, now *int64) error {
	return inChunks(keys, func(size int, args []any) error {
		if err := w.a.left(ctx); err != nil {
			return err
		}
		return w.a.s.query(ctx, query[size], args, func(row []driver.Value) error {
			k, err := w.s.key(row[0])
			if err != nil {
				return err
			}
			st := w.d.States[k]
			if st == nil {
				return invalid("table %s: asked for other keys, the table answered with %v", w.s.opts.Table, k)
			}
			*st = stateOf(row[1], row[2], row[3])
			st.Known = true
			micros, _ := integer(row[4])
			*now = max(*now, micros)
			return nil
		})
	})
}

// held are the keys of rows that are there and were passed over because somebody has
// locked them.
func (w *work[K, V]) held(ctx context.Context) (keys []any, err error) {
	var missing []any
	for _, i := range w.order {
		if !w.d.States[w.Keys[i]].Known {
			missing = append(missing, w.Encoded[i])
		}
	}
	err = inChunks(missing, func(size int, args []any) error {
		return w.a.s.query(ctx, w.s.sql.peek[size], args, func(row []driver.Value) error {
			keys = append(keys, keyValue(w.s.rows.Key.Form, keep(row[:1])[0]))
			return nil
		})
	})
	return keys, err
}

// probe locks the absent rows one by one, by tombstones of nothing, and finds out
// which of them somebody else has inserted and not yet committed. It comes after an
// insert of them all has failed, which does not tell whose fault it was.
func (w *work[K, V]) probe(ctx context.Context) error {
	for _, i := range w.order {
		k := w.Keys[i]
		st := w.d.States[k]
		if st.Known || w.blocked[k] {
			continue
		}
		appeared := false
		err := w.a.s.query(ctx, w.s.sql.probe, []any{w.Encoded[i]}, func([]driver.Value) error {
			appeared = true
			return nil
		})
		if err == nil && !appeared {
			err = w.a.writeRows(ctx, w.s.sql.insertNow[:], []record{w.placeholder(i)}, false)
			appeared = number(err) == errDuplicate
		}
		switch {
		case err != nil && (number(err) == errLockWait || number(err) == errNoWait):
			// The transaction begins again without it: with innodb_rollback_on_timeout
			// it is not there any more.
			if w.barred == nil {
				w.barred = map[K]bool{}
			}
			w.barred[k] = true
			return err
		case appeared:
			w.blocked[k] = true
		case err != nil:
			return err
		default:
			*st = kv.State{Known: true}
			w.placed[k] = true
		}
	}
	return nil
}
