package mysqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/keytext"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// txn is an open transaction of a database: an attempt whose body is spread over
// several calls. It has a session of its own from begin to its end.
type txn struct {
	a *attempt
	// ctx is what the transaction was begun with: the time of the program's function.
	ctx   context.Context
	ended bool
	// over is set when the transaction has ended, or is fit for nothing but to end.
	over error
	// found are what the rows of the sets that were applied show, and written says
	// whether any of them has changed a row.
	found   []func(ctx context.Context, s *session) (evidence, error)
	written bool
	// trails are what mapped tables' sets have written, by table.
	trails map[any]*trail
	// before is what is left to do before COMMIT.
	before []func(ctx context.Context) error
	// after is called once the commit is known.
	after []func()
	sql   callerSQL
	// joined is set where the transaction is the program's.
	joined *joinedTxn
}

// fail leaves the transaction fit for nothing but to end, for the stores and for the
// caller's SQL.
func (t *txn) fail(err error) {
	t.over = err
	t.sql.fail(err)
}

var errOver = errors.New("the transaction is over")

// begin implements Capabilities.Begin.
func (db *Database) begin(ctx context.Context) (lockstep.Txn, error) {
	a, err := db.newAttempt(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := a.begin(ctx, db.mapped.Load()); err != nil {
		return nil, a.finish(ctx, err)
	}
	return &txn{a: a, ctx: ctx}, nil
}

// opened returns the transaction behind t, if it is one of db that can go on.
func (db *Database) opened(t lockstep.Txn) (*txn, error) {
	x, ok := t.(*txn)
	if j, joined := t.(*joinedTxn); joined {
		x, ok = &j.txn, true
	}
	if !ok || x.a.db != db {
		return nil, invalid("the transaction is not one of %v", db)
	}
	if x.over == nil {
		x.over = x.sql.broken()
	}
	if x.over != nil {
		return nil, invalid("%w", x.over)
	}
	if err := x.moved(); err != nil {
		x.fail(err)
		return nil, err
	}
	return x, nil
}

// moved is an error where the transaction's session is at another server than the
// latest. Whoever commits it has the keys held by then, so that a change that comes
// after this look keeps what it publishes out of memory.
func (t *txn) moved() error {
	if t.a.db.which.Is(t.a.s.server) {
		return nil
	}
	return unavailable("the transaction was begun at another server than the one that there is now")
}

// as runs what a store writes to its table in the transaction, as that store's. What the
// caller's own SQL changes is nobody's.
func (t *txn) as(ctx context.Context, writer, table string, write func() error) error {
	if t.joined != nil {
		return t.joined.at(ctx, writer, table, write)
	}
	if err := t.visible(ctx, table); err != nil {
		return err
	}
	if err := t.mark(ctx, writer); err != nil {
		return err
	}
	err := write()
	if err == nil && t.sql.tx != nil {
		err = t.mark(ctx, "")
	}
	return err
}

// reading runs what a store reads of its table in the transaction. An error of the
// server's may have ended that.
func (t *txn) reading(ctx context.Context, table string, read func() error) error {
	if t.joined != nil {
		return t.joined.at(ctx, "", table, read)
	}
	if err := t.visible(ctx, table); err != nil {
		return err
	}
	err := read()
	if err != nil && !errors.Is(err, keytext.ErrDecode) {
		t.fail(err)
	}
	return err
}

// visible makes sure that the table is not hidden by another one.
func (t *txn) visible(ctx context.Context, table string) error {
	hidden, err := t.sql.hides(ctx, t.a.s, table)
	if hidden {
		err = invalid("a temporary table that the transaction's own SQL has made hides the table %s", table)
	}
	if err != nil {
		t.fail(err)
		return notApplied(err)
	}
	return nil
}

func (t *txn) mark(ctx context.Context, writer string) error {
	err := t.a.s.mark(ctx, writer)
	if err != nil {
		t.fail(err)
		err = notApplied(err)
	}
	return err
}

// apply implements Capabilities.Apply.
func (s *Store[K, V]) apply(ctx context.Context, t lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
	x, err := s.db.opened(t)
	if err != nil {
		return lockstep.Outcome[V]{}, err
	}
	b := &batch[K, V]{s: s, Batch: kv.NewBatch(&s.rows, []lockstep.ChangeSet[K, V]{set})}
	b.sort()
	if b.Outcomes[0].Err == nil && set.DeleteAll {
		// Gaps between rows are not locked in a transaction that has begun already.
		b.Outcomes[0].Err = unsupported("DeleteAll in a transaction")
	}
	if !b.Idle() {
		w := &work[K, V]{batch: b, a: x.a, patient: true}
		x.touches(s.lockEach(b.Encoded))
		if err := x.as(ctx, s.outside.as(), s.db.qualified(s.opts.Table), func() error { return w.applyIn(ctx, x) }); err != nil {
			x.fail(err)
			if refusesRow(err) {
				return lockstep.Outcome[V]{Err: invalid("%w", err)}, nil
			}
			if ctx.Err() != nil {
				err = unavailable("%w (%w)", context.Cause(ctx), err)
			}
			return lockstep.Outcome[V]{}, notApplied(err)
		}
		for _, st := range w.d.States {
			x.written = x.written || st.Dirty
		}
		x.found = append(x.found, w.shown)
		x.before = append(x.before, w.unplace)
		x.after = append(x.after, func() {
			for _, st := range w.d.States {
				s.clock.saw(st.Version)
			}
		})
	}
	if err := b.Outcomes[0].Err; err != nil {
		x.fail(err)
	}
	return b.Outcomes[0], nil
}

// applyIn applies the set of a transaction. One of the program's has one change a set, and
// is not run again: where the row has appeared, the insertion that has found it has left
// nothing.
func (w *work[K, V]) applyIn(ctx context.Context, x *txn) error {
	for try := 1; ; try++ {
		err := w.apply(ctx)
		if x.joined == nil || !errors.Is(err, errAppeared) || try == appearances {
			return err
		}
	}
}

// lockEach locks rows one by one, each for a moment.
func (s *Store[K, V]) lockEach(encoded []any) func(ctx context.Context, conn *session) error {
	return func(ctx context.Context, conn *session) error {
		for _, key := range encoded {
			if err := conn.query(ctx, s.sql.state[0], []any{key}, func([]driver.Value) error { return nil }); err != nil {
				return err
			}
		}
		return nil
	}
}

// Commit implements lockstep.Txn.
func (t *txn) Commit(ctx context.Context) error {
	if t.ended {
		return invalid("%w", errOver)
	}
	t.ended = true
	if t.over == nil {
		t.over = t.sql.broken()
	}
	t.sql.close()
	if t.over == nil {
		t.over = t.moved()
	}
	if t.over != nil {
		t.finish(ctx, t.over)
		return notApplied(t.over)
	}
	t.over = errOver
	t.a.verify = t.verify
	err := t.finish(ctx, t.commit(ctx))
	if err == nil {
		for _, f := range t.after {
			f()
		}
	}
	return err
}

func (t *txn) commit(ctx context.Context) error {
	if t.sql.tx != nil {
		err := t.a.s.run(ctx, "RELEASE SAVEPOINT "+lentSavepoint)
		if number(err) == errNoSavepoint {
			// The caller's SQL has ended the transaction, by a way that was not seen
			// for one.
			t.a.unclear = true
		}
		if err != nil {
			return err
		}
	} else if !t.written {
		// Its sets were decided while their rows were locked, and there is nothing
		// that a lost reply could leave in doubt.
		t.a.rollback(ctx)
		return nil
	}
	for _, f := range t.before {
		if err := f(ctx); err != nil {
			return err
		}
	}
	return t.a.commit(ctx)
}

// verify asks each set in turn; the first that tells for sure tells for all.
func (t *txn) verify(ctx context.Context, s *session) (bool, error) {
	all := showsNothing
	for _, found := range t.found {
		shown, err := found(ctx, s)
		if err != nil {
			return false, err
		}
		if all = max(all, shown); all == showsApplied {
			break
		}
	}
	return all.tells()
}

// Rollback implements lockstep.Txn.
func (t *txn) Rollback(ctx context.Context) error {
	if t.ended {
		return nil
	}
	t.ended = true
	t.over = errOver
	t.sql.close()
	t.finish(ctx, errRolledBack)
	return nil
}

// finish ends the attempt. A session that was lent is closed: the caller's SQL may
// have made temporary tables, or set variables. A new one costs a millisecond.
func (t *txn) finish(ctx context.Context, err error) error {
	if t.sql.tx != nil {
		if err != nil && !t.a.unclear {
			t.a.rollback(ctx)
		}
		t.a.s.broken = true
		t.a.s.alive = t.a.s.alive || breaks(t.sql.broken())
	}
	return t.a.finish(ctx, err)
}

var errRolledBack = fmt.Errorf("the transaction was rolled back")

// Settle implements lockstep.Txn.
func (t *txn) Settle(ctx context.Context) (applied bool, err error) {
	applied, err = t.a.settle(ctx)
	if errors.Is(err, errUntold) {
		// Asking again would not help, which no other error of it says.
		return false, fmt.Errorf("%w: mysql: %w", lockstep.ErrUnknownOutcome, err)
	}
	return applied, err
}
