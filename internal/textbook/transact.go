package textbook

import (
	"context"
	"errors"

	"github.com/lockstep-cache/lockstep"
)

// Tx collects the writes of a transaction.
type Tx[K comparable, V any] struct {
	cache   *Cache[K, V]
	changes []lockstep.Change[K, V]
}

// Get returns what the transaction has written to the key, or what the cache
// returns; nothing checks at the end that it is still so.
func (tx *Tx[K, V]) Get(ctx context.Context, k K) (V, error) {
	for i := len(tx.changes) - 1; i >= 0; i-- {
		if c := tx.changes[i]; c.Key == k {
			if c.Delete {
				return c.Value, lockstep.ErrNotFound
			}
			return c.Value, nil
		}
	}
	return tx.cache.Get(ctx, k)
}

// Set notes a write for the end of the transaction.
func (tx *Tx[K, V]) Set(_ context.Context, k K, v V) error {
	tx.changes = append(tx.changes, lockstep.Change[K, V]{Key: k, Value: v})
	return nil
}

// Delete notes a deletion for the end of the transaction.
func (tx *Tx[K, V]) Delete(_ context.Context, k K) error {
	tx.changes = append(tx.changes, lockstep.Change[K, V]{Key: k, Delete: true})
	return nil
}

// Transact runs run and then makes its changes; if one fails, it writes the old
// values back.
//
// FAULT 13: each change is committed and visible by itself, and so is each step
// of the roll-back, which fails where the database does.
func (c *Cache[K, V]) Transact(ctx context.Context, run func(ctx context.Context, tx *Tx[K, V]) error) error {
	tx := &Tx[K, V]{cache: c}
	if err := run(ctx, tx); err != nil {
		return err
	}
	var undo []lockstep.Change[K, V]
	for _, change := range tx.changes {
		old, err := c.Get(ctx, change.Key)
		if err != nil && !errors.Is(err, lockstep.ErrNotFound) {
			return errors.Join(err, c.rollBack(ctx, undo))
		}
		undo = append(undo, lockstep.Change[K, V]{Key: change.Key, Value: old, Delete: err != nil})
		if err := c.apply(ctx, change); err != nil {
			return errors.Join(err, c.rollBack(ctx, undo))
		}
	}
	return nil
}

func (c *Cache[K, V]) rollBack(ctx context.Context, undo []lockstep.Change[K, V]) error {
	for i := len(undo) - 1; i >= 0; i-- {
		if err := c.apply(ctx, undo[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache[K, V]) apply(ctx context.Context, change lockstep.Change[K, V]) error {
	if change.Delete {
		_, err := c.Delete(ctx, change.Key)
		return err
	}
	_, err := c.set(ctx, change.Key, change.Value)
	return err
}
