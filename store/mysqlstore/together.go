package mysqlstore

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// together commits the batch as one transaction, and begins again when it collides
// with others. A batch that is not patient leaves out the sets whose rows somebody
// else has locked.
func (b *batch[K, V]) together(ctx context.Context, a *attempt, patient bool) error {
	w := &work[K, V]{batch: b, a: a, retries: true, known: make([]error, len(b.Outcomes))}
	for i, o := range b.Outcomes {
		w.known[i] = o.Err
		// A DeleteAll cannot leave out what is locked.
		w.serial = w.serial || b.Sets[i].DeleteAll && o.Err == nil
	}
	w.patient = patient || w.serial
	return a.again(ctx, func() error {
		err := w.once(ctx)
		if err == nil || a.unclear || w.oneByOne || !refusesRow(err) {
			return err
		}
		// Whose row was refused shows when the sets come one by one.
		w.oneByOne = true
		if err := a.rollback(ctx); err != nil {
			return err
		}
		return w.once(ctx)
	})
}

// work is a batch in a transaction.
type work[K comparable, V any] struct {
	*batch[K, V]
	a       *attempt
	patient bool
	retries bool    // the transaction can begin again
	known   []error // of the sets that were refused before
	// serial says that a set is a DeleteAll.
	serial bool
	// probing locks absent rows one by one, after they could not be locked together.
	probing bool
	// oneByOne writes each set's rows by themselves, after the database has refused
	// one.
	oneByOne bool

	d       *kv.Decision[K, V]
	blocked map[K]bool // locked by somebody else
	barred  map[K]bool // those that were found to be so by probing
	// placed are the keys of absent rows that are locked by a row of version 0, a
	// tombstone of nothing, which is gone when the transaction ends.
	placed map[K]bool
	// cleared says that a DeleteAll, or a set before it, has changed rows that are
	// not among the states any more.
	cleared bool
}

func (w *work[K, V]) once(ctx context.Context) error {
	w.cleared = false
	for i, err := range w.known {
		w.Outcomes[i] = lockstep.Outcome[V]{Err: err}
	}
	if err := w.a.begin(ctx, w.serial); err != nil {
		return err
	}
	if err := w.apply(ctx); err != nil {
		return err
	}
	written := w.cleared
	for _, st := range w.d.States {
		written = written || st.Dirty
	}
	if !written {
		// What was decided was so while all rows were locked, and it is not in
		// question what a commit of nothing does.
		w.a.rollback(ctx)
		w.a.result = w.Outcomes
		return nil
	}
	if err := w.unplace(ctx); err != nil {
		return err
	}
	w.a.verify = w.found
	w.a.result = w.Outcomes
	err := w.a.commit(ctx)
	if err == nil {
		for _, st := range w.d.States {
			w.s.clock.saw(st.Version)
		}
	}
	return err
}

// apply locks the rows, decides the sets and writes what they come to, inside the
// transaction.
func (w *work[K, V]) apply(ctx context.Context) error {
	if err := w.lock(ctx); err != nil {
		return err
	}
	for i, set := range w.Sets {
		if w.Outcomes[i].Err != nil {
			continue
		}
		if key, ok := w.blockedBy(set); ok {
			w.Outcomes[i] = lockstep.Outcome[V]{Err: unavailable("key %v: somebody else has locked its row", key), Blocked: true}
			continue
		}
		if err := w.applySet(ctx, i, set); err != nil {
			return err
		}
	}
	if w.oneByOne {
		return nil
	}
	return w.flush(ctx, w.order)
}

func (w *work[K, V]) applySet(ctx context.Context, i int, set lockstep.ChangeSet[K, V]) error {
	switch {
	case set.DeleteAll:
		if err := w.deleteAll(ctx); err != nil {
			return err
		}
		w.Outcomes[i] = w.d.Apply(set)
		return nil
	case !w.oneByOne:
		w.Outcomes[i] = w.d.Apply(set)
		return nil
	}
	before := make(map[K]kv.State, len(set.Changes)+len(set.Checks))
	var order []int
	for _, c := range set.Changes {
		before[c.Key] = *w.d.States[c.Key]
	}
	for _, c := range set.Checks {
		before[c.Key] = *w.d.States[c.Key]
	}
	for _, at := range w.order {
		if _, ok := before[w.Keys[at]]; ok {
			order = append(order, at)
		}
	}
	w.Outcomes[i] = w.d.Apply(set)
	if w.Outcomes[i].Err != nil {
		return nil
	}
	if err := w.a.s.run(ctx, "SAVEPOINT lockstep"); err != nil {
		return err
	}
	err := w.flush(ctx, order)
	if err == nil || !refusesRow(err) {
		return err
	}
	if err := w.a.s.run(ctx, "ROLLBACK TO SAVEPOINT lockstep"); err != nil {
		return err
	}
	for k, st := range before {
		*w.d.States[k] = st
	}
	w.Outcomes[i] = lockstep.Outcome[V]{Err: invalid("%w", err)}
	return nil
}

// blockedBy tells whether somebody else has locked a row of the set.
func (w *work[K, V]) blockedBy(set lockstep.ChangeSet[K, V]) (key K, ok bool) {
	for _, c := range set.Changes {
		if w.blocked[c.Key] {
			return c.Key, true
		}
	}
	for _, c := range set.Checks {
		if w.blocked[c.Key] {
			return c.Key, true
		}
	}
	return key, false
}

