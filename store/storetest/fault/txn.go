package fault

import (
	"context"
	"fmt"

	"github.com/lockstep-cache/lockstep"
)

// database names the database of stores with faults. It differs from the name of
// the one inside, because a transaction of a Store has to be taken out of its
// wrapping before the store inside knows it.
type database struct{ inner any }

// txn is a transaction whose commit may be lost.
type txn struct {
	in     *injector
	inner  lockstep.Txn
	closed func() // tells the store once that the transaction is over
	keys   []any  // that it changes

	// After Commit: unknown is set for an outcome that was lost here, and applied
	// is what it was.
	committed, unknown, applied bool
}

// Unwrap returns the Txn within, for the program's own statements.
func (t *txn) Unwrap() lockstep.Txn { return t.inner }

func (f *Store[K, V]) begin(ctx context.Context) (lockstep.Txn, error) {
	f.arriveLate(ctx)
	v := f.in.arrive(Begin, nil)
	if err := v.before(ctx); err != nil {
		return nil, err
	}
	inner, err := f.below.Begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := v.answered(ctx); err != nil {
		_ = inner.Rollback(context.WithoutCancel(ctx))
		return nil, err
	}
	f.opened(1)
	return &txn{in: f.in, inner: inner, closed: func() { f.opened(-1) }}, nil
}

func (f *Store[K, V]) opened(n int) {
	f.late.mu.Lock()
	defer f.late.mu.Unlock()
	f.late.open += n
}

func (f *Store[K, V]) apply(ctx context.Context, open lockstep.Txn, set lockstep.ChangeSet[K, V]) (lockstep.Outcome[V], error) {
	var none lockstep.Outcome[V]
	t, ok := open.(*txn)
	if !ok {
		return none, fmt.Errorf("fault: apply: %w: the transaction was not begun by a store of this package", lockstep.ErrInvalid)
	}
	keys := namedBy([]lockstep.ChangeSet[K, V]{set})
	v := f.in.arrive(Apply, keys)
	if err := v.before(ctx); err != nil {
		return none, err
	}
	t.keys = append(t.keys, keys...)
	outcome, err := f.below.Apply(ctx, t.inner, set)
	if lost := v.answered(ctx); err == nil && lost != nil {
		return none, lost
	}
	return outcome, err
}

// read is a load like any other, to the script.
func (f *Store[K, V]) read(ctx context.Context, open lockstep.Txn, keys []K) (map[K]lockstep.Row[V], error) {
	t, ok := open.(*txn)
	if !ok {
		return nil, fmt.Errorf("fault: read: %w: the transaction was not begun by a store of this package", lockstep.ErrInvalid)
	}
	v := f.in.arrive(Load, anys(keys))
	if err := v.before(ctx); err != nil {
		return nil, err
	}
	rows, err := f.below.Read(ctx, t.inner, keys)
	if lost := v.answered(ctx); err == nil && lost != nil {
		return nil, lost
	}
	return rows, err
}

// lostTxn is the error of a transaction whose outcome is unknown.
type lostTxn struct {
	number int
	ended  error
}

func (e *lostTxn) Error() string {
	text := fmt.Sprintf("fault: nobody was told what became of commit %d, of a transaction", e.number)
	if e.ended != nil {
		text += ": " + e.ended.Error()
	}
	return text
}

func (e *lostTxn) Is(target error) bool { return target == lockstep.ErrUnknownOutcome }
func (e *lostTxn) Unwrap() error        { return e.ended }

func (t *txn) Commit(ctx context.Context) error {
	if t.committed {
		return t.inner.Commit(ctx)
	}
	t.committed = true
	defer t.close()
	v := t.in.arrive(Commit, t.keys)
	defer func() {
		if v.fault.kind == panicking && !v.fault.after {
			_ = t.inner.Rollback(context.WithoutCancel(ctx)) // or its locks would outlive the panic
		}
	}()
	if err := v.before(ctx); err != nil {
		_ = t.inner.Rollback(context.WithoutCancel(ctx))
		return err
	}
	request := v.fault.kind == loseRequest || v.fault.late && v.random.IntN(2) == 0
	if request {
		_ = t.inner.Rollback(context.WithoutCancel(ctx))
	} else if err := t.inner.Commit(ctx); err != nil {
		return err
	}
	ended := v.answered(ctx)
	if ended == nil && v.fault.kind != loseRequest && v.fault.kind != loseReply {
		return nil
	}
	t.unknown, t.applied = true, !request
	return &lostTxn{number: v.number, ended: ended}
}

func (t *txn) Rollback(ctx context.Context) error {
	t.close()
	return t.inner.Rollback(ctx)
}

func (t *txn) Settle(ctx context.Context) (applied bool, err error) {
	v := t.in.arrive(Settle, t.keys)
	if err := v.before(ctx); err != nil {
		return false, err
	}
	if t.unknown {
		applied = t.applied
	} else if applied, err = t.inner.Settle(ctx); err != nil {
		return false, err
	}
	if err := v.answered(ctx); err != nil {
		return false, err
	}
	return applied, nil
}

func (t *txn) close() {
	if t.closed != nil {
		t.closed()
		t.closed = nil
	}
}
