package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"

	"github.com/go-sql-driver/mysql"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/mapping"
)

// Commit implements lockstep.Store: a transaction that locks and reads the rows, makes
// the insertions, updates and deletions in a statement each, or a few, and reads back
// what has become of the rows. A set that the database refuses (a constraint, a
// trigger, a value) and one that has a row which somebody else holds locked are found
// out and left out.
func (t *Table[K, V]) Commit(ctx context.Context, sets []lockstep.ChangeSet[K, V]) ([]lockstep.Outcome[V], error) {
	if t.opts.ReadOnly {
		return nil, unsupported("table %s was opened with ReadOnly", t.shape)
	}
	b := t.m.NewBatch(sets)
	if len(b.Active()) == 0 {
		return b.Outcomes, t.db.closed()
	}
	result, err := t.db.write(ctx, t.outside.as(), func(ctx context.Context, a *attempt) error {
		w := t.newWork(b, a)
		w.retries = true
		// A DeleteAll cannot leave out what is locked.
		w.serial = slices.ContainsFunc(b.Active(), func(i int) bool { return b.Sets[i].DeleteAll })
		w.patient = len(sets) == 1 && !lockstep.Parting(ctx) || w.serial
		return w.together(ctx)
	})
	if err != nil {
		return nil, err
	}
	return result.([]lockstep.Outcome[V]), nil
}

// tableWork is a batch in a transaction.
type tableWork[K comparable, V any] struct {
	*mapping.Work[K, V] // of the transaction's last beginning

	t       *Table[K, V]
	b       *mapping.Batch[K, V]
	a       *attempt
	patient bool
	retries bool // the transaction can begin again
	// serial says that the gaps between rows are locked.
	serial bool
	// everything locks every row that is named, after one that was to be inserted, and so
	// was not looked for under a lock, has appeared.
	everything bool
	// oneByOne writes each set by itself, after one was refused, or has met a lock.
	oneByOne bool
	// known are the outcomes of sets that were refused or found to be blocked before.
	known []lockstep.Outcome[V]

	now     int64
	blocked map[string]bool // rows that somebody else has locked
	wrote   bool
}

func (t *Table[K, V]) newWork(b *mapping.Batch[K, V], a *attempt) *tableWork[K, V] {
	return &tableWork[K, V]{t: t, b: b, a: a, known: slices.Clone(b.Outcomes)}
}

// reset begins with nothing found out but what the outcomes are known to be.
func (w *tableWork[K, V]) reset() {
	w.Work = w.b.NewWork(slices.Clone(w.known))
	w.Removed = func(text string, version int64) {
		w.t.clock.raise(version)
		raise(w.t.removed.of(text), version)
	}
	w.now, w.blocked, w.wrote = 0, map[string]bool{}, false
}

// active are the sets that are still to be tried.
func (w *tableWork[K, V]) active() (sets []int) {
	for i, o := range w.known {
		if o.Err == nil {
			sets = append(sets, i)
		}
	}
	return sets
}

// errSerial: a set was found to rely on the absence of a row.
var errSerial = errors.New("a set relies on the absence of a row")

// errOneByOne: a statement for many sets has failed, and which of them is to blame is
// to be found out.
var errOneByOne = errors.New("the sets have to come one by one")

// together commits the batch as one transaction, and begins again when it collides
// with others, or has found out that it has to go about it in another way.
func (w *tableWork[K, V]) together(ctx context.Context) error {
	return w.a.again(ctx, func() error {
		for {
			err := w.once(ctx)
			w.everything = w.everything || errors.Is(err, errAppeared)
			switch {
			case errors.Is(err, errSerial):
				w.serial, w.patient = true, true
			case errors.Is(err, errOneByOne):
				w.oneByOne = true
			default:
				return err
			}
			if err := w.a.rollback(ctx); err != nil {
				return err
			}
		}
	})
}

func (w *tableWork[K, V]) once(ctx context.Context) error {
	w.reset()
	if len(w.active()) == 0 {
		w.a.result = w.Out
		return nil
	}
	if err := w.a.begin(ctx, w.serial); err != nil {
		return err
	}
	if err := w.apply(ctx); err != nil {
		return err
	}
	if !w.wrote {
		// What was decided was so while all rows were locked, and it is not in question
		// what a commit of nothing does.
		w.a.rollback(ctx)
		w.a.result = w.Out
		return nil
	}
	wrote := &trail{first: w.First, last: w.Last, clock: w.now}
	w.a.verify = func(ctx context.Context, conn *session) (bool, error) {
		shown, err := w.t.found(ctx, conn, wrote)
		if err != nil {
			return false, err
		}
		return shown.tells()
	}
	w.a.result = w.Out
	err := w.a.commit(ctx)
	if err == nil {
		w.committed()
	}
	return err
}

