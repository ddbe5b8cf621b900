package lockstep

import (
	"context"
	"fmt"
)

// Txn returns the database's transaction in which tx will commit, and begins it if
// it was not begun yet. It is for packages of stores, which give it to the program
// as their driver's own type: see the function Tx of each. Some cache must be a part
// of tx already (In).
//
// What the program does in it is committed with what it writes through In(tx), and
// undone when the function runs again or returns an error. From here on the
// function holds a connection, and whatever locks it takes; with SQLite all other
// writes wait for it. A row that a cache keeps is not to be written past the cache:
// the transaction would find that what it had read has changed.
func (tx *Tx) Txn() (Txn, error) {
	switch {
	case tx.done.Load():
		return nil, fmt.Errorf("%w: the transaction is over", ErrInvalid)
	case tx.txn != nil:
		return innermost(tx.txn), nil
	case len(tx.parts) == 0:
		return nil, fmt.Errorf("%w: no cache is a part of the transaction yet; call In first", ErrInvalid)
	}
	var txn Txn
	err := guarded("Begin", nil, func() (err error) {
		txn, err = tx.parts[0].begin(tx.ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	tx.txn = txn
	return innermost(txn), nil
}

// innermost is the database's own of a Txn that stores around the store have
// wrapped.
func innermost(txn Txn) Txn {
	for {
		wrapper, ok := txn.(interface{ Unwrap() Txn })
		if !ok {
			return txn
		}
		txn = wrapper.Unwrap()
	}
}

func (c *Cache[K, V]) begin(ctx context.Context) (Txn, error) {
	if c.can.Begin == nil || c.can.Apply == nil {
		return nil, fmt.Errorf("%w: transactions of several caches, or with SQL of the program's", ErrUnsupported)
	}
	return c.can.Begin(ctx)
}

// undo rolls back what Txn has begun, and waits for it no longer than tx may take.
func (tx *Tx) undo() error {
	if tx.txn == nil {
		return nil
	}
	txn := tx.txn
	tx.txn = nil
	return rollbackFor(tx.ctx, tx.parts[0].host(), txn)
}

// makeWay is for a transaction that is begun already and would write a key in doubt.
// Whoever settles that may have to wait for the transaction, so it cannot wait for
// him: it is undone, and runs again when the doubt is over.
func (tx *Tx) makeWay(ctx context.Context) (again bool, err error) {
	if tx.txn == nil {
		return false, nil
	}
	for _, p := range tx.parts {
		if !p.doubted() {
			continue
		}
		if err := tx.undo(); err != nil {
			return false, notApplied(err)
		}
		wait, cancel := context.WithTimeout(ctx, p.host().limits.timeout)
		defer cancel()
		if err := p.await(wait); err != nil {
			if ctx.Err() != nil {
				err = ended(ctx)
			}
			return false, notApplied(err)
		}
		again = true
	}
	return again, nil
}
