package server

import (
	"context"
	"errors"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// rows is the keyspace inside a transaction, which commits them together.
type rows struct {
	ctx context.Context // the transaction's
	in  lockstep.InTx[string, Value]
	*own
}

// own is what a transaction knows of its writes.
type own struct {
	// ends are those of the rows that it has written: one that is counted from the commit
	// still is when the row is written again.
	ends map[string]end
}

func newRows(ctx context.Context, tx *lockstep.Tx, cache *lockstep.Cache[string, Value]) rows {
	return rows{ctx, cache.In(tx), &own{ends: map[string]end{}}}
}

func (t rows) get(_ context.Context, key string) (Value, error) { return t.in.Get(t.ctx, key) }

func (t rows) many(_ context.Context, keys []string) (map[string]Value, error) {
	return t.in.GetMany(t.ctx, keys)
}

func (t rows) read(_ context.Context, key string) (row, lockstep.Version, error) {
	e, err := t.in.GetEntry(t.ctx, key)
	if errors.Is(err, lockstep.ErrNotFound) {
		return row{}, 0, nil
	}
	until := end{at: e.ExpiresAt}
	if its, ok := t.ends[key]; ok {
		until = its
	}
	return row{exists: err == nil, value: e.Value, end: until}, e.Version, err
}

func (t rows) set(_ context.Context, key string, value Value, end end) error {
	if end.over(time.Now()) {
		return t.delete(key)
	}
	if err := t.in.Set(t.ctx, key, value, end.options()...); err != nil {
		return err
	}
	t.ends[key] = end
	return nil
}

func (t rows) delete(key string) error {
	delete(t.ends, key)
	return t.in.Delete(t.ctx, key)
}

func (t rows) setMany(ctx context.Context, values map[string]Value) error {
	for key, value := range values {
		if err := t.set(ctx, key, value, end{}); err != nil {
			return err
		}
	}
	return nil
}

func (t rows) remove(ctx context.Context, key string) (existed bool, err error) {
	switch _, err := t.get(ctx, key); {
	case errors.Is(err, lockstep.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, t.delete(key)
}

func (t rows) change(ctx context.Context, key string, decide func(old row) (next, error)) error {
	old, _, err := t.read(ctx, key)
	if err != nil {
		return err
	}
	n, err := decide(old)
	switch {
	case err != nil:
		return err
	case n.remove && old.exists:
		return t.delete(key)
	case n.put:
		return t.set(ctx, key, n.value, n.end)
	}
	return nil
}

// transact is a part of the transaction that there is.
func (t rows) transact(_ context.Context, f func(tx rows) error) error { return f(t) }