// committed tells the clock what versions there are.
func (w *tableWork[K, V]) committed() {
	for _, r := range w.Last {
		w.t.clock.saw(r.Version)
	}
}

// apply locks the rows, decides the sets and writes what they come to, inside the
// transaction.
func (w *tableWork[K, V]) apply(ctx context.Context) error {
	sets := w.active()
	if err := w.lock(ctx, sets); err != nil {
		return err
	}
	absences := w.absences(sets)
	if !w.patient && len(w.Sets) > 1 {
		// A row that is being inserted is passed over as if it were absent, and then the
		// gap is not locked: such a set has to wait for locks, and is committed apart.
		for _, i := range absences {
			w.Out[i] = lockstep.Outcome[V]{Err: unavailable("table %s: a set relies on the absence of a row, and waits for whoever may be inserting it", w.t.shape), Blocked: true}
		}
	} else if !w.serial && len(absences) > 0 {
		return errSerial
	}
	w.Found()
	for _, i := range sets {
		set := &w.Sets[i]
		if w.Out[i].Blocked {
			continue
		}
		if k, ok := w.blockedIn(set); ok {
			w.Out[i] = lockstep.Outcome[V]{Err: unavailable("table %s: key %v: somebody else has locked its row", w.t.shape, k), Blocked: true}
			continue
		}
		var err error
		switch {
		case w.oneByOne:
			err = w.alone(ctx, i)
		case set.DeleteAll || w.Crosses(set):
			if err = w.flush(ctx); err == nil {
				err = w.decide(ctx, i)
			}
		default:
			err = w.decide(ctx, i)
		}
		if err != nil {
			return w.blame(err)
		}
	}
	return w.blame(w.flush(ctx))
}

// blame asks for the sets to come one by one after an error that may be one set's. The
// only one there is is to blame without further ado.
func (w *tableWork[K, V]) blame(err error) error {
	refused := tableRefuses(err)
	if err == nil || !w.retries || w.oneByOne || !refused && (w.patient || !meetsLock(err)) {
		return err
	}
	if active := w.active(); refused && len(active) == 1 {
		w.known[active[0]] = lockstep.Outcome[V]{Err: w.refusal(active[0], err)}
	}
	return errOneByOne
}

// tableRefuses tells whether the server, or the schema, is against a row, or a set.
func tableRefuses(err error) bool {
	return errors.Is(err, lockstep.ErrInvalid) || errors.Is(err, mysql.ErrPktTooLarge) || number(err) != 0 && fateOf(err) == fateRefused
}

func meetsLock(err error) bool {
	return number(err) == errLockWait || number(err) == errNoWait
}

// decide plans a set, whose refusal is its outcome.
func (w *tableWork[K, V]) decide(ctx context.Context, i int) error {
	if w.Sets[i].DeleteAll {
		return w.deleteAll(ctx, i)
	}
	if w.Sets[i].Inserts {
		// The row may get the key of one that the batch has deleted.
		w.Clock = max(w.Clock, w.t.clock.least())
	}
	if err := w.Plan(i); err != nil {
		w.Out[i] = lockstep.Outcome[V]{Err: err}
	}
	return nil
}

const (
	tableSavepoint = "SAVEPOINT lockstep"
	tableTakeBack  = "ROLLBACK TO SAVEPOINT lockstep"
)

// alone decides and writes one set, behind a savepoint. What meets a lock begins
// again without the set: where innodb_rollback_on_timeout is set the transaction is not
// there any more.
func (w *tableWork[K, V]) alone(ctx context.Context, i int) error {
	undo := w.remember(&w.Sets[i])
	if err := w.a.s.run(ctx, tableSavepoint); err != nil {
		return err
	}
	wrote := w.wrote
	err := w.decide(ctx, i)
	if err == nil {
		err = w.flush(ctx)
	}
	switch {
	case err == nil:
		return nil
	case meetsLock(err) && !w.patient:
		w.known[i] = lockstep.Outcome[V]{Err: unavailable("table %s: somebody else has locked a row of the set: %w", w.t.shape, err), Blocked: true}
		return err
	case !tableRefuses(err):
		return err
	}
	if err := w.a.s.run(ctx, tableTakeBack); err != nil {
		return err
	}
	undo()
	w.wrote = wrote
	w.Out[i] = lockstep.Outcome[V]{Err: w.refusal(i, err)}
	return nil
}

// remember returns what takes back a set that has come to nothing.
func (w *tableWork[K, V]) remember(set *mapping.Set[K, V]) (undo func()) {
	rows, last := hold(w.Rows, set.Texts), hold(w.Last, set.Texts)
	return func() {
		rows()
		last()
		w.Wave = mapping.Wave{}
	}
}

