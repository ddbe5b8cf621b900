package sqlitestore

import (
	"context"
	"errors"
	"fmt"

	lib "modernc.org/sqlite/lib"

	"github.com/lockstep-cache/lockstep"
)

// txn is an open transaction of a database: an attempt whose body is spread over
// several calls. It holds the write lock from begin to its end, so that every
// other commit of the database waits for it.
type txn struct {
	a *attempt
	// over is set when the transaction has ended, or is fit for nothing but to
	// end.
	over error
	// found are the verifications of the sets that were applied, those of one
	// mapped table as one: without versions a row that a set has changed and another
	// has changed back would tell that neither was applied. tables has, for each such
	// table, the *tableBatch that keeps the trail of all its sets.
	found  []func(c *conn) (bool, error)
	tables map[any]any
	sql    callerSQL
	// touched is what mapped tables' sets have changed.
	touched touched
}

var errOver = errors.New("the transaction is over")

// fail leaves the transaction fit for nothing but to end, for the stores and for
// the caller's SQL: SQLite may have rolled it back, and whatever ran afterwards
// would be committed by itself.
func (t *txn) fail(err error) {
	t.over = err
	t.sql.fail(err)
}

// begin implements Capabilities.Begin.
func (db *Database) begin(ctx context.Context) (lockstep.Txn, error) {
	a, err := db.newAttempt(ctx)
	if err != nil {
		return nil, err
	}
	// The lock may have to be waited for, but nothing here can hang: BEGIN writes
	// nothing.
	if err := a.begin(ctx); err != nil {
		a.finish(err)
		_, err := a.answer()
		return nil, err
	}
	return &txn{a: a, tables: map[any]any{}, touched: touched{named: map[rowName]bool{}, pending: map[rowName]error{}}}, nil
}

// open returns the transaction behind t, if it is one of db that can go on.
func (db *Database) open(t lockstep.Txn) (*txn, error) {
	x, ok := t.(*txn)
	if !ok || x.a.db != db {
		return nil, invalid("the transaction is not one of %s", db.path)
	}
	if x.over != nil {
		return nil, invalid("%w", x.over)
	}
	return x, nil
}

// apply implements Capabilities.Apply.
func (s *Store[K, V]) apply(ctx context.Context, t lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
	x, err := s.db.toWrite(ctx, t, s.opts.Table)
	if err != nil {
		return lockstep.Outcome[V]{}, err
	}
	b := s.newBatch([]lockstep.ChangeSet[K, V]{set})
	if !b.Idle() {
		d, err := b.decide(ctx, x.a)
		if err == nil {
			err = b.flush(ctx, x.a, d)
		}
		if err != nil {
			x.fail(err)
			if refusesRow(err) {
				return lockstep.Outcome[V]{Err: notApplied(s.db.path, err)}, nil
			}
			return lockstep.Outcome[V]{}, notApplied(s.db.path, err)
		}
		x.found = append(x.found, func(c *conn) (bool, error) { return b.found(c, d) })
	}
	if err := b.Outcomes[0].Err; err != nil {
		x.fail(err)
	}
	return b.Outcomes[0], nil
}

// Commit implements lockstep.Txn.
func (t *txn) Commit(ctx context.Context) error {
	if t.over == nil {
		t.over = t.touched.err()
	}
	if t.over != nil {
		if t.a.ended() {
			return invalid("%w", errOver)
		}
		t.sql.close()
		t.a.finish(t.over)
		return notApplied(t.a.db.path, t.over)
	}
	t.over = errOver
	t.a.verify = t.verify
	// Here, and not on the attempt's goroutine: no statement of the caller's runs once
	// this has returned, also when ctx ends first.
	broken := t.sql.close()
	_, err := t.a.wait(ctx, func() {
		err := broken
		if err == nil {
			err = t.a.commit()
		}
		if t.a.lent && primary(err) == lib.SQLITE_ERROR {
			// No transaction is active: the caller's SQL has ended it, by a COMMIT or by
			// a ROLLBACK that was not seen for one.
			t.a.unclear = true
		}
		t.a.finish(err)
	})
	return err
}

// verify asks each set in turn; the first that can tell tells for all.
func (t *txn) verify(c *conn) (bool, error) {
	for _, found := range t.found {
		applied, err := found(c)
		if !errors.Is(err, errUntold) {
			return applied, err
		}
	}
	return false, errUntold
}

// Rollback implements lockstep.Txn.
func (t *txn) Rollback(context.Context) error {
	if t.a.ended() {
		return nil
	}
	t.over = errOver
	t.sql.close()
	t.a.finish(errRolledBack)
	return nil
}

var errRolledBack = fmt.Errorf("the transaction was rolled back")

// Settle implements lockstep.Txn.
func (t *txn) Settle(ctx context.Context) (applied bool, err error) {
	applied, err = t.a.settle(ctx)
	if errors.Is(err, errUntold) {
		// Asking again would not help, which no other error of it says.
		return false, fmt.Errorf("%w: sqlite: %w", lockstep.ErrUnknownOutcome, err)
	}
	return applied, err
}

// ended tells whether the attempt has been finished, or is being committed.
func (a *attempt) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return a.phase.Load() != working
	}
}