// deleteAll buries every row. The transaction is serial: a row that is inserted
// behind the statement's back waits for its end.
func (w *work[K, V]) deleteAll(ctx context.Context) error {
	if err := w.flush(ctx, w.order); err != nil {
		return err
	}
	purged := w.d.Now.Add(keepTombstones).UnixMicro()
	affected, _, err := w.a.s.exec(ctx, w.s.sql.removeAll, w.d.Clock, purged, w.a.stamp)
	if err != nil {
		return err
	}
	w.cleared = w.cleared || affected > 0
	for _, st := range w.d.States {
		w.cleared = w.cleared || st.Dirty
	}
	placed := w.placed
	if err := w.lock(ctx); err != nil {
		return err
	}
	for k := range placed {
		w.placed[k] = true
	}
	return nil
}

// flush writes the states that sets have changed, of the keys at those places. New
// rows are inserted, which fails if one has appeared, and the others, which are
// locked, are replaced.
func (w *work[K, V]) flush(ctx context.Context, order []int) error {
	absent, err := w.toPlace()
	if err != nil {
		return err
	}
	var inserts, upserts []record
	for _, i := range order {
		k := w.Keys[i]
		st := w.d.States[k]
		switch {
		case st.Dirty && st.Known:
			upserts = append(upserts, w.record(i, st))
		case st.Dirty:
			inserts = append(inserts, w.record(i, st))
		case absent[k]:
			inserts = append(inserts, w.placeholder(i))
		}
	}
	if err := w.insert(ctx, inserts); err != nil {
		return err
	}
	err = w.a.writeRows(ctx, w.s.sql.upsert[:], upserts, true)
	if err != nil {
		return w.named(err, upserts)
	}
	for _, r := range append(inserts, upserts...) {
		k := w.Keys[r.index]
		w.d.States[k].Known = true
		if absent[k] && !w.d.States[k].Dirty {
			w.placed[k] = true
		}
	}
	return nil
}

// named adds the key to an error that can be about one row only.
func (w *work[K, V]) named(err error, rows []record) error {
	if len(rows) == 1 {
		return fmt.Errorf("key %v: %w", w.Keys[rows[0].index], err)
	}
	return err
}

func (w *work[K, V]) insert(ctx context.Context, rows []record) error {
	texts := w.s.sql.insertNow[:]
	if w.patient {
		texts = w.s.sql.insert[:]
	}
	err := w.a.writeRows(ctx, texts, rows, false)
	switch number(err) {
	case errDuplicate:
		w.probing = true
		return errAppeared
	case errLockWait, errNoWait:
		w.probing = true
		return err
	}
	if err != nil {
		return w.named(err, rows)
	}
	return nil
}

// toPlace are the absent rows that have to be locked although nobody writes them: a
// set of several keys was decided by their absence, and until it is committed they
// must not appear, or somebody could see them and not yet the set's other rows.
// Where a set has one key, the moment when it was looked at is the moment when it
// took effect.
func (w *work[K, V]) toPlace() (map[K]bool, error) {
	var place map[K]bool
	for i, set := range w.Sets {
		if w.Outcomes[i].Err != nil || len(set.Changes)+len(set.Checks) < 2 {
			continue
		}
		look := func(k K) {
			if st := w.d.States[k]; st != nil && !st.Known && !st.Dirty {
				if place == nil {
					place = map[K]bool{}
				}
				place[k] = true
			}
		}
		for _, c := range set.Changes {
			look(c.Key)
		}
		for _, c := range set.Checks {
			look(c.Key)
		}
	}
	return place, nil
}

// unplace removes what only locked absent rows.
func (w *work[K, V]) unplace(ctx context.Context) error {
	var keys []any
	for _, i := range w.order {
		if w.placed[w.Keys[i]] {
			keys = append(keys, w.Encoded[i])
		}
	}
	return inChunks(keys, func(size int, args []any) error {
		_, _, err := w.a.s.exec(ctx, w.s.sql.unplace[size], args...)
		return err
	})
}

// shown is what the rows that the batch has written show. A row with the
// attempt's stamp is ours; one with a version that is not above ours and somebody
// else's stamp shows that nothing was applied; a higher one has been written since,
// and shows nothing.
func (w *work[K, V]) shown(ctx context.Context, conn *session) (evidence, error) {
	rows, err := w.s.readStamped(ctx, conn, w.Encoded)
	if err != nil {
		return showsNothing, err
	}
	shown := showsNothing
	for _, k := range w.Keys {
		st := w.d.States[k]
		if !st.Dirty {
			continue
		}
		switch row, there := rows[k]; {
		case there && row.stamp == w.a.stamp:
			return showsApplied, nil
		case row.Version <= st.Version:
			return showsRefused, nil
		}
		shown = showsChanged
	}
	return shown, nil
}

// found is shown, where a DeleteAll may be among the sets.
func (w *work[K, V]) found(ctx context.Context, conn *session) (bool, error) {
	shown, err := w.shown(ctx, conn)
	if err != nil {
		return false, err
	}
	if !w.cleared || shown >= showsRefused {
		return shown.tells()
	}
	// Of a DeleteAll every row is a witness, and none of them is known. If not one is
	// left, others have come since, or it was not applied.
	applied := false
	err = conn.query(ctx, w.s.sql.stamped, []any{w.a.stamp}, func(row []driver.Value) error {
		n, _ := integer(row[0])
		applied = n == 1
		return nil
	})
	if err == nil && !applied {
		err = errUntold
	}
	return applied, err
}