// hold returns what puts some keys of a map back to what they hold.
func hold[T any](m map[string]T, keys []string) (restore func()) {
	held := make(map[string]T, len(keys))
	for _, k := range keys {
		if v, ok := m[k]; ok {
			held[k] = v
		}
	}
	return func() {
		for _, k := range keys {
			if v, ok := held[k]; ok {
				m[k] = v
			} else {
				delete(m, k)
			}
		}
	}
}

// refusal is the error of a set that the database, or a limit, has refused.
func (w *tableWork[K, V]) refusal(set int, err error) error {
	switch {
	case isNamed(err):
		return err
	case errors.Is(err, mysql.ErrPktTooLarge):
		return notApplied(err)
	}
	// Of several rows the server does not say which one it speaks of.
	switch changes := w.Sets[set].Changes; {
	case len(changes) != 1:
		return invalid("table %s: %w", w.t.shape, err)
	case changes[0].Insert:
		return invalid("table %s: the new row: %w", w.t.shape, err)
	default:
		return invalid("table %s: key %v: %w", w.t.shape, changes[0].Key, err)
	}
}

// blockedIn tells whether somebody else has locked a row of the set.
func (w *tableWork[K, V]) blockedIn(set *mapping.Set[K, V]) (key K, ok bool) {
	for k := range set.Named() {
		if w.blocked[set.Text(k)] {
			return k, true
		}
	}
	return key, false
}

// apply implements Capabilities.Apply. It waits for a row that is locked by somebody
// else as long as ctx allows.
func (t *Table[K, V]) apply(ctx context.Context, tx lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
	x, err := t.db.opened(tx)
	if err != nil {
		return lockstep.Outcome[V]{}, err
	}
	b := t.m.NewBatch([]lockstep.ChangeSet[K, V]{set})
	if b.Sets[0].Inserts && b.Outcomes[0].Err == nil {
		b.Outcomes[0].Err = unsupported("table %s: an insertion in a transaction", t.shape)
	}
	w := t.newWork(b, x.a)
	w.patient, w.serial = true, x.a.serial
	w.reset()
	if b.Outcomes[0].Err == nil {
		x.touches(t.lockEach(keysOf(w.sorted([]int{0}))))
		if err := x.as(ctx, t.outside.as(), t.shape.sql(), func() error { return w.applyOne(ctx, x) }); err != nil {
			return lockstep.Outcome[V]{}, err
		}
	}
	if err := w.Out[0].Err; err != nil {
		x.fail(err)
	}
	return w.Out[0], nil
}

// applyOne applies the set of a transaction. An error of it that is the set's is its
// outcome.
func (w *tableWork[K, V]) applyOne(ctx context.Context, x *txn) error {
	err := w.a.s.run(ctx, tableSavepoint)
	for try := 1; err == nil; try++ {
		w.reset()
		err = w.apply(ctx)
		if !errors.Is(err, errAppeared) || try == appearances {
			break
		}
		w.everything = true
		err = w.a.s.run(ctx, tableTakeBack)
	}
	if err != nil && x.joined != nil {
		x.joined.detached(tableTakeBack)
	}
	switch {
	case errors.Is(err, errSerial):
		// It was begun before the Database had a mapped table.
		err = unavailable("table %s: the transaction is older than the table's store, and cannot rely on the absence of a row", w.t.shape)
		fallthrough
	case err != nil && !tableRefuses(err):
		x.fail(err)
		if ctx.Err() != nil && !isNamed(err) {
			err = unavailable("%w (%w)", context.Cause(ctx), err)
		}
		return notApplied(err)
	case err != nil:
		w.Out[0] = lockstep.Outcome[V]{Err: w.refusal(0, err)}
		return nil
	}
	x.written = x.written || w.wrote
	if wrote, first := w.trail(x); first {
		x.found = append(x.found, func(ctx context.Context, conn *session) (evidence, error) { return w.t.found(ctx, conn, wrote) })
	}
	x.after = append(x.after, w.committed)
	return nil
}

// lockEach locks rows one by one, each for a moment.
func (t *Table[K, V]) lockEach(keys [][]any) func(ctx context.Context, conn *session) error {
	return func(ctx context.Context, conn *session) error {
		for _, key := range keys {
			if err := t.sql.lock.byKeys([][]any{key}, func(query string, args []any) error {
				return conn.query(ctx, query, args, func([]driver.Value) error { return nil })
			}); err != nil {
				return err
			}
		}
		return nil
	}
}

// appearances is how often a row may appear, or go, while it is looked for.
const appearances = 20
