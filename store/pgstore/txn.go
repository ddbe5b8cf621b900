package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// txn is an open transaction of a database: an attempt that is spread over several
// calls. It knows nothing of keys and values.
type txn struct {
	a *attempt
	// ctx is the one that it was begun with, for Tx, which is given none.
	ctx context.Context
	// loan is set while the caller's own SQL has the transaction.
	loan *loan
	// over is set when the transaction can only be ended, or has been.
	over error
	done bool // it has been
	// wrote says that there is something to commit.
	wrote bool
	// found are the verifications of what was applied, one a set.
	found []func(ctx context.Context, s *session) (bool, error)
}

var errOver = errors.New("the transaction is over")

// begin implements Capabilities.Begin.
func (db *Database) begin(ctx context.Context) (lockstep.Txn, error) {
	for {
		a, err := db.attempt(ctx)
		if err != nil {
			return nil, err
		}
		if err = a.session.run(ctx, command{sql: beginSQL}); err == nil {
			return &txn{a: a, ctx: ctx}, nil
		}
		a.abandon(ctx)
		if f := a.before(ctx, err); f != fateAgain {
			return nil, notApplied(f, err)
		}
	}
}

// open returns the transaction behind t, if it is one of db that can go on, and takes
// it back from the caller's own SQL.
func (db *Database) open(ctx context.Context, t lockstep.Txn) (*txn, error) {
	x, ok := t.(*txn)
	j, joined := t.(*joinedTxn)
	if joined {
		x, ok = &j.txn, true
	}
	if !ok || x.a.db != db {
		return nil, invalid("the transaction is not one of this database")
	}
	if x.over != nil {
		return nil, invalid("%w", x.over)
	}
	if joined {
		return x, j.call(ctx)
	}
	if x.over = x.recall(ctx); x.over == nil {
		x.over = x.moved()
	}
	if x.over != nil {
		return nil, notApplied(fateGone, x.over)
	}
	return x, nil
}

// moved is an error where the transaction's session is at another server than the
// latest. Whoever commits it has the keys held by then, so that a change that comes
// after this look keeps what it publishes out of memory.
func (t *txn) moved() error {
	if t.a.db.server.Is(t.a.id.server) {
		return nil
	}
	return unavailable("the transaction was begun at another server than the one that there is now")
}

// in notes the id of the transaction that a set was applied in, which is always the same:
// statements of the program's may have put another one in its place.
func (t *txn) in(xact uint64) error {
	if t.a.xact != 0 && t.a.xact != xact {
		t.over = invalid("%w", errVanished)
		return t.over
	}
	t.a.xact = xact
	return nil
}

// apply implements Capabilities.Apply. It waits for a row that is locked by
// somebody else as long as ctx, or the session's own lock_timeout, allows.
func (s *Store[K, V]) apply(ctx context.Context, t lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
	x, err := s.db.open(ctx, t)
	if err != nil {
		return lockstep.Outcome[V]{}, err
	}
	sets := []lockstep.ChangeSet[K, V]{set}
	b := &batch[K, V]{s: s, Batch: kv.NewBatch(&s.rows, sets)}
	b.refuse(sets)
	out := b.Outcomes
	if !b.Idle() {
		w, err := b.decide(ctx, x.a.session, []int{0}, out, nil)
		if err == nil {
			commands := b.flush(w)
			w.wrote = w.wrote || len(commands) > 0
			if commands = append(commands, s.outside.unmark()...); len(commands) > 0 {
				err = x.a.session.run(ctx, commands...)
			}
		}
		if err != nil {
			f := x.a.before(ctx, err)
			x.over = notApplied(f, err)
			if f == fateRefused {
				return lockstep.Outcome[V]{Err: x.over}, nil
			}
			return lockstep.Outcome[V]{}, x.over
		}
		if err := x.in(w.xact); err != nil {
			return lockstep.Outcome[V]{}, err
		}
		x.wrote = x.wrote || w.wrote
		x.found = append(x.found, func(ctx context.Context, s *session) (bool, error) { return b.found(ctx, s, w) })
	}
	if err := out[0].Err; err != nil {
		x.over = err
	}
	return out[0], nil
}

// Commit implements lockstep.Txn.
func (t *txn) Commit(ctx context.Context) error {
	if t.done {
		return invalid("%w", errOver)
	}
	if t.over == nil {
		t.over = t.recall(ctx)
	}
	if t.over == nil {
		t.over = t.moved()
	}
	if errors.Is(t.over, errVanished) {
		t.done = true
		return t.vanished(ctx)
	}
	if t.over != nil {
		err := t.over
		t.Rollback(ctx)
		return notApplied(fateGone, err)
	}
	if !t.wrote {
		return t.Rollback(ctx)
	}
	t.over, t.done = errOver, true
	t.a.verify = t.verify
	f, err := t.a.decisive(ctx, commitCommand)
	if err == nil || f == fateUnknown {
		return err
	}
	return notApplied(f, err)
}

// verify asks for the sets, the last first: a row that a later set has written again
// says nothing of an earlier one. The first that can tell tells for all.
func (t *txn) verify(ctx context.Context, s *session) (bool, error) {
	for i := len(t.found) - 1; i >= 0; i-- {
		applied, err := t.found[i](ctx, s)
		if !errors.Is(err, errUntold) {
			return applied, err
		}
	}
	return false, errUntold
}

// Rollback implements lockstep.Txn.
func (t *txn) Rollback(ctx context.Context) error {
	if t.done {
		return nil
	}
	t.over, t.done = errOver, true
	if t.loan != nil {
		t.loan.end() // whatever it says, nothing is committed
	}
	t.a.abandon(ctx)
	return nil
}

// Settle implements lockstep.Txn.
func (t *txn) Settle(ctx context.Context) (applied bool, err error) {
	applied, err = t.a.settle(ctx)
	if errors.Is(err, errUntold) {
		// Asking again would not help, which no other error of it says.
		return false, fmt.Errorf("%w: postgres: %w", lockstep.ErrUnknownOutcome, err)
	}
	return applied, err
}
